"""Webhooks of Stripe: signatures made here by hand, read by the gateway; and their delivery by the emulator."""

import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import Settings

from inventory.money import Money
from orders.gateways.emulators.running_stripe import RunningStripe, running_stripe
from orders.gateways.emulators.stripe import Outcome
from orders.gateways.protocol import BadSignature, Charge, CredentialsRefused, Event, Return, Unavailable
from orders.gateways.stripe import StripeGateway
from orders.tests.backstage_stripe import STRIPE_KEY, STRIPE_SECRET, configured_stripe
from orders.tests.gateway_servers import Answer, Listener, Request, listening

OLD_SECRET = "whsec_theSecretThatWasBeforeThisOne0123"
INTENT_ID = "pi_3PaymentOfTheTests"
SESSION = {"object": "checkout.session", "id": "cs_test_1", "metadata": {"payment": "T-1"}}
# As it is at Stripe, a dispute bears nothing of ours.
DISPUTE = {"object": "dispute", "id": "du_1", "metadata": {}, "payment_intent": INTENT_ID}


@pytest.fixture
def stripe(shop: Listener, settings: Settings) -> Iterator[RunningStripe]:
    """Stripe's emulator, running, and settings that lead to it. Webhooks go to `shop`."""
    with configured_stripe(settings) as running:
        yield running


@pytest.fixture
def provider(settings: Settings) -> Iterator[Listener]:
    """A Stripe that answers whatever the test wants."""
    with listening() as listener:
        settings.ALLOW_EMULATORS = True
        settings.STRIPE_URL = listener.url
        settings.STRIPE_SECRET_KEY = STRIPE_KEY
        settings.STRIPE_WEBHOOK_SECRET = STRIPE_SECRET
        yield listener


def an_event(about: object = SESSION, **changes: object) -> bytes:
    event = {
        "id": "evt_1EventOfTheTests",
        "object": "event",
        "type": "checkout.session.completed",
        "livemode": False,
        "data": {"object": about},
        **changes,
    }
    return json.dumps(event).encode()


def signature(body: bytes, timestamp: str, secret: str = STRIPE_SECRET) -> str:
    return hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


def signed(body: bytes, *, seconds: float = 0, secret: str = STRIPE_SECRET) -> dict[str, str]:
    """Headers made `seconds` from now."""
    timestamp = str(int(time.time() + seconds))
    return {"stripe-signature": f"t={timestamp},v1={signature(body, timestamp, secret)}"}


def read(body: bytes, headers: dict[str, str] | None = None) -> Event:
    return StripeGateway().read_webhook(headers=signed(body) if headers is None else headers, body=body)


# --- signatures --------------------------------------------------------------------------------------


def test_signed_webhook_is_an_event_with_stripes_id_as_the_key(provider: Listener) -> None:
    assert read(an_event()) == Event(dedupe_key="evt_1EventOfTheTests", attempt_reference="T-1")
    assert provider.rest() == []


@pytest.mark.payment_case(7)
def test_event_of_an_unknown_payment_is_read_as_what_it_is(provider: Listener) -> None:
    assert read(an_event({**SESSION, "metadata": {"payment": "T-UNKNOWN"}})).attempt_reference == "T-UNKNOWN"


@pytest.mark.parametrize("seconds", [-290, 290])
def test_webhook_of_the_last_or_next_five_minutes_is_read(provider: Listener, seconds: float) -> None:
    body = an_event()
    assert read(body, signed(body, seconds=seconds)).attempt_reference == "T-1"


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("seconds", [-310, 310, -(10**9), 10**9])
def test_webhook_older_or_newer_than_five_minutes_is_refused(provider: Listener, seconds: float) -> None:
    body = an_event()
    with pytest.raises(BadSignature):
        read(body, signed(body, seconds=seconds))


@pytest.mark.payment_case(6, 49)
def test_webhook_signed_with_another_secret_is_refused(provider: Listener) -> None:
    body = an_event()
    with pytest.raises(BadSignature):
        read(body, signed(body, secret=OLD_SECRET))


@pytest.mark.payment_case(6)
def test_time_is_part_of_what_is_signed(provider: Listener) -> None:
    body, now = an_event(), int(time.time())
    with pytest.raises(BadSignature):
        read(body, {"stripe-signature": f"t={now - 7},v1={signature(body, str(now))}"})


@pytest.mark.payment_case(6)
@pytest.mark.parametrize(
    "header",
    [
        "",
        "v1={good}",
        "t={now}",
        "t={now},v1=",
        "t={now},v1={good}0",
        "t={now},v0={good}",
        "t={now},v1=é",
        "t={now},v1",
        "t={now}.0,v1={good}",
        "t=+{now},v1={good}",
        "t= {now},v1={good}",
        "t=1_7,v1={good}",
        "t=１７００００００００,v1={good}",
        "t={now},t={now},v1={good}",
        "t=NaN,v1={good}",
        "t={now},v1={good}\r\n",
        "t=" + "9" * 50 + ",v1={good}",
        "t={now}," + ",".join(["v1=00"] * 2000) + ",v1={good}",
        "{good}",
    ],
    ids=lambda header: header[:40],
)
def test_header_that_is_changed_or_malformed_is_refused(provider: Listener, header: str) -> None:
    body, now = an_event(), str(int(time.time()))
    with pytest.raises(BadSignature):
        read(body, {"stripe-signature": header.format(now=now, good=signature(body, now))})


@pytest.mark.payment_case(6)
def test_webhook_without_its_header_is_refused(provider: Listener) -> None:
    with pytest.raises(BadSignature):
        read(an_event(), {})


@pytest.mark.payment_case(12)
def test_one_good_signature_among_several_is_enough(provider: Listener) -> None:
    """While a secret is being changed Stripe signs with the old one and with the new one."""
    body, now = an_event(), str(int(time.time()))
    old, new = signature(body, now, OLD_SECRET), signature(body, now)
    for header in (f"t={now},v1={old},v1={new},v0=00", f"t={now},v1={new},v1={old}"):
        assert read(body, {"stripe-signature": header}).attempt_reference == "T-1"


@pytest.mark.payment_case(12)
def test_while_the_secret_is_being_changed_both_are_good(provider: Listener, settings: Settings) -> None:
    settings.STRIPE_WEBHOOK_SECRET = f"{STRIPE_SECRET} {OLD_SECRET}"
    body = an_event()
    for secret in (STRIPE_SECRET, OLD_SECRET):
        assert read(body, signed(body, secret=secret)).attempt_reference == "T-1"


def test_without_a_secret_nothing_is_good(provider: Listener, settings: Settings) -> None:
    settings.STRIPE_WEBHOOK_SECRET = ""
    body = an_event()
    with pytest.raises(BadSignature):
        read(body, signed(body, secret=""))


# --- bodies ------------------------------------------------------------------------------------------


@pytest.mark.payment_case(10)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b"9" * 10_000,
        an_event(id=5),
        an_event(id="evt_"),
        an_event(id="evt_\x00"),
        an_event(id="evt_" + "1" * 200),
        an_event(object="v2.core.event"),
        an_event(livemode=None),
        an_event(data=None),
        an_event(data={"object": "cs_test_1"}),
        an_event() + b" " * 2_000_000,
    ],
    ids=[
        "empty",
        "no UTF-8",
        "broken",
        "list",
        "null",
        "object",
        "deep",
        "number",
        "id 5",
        "no id",
        "NUL",
        "long id",
        "thin",
        "no mode",
        "no data",
        "text",
        "2 MB",
    ],
)
def test_body_that_is_no_event_is_refused_however_well_signed(provider: Listener, body: bytes) -> None:
    with pytest.raises(BadSignature):
        read(body)


@pytest.mark.payment_case(11)
@pytest.mark.parametrize("changes", [{"livemode": True}, {"account": "acct_1032D82eZvKYlo2C"}], ids=repr)
def test_event_of_another_mode_or_account_is_refused(provider: Listener, changes: dict[str, object]) -> None:
    with pytest.raises(BadSignature):
        read(an_event(**changes))


@pytest.mark.payment_case(11)
def test_event_of_the_live_mode_is_read_with_a_live_key_only(provider: Listener, settings: Settings) -> None:
    settings.STRIPE_SECRET_KEY = "sk_live_keyOfTheTests0123456789"
    assert read(an_event(livemode=True)).attempt_reference == "T-1"
    with pytest.raises(BadSignature):
        read(an_event(livemode=False))


@pytest.mark.payment_case(7)
@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"payment": 5}, {"payment": "T 1"}, {"payment": "T" * 33}, {"order": "T-1"}],
    ids=repr,
)
def test_event_without_a_reference_of_ours_names_none(provider: Listener, metadata: object) -> None:
    """It is answered all the same, or Stripe would repeat it for days."""
    assert read(an_event({**SESSION, "metadata": metadata})) == Event("evt_1EventOfTheTests", "")
    assert provider.rest() == []


# --- what a dispute is about -------------------------------------------------------------------------


def test_payment_of_a_dispute_is_asked_for(provider: Listener) -> None:
    provider.answers.put(Answer(body=json.dumps({"id": INTENT_ID, "metadata": {"payment": "T-1"}}).encode()))
    assert read(an_event(DISPUTE)).attempt_reference == "T-1"
    assert [request.path for request in provider.rest()] == [f"/v1/payment_intents/{INTENT_ID}"]


@pytest.mark.payment_case(51)
def test_nothing_is_asked_for_a_dispute_that_proves_nothing(provider: Listener) -> None:
    body = an_event(DISPUTE)
    with pytest.raises(BadSignature):
        read(body, signed(body, secret=OLD_SECRET))
    assert provider.rest() == []


@pytest.mark.parametrize("intent", [None, 5, "../x", "pi_1/x", "ch_1", "pi_" + "1" * 200], ids=repr)
def test_payment_that_stripe_cannot_have_is_not_asked_for(provider: Listener, intent: object) -> None:
    assert read(an_event({**DISPUTE, "payment_intent": intent})).attempt_reference == ""
    assert provider.rest() == []


@pytest.mark.payment_case(7)
def test_dispute_of_a_payment_that_is_none_of_ours_names_none(provider: Listener) -> None:
    provider.answers.put(Answer(body=json.dumps({"id": INTENT_ID, "metadata": {}}).encode()))
    missing = {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such."}}
    provider.answers.put(Answer(status=404, body=json.dumps(missing).encode()))
    for _time in range(2):
        assert read(an_event(DISPUTE)).attempt_reference == ""


def test_dispute_is_not_read_while_stripe_does_not_say_what_it_is_about(provider: Listener) -> None:
    provider.answers.put(Answer(status=503))
    with pytest.raises(Unavailable):
        read(an_event(DISPUTE))
    provider.answers.put(Answer(status=401))
    with pytest.raises(CredentialsRefused):
        read(an_event(DISPUTE))


# --- delivery ----------------------------------------------------------------------------------------


def opened(reference: str = "T-1") -> str:
    """Where a new payment is paid."""
    charge = Charge(
        reference=reference,
        amount=Money(4990, "USD"),
        description="VIP, 30 days",
        return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        language="en",
        method="card",
    )
    return StripeGateway().open(charge).pay_url


def received(request: Request) -> Event:
    return StripeGateway().read_webhook(headers=request.headers, body=request.body)


def types(requests: list[Request]) -> list[str]:
    return [json.loads(request.body)["type"] for request in requests]


@pytest.mark.payment_case(2, 44, 46)
def test_whole_life_of_a_payment_is_told_and_every_event_names_it(
    stripe: RunningStripe, shop: Listener
) -> None:
    pay_url = opened()
    for outcome in (Outcome.REFUSE_CARD, Outcome.PROCESS, Outcome.SUCCEED, Outcome.DELAY_REFUNDS):
        stripe.decide(pay_url, outcome)
    StripeGateway().give_back(Return("R-1", pay_url.rpartition("/")[2], Money(1000, "USD")))
    for outcome in (
        Outcome.COMPLETE_REFUNDS,
        Outcome.REFUND_HERE,
        Outcome.FAIL_REFUNDS,
        Outcome.INQUIRE,
        Outcome.CHARGE_BACK,
        Outcome.WIN,
    ):
        stripe.decide(pay_url, outcome)
    stripe.wait_for_webhooks()
    requests = shop.rest()
    assert types(requests) == [
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "charge.refunded",
        "refund.updated",
        "charge.refunded",
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    ]
    events = [received(request) for request in requests]
    assert {event.attempt_reference for event in events} == {"T-1"}
    assert len({event.dedupe_key for event in events}) == 9


def test_failure_expiry_and_a_failed_refund_are_told(stripe: RunningStripe, shop: Listener) -> None:
    stripe.decide(opened("T-1"), Outcome.FAIL)
    StripeGateway().close(provider_id=opened("T-2").rpartition("/")[2])
    refunded = opened("T-3")
    for outcome in (Outcome.PAY_UNTOLD, Outcome.DELAY_REFUNDS):
        stripe.decide(refunded, outcome)
    StripeGateway().give_back(Return("R-1", refunded.rpartition("/")[2], Money(1000, "USD")))
    stripe.decide(refunded, Outcome.FAIL_REFUNDS)
    stripe.wait_for_webhooks()
    requests = shop.rest()
    assert [
        (json.loads(request.body)["type"], received(request).attempt_reference) for request in requests
    ] == [
        ("checkout.session.completed", "T-1"),
        ("checkout.session.async_payment_failed", "T-1"),
        ("checkout.session.expired", "T-2"),
        ("charge.refunded", "T-3"),
        ("refund.failed", "T-3"),
    ]


@pytest.mark.payment_case(1)
def test_webhook_comes_again_with_the_same_id_until_it_is_accepted(
    stripe: RunningStripe, shop: Listener
) -> None:
    for status in (500, 302):
        shop.answers.put(Answer(status=status, headers={"Location": "/elsewhere"}))
    stripe.decide(opened())
    stripe.wait_for_webhooks()
    requests = shop.rest()
    assert [request.path for request in requests] == ["/webhooks/stripe/"] * 3
    assert len({received(request) for request in requests}) == 1


@pytest.mark.payment_case(1, 5)
@pytest.mark.parametrize(("outcome", "copies"), [(Outcome.PAY_UNTOLD, 0), (Outcome.PAY_TOLD_TWICE, 2)])
def test_event_is_told_as_often_as_the_tester_chose(
    stripe: RunningStripe, shop: Listener, outcome: Outcome, copies: int
) -> None:
    stripe.decide(opened(), outcome)
    stripe.wait_for_webhooks()
    events = [received(request) for request in shop.rest()]
    assert len(events) == copies
    assert len(set(events)) == min(copies, 1)


@pytest.mark.payment_case(49)
def test_wrongly_signed_webhook_is_refused_and_signed_well_the_next_time(
    stripe: RunningStripe, shop: Listener
) -> None:
    stripe.set_faults(wrong_key=1)
    shop.answers.put(Answer(status=400))
    stripe.decide(opened())
    stripe.wait_for_webhooks()
    first, second = shop.rest()
    with pytest.raises(BadSignature):
        received(first)
    assert received(second).attempt_reference == "T-1"


def test_dropped_duplicate_and_reordered_webhooks(stripe: RunningStripe, shop: Listener) -> None:
    stripe.set_faults(drop=1)
    stripe.decide(opened("T-1"))
    stripe.set_faults(reorder=1)
    stripe.decide(opened("T-2"))
    stripe.set_faults(duplicate=1)
    stripe.decide(opened("T-3"))
    stripe.wait_for_webhooks()
    assert [received(request).attempt_reference for request in shop.rest()] == ["T-3", "T-3", "T-2"]


@pytest.mark.payment_case(12)
def test_both_secrets_sign_while_the_secret_is_being_changed(settings: Settings, shop: Listener) -> None:
    settings.ALLOW_EMULATORS = True
    settings.STRIPE_SECRET_KEY = STRIPE_KEY
    webhook_url = f"{shop.url}/webhooks/stripe/"
    with running_stripe(
        key=STRIPE_KEY, secret=f"{OLD_SECRET} {STRIPE_SECRET}", webhook_url=webhook_url
    ) as stripe:
        settings.STRIPE_URL = stripe.url
        for number, known_to_the_shop in enumerate((STRIPE_SECRET, OLD_SECRET)):
            settings.STRIPE_WEBHOOK_SECRET = known_to_the_shop
            stripe.decide(opened(f"T-{number}"))
            assert received(shop.next()).attempt_reference == f"T-{number}"
