"""What can be paid from our own page, as Alipay's and WeChat Pay's codes on a computer; on a phone it leads to theirs."""

from collections.abc import Iterator

import pytest
from django.test import Client
from django.utils import timezone
from django.utils.html import escape
from pytest_django import Settings

from orders.gateways.emulators.running_alipay import RunningAlipay
from orders.gateways.emulators.running_btcpay import RunningBtcpay
from orders.gateways.emulators.running_wechat import RunningWechat
from orders.models import Order, PaymentAttempt
from orders.templatetags.shop import qr_code
from orders.tests.backstage_btcpay import configured_btcpay
from orders.tests.backstage_wechat import configured_wechat
from orders.tests.gateway_servers import Listener
from orders.tests.shopping import log_in
from tests.builders import make_fee, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"


@pytest.fixture
def wechat(shop: Listener, settings: Settings) -> Iterator[RunningWechat]:
    settings.PAYMENT_METHODS = ["wechat:CNY=wechat"]
    with configured_wechat(settings) as running:
        yield running


@pytest.fixture
def btcpay(shop: Listener, settings: Settings) -> Iterator[RunningBtcpay]:
    settings.PAYMENT_METHODS = ["bitcoin=btcpay"]
    with configured_btcpay(settings) as running:
        yield running


@pytest.fixture
def order(client: Client) -> Order:
    """Of 49.90 yuan, not paid; its buyer is logged in."""
    buyer = make_user("buyer@example.com")
    log_in(client, buyer)
    fee = make_fee(make_plan(), minor=4_990, currency="CNY")
    return make_order([(fee, 1)], customer=buyer, placed_at=timezone.now())


def choose(client: Client, order: Order, method: str, *, browser: str = "Mozilla/5.0 (X11)") -> str:
    """Where the button leads to."""
    answer = client.post(
        f"/orders/{order.reference}/pay/", {"method": method}, headers={"user-agent": browser}
    )
    return answer.headers["Location"]


@pytest.mark.clause("3.1")
def test_alipay_on_a_computer_is_a_code_on_our_page_with_its_own_page_beside_it(
    client: Client, order: Order, alipay: RunningAlipay
) -> None:
    ours = f"/orders/{order.reference}/pay/"
    assert "How do you want to pay?" in client.get(ours).text
    assert choose(client, order, "alipay") == ours
    attempt = PaymentAttempt.objects.get()
    page = client.get(ours).text
    assert "Scan the code with Alipay on your phone and confirm the amount." in page
    assert "Or choose another way to pay" in page
    (code,) = alipay.books()["codes"]
    assert f'src="{qr_code(alipay.url + "/qr/" + code["token"])}"' in page
    assert f'<a href="{escape(attempt.pay_url)}">Pay on the page of Alipay instead</a>' in page
    assert "Go back to the payment page" not in page
    assert "In this demonstration" not in page
    # A second click is the same payment.
    assert choose(client, order, "alipay") == ours
    assert PaymentAttempt.objects.count() == 1


def test_alipay_on_a_phone_leads_to_its_own_page(client: Client, order: Order, alipay: RunningAlipay) -> None:
    address = choose(client, order, "alipay", browser=PHONE)
    assert address.startswith(f"{alipay.gateway_url}?")
    assert "alipay.trade.wap.pay" in address
    page = client.get(f"/orders/{order.reference}/pay/").text
    assert f'<a href="{escape(address)}">Go back to the payment page</a>' in page
    assert "Scan this code to pay" not in page


@pytest.mark.clause("3.1")
def test_wechat_pay_on_a_computer_is_a_code_on_our_page(
    client: Client, order: Order, wechat: RunningWechat
) -> None:
    ours = f"/orders/{order.reference}/pay/"
    assert choose(client, order, "wechat") == ours
    (trade,) = wechat.books()["trades"]
    assert trade["trade_type"] == "NATIVE"
    page = client.get(ours).text
    assert f'src="{qr_code("weixin://wxpay/bizpayurl?pr=" + trade["token"])}"' in page
    assert "instead</a>" not in page


def test_the_demo_leads_to_where_the_code_is_scanned(
    client: Client, order: Order, alipay: RunningAlipay, settings: Settings
) -> None:
    settings.DEMO = True
    choose(client, order, "alipay")
    page = client.get(f"/orders/{order.reference}/pay/").text
    assert f'<a href="{alipay.url}/" target="_blank" rel="noopener">In this demonstration' in page


def test_wechat_pay_on_a_phone_leads_to_its_own_page(
    client: Client, order: Order, wechat: RunningWechat
) -> None:
    address = choose(client, order, "wechat", browser=PHONE)
    assert address.startswith(f"{wechat.url}/cgi-bin/mmpayweb-bin/checkmweb?")
    assert [trade["trade_type"] for trade in wechat.books()["trades"]] == ["MWEB"]


def test_bitcoin_by_btcpay_server_is_paid_from_our_page_with_its_own_page_beside_it(
    client: Client, order: Order, btcpay: RunningBtcpay
) -> None:
    ours = f"/orders/{order.reference}/pay/"
    assert choose(client, order, "bitcoin") == ours
    attempt = PaymentAttempt.objects.get()
    page = client.get(ours).text
    assert "Send exactly this amount" in page
    assert attempt.instructions
    assert f'<a href="{escape(attempt.instructions["qr"])}">Open the wallet on this device</a>' in page
    assert f'<a href="{attempt.pay_url}">Pay on the page of BTCPay Server instead</a>' in page
