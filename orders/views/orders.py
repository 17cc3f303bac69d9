"""A customer's orders, and how far each is."""

import hashlib
from dataclasses import dataclass

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef, Prefetch, Q, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import get_language
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from django_htmx.http import HttpResponseClientRefresh

from accounts.views import CustomerRequest
from agreements.continued_use import counts_as_use
from agreements.models import Acceptance
from agreements.revisions import revisions_since
from inventory.money import Money
from orders.checkout import CannotCancel, cancel_order
from orders.forms import GuardianContactForm
from orders.ledger import missing_of
from orders.models import (
    AttemptState,
    Document,
    Estimate,
    GuardianRequest,
    LineState,
    MoneyReturn,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    Refund,
    RefundState,
    ReturnState,
)
from orders.moves import Look, Looks, Moves, moves_since, newest_event_id
from orders.progress import LineProgress, Progress, progress_of

PAGE_SIZE = 10


@dataclass(frozen=True, slots=True)
class Standing:
    """A line with the units that were ahead of it when it was paid, and what has moved since the last visit."""

    progress: LineProgress
    units_ahead_at_payment: int | None
    moves: Moves | None

    @property
    def served_since(self) -> int | None:
        """Units that were ahead and are not any more; None while there is nothing to compare."""
        now, then = self.progress.units_ahead, self.units_ahead_at_payment
        return None if now is None or then is None else max(0, then - now)


@dataclass(frozen=True, slots=True)
class Situation:
    """An order at one moment, as its page shows it. `due` is what an unpaid one lacks."""

    order: Order
    progress: Progress
    due: Money
    standings: tuple[Standing, ...]
    attempts: tuple[PaymentAttempt, ...]
    money_returns: tuple[MoneyReturn, ...]
    refunds: tuple[Refund, ...]
    documents: tuple[Document, ...]

    @property
    def is_on_hold(self) -> bool:
        return any(standing.progress.line.state == LineState.HELD for standing in self.standings)

    @property
    def has_money(self) -> bool:
        """Whether something was paid, be it too little or too late."""
        return any(attempt.state == AttemptState.CAPTURED for attempt in self.attempts)

    @property
    def is_confirming(self) -> bool:
        return any(attempt.state == AttemptState.CONFIRMING for attempt in self.attempts)

    @property
    def is_moving(self) -> bool:
        """Whether anything on the page may still change without the customer."""
        waits = any(standing.progress.line.state == LineState.WAITING for standing in self.standings)
        is_open = self.order.state in OrderState.open()
        is_paying = any(attempt.state in AttemptState.open() for attempt in self.attempts)
        is_owed = any(back.state != RefundState.PAID for back in self.refunds) or any(
            back.state != ReturnState.PAID for back in self.money_returns
        )
        return waits or is_open or is_paying or is_owed


@dataclass(frozen=True, slots=True)
class Live:
    """The moving part as HTML; its digest changes when it does."""

    html: str
    digest: str


@login_required
@never_cache
@require_GET
@counts_as_use
def orders(request: CustomerRequest) -> HttpResponse:
    mine = Order.objects.filter(customer=request.user).order_by("-placed_at", "-pk")
    asked = GuardianRequest.objects.filter(order=OuterRef("pk")).order_by("-pk")
    seen = PaymentAttempt.objects.filter(order=OuterRef("pk"), state=AttemptState.CONFIRMING)
    mine = mine.annotate(
        guardian_email=Subquery(asked.values("email")[:1]),
        is_confirming=Q(state=OrderState.UNPAID) & Exists(seen),
    )
    lines = Prefetch("lines", OrderLine.objects.select_related("plan", "term"))
    page = Paginator(mine.prefetch_related(lines), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "orders/orders.html", {"page": page, "now": timezone.now()})


@login_required
@never_cache
@require_GET
@counts_as_use
def order(request: CustomerRequest, reference: str) -> HttpResponse:
    found = own_order(request, reference)
    looks, newest = Looks(request.session), newest_event_id()
    progress = progress_of(found, now=timezone.now())
    for each in progress.lines:
        if each.units_ahead is not None:
            looks.remember(each.line, Look(timezone.now(), newest, each.units_ahead))
    situation = _situation(progress, looks)
    acceptances = list(
        Acceptance.objects.filter(customer=request.user, order_reference=found.reference)
        .select_related("text__version")
        .order_by("chain_number")
    )
    return render(
        request,
        "orders/order.html",
        {
            "order": found,
            "situation": situation,
            "live": _live(situation),
            "acceptances": acceptances,
            "revisions": revisions_since(
                acceptances,
                customer_id=request.user.pk,
                language=get_language() or request.user.language,
                now=timezone.now(),
            ),
            "guardian_form": _guardian_form(situation),
            "cases": found.cases.order_by("-pk"),
            "can_withdraw": found.can_be_withdrawn_from(timezone.now()),
            "can_be_refunded": any(
                found.state == OrderState.PAID and standing.progress.line.state != LineState.WITHDRAWN
                for standing in situation.standings
            ),
        },
    )


@never_cache
@require_GET
def order_live(request: HttpRequest, reference: str) -> HttpResponse:
    """The part of the order page that moves. 204, which changes nothing on the page, while it is as `seen`."""
    if not request.user.is_authenticated:
        return HttpResponseClientRefresh()
    found = get_object_or_404(Order, reference=reference, customer_id=request.user.pk)
    if found.state != request.GET.get("state", found.state):
        # What the rest of the page offers hangs on the state.
        return HttpResponseClientRefresh()
    live = _live(_situation(progress_of(found, now=timezone.now()), Looks(request.session)))
    if live.digest == request.GET.get("seen"):
        return HttpResponse(status=204)
    return HttpResponse(live.html)


@login_required
@require_POST
def cancel(request: CustomerRequest, reference: str) -> HttpResponse:
    found = own_order(request, reference)
    try:
        cancel_order(order_id=found.pk, now=timezone.now())
    except CannotCancel as no:
        messages.error(request, str(no))
    return redirect(found)


def own_order(request: CustomerRequest, reference: str) -> Order:
    """The order, if it is the customer's; 404 does not tell whether others have it."""
    return get_object_or_404(Order, reference=reference, customer=request.user)


def _guardian_form(situation: Situation) -> GuardianContactForm | None:
    """Asking again, while the order waits for its buyer's guardian."""
    asked = situation.progress.guardian
    if asked is None or not situation.progress.awaits_guardian:
        return None
    return GuardianContactForm(initial={"name": asked.name, "email": asked.email})


def _situation(progress: Progress, looks: Looks) -> Situation:
    order = progress.order
    first = Estimate.objects.filter(line__order=order, number=1).values_list("line_id", "units_ahead")
    at_payment = dict(first)
    attempts = tuple(order.attempts.order_by("pk"))
    is_short = order.state == OrderState.UNPAID and any(
        attempt.state == AttemptState.CAPTURED for attempt in attempts
    )
    return Situation(
        order=order,
        progress=progress,
        due=missing_of(order) if is_short else order.total,
        standings=tuple(
            Standing(each, at_payment.get(each.line.pk), _moves(each, looks)) for each in progress.lines
        ),
        attempts=attempts,
        money_returns=tuple(order.money_returns.order_by("pk")),
        refunds=tuple(
            order.refunds.filter(state__in=RefundState.granted()).select_related("order").order_by("pk")
        ),
        documents=tuple(order.documents.defer("contents").order_by("pk")),
    )


def _moves(progress: LineProgress, looks: Looks) -> Moves | None:
    before = looks.before(progress.line)
    if before is None or progress.units_ahead is None:
        return None
    return moves_since(progress.line, ahead=progress.units_ahead, before=before, now=timezone.now())


def _live(situation: Situation) -> Live:
    html = render_to_string("orders/order_moving.html", {"situation": situation, "order": situation.order})
    digest = hashlib.sha256(html.encode()).hexdigest()[:16]
    frame = {"html": html, "digest": digest, "order": situation.order, "is_moving": situation.is_moving}
    return Live(render_to_string("orders/order_live.html", frame), digest)
