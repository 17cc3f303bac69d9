"""Which gateway processes a method in a currency, and what the settings may say about it."""

from collections.abc import Sequence

import pytest
import time_machine
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from pytest_django import Settings

from orders.gateways import methods_in, methods_on_offer, problems
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_alipay import RunningAlipay
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.payments import process_webhooks, refresh_attempt
from orders.returns import send_returns
from orders.tests.gateway_servers import Listener
from orders.tests.paying import Door, begin, hand_on
from tests.builders import NOW, make_fee, make_order, make_plan


def gateways_in(currency: str) -> list[tuple[str, str]]:
    return [(method.slug, method.gateway) for method in methods_in(currency)]


def test_rule_of_one_currency_goes_before_the_rule_of_all(settings: Settings) -> None:
    settings.PAYMENT_METHODS = ["alipay:CNY=alipay", "card=stripe", "alipay=stripe"]
    assert gateways_in("CNY") == [("alipay", "alipay"), ("card", "stripe")]
    assert gateways_in("USD") == [("alipay", "stripe"), ("card", "stripe")]


def test_method_with_rules_of_some_currencies_only_is_in_no_other(settings: Settings) -> None:
    settings.PAYMENT_METHODS = ["wechat:CNY=wechat", "wechat:HKD=stripe"]
    assert [gateways_in(currency) for currency in ("CNY", "HKD", "USD")] == [
        [("wechat", "wechat")],
        [("wechat", "stripe")],
        [],
    ]


def test_direct_alipay_takes_yuan_and_leaves_the_other_currencies_to_stripe(
    alipay: RunningAlipay, stripe: RunningStripe, settings: Settings
) -> None:
    settings.PAYMENT_METHODS = ["alipay=stripe", "alipay:CNY=alipay"]
    offered = {
        currency: [(method.slug, method.gateway) for method in methods_on_offer(currency)]
        for currency in settings.SHOP_CURRENCIES
    }
    assert offered == {
        "USD": [("alipay", "stripe")],
        "HKD": [("alipay", "stripe")],
        "CNY": [("alipay", "alipay")],
        "EUR": [("alipay", "stripe")],
        "JPY": [("alipay", "stripe")],
    }


def test_gateway_without_its_settings_is_not_replaced_by_the_rule_of_all(
    stripe: RunningStripe, settings: Settings
) -> None:
    """What the settings say is done or not done: money does not go to an account that nobody named for it."""
    settings.PAYMENT_METHODS = ["alipay=stripe", "alipay:CNY=alipay"]
    assert methods_on_offer("CNY") == []


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            ["card=stripe", "crad=stripe"],
            "“crad=stripe”. There is no method crad, only card, alipay, wechat, paypal,",
        ),
        (["card=strip"], "“card=strip”. There is no gateway strip, only alipay, wechat, stripe, paypal,"),
        (
            ["card:GBP=stripe"],
            "“card:GBP=stripe”. The shop has no fees in GBP, only in USD, HKD, CNY, EUR, JPY.",
        ),
        (["ethereum=btcpay"], "“ethereum=btcpay”. The gateway btcpay cannot process ethereum, only bitcoin."),
        (["wechat:USD=wechat"], "“wechat:USD=wechat”. The gateway wechat takes no USD, only CNY."),
        (["card=stripe", "card=stripe"], "“card=stripe”. There is another rule for the same before it."),
        (["card"], "“card”. Write method=gateway, or method:CURRENCY=gateway."),
        (["card:=stripe"], "“card:=stripe”. Write method=gateway, or method:CURRENCY=gateway."),
        (["card = stripe"], "“card = stripe”. Write method=gateway, or method:CURRENCY=gateway."),
    ],
)
def test_rule_that_cannot_be_followed_is_told_by_the_check_and_never_half_followed(
    settings: Settings, rules: Sequence[str], said: str
) -> None:
    settings.PAYMENT_METHODS = rules
    (problem,) = problems()
    assert problem.startswith(f"PAYMENT_METHODS says {said}")
    with pytest.raises(CommandError) as refused:
        call_command("check")
    assert f"(orders.E001) {problem}" in str(refused.value)
    with pytest.raises(ImproperlyConfigured):
        methods_in("USD")


def test_every_problem_is_told_at_once(settings: Settings) -> None:
    settings.PAYMENT_METHODS = ["crad=stripe", "card=strip", "paypal=paypal"]
    assert len(problems()) == 2


def test_rules_that_come_with_the_shop_can_be_followed() -> None:
    assert problems() == []
    call_command("check")


@pytest.mark.clause("3.1")
@pytest.mark.django_db(transaction=True)
def test_payment_stays_with_the_gateway_it_was_begun_at_whatever_the_settings_say_later(
    sandbox: RunningSandbox, alipay: RunningAlipay, shop: Listener, door: Door, settings: Settings
) -> None:
    """Its webhook, its fetch and what goes back of it; only a new payment goes the new way."""
    with time_machine.travel(NOW, tick=False):
        order = make_order([(make_fee(make_plan(), minor=4_990, currency="CNY"), 1)], placed_at=NOW)
        settings.PAYMENT_METHODS = ["alipay=alipay"]
        by_alipay = begin(order, now=NOW, method="alipay")
        settings.PAYMENT_METHODS = ["sandbox=sandbox"]
        by_sandbox = begin(order, now=NOW)
        sandbox.decide(by_sandbox.pay_url)
        hand_on(sandbox, shop, door, now=NOW)
        alipay.decide(by_alipay.pay_url)
        assert door.deliver(shop.next()) == [200]
        process_webhooks(now=NOW)
        send_returns(now=NOW)
        refresh_attempt(attempt_id=by_alipay.pk, now=NOW)

    assert list(order.ledger.order_by("pk").values_list("gateway", "kind", "minor")) == [
        ("sandbox", "capture", 4_990),
        ("alipay", "capture", 4_990),
        ("alipay", "refund", -4_990),
    ]
    assert [refund["minor"] for refund in alipay.books()["refunds"]] == [4_990]
