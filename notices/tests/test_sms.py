"""Text messages, against providers that verify what we sign, and count the segments, by their own code."""

import json
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from django.test import Client
from pytest_django import Settings

from notices import codes, contacts, wordings
from notices.channels.emulators.running import RunningCarrier
from notices.channels.protocol import Deferred, Gone, Refused, Unavailable, Uncertain
from notices.channels.sms import Sms
from notices.evidence import proofs
from notices.kinds import ALLOCATED, Form
from notices.models import Delivery, DeliveryState
from notices.outbox import drain
from notices.rendering import Text
from notices.tests.carrying import (
    ALIBABA_TOKEN,
    SUBJECT,
    Listener,
    Scripted,
    hand_over,
    listening,
    nobody_there,
    outgoing,
    proved_phone,
    running_alibaba,
    running_twilio,
    scripted,
)
from notices.tests.samples import NOW, customer, told

pytestmark = pytest.mark.clause("VIII")

HONG_KONG, MAINLAND = "+85251234567", "+8613812345678"


@pytest.fixture
def shop() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def twilio(settings: Settings, shop: Listener) -> Iterator[RunningCarrier]:
    with running_twilio(settings, shop=shop.url) as carrier:
        yield carrier


@pytest.fixture
def alibaba(settings: Settings, shop: Listener) -> Iterator[RunningCarrier]:
    with running_alibaba(settings, shop=shop.url) as carrier:
        yield carrier


# --- the text ----------------------------------------------------------------------------------------


def test_an_english_text_names_us_links_to_the_page_and_is_one_segment(
    twilio: RunningCarrier, shop: Listener
) -> None:
    hand_over(Sms(), outgoing(HONG_KONG, body="Ada\u2019s order\u00a0VP-7K2M \u2013 \u201cpaid\u201d\u2026"))
    (message,) = twilio.messages()
    assert message["text"] == f'VMOS Cloud: Ada\'s order VP-7K2M - "paid"... {shop.url}/orders/VP-7K2M/'
    assert (message["details"]["segments"], message["details"]["encoding"]) == (1, "gsm0338")


def test_a_text_to_the_mainland_has_no_link(twilio: RunningCarrier) -> None:
    hand_over(Sms(), outgoing(MAINLAND, body="已收到訂單 VP-7K2M 的付款", language="zh-hans"))
    (message,) = twilio.messages()
    assert message["text"] == "VMOS Cloud: 已收到訂單 VP-7K2M 的付款"
    assert (message["details"]["segments"], message["details"]["encoding"]) == (1, "utf_16_be")


@pytest.mark.parametrize(
    ("body", "language", "end"), [("帧" * 300, "zh-hans", "…"), ("word " * 200, "en", "...")]
)
def test_a_long_text_is_cut_to_what_is_paid_for_and_keeps_its_link(
    twilio: RunningCarrier, settings: Settings, body: str, language: str, end: str
) -> None:
    settings.SMS_MOST_SEGMENTS = 2
    hand_over(Sms(), outgoing(HONG_KONG, body=body, language=language))
    (message,) = twilio.messages()
    assert message["details"]["segments"] == 2
    assert message["text"].endswith(f"{end} {settings.SITE_URL}/orders/VP-7K2M/")


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_a_link_that_leaves_no_room_for_words_is_left_out(
    twilio: RunningCarrier, settings: Settings, language: str
) -> None:
    settings.SMS_MOST_SEGMENTS = 1
    hand_over(
        Sms(), outgoing(HONG_KONG, body="帧 frame " * 30, language=language, url=f"/orders/{'x' * 160}/")
    )
    (message,) = twilio.messages()
    assert message["details"]["segments"] == 1
    assert message["text"].startswith("VMOS Cloud: 帧 frame")
    assert "/orders/" not in message["text"]


@pytest.mark.django_db
def test_what_is_on_record_is_what_went_over_the_wire_but_for_the_code(
    twilio: RunningCarrier, settings: Settings
) -> None:
    settings.SMS_MOST_SEGMENTS = 1
    ada = customer(language="zh-hans")
    proved_phone(ada, HONG_KONG)
    wordings.change(
        kind=ALLOCATED.slug,
        language="zh-hans",
        form=Form.SHORT,
        subject="帧",
        body="帧" * 300,
        by=customer("staff@example.com"),
        now=NOW,
    )
    told(ada, kind=ALLOCATED)
    number = contacts.add_phone(customer_id=ada.pk, number="+85251234568", now=NOW)
    while drain(now=NOW):
        pass

    sent = {message["reference"]: message["text"] for message in twilio.messages()}
    told_of = {
        proof.delivery.address: proof.as_row() for proof in proofs(ada.pk) if proof.delivery.channel == "sms"
    }
    allocated = told_of[HONG_KONG]
    assert (allocated["subject"], allocated["text"]) == ("", sent[allocated["provider_reference"]])
    assert len(allocated["text"]) == 70
    assert allocated["sha256"] == Text("zh-hans", "", allocated["text"]).sha256
    code = told_of[number.address]
    assert codes.PLACEHOLDER in code["text"]
    number.refresh_from_db()
    assert code["text"].replace(codes.PLACEHOLDER, codes.code_of(number)) == sent[code["provider_reference"]]


# --- like Twilio -------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_notice_reaches_a_proved_phone_and_the_report_is_its_evidence(
    twilio: RunningCarrier, shop: Listener, client: Client
) -> None:
    ada = customer()
    proved_phone(ada, HONG_KONG)
    notice = told(ada)
    Delivery.objects.create(notice=notice, channel="sms", address=HONG_KONG, due_at=NOW)
    drain(now=NOW)
    delivery = Delivery.objects.get(channel="sms")
    assert delivery.state == DeliveryState.SENT
    assert delivery.provider_reference == twilio.messages()[0]["reference"]

    assert shop.told.get(timeout=5).to(client).status_code == 200
    assert list(delivery.events.values_list("step", flat=True)) == ["begun", "accepted", "received"]


@pytest.mark.django_db
def test_a_report_with_a_wrong_signature_is_not_believed(
    twilio: RunningCarrier, shop: Listener, client: Client
) -> None:
    twilio.set_faults(wrong_key=1)
    hand_over(Sms(), outgoing(HONG_KONG))
    assert shop.told.get(timeout=5).to(client).status_code == 403


@pytest.mark.parametrize(
    ("number", "outcome"), [("+15005550001", Gone), ("+15005550009", Gone), ("not a number", Gone)]
)
def test_a_number_that_takes_no_texts_is_gone(
    twilio: RunningCarrier, number: str, outcome: type[Exception]
) -> None:
    with pytest.raises(outcome):
        hand_over(Sms(), outgoing(number))


def test_a_number_whose_owner_has_said_stop_is_written_to_no_more(twilio: RunningCarrier) -> None:
    httpx.post(f"{twilio.url}/stop", data={"number": HONG_KONG}, trust_env=False)
    with pytest.raises(Gone):
        hand_over(Sms(), outgoing(HONG_KONG))
    assert twilio.messages() == []


@pytest.fixture
def says(settings: Settings, twilio: RunningCarrier) -> Iterator[Scripted]:
    with scripted() as server:
        settings.SMS_URL = server.url
        yield server


@pytest.mark.parametrize(
    ("status", "content", "outcome"),
    [
        (201, {}, Uncertain),
        (400, {"code": 21408}, Refused),
        (400, {"code": 99999}, Refused),
        (400, {"code": 14107}, Deferred),
        (401, {"code": 20003}, Unavailable),
        (429, {"code": 20429}, Unavailable),
        (500, None, Uncertain),
        (503, None, Unavailable),
        (None, None, Uncertain),
    ],
)
def test_the_answer_decides_what_becomes_of_a_text(
    says: Scripted, status: int | None, content: object, outcome: type[Exception]
) -> None:
    says.status, says.content = status, content
    with pytest.raises(outcome) as failure:
        hand_over(Sms(), outgoing(HONG_KONG))
    assert type(failure.value) is outcome


def test_a_provider_that_is_down_has_surely_not_taken_the_text(
    settings: Settings, twilio: RunningCarrier
) -> None:
    settings.SMS_URL = nobody_there()
    with pytest.raises(Unavailable):
        hand_over(Sms(), outgoing(HONG_KONG))


# --- like Alibaba ------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_alibaba_sends_by_an_approved_template_and_reports_by_the_address_that_was_agreed(
    alibaba: RunningCarrier, shop: Listener, client: Client
) -> None:
    ada = customer()
    delivery = Delivery.objects.create(notice=told(ada), channel="sms", address=MAINLAND, due_at=NOW)
    drain(now=NOW)
    (message,) = alibaba.messages()
    assert message["recipient"] == "13812345678"
    assert message["text"] == f"【云手机】VMOS Cloud: {SUBJECT}"
    assert message["details"]["template"] == "SMS_1"

    report = shop.told.get(timeout=5)
    stranger = report._replace(path=report.path.replace(ALIBABA_TOKEN, "guessed"))
    assert stranger.to(client).status_code == 403
    assert json.loads(report.to(client).content) == {"code": 0, "msg": "OK"}
    assert list(delivery.events.values_list("step", flat=True)) == ["begun", "accepted", "received"]


def test_alibaba_writes_other_countries_with_their_code(alibaba: RunningCarrier) -> None:
    hand_over(Sms(), outgoing(HONG_KONG))
    assert alibaba.messages()[0]["recipient"] == "85251234567"


def test_control_alibaba_refuses_another_key(alibaba: RunningCarrier, settings: Settings) -> None:
    settings.SMS_SECRET = "another"
    with pytest.raises(Unavailable, match="SignatureDoesNotMatch"):
        hand_over(Sms(), outgoing(HONG_KONG))
    assert alibaba.messages() == []


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (200, "isv.MOBILE_NUMBER_ILLEGAL", Gone),
        (200, "isv.BLACK_KEY_CONTROL_LIMIT", Refused),
        (200, "isv.AMOUNT_NOT_ENOUGH", Unavailable),
        (400, "Throttling.User", Unavailable),
        (200, "isp.SYSTEM_ERROR", Uncertain),
        (500, "InternalError", Uncertain),
    ],
)
def test_alibabas_word_decides_what_becomes_of_a_text(
    alibaba: RunningCarrier, settings: Settings, status: int, code: str, outcome: type[Exception]
) -> None:
    with scripted() as server:
        settings.SMS_URL, server.status, server.content = server.url, status, {"Code": code, "Message": "no"}
        with pytest.raises(outcome) as failure:
            hand_over(Sms(), outgoing(HONG_KONG))
    assert type(failure.value) is outcome


def test_a_number_that_had_enough_today_is_tried_again_later(alibaba: RunningCarrier) -> None:
    alibaba.set_faults(errors=1)
    with pytest.raises(Deferred, match="BUSINESS_LIMIT") as failure:
        hand_over(Sms(), outgoing(HONG_KONG))
    assert failure.value.retry_after == timedelta(hours=1)


def test_text_messages_are_off_until_everything_is_set(settings: Settings) -> None:
    settings.SMS_PROVIDER = ""
    assert Sms().missing() == ["SMS_PROVIDER"]
    settings.SMS_PROVIDER, settings.SMS_URL = "alibaba", "http://127.0.0.1:8002/sms"
    settings.ALLOW_EMULATORS = False
    assert Sms().missing() == [
        "SMS_URL",
        "SMS_ACCOUNT",
        "SMS_SECRET",
        "SMS_SENDER",
        "SMS_TEMPLATE",
        "SMS_CODE_TEMPLATE",
        "SMS_REPORT_TOKEN",
    ]
