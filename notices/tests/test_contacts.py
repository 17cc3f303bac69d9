"""Contact points: what is one, how it is proved, and what becomes of it."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models import QuerySet
from pytest_django import Settings

from accounts.models import User
from notices import codes, contacts
from notices.channels import CHANNELS
from notices.channels.addresses import addresses_of
from notices.channels.protocol import Address
from notices.contacts import NotAnAddress, PostalAddress, TooMany, Unknown, Used, WrongCode
from notices.kinds import CONTACT_CODE, CONTACT_TEST, SECURITY
from notices.models import ContactPoint, Delivery, DeliveryState, Message, Notice
from notices.outbox import drain
from notices.tests.carrying import proved_phone, running_push, running_twilio, subscribe
from notices.tests.samples import NOW, customer, told

pytestmark = [pytest.mark.clause("VIII"), pytest.mark.django_db]

NUMBER = "+85251234567"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def ada() -> User:
    return customer()


def device(
    owner: User, identity: str = "device-1", *, channel: str = "app", at: timedelta = timedelta(0)
) -> ContactPoint:
    return contacts.bind(
        customer_id=owner.pk,
        channel=channel,
        identity=identity,
        label="Pixel",
        allowed_at=NOW + at,
        now=NOW + at,
    )


def in_use(owner: User) -> list[str]:
    points: QuerySet[ContactPoint] = owner.contact_points.filter(removed_at=None)
    return list(points.values_list("address", flat=True))


# --- phones ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("+852 5123 4567", "+85251234567"),
        ("+86 138-1234-5678", "+8613812345678"),
        ("+1 (202) 555-0143", "+12025550143"),
    ],
)
def test_a_mobile_number_is_kept_as_in_e164(written: str, number: str) -> None:
    assert contacts.e164(written) == number


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("5123 4567", "the code of the country"),
        ("hello", "the code of the country"),
        ("+852 0000 0000", "no such number"),
        ("+852 2123 4567", "fixed line"),
        ("+86 10 6552 9988", "fixed line"),
        ("+44 800 123 4567", "takes no text messages"),
    ],
)
def test_what_cannot_get_a_text_message_is_refused_and_it_is_said_why(written: str, words: str) -> None:
    with pytest.raises(NotAnAddress, match=words):
        contacts.e164(written)


def test_a_phone_is_proved_by_the_code_that_comes_to_it_and_is_kept_nowhere(
    ada: User, settings: Settings
) -> None:
    with running_twilio(settings) as phone:
        point = contacts.add_phone(customer_id=ada.pk, number="+852 5123 4567", now=NOW)
        assert addresses_of("sms", [ada]) == {}
        drain(now=NOW)
        (message,) = phone.messages()
    code = codes.code_of(ContactPoint.objects.get(pk=point.pk))
    assert message["recipient"] == NUMBER
    assert message["text"].startswith(f"{code} is your code for VMOS Cloud.")
    assert Notice.objects.get().facts == {"code": "••••••"}
    assert [kept.body for kept in Message.objects.all() if code in kept.body + kept.subject] == []

    contacts.prove(
        customer_id=ada.pk, contact_point_id=point.pk, code=f" {code[:3]} {code[3:]}", now=NOW + MINUTE
    )
    assert addresses_of("sms", [ada]) == {ada.pk: [Address(NUMBER, contact_point_id=point.pk)]}
    security = Notice.objects.get(kind=SECURITY.slug)
    assert (security.facts["event"], security.facts["detail"]) == ("contact-point-added", NUMBER)


def test_a_code_is_good_for_a_quarter_of_an_hour(ada: User) -> None:
    point = contacts.add_phone(customer_id=ada.pk, number=NUMBER, now=NOW)
    code = codes.code_of(point)
    with pytest.raises(WrongCode, match="too old"):
        contacts.prove(customer_id=ada.pk, contact_point_id=point.pk, code=code, now=NOW + 15 * MINUTE)
    contacts.prove(customer_id=ada.pk, contact_point_id=point.pk, code=code, now=NOW + 14 * MINUTE)


def test_after_five_wrong_codes_the_right_one_is_worth_nothing_until_a_new_one_is_sent(ada: User) -> None:
    point = contacts.add_phone(customer_id=ada.pk, number=NUMBER, now=NOW)
    right = codes.code_of(point)
    wrong = f"{(int(right) + 1) % 1_000_000:06}"
    for _ in range(5):
        with pytest.raises(WrongCode, match="not the code"):
            contacts.prove(customer_id=ada.pk, contact_point_id=point.pk, code=wrong, now=NOW)
    with pytest.raises(WrongCode, match="too many"):
        contacts.prove(customer_id=ada.pk, contact_point_id=point.pk, code=right, now=NOW)

    contacts.send_code(customer_id=ada.pk, contact_point_id=point.pk, now=NOW + MINUTE)
    with pytest.raises(WrongCode, match="not the code"):
        contacts.prove(customer_id=ada.pk, contact_point_id=point.pk, code=right, now=NOW + MINUTE)
    point.refresh_from_db()
    contacts.prove(customer_id=ada.pk, contact_point_id=point.pk, code=codes.code_of(point), now=NOW + MINUTE)


def test_a_code_that_was_overtaken_by_time_is_not_sent(ada: User, settings: Settings) -> None:
    with running_twilio(settings) as phone:
        contacts.add_phone(customer_id=ada.pk, number=NUMBER, now=NOW)
        drain(now=NOW + 16 * MINUTE)
        assert phone.messages() == []
    assert Delivery.objects.get().state == DeliveryState.DEAD


def test_one_customer_has_five_codes_sent_in_an_hour(ada: User) -> None:
    for last in range(5):
        contacts.add_phone(customer_id=ada.pk, number=f"+8525123456{last}", now=NOW)
    with pytest.raises(TooMany):
        contacts.add_phone(customer_id=ada.pk, number=NUMBER, now=NOW + 59 * MINUTE)
    assert NUMBER not in in_use(ada)
    contacts.add_phone(customer_id=ada.pk, number=NUMBER, now=NOW + 61 * MINUTE)


def test_one_number_gets_five_codes_in_an_hour_whoever_asks(ada: User) -> None:
    for number in range(5):
        contacts.add_phone(customer_id=customer(f"{number}@example.com").pk, number=NUMBER, now=NOW)
    with pytest.raises(TooMany):
        contacts.add_phone(customer_id=ada.pk, number=NUMBER, now=NOW)
    assert Notice.objects.filter(kind=CONTACT_CODE.slug).count() == 5


def test_nobody_proves_or_removes_what_is_another_customers(ada: User) -> None:
    point = contacts.add_phone(customer_id=ada.pk, number=NUMBER, now=NOW)
    bo = customer("bo@example.com").pk
    with pytest.raises(Unknown):
        contacts.prove(customer_id=bo, contact_point_id=point.pk, code=codes.code_of(point), now=NOW)
    for verb in (contacts.remove, contacts.send_code, contacts.send_test):
        with pytest.raises(Unknown):
            verb(customer_id=bo, contact_point_id=point.pk, now=NOW)
    point.refresh_from_db()
    assert (point.verified_at, point.removed_at) == (None, None)


# --- devices -----------------------------------------------------------------------------------------


def test_a_browser_that_another_account_takes_is_the_earlier_ones_no_more(
    ada: User, settings: Settings
) -> None:
    bo = customer("bo@example.com")
    with running_push(settings) as push_service:
        subscription = subscribe(push_service)
        for owner in (ada, ada, bo):
            contacts.add_browser(customer_id=owner.pk, label="Firefox", now=NOW, **subscription)
    assert (in_use(ada), in_use(bo)) == ([], [subscription["endpoint"]])
    assert ada.contact_points.get().removal == "Another account uses the device now."


def test_a_browser_that_has_changed_its_subscription_has_one_contact_point(
    ada: User, settings: Settings
) -> None:
    with running_push(settings) as push_service:
        old, new = subscribe(push_service), subscribe(push_service)
        contacts.add_browser(customer_id=ada.pk, label="Firefox", now=NOW, **old)
        contacts.replace_browser(
            customer_id=ada.pk, old_endpoint="unknown", label="", now=NOW, **subscribe(push_service)
        )
        contacts.replace_browser(customer_id=ada.pk, old_endpoint=old["endpoint"], label="", now=NOW, **new)
    assert in_use(ada) == [new["endpoint"]]
    assert ada.contact_points.get(removed_at=None).label == "Firefox"


def test_a_browser_without_keys_or_of_an_unknown_push_service_is_refused(ada: User) -> None:
    keys = {"p256dh": "BA" * 40, "auth": "AAAA"}
    for endpoint in ("https://fcm.googleapis.com/1", "https://192.168.0.1/1"):
        with pytest.raises(NotAnAddress):
            contacts.add_browser(customer_id=ada.pk, endpoint=endpoint, keys=keys, label="", now=NOW)


def test_one_permission_binds_one_device(ada: User) -> None:
    device(ada)
    device(ada)  # told twice
    with pytest.raises(Used):
        contacts.bind(
            customer_id=ada.pk,
            channel="app",
            identity="over-the-shoulder",
            label="",
            allowed_at=NOW,
            now=NOW + MINUTE,
        )
    device(ada, "device-2", at=MINUTE)
    assert in_use(ada) == ["device-1", "device-2"]


def test_a_device_is_one_customers_and_a_wechat_account_may_be_two(ada: User) -> None:
    bo = customer("bo@example.com")
    for owner in (ada, bo):
        device(owner, "device-1")
        device(owner, "openid-1", channel="wechat")
    assert (in_use(ada), in_use(bo)) == (["openid-1"], ["device-1", "openid-1"])
    contacts.unbind(channel="wechat", identity="openid-1", reason="unsubscribed", now=NOW)
    assert (in_use(ada), in_use(bo)) == ([], ["device-1"])


def test_a_customer_has_ten_devices_at_most(ada: User) -> None:
    for number in range(10):
        device(ada, f"device-{number}", at=number * MINUTE)
    with pytest.raises(TooMany):
        device(ada, "device-10", at=10 * MINUTE)


# --- letters -----------------------------------------------------------------------------------------


def test_a_new_postal_address_takes_the_place_of_the_old_one(ada: User) -> None:
    first = PostalAddress("Lin 林", ("1 Sample Road", "Kowloon"), "HK")
    second = PostalAddress("Lin 林", ("大角咀 2 號",), "HK")
    for postal in (first, first, second):
        contacts.add_postal_address(customer_id=ada.pk, postal=postal, now=NOW)
    assert ada.contact_points.count() == 2
    point = ada.contact_points.get(removed_at=None)
    assert point.details == {"name": "Lin 林", "lines": ["大角咀 2 號"], "country": "HK"}
    assert (point.address, point.verified_at) == ("Lin 林, 大角咀 2 號, HK", NOW)


def test_an_address_that_cannot_be_printed_is_refused(ada: User) -> None:
    with pytest.raises(NotAnAddress, match="😀"):
        contacts.add_postal_address(
            customer_id=ada.pk, postal=PostalAddress("Lin 😀", ("1 Sample Road",), "HK"), now=NOW
        )


# --- all ---------------------------------------------------------------------------------------------


def test_what_waits_for_a_contact_point_that_is_removed_is_not_sent(ada: User) -> None:
    point = proved_phone(ada)
    Delivery.objects.create(notice=told(ada), channel="sms", address=NUMBER, contact_point=point, due_at=NOW)
    contacts.remove(customer_id=ada.pk, contact_point_id=point.pk, now=NOW)
    contacts.remove(customer_id=ada.pk, contact_point_id=point.pk, now=NOW + MINUTE)
    assert Delivery.objects.get().state == DeliveryState.CANCELLED
    point.refresh_from_db()
    assert (point.removed_at, point.removal) == (NOW, "The customer has removed it.")


def test_a_test_goes_to_one_contact_point_with_its_keys_and_nowhere_else(
    ada: User, settings: Settings
) -> None:
    proved_phone(ada)
    with running_push(settings) as push_service:
        one, other = subscribe(push_service), subscribe(push_service)
        point = contacts.add_browser(customer_id=ada.pk, label="", now=NOW, **one)
        contacts.add_browser(customer_id=ada.pk, label="", now=NOW, **other)
        contacts.send_test(customer_id=ada.pk, contact_point_id=point.pk, now=NOW)
        drain(now=NOW)
        (message,) = (each for each in push_service.messages() if each["title"].startswith("Test message"))
    assert message["recipient"] == one["endpoint"].rpartition("/")[2]
    assert Delivery.objects.filter(notice__kind=CONTACT_TEST.slug).count() == 1


def test_tests_are_counted(ada: User) -> None:
    point = proved_phone(ada)
    for second in range(10):
        contacts.send_test(customer_id=ada.pk, contact_point_id=point.pk, now=NOW + timedelta(seconds=second))
    with pytest.raises(TooMany):
        contacts.send_test(customer_id=ada.pk, contact_point_id=point.pk, now=NOW + MINUTE)


def test_only_proved_ones_in_use_are_written_to_and_one_query_finds_them_all(
    ada: User, django_assert_num_queries: object
) -> None:
    bo = customer("bo@example.com")
    kept = [proved_phone(ada), proved_phone(ada, "+85251234568"), proved_phone(bo)]
    gone = proved_phone(bo, "+85251234569")
    contacts.remove(customer_id=bo.pk, contact_point_id=gone.pk, now=NOW)
    contacts.add_phone(customer_id=bo.pk, number="+85251234560", now=NOW)
    device(ada)
    with django_assert_num_queries(1):  # type: ignore[operator]
        found = CHANNELS["sms"].addresses_of([ada, bo])
    assert found == {
        ada.pk: [Address(point.address, point.pk) for point in kept[:2]],
        bo.pk: [Address(NUMBER, kept[2].pk)],
    }


def test_a_verb_owns_its_transaction(ada: User) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        contacts.add_phone(customer_id=ada.pk, number=NUMBER, now=NOW)
