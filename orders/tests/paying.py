"""The shop from outside, for tests of whole payments: its door for webhooks, its buyer, and how an order stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import httpx
from django.test import Client

from emulators.running import NO_TLS, Running
from notices.models import Notice
from orders.models import Order, PaymentAttempt, ReviewItem
from orders.payments import Payer, begin_payment, process_webhooks
from orders.tests.gateway_servers import Listener, Request
from orders.tests.shopping import log_in

# What belongs to a connection and not to the request on it.
OF_THE_CONNECTION = {"host", "connection", "content-length", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Door:
    """The shop's own server, to which a provider's webhooks are handed as they came."""

    url: str

    def deliver(self, *requests: Request) -> list[int]:
        """Send them one after the other; return the statuses of the answers."""
        return [self.send(request.path, request.headers, request.body).status_code for request in requests]

    def send(self, path: str, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        kept = {name: value for name, value in headers.items() if name not in OF_THE_CONNECTION}
        with httpx.Client(verify=NO_TLS, trust_env=False, timeout=60) as client:
            return client.post(self.url + path, headers=kept, content=body)

    def browser_of(self, order: Order) -> httpx.Client:
        """A browser in which the buyer of `order` is logged in; it does not follow redirects."""
        visitor = Client()
        log_in(visitor, order.customer)
        token = "a" * 32
        return httpx.Client(
            base_url=self.url,
            cookies={"sessionid": visitor.cookies["sessionid"].value, "csrftoken": token},
            headers={"X-CSRFToken": token},
            trust_env=False,
            timeout=60,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """All that has become of an order: each row of the ledger, each return, each notice, in their order.

    `reviews` are all that are open in the shop, whichever order they are about.
    """

    state: str
    lines: tuple[str, ...]
    ledger: tuple[tuple[str, int, str], ...] = ()
    returns: tuple[tuple[str, int, str], ...] = ()
    refunds: tuple[tuple[int, str], ...] = ()
    reviews: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


# An order of one line over 49.90 USD.
UNPAID = Standing("unpaid", ("unpaid",))
PAID = Standing(
    "paid", ("waiting",), ledger=(("capture", 4_990, "USD"),), told=("payment-received", "estimate-made")
)


def standing_of(order: Order) -> Standing:
    return Standing(
        state=Order.objects.values_list("state", flat=True).get(pk=order.pk),
        lines=tuple(order.lines.order_by("pk").values_list("state", flat=True)),
        ledger=tuple(order.ledger.order_by("pk").values_list("kind", "minor", "currency")),
        returns=tuple(order.money_returns.order_by("pk").values_list("reason", "minor", "state")),
        refunds=tuple(order.refunds.order_by("pk").values_list("minor", "state")),
        reviews=tuple(ReviewItem.objects.order_by("pk").values_list("kind", flat=True)),
        told=tuple(
            Notice.objects.filter(about=order.reference).order_by("pk").values_list("kind", flat=True)
        ),
    )


def begin(order: Order, *, now: datetime, method: str = "sandbox") -> PaymentAttempt:
    payer = Payer(return_url="http://127.0.0.1/back", language="en")
    return begin_payment(order_id=order.pk, method=method, payer=payer, now=now)


def told_by(provider: Running, shop: Listener) -> Sequence[Request]:
    """The webhooks that the provider has sent and that nobody has handed on yet."""
    provider.wait_for_webhooks()
    return shop.rest()


def hand_on(provider: Running, shop: Listener, door: Door, *, now: datetime) -> None:
    """Deliver what the provider has sent, and work the inbox off."""
    for status in door.deliver(*told_by(provider, shop)):
        assert status == 200
    process_webhooks(now=now)
