"""WeChat Pay's side of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pytest_django import Settings

from emulators.keys import new_keys
from inventory.money import Money
from orders.gateways.emulators.running_wechat import RunningWechat, running_wechat
from orders.gateways.emulators.wechat import Outcome
from orders.tests.gateway_contract import Backstage

WECHAT_MERCHANT_ID = "1900000001"
WECHAT_APP_ID = "wx0000000000000001"
WECHAT_CERTIFICATE_SERIAL = "1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C"
WECHAT_API_V3_KEY = "0123456789abcdefghijklmnopqrstuv"
WECHAT_PUBLIC_KEY_ID = "PUB_KEY_ID_0114232134912410000000000000"


@cache
def merchant_keys() -> tuple[str, str]:
    """Private and public. Made once: it takes a while."""
    return new_keys()


@cache
def wechat_keys() -> tuple[str, str]:
    return new_keys()


class WechatBackstage(Backstage):
    """The code that is scanned is that of the payment that was opened last: there is no address to follow."""

    amount = Money(4990, "CNY")
    unknown_id = "T-NOBODY"

    def __init__(self, wechat: RunningWechat, settings: Settings) -> None:
        self._wechat = wechat
        self._settings = settings

    def pay(self, pay_url: str) -> None:
        self._wechat.decide(self._last())

    def decline(self, pay_url: str) -> None:
        self._wechat.decide(self._last(), Outcome.DECLINE)

    def payments(self) -> int:
        return len(self._wechat.books()["trades"])

    def fail_next(self, times: int) -> None:
        self._wechat.set_faults(errors=times)

    def lose_next_answer(self) -> None:
        self._wechat.set_faults(lost_answers=1)

    def refuse_us(self) -> None:
        self._settings.WECHAT_MERCHANT_ID = "1900000002"

    def _last(self) -> str:
        return str(self._wechat.books()["trades"][-1]["out_trade_no"])


def wechat_settings(settings: Settings, url: str) -> None:
    settings.ALLOW_EMULATORS = True
    settings.WECHAT_URL = url
    settings.WECHAT_MERCHANT_ID = WECHAT_MERCHANT_ID
    settings.WECHAT_APP_ID = WECHAT_APP_ID
    settings.WECHAT_PRIVATE_KEY = merchant_keys()[0]
    settings.WECHAT_CERTIFICATE_SERIAL = WECHAT_CERTIFICATE_SERIAL
    settings.WECHAT_API_V3_KEY = WECHAT_API_V3_KEY
    settings.WECHAT_PUBLIC_KEY = wechat_keys()[1]
    settings.WECHAT_PUBLIC_KEY_ID = WECHAT_PUBLIC_KEY_ID


@contextmanager
def configured_wechat(settings: Settings, *, books: str = ":memory:") -> Iterator[RunningWechat]:
    """WeChat Pay, running, and settings that lead to it. Notices go to what SITE_URL is when something is asked for."""
    with running_wechat(
        merchant_id=WECHAT_MERCHANT_ID,
        app_id=WECHAT_APP_ID,
        certificate_serial=WECHAT_CERTIFICATE_SERIAL,
        merchant_public_key=merchant_keys()[1],
        api_v3_key=WECHAT_API_V3_KEY,
        private_key=wechat_keys()[0],
        public_key_id=WECHAT_PUBLIC_KEY_ID,
        books=books,
    ) as wechat:
        wechat_settings(settings, wechat.url)
        yield wechat


@contextmanager
def wechat_backstage(settings: Settings) -> Iterator[Backstage]:
    with configured_wechat(settings) as wechat:
        yield WechatBackstage(wechat, settings)
