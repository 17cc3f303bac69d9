"""The plans and their fees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from evidence.contract_time import contract_date
from inventory.models import FeeSchedule, Plan, SupplyBatch, Term
from inventory.money import Money
from orders.basket import Basket
from orders.context import CURRENCY_KEY, currency_of
from orders.figures import figures_by_plan
from orders.forms import AddForm
from orders.lateness import lateness_curve
from orders.offers import Offer, offer_of, offers
from orders.outlooks import outlooks
from orders.windows import LATEST, LIKELY, Outlook


@dataclass(frozen=True, slots=True)
class Figures:
    """The shop at a glance: devices that can be had at once, paid phones that wait, and what comes next."""

    free: int
    waiting: int
    next_batch: SupplyBatch | None


@dataclass(frozen=True, slots=True)
class FeeRow:
    """The fees of one plan, one for each column of the table; None where the plan has no such term."""

    plan: Plan
    fees: tuple[Money | None, ...]


@dataclass(frozen=True, slots=True)
class FeeTable:
    """A fee schedule as it is published (agreement 3.2): a column for each number of days."""

    days: tuple[int, ...]
    rows: tuple[FeeRow, ...]
    effective_on: date | None = None
    announced_on: date | None = None


@dataclass(frozen=True, slots=True)
class PastDeliveries:
    """How many days late past batches came, and what three months of allocations were like.

    Of `batches`, `overdue` have not come yet; the days allow for them.
    """

    batches: int
    overdue: int
    middle: int
    nine_in_ten: int
    of_this_plan: bool
    monthly: tuple[int, ...]


@require_GET
def shop(request: HttpRequest) -> HttpResponse:
    now, currency = timezone.now(), currency_of(request)
    on_offer = offers(currency=currency, now=now)
    return render(
        request,
        "orders/shop.html",
        {
            "offers": on_offer,
            "figures": _figures(on_offer),
            "fees": _fees_in_force(on_offer),
            "coming": [_fees_coming(schedule, on_offer) for schedule in _announced(currency, now)],
            "presale_days": settings.PRESALE_MINIMUM_DAYS,
        },
    )


@require_GET
def plan(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Plan, slug=slug, on_sale=True)
    offer = offer_of(found, currency=currency_of(request), now=timezone.now())
    return render_plan(request, offer, AddForm(offer=offer))


def render_plan(request: HttpRequest, offer: Offer, form: AddForm) -> HttpResponse:
    """The page of a plan with a form to add it to the basket, filled in or not."""
    now = timezone.now()
    basket = Basket(request.session, now=now)
    here = {each.term.pk for each in offer.terms}
    return render(
        request,
        "orders/plan.html",
        {
            "offer": offer,
            "form": form,
            "in_basket": sum(wish.quantity for wish in basket.wishes if wish.term_id in here),
            "record": _past_deliveries(outlooks([offer.plan.pk], now=now)[offer.plan.pk]),
            "figures": figures_by_plan([offer.plan.pk]).get(offer.plan.pk),
            "presale_days": settings.PRESALE_MINIMUM_DAYS,
            "hold_back": settings.ALLOCATION_HOLD_BACK,
            "update_days": settings.ESTIMATE_UPDATE_EVERY.days,
        },
    )


@require_GET
def fees(request: HttpRequest) -> HttpResponse:
    """Every fee schedule of a currency that was ever published: announced, in force and past (3.2)."""
    now, currency = timezone.now(), currency_of(request)
    published = FeeSchedule.objects.filter(currency=currency, announced_at__lte=now)
    terms = list(Term.objects.select_related("plan").order_by("plan__rank", "plan_id", "days"))
    tables: list[FeeTable] = []
    in_force: dict[int, Money] = {}
    current = 0
    for schedule in published.order_by("effective_at", "pk").prefetch_related("fees"):
        in_force |= {fee.term_id: Money(fee.minor, currency) for fee in schedule.fees.all()}
        current += schedule.effective_at <= now
        tables.append(_published(schedule, terms, in_force))
    return render(
        request,
        "orders/fees.html",
        {
            "announced": tables[current:],
            "current": tables[current - 1] if current else None,
            "past": tables[: current - 1][::-1] if current else [],
            "notice_days": settings.FEE_NOTICE.days,
        },
    )


def _published(schedule: FeeSchedule, terms: Sequence[Term], fees: Mapping[int, Money]) -> FeeTable:
    """All fees that apply from a schedule on: its own, and those that it left as they were."""
    days = tuple(sorted({term.days for term in terms if term.pk in fees}))
    by_plan: dict[Plan, dict[int, Money]] = {}
    for term in terms:
        if term.pk in fees:
            by_plan.setdefault(term.plan, {})[term.days] = fees[term.pk]
    return FeeTable(
        days=days,
        rows=tuple(FeeRow(plan, tuple(own.get(each) for each in days)) for plan, own in by_plan.items()),
        effective_on=contract_date(schedule.effective_at),
        announced_on=contract_date(schedule.announced_at),
    )


@require_POST
def currency(request: HttpRequest) -> HttpResponse:
    chosen = request.POST.get("currency", "")
    if chosen in settings.SHOP_CURRENCIES:
        request.session[CURRENCY_KEY] = chosen
    else:
        messages.error(request, _("We do not sell in this currency."))
    back = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure())
    return redirect(back if is_ours else "orders:shop")


def _figures(on_offer: Sequence[Offer]) -> Figures:
    batches = [batch for offer in on_offer for batch in offer.next_batches]
    return Figures(
        free=sum(offer.devices_free for offer in on_offer),
        waiting=sum(offer.units_waiting for offer in on_offer),
        next_batch=min(batches, key=lambda batch: (batch.expected_on, batch.pk), default=None),
    )


def _past_deliveries(outlook: Outlook) -> PastDeliveries | None:
    """None where there are no past batches to judge by."""
    if outlook.lateness_of == "assumption":
        return None
    curve = lateness_curve(outlook.lateness, outlook.overdue)
    return PastDeliveries(
        batches=len(outlook.lateness) + len(outlook.overdue),
        overdue=len(outlook.overdue),
        middle=curve.day_of(LIKELY),
        nine_in_ten=curve.day_of(LATEST),
        of_this_plan=outlook.lateness_of == "plan",
        monthly=outlook.monthly,
    )


def _fees_in_force(on_offer: Sequence[Offer]) -> FeeTable:
    fees = {(offer.plan.pk, each.term.days): each.fee for offer in on_offer for each in offer.terms}
    return _fee_table(on_offer, fees)


def _announced(currency: str, now: datetime) -> list[FeeSchedule]:
    """Schedules that are published and not yet in force, the next one first."""
    announced = FeeSchedule.objects.filter(currency=currency, announced_at__lte=now, effective_at__gt=now)
    return list(announced.order_by("effective_at").prefetch_related("fees"))


def _fees_coming(schedule: FeeSchedule, on_offer: Sequence[Offer]) -> FeeTable:
    amounts = {fee.term_id: Money(fee.minor, schedule.currency) for fee in schedule.fees.all()}
    fees = {
        (offer.plan.pk, each.term.days): amounts.get(each.term.pk, each.fee)
        for offer in on_offer
        for each in offer.terms
    }
    return _fee_table(on_offer, fees, effective_on=contract_date(schedule.effective_at))


def _fee_table(
    on_offer: Sequence[Offer], fees: dict[tuple[int, int], Money | None], effective_on: date | None = None
) -> FeeTable:
    days = tuple(sorted({days for _plan_id, days in fees}))
    rows = tuple(
        FeeRow(offer.plan, tuple(fees.get((offer.plan.pk, each)) for each in days)) for offer in on_offer
    )
    return FeeTable(days, rows, effective_on)
