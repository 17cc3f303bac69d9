"""Which pages of providers a browser may be led to by our forms."""

import pytest
from django.test import Client
from pytest_django import Settings

from orders.gateways import gateway_named, pay_origins
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_alipay import RunningAlipay
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.gateways.origins import origin_of


@pytest.mark.parametrize(
    ("gateway", "setting", "url", "origins"),
    [
        ("stripe", "STRIPE_URL", "https://api.stripe.com", ("https://checkout.stripe.com",)),
        ("paypal", "PAYPAL_URL", "https://api-m.paypal.com", ("https://www.paypal.com",)),
        ("paypal", "PAYPAL_URL", "https://api-m.sandbox.paypal.com", ("https://www.sandbox.paypal.com",)),
        ("alipay", "ALIPAY_URL", "https://openapi.alipay.com/gateway.do", ("https://*.alipay.com",)),
        (
            "alipay",
            "ALIPAY_URL",
            "https://openapi-sandbox.dl.alipaydev.com/gateway.do",
            ("https://*.alipaydev.com",),
        ),
        ("alipay", "ALIPAY_URL", "https://myalipay.com/gateway.do", ("https://myalipay.com",)),
        ("wechat", "WECHAT_URL", "https://api.mch.weixin.qq.com", ("https://wx.tenpay.com",)),
        ("btcpay", "BTCPAY_URL", "https://pay.example.com:8443/btcpay", ("https://pay.example.com:8443",)),
        ("nowpayments", "NOWPAYMENTS_URL", "https://api.nowpayments.io", ()),
    ],
)
def test_pages_of_a_real_provider(
    settings: Settings, gateway: str, setting: str, url: str, origins: tuple[str, ...]
) -> None:
    settings.ALLOW_EMULATORS = False
    setattr(settings, setting, url)
    assert gateway_named(gateway).pay_origins() == origins


def test_origin_holds_neither_path_nor_credentials() -> None:
    assert origin_of("https://name:secret@pay.example.com:8443/i/1?x=y#z") == "https://pay.example.com:8443"


def test_pages_of_gateways_without_settings_are_not_let_in(sandbox: RunningSandbox) -> None:
    assert pay_origins() == [sandbox.url]


def test_open_payments_of_a_gateway_that_has_no_method_any_more_can_still_be_reached(
    stripe: RunningStripe, alipay: RunningAlipay, settings: Settings
) -> None:
    settings.PAYMENT_METHODS = ["card=stripe"]
    assert pay_origins() == sorted([stripe.url, alipay.url])


@pytest.mark.django_db
def test_the_desk_leads_to_no_gateway(client: Client, sandbox: RunningSandbox) -> None:
    assert f"form-action 'self' {sandbox.url};" in f"{client.get('/').headers['Content-Security-Policy']};"
    assert sandbox.url not in client.get("/admin/login/").headers["Content-Security-Policy"]
