"""What every gateway does alike, over HTTP against its provider's emulator."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from pytest_django import Settings

from inventory.money import Money
from orders.gateways import GATEWAYS, LABELS, gateway_named, methods_on_offer
from orders.gateways.origins import origin_of
from orders.gateways.protocol import (
    BadSignature,
    Charge,
    CredentialsRefused,
    Declined,
    Gateway,
    Opened,
    Return,
    Snapshot,
    Unavailable,
    Unreachable,
)
from orders.models import AttemptState
from orders.tests.backstage_alipay import alipay_backstage
from orders.tests.backstage_btcpay import btcpay_backstage
from orders.tests.backstage_nowpayments import nowpayments_backstage
from orders.tests.backstage_paypal import paypal_backstage
from orders.tests.backstage_stripe import stripe_backstage
from orders.tests.backstage_wechat import wechat_backstage
from orders.tests.gateway_contract import Backstage, sandbox_backstage
from orders.tests.gateway_servers import Listener

BACKSTAGES: dict[str, Callable[[Settings], AbstractContextManager[Backstage]]] = {
    "alipay": alipay_backstage,
    "btcpay": btcpay_backstage,
    "nowpayments": nowpayments_backstage,
    "paypal": paypal_backstage,
    "sandbox": sandbox_backstage,
    "stripe": stripe_backstage,
    "wechat": wechat_backstage,
}

# NOWPayments has no API to cancel a payment or to give money back: its gateway declines both.
BY_HAND = {"nowpayments"}
by_api = pytest.mark.parametrize("slug", sorted(set(GATEWAYS) - BY_HAND))


@pytest.fixture(params=sorted(GATEWAYS))
def slug(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backstage(slug: str, shop: Listener, settings: Settings) -> Iterator[Backstage]:
    with BACKSTAGES[slug](settings) as behind:
        yield behind


@pytest.fixture
def gateway(slug: str, backstage: Backstage) -> Gateway:
    return gateway_named(slug)


@pytest.fixture
def charge(slug: str, backstage: Backstage) -> Charge:
    """To be paid by a method that the gateway can process."""
    return Charge(
        reference="T-7F3K9Q2X",
        amount=backstage.amount,
        description="2 × VIP, 30 days",
        return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
        language="en",
        method=next(method for method in LABELS if method in GATEWAYS[slug].methods),
    )


def snapshot_of(gateway: Gateway, charge: Charge, provider_id: str) -> Snapshot:
    """With all refunds that the contract ever asks for: some providers list none."""
    snapshot = gateway.fetch(reference=charge.reference, provider_id=provider_id, returns=("R-1", "R-2"))
    assert snapshot
    return snapshot


def opened_by(gateway: Gateway, charge: Charge, backstage: Backstage) -> Opened:
    """Open a payment and let its buyer come: some providers know of none before."""
    opened = gateway.open(charge)
    backstage.arrive(opened.pay_url)
    return opened


def test_slug_is_the_name_in_the_table(slug: str, gateway: Gateway) -> None:
    assert gateway.slug == slug


def test_every_method_has_a_gateway_that_can_process_it() -> None:
    assert frozenset.union(*(gateway.methods for gateway in GATEWAYS.values())) == set(LABELS)


def test_configured_gateway_misses_nothing_and_is_on_offer_in_the_currencies_it_takes(
    slug: str, gateway: Gateway, settings: Settings
) -> None:
    assert gateway.missing() == []
    methods = sorted(gateway.methods)
    settings.PAYMENT_METHODS = [f"{method}={slug}" for method in methods]
    for currency in settings.SHOP_CURRENCIES:
        offered = [method.slug for method in methods_on_offer(currency)]
        assert offered == (methods if currency in gateway.currencies else [])


@pytest.mark.parametrize("is_phone", [False, True], ids=["computer", "phone"])
@pytest.mark.django_db
def test_browsers_let_the_form_that_pays_lead_to_the_gateways_page(
    gateway: Gateway, charge: Charge, client: Client, is_phone: bool
) -> None:
    opened = gateway.open(replace(charge, is_phone=is_phone, payer_address="203.0.113.7"))
    policy = client.get("/").headers["Content-Security-Policy"].split("; ")
    (form_action,) = (directive.split()[1:] for directive in policy if directive.startswith("form-action "))
    assert form_action == ["'self'", *sorted(gateway.pay_origins())]
    if opened.pay_url:
        assert origin_of(opened.pay_url) in form_action


def test_opened_payment_is_pending_with_no_money_moved(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = opened_by(gateway, charge, backstage)
    assert gateway.fetch(reference=charge.reference, provider_id=opened.provider_id) == Snapshot(
        provider_id=opened.provider_id, state=AttemptState.PENDING
    )


def test_opening_twice_gives_the_same_payment(gateway: Gateway, charge: Charge, backstage: Backstage) -> None:
    first = opened_by(gateway, charge, backstage)
    assert opened_by(gateway, charge, backstage).provider_id == first.provider_id
    assert backstage.payments() == 1


def test_opening_again_from_another_page_in_another_language_gives_the_same_payment(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = opened_by(gateway, charge, backstage)
    again = replace(charge, language="zh-hans", return_url="http://127.0.0.1:8000/orders/VM-2/paid/")
    assert opened_by(gateway, again, backstage).provider_id == opened.provider_id
    assert backstage.payments() == 1


def test_opening_again_for_another_amount_is_declined(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened_by(gateway, charge, backstage)
    with pytest.raises(Declined):
        gateway.open(replace(charge, amount=charge.amount * 2))
    assert backstage.payments() == 1


def test_payment_is_found_by_its_reference_alone(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = opened_by(gateway, charge, backstage)
    gateway.open(replace(charge, reference="T-OTHER"))
    assert snapshot_of(gateway, charge, "").provider_id == opened.provider_id


def test_unknown_payment_is_none(gateway: Gateway, charge: Charge, backstage: Backstage) -> None:
    gateway.open(charge)
    assert gateway.fetch(reference="T-UNKNOWN", provider_id="") is None
    assert gateway.fetch(reference="T-UNKNOWN", provider_id=backstage.unknown_id) is None


@pytest.mark.parametrize("provider_id", ["../../_books", "x?y=z", "x/cancel", "x\r\nHost: y", "é", "a" * 100])
def test_id_that_is_none_of_the_gateways_reaches_no_other_address(gateway: Gateway, provider_id: str) -> None:
    assert gateway.fetch(reference="T-1", provider_id=provider_id) is None
    with pytest.raises(Declined):
        gateway.close(provider_id=provider_id)
    with pytest.raises(Declined):
        gateway.give_back(Return(reference="R-1", provider_id=provider_id, amount=Money(1, "USD")))


def test_paid_payment_is_captured_in_full_at_a_time_with_a_zone(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    before = datetime.now(UTC)
    opened = gateway.open(charge)
    backstage.pay(opened.pay_url)
    snapshot = snapshot_of(gateway, charge, opened.provider_id)
    assert snapshot.state == AttemptState.CAPTURED
    assert [capture.amount for capture in snapshot.captures] == [charge.amount]
    # Providers may write whole seconds only.
    assert before - timedelta(seconds=1) <= snapshot.captures[0].at <= datetime.now(UTC)
    assert snapshot.refunds == ()


def test_declined_payment_is_declined_with_no_money_moved(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = gateway.open(charge)
    backstage.decline(opened.pay_url)
    snapshot = snapshot_of(gateway, charge, opened.provider_id)
    assert (snapshot.state, snapshot.captures) == (backstage.state_of_declined, ())


@by_api
def test_closed_payment_is_cancelled_and_cannot_be_paid(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = opened_by(gateway, charge, backstage)
    gateway.close(provider_id=opened.provider_id)
    gateway.close(provider_id=opened.provider_id)
    backstage.pay(opened.pay_url)
    snapshot = snapshot_of(gateway, charge, opened.provider_id)
    assert (snapshot.state, snapshot.captures) == (AttemptState.CANCELLED, ())


def test_closing_what_is_paid_is_declined_and_it_stays_paid(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = gateway.open(charge)
    backstage.pay(opened.pay_url)
    with pytest.raises(Declined):
        gateway.close(provider_id=opened.provider_id)
    assert snapshot_of(gateway, charge, opened.provider_id).state == AttemptState.CAPTURED


def test_closing_an_unknown_payment_is_declined(gateway: Gateway, backstage: Backstage) -> None:
    with pytest.raises(Declined):
        gateway.close(provider_id=backstage.unknown_id)


@by_api
def test_part_of_the_money_is_given_back(gateway: Gateway, charge: Charge, backstage: Backstage) -> None:
    opened = gateway.open(charge)
    backstage.pay(opened.pay_url)
    part = Money(charge.amount.minor // 3, charge.amount.currency)
    gateway.give_back(Return(reference="R-1", provider_id=opened.provider_id, amount=part))
    snapshot = snapshot_of(gateway, charge, opened.provider_id)
    assert [(refund.amount, refund.reference) for refund in snapshot.refunds] == [(part, "R-1")]
    assert [(capture.amount, capture.reference) for capture in snapshot.captures] == [(charge.amount, "")]
    assert snapshot.refunds[0].transaction_id != snapshot.captures[0].transaction_id


@by_api
def test_giving_back_twice_with_one_reference_is_one_refund(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = gateway.open(charge)
    backstage.pay(opened.pay_url)
    refund = Return(reference="R-1", provider_id=opened.provider_id, amount=charge.amount)
    gateway.give_back(refund)
    gateway.give_back(refund)
    assert [back.amount for back in snapshot_of(gateway, charge, opened.provider_id).refunds] == [
        charge.amount
    ]


@by_api
def test_refunds_never_exceed_what_was_captured(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = gateway.open(charge)
    backstage.pay(opened.pay_url)
    gateway.give_back(Return(reference="R-1", provider_id=opened.provider_id, amount=charge.amount))
    with pytest.raises(Declined):
        gateway.give_back(
            Return(reference="R-2", provider_id=opened.provider_id, amount=Money(1, charge.amount.currency))
        )
    assert [back.amount for back in snapshot_of(gateway, charge, opened.provider_id).refunds] == [
        charge.amount
    ]


def test_what_was_never_paid_cannot_be_given_back(gateway: Gateway, charge: Charge) -> None:
    opened = gateway.open(charge)
    with pytest.raises(Declined):
        gateway.give_back(Return(reference="R-1", provider_id=opened.provider_id, amount=charge.amount))


def test_provider_in_trouble_is_unreachable_and_nothing_is_done(
    slug: str, gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = opened_by(gateway, charge, backstage)
    refund = Return(reference="R-1", provider_id=opened.provider_id, amount=charge.amount)
    # More than an adapter may try, whatever its number of tries.
    backstage.fail_next(1000)
    with pytest.raises(Unreachable):
        gateway.open(replace(charge, reference="T-OTHER"))
    with pytest.raises(Unreachable):
        gateway.fetch(reference=charge.reference, provider_id=opened.provider_id)
    with pytest.raises(Unreachable):
        gateway.fetch(reference=charge.reference, provider_id="")
    with pytest.raises(Declined if slug in BY_HAND else Unreachable):
        gateway.close(provider_id=opened.provider_id)
    with pytest.raises(Declined if slug in BY_HAND else Unreachable):
        gateway.give_back(refund)
    backstage.fail_next(0)
    assert backstage.payments() == 1
    assert snapshot_of(gateway, charge, opened.provider_id).state == AttemptState.PENDING


def test_lost_answer_to_opening_is_unavailable_and_asking_again_gives_the_one_payment(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    backstage.lose_next_answer()
    with pytest.raises(Unavailable):
        gateway.open(charge)
    assert backstage.payments() <= 1
    opened = opened_by(gateway, charge, backstage)
    assert backstage.payments() == 1
    assert snapshot_of(gateway, charge, "").provider_id == opened.provider_id


@by_api
def test_lost_answer_to_a_refund_is_unavailable_and_asking_again_gives_the_one_refund(
    gateway: Gateway, charge: Charge, backstage: Backstage
) -> None:
    opened = gateway.open(charge)
    backstage.pay(opened.pay_url)
    refund = Return(reference="R-1", provider_id=opened.provider_id, amount=charge.amount)
    backstage.lose_next_answer()
    with pytest.raises(Unavailable):
        gateway.give_back(refund)
    gateway.give_back(refund)
    assert [back.amount for back in snapshot_of(gateway, charge, opened.provider_id).refunds] == [
        charge.amount
    ]


def test_refused_credentials_decide_nothing(gateway: Gateway, charge: Charge, backstage: Backstage) -> None:
    opened = gateway.open(charge)
    backstage.refuse_us()
    with pytest.raises(CredentialsRefused, match="credentials"):
        gateway.open(replace(charge, reference="T-OTHER"))
    with pytest.raises(CredentialsRefused, match="credentials"):
        gateway.fetch(reference=charge.reference, provider_id=opened.provider_id)


def test_webhook_of_a_payment_names_its_attempt(
    gateway: Gateway, charge: Charge, backstage: Backstage, shop: Listener
) -> None:
    backstage.pay(gateway.open(charge).pay_url)
    webhook = shop.next()
    event = gateway.read_webhook(headers=webhook.headers, body=webhook.body)
    assert (webhook.method, webhook.path) == ("POST", f"/webhooks/{gateway.slug}/")
    assert event.attempt_reference == charge.reference
    assert event == gateway.read_webhook(headers=webhook.headers, body=webhook.body)


def test_webhook_that_was_touched_is_refused(
    gateway: Gateway, charge: Charge, backstage: Backstage, shop: Listener
) -> None:
    backstage.pay(gateway.open(charge).pay_url)
    webhook = shop.next()
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=webhook.headers, body=webhook.body + b" ")
    # Where what it says is encrypted, another word has to stand for the reference.
    word = b"T-7F3K9Q2X" if b"T-7F3K9Q2X" in webhook.body else b"ciphertext"
    assert word in webhook.body
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=webhook.headers, body=webhook.body.replace(word, word[:-1] + b"Y"))


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b"{", b"\xff\xfe", b"[" * 100_000, b'"' + b"a" * 2_000_000 + b'"'],
    ids=["empty", "null", "list", "object", "broken", "no UTF-8", "deep", "2 MB"],
)
def test_body_that_proves_nothing_is_refused(
    gateway: Gateway, charge: Charge, backstage: Backstage, shop: Listener, body: bytes
) -> None:
    backstage.pay(gateway.open(charge).pay_url)
    headers = shop.next().headers
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=headers, body=body)
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers={}, body=body)
