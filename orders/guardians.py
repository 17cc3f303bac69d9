"""A buyer under 18: his guardian is asked by mail, and until he has confirmed nothing can be paid.

The link in the mail leads to one request, proves that its reader had the mail (`notices.links`), and can be
answered once. It shows the agreements that the buyer accepted, word for word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.urls import reverse
from django.utils.translation import gettext as _

from agreements.acceptance import Consent, Witness, record_acceptances, required_of_guardian
from notices import kinds
from notices.outbox import Draft, tell
from orders.models import GuardianAnswer, GuardianRequest, Order, OrderState
from orders.telling import about_order

# So often one order's guardian may be asked: more would be pestering a stranger.
MOST_REQUESTS = 5


class CannotAsk(Exception):
    """The guardian cannot be asked (again); the message tells the buyer why."""


class CannotAnswer(Exception):
    """The request cannot be answered (any more); the message tells the guardian why."""


@dataclass(frozen=True, slots=True)
class Guardian:
    """Who is to confirm, as the buyer names him."""

    name: str
    email: str


def buyer_of(order: Order) -> str:
    """The buyer as somebody who knows him may recognise him: by the name he gave, if any, and his address."""
    buyer = order.customer
    return f"{buyer.name} ({buyer.email})" if buyer.name else buyer.email


def request_confirmation(
    order: Order, guardian: Guardian, *, language: str, now: datetime
) -> GuardianRequest:
    """Write the request and its mail, in the transaction of the caller, who holds the order and its lines.

    Raises CannotAsk when the guardian is the buyer himself.
    """
    if guardian.email.strip().lower() == order.customer.email:
        raise CannotAsk(
            _("Please enter your guardian's own email address: yours cannot confirm your own order.")
        )
    request = GuardianRequest.objects.create(
        order=order,
        name=guardian.name.strip(),
        email=guardian.email.strip(),
        language=language,
        asked_at=now,
    )
    letter = Draft(
        recipient_id=order.customer_id,
        kind=kinds.GUARDIAN_ASKED,
        about=order.reference,
        url=reverse("orders:guardian", args=[request.pk]),
        facts={
            "reference": order.reference,
            "guardian": request.name,
            "buyer": buyer_of(order),
            "units": order.lines.aggregate(units=Sum("quantity"))["units"],
            "total": {"minor": order.total_minor, "currency": order.currency},
            "until": order.pay_until.isoformat(),
        },
        dedupe_key=f"{kinds.GUARDIAN_ASKED.slug}:{request.pk}",
        to_channel="email",
        to_address=request.email,
    )
    tell([letter], now=now)
    return request


def ask_again(*, order_id: int, guardian: Guardian, language: str, now: datetime) -> GuardianRequest:
    """Ask the same guardian once more, or another one: the links sent before stop working. Raises CannotAsk."""
    with transaction.atomic(durable=True):
        order = (
            Order.objects.select_for_update(no_key=True, of=("self",))
            .select_related("customer")
            .get(pk=order_id)
        )
        if not order.awaits_guardian(now):
            raise CannotAsk(_("This order does not wait for a guardian."))
        if order.guardian_requests.count() >= MOST_REQUESTS:
            raise CannotAsk(
                _("The guardian of this order has been asked %(count)d times. Please write to us.")
                % {"count": MOST_REQUESTS}
            )
        return request_confirmation(order, guardian, language=language, now=now)


def confirm(*, request_id: int, consents: Sequence[Consent], witness: Witness, now: datetime) -> Order:
    """Record the guardian's acceptances and open the order for payment.

    Confirming again answers the order as it is. Raises CannotAnswer, or from `agreements.acceptance`
    GuardianMissing or TextSuperseded; then nothing is stored.
    """
    with transaction.atomic(durable=True):
        order, request = _locked(request_id)
        if request.answer == GuardianAnswer.CONFIRMED:
            return order
        check_answerable(request, now=now)
        GuardianRequest.objects.filter(pk=request.pk).update(answer=GuardianAnswer.CONFIRMED, answered_at=now)
        Order.objects.filter(pk=order.pk).update(
            state=OrderState.UNPAID, pay_until=now + settings.PAYMENT_WINDOW_AFTER_GUARDIAN
        )
        order.refresh_from_db()
        facts = {"guardian": request.name, "pay_until": order.pay_until.isoformat()}
        tell([about_order(order, kinds.GUARDIAN_CONFIRMED, facts)], now=now)
        record_acceptances(
            customer_id=order.customer_id,
            order_reference=order.reference,
            required=required_of_guardian(order_reference=order.reference, language=request.language),
            consents=consents,
            witness=witness,
            now=now,
        )
    return order


def refuse(*, request_id: int, now: datetime) -> Order:
    """The guardian says no: the order ends, its units go back, and the buyer is told. Raises CannotAnswer."""
    with transaction.atomic(durable=True):
        order, request = _locked(request_id)
        if request.answer == GuardianAnswer.REFUSED:
            return order
        check_answerable(request, now=now)
        GuardianRequest.objects.filter(pk=request.pk).update(answer=GuardianAnswer.REFUSED, answered_at=now)
        Order.objects.filter(pk=order.pk).update(state=OrderState.CANCELLED)
        order.refresh_from_db()
        tell([about_order(order, kinds.GUARDIAN_REFUSED, {"guardian": request.name})], now=now)
    return order


def check_answerable(request: GuardianRequest, *, now: datetime) -> None:
    """Raise CannotAnswer unless `request` (its order loaded) waits for the guardian and is the newest."""
    order = request.order
    if order.state != OrderState.AWAITING_GUARDIAN:
        raise CannotAnswer(_("This order does not wait for your confirmation any more."))
    if not order.awaits_guardian(now):
        raise CannotAnswer(_("The time to confirm this order is over. It expires, and nothing is charged."))
    if order.guardian_requests.filter(pk__gt=request.pk).exists():
        raise CannotAnswer(_("A newer mail was sent for this order. Please use the link in that one."))


def _locked(request_id: int) -> tuple[Order, GuardianRequest]:
    """The request and its order, under the order's lock."""
    order_id = GuardianRequest.objects.values_list("order_id", flat=True).get(pk=request_id)
    order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
    return order, order.guardian_requests.get(pk=request_id)
