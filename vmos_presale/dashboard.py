"""The admin's first page: what waits for a person, what customers wait for, and whether the machine keeps up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from evidence.contract_time import contract_date
from inventory.models import BatchState, DeviceState, Plan, Quarantine, SupplyBatch
from notices.models import Delivery, DeliveryState, Notice
from orders import methods
from orders.models import (
    Case,
    CaseState,
    LineState,
    Payout,
    Refund,
    RefundState,
    ReviewItem,
    Shortfall,
    ShortfallState,
)
from orders.queue import free_devices_by_plan, units_waiting_by_plan


@dataclass(frozen=True, slots=True)
class Tile:
    """A number and where it leads. `is_urgent`: somebody has to do something about it."""

    title: str
    number: int
    link: str
    is_urgent: bool = False


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One plan on sale: units that wait and devices that are free, each with its list."""

    plan: Plan
    waiting: int
    waiting_link: str
    free: int
    free_link: str


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the tiles and the plans to the context of the first page, as far as the person may see them."""
    may_see_plans = request.user.has_perms(["orders.view_orderline", "inventory.view_device"])
    return {**context, "tiles": list(_tiles(request)), "plans": list(_plans()) if may_see_plans else []}


def _tiles(request: HttpRequest) -> Iterator[Tile]:
    may = request.user.has_perm
    if may("orders.view_reviewitem"):
        opened = ReviewItem.objects.filter(resolved_at=None)
        link = _list("orders_reviewitem", {"resolved_at__isempty": "1"})
        yield _of(_("Open review items"), opened, link, is_work=True)
    if may("orders.view_refund"):
        requested = Refund.objects.filter(state=RefundState.REQUESTED)
        link = _list("orders_refund", {"state__exact": RefundState.REQUESTED})
        yield _of(_("Refunds awaiting approval"), requested, link, is_work=True)
    if may("orders.view_shortfall"):
        declared = Shortfall.objects.filter(state=ShortfallState.DECLARED)
        link = _list("orders_shortfall", {"state__exact": ShortfallState.DECLARED})
        yield _of(_("Shortfalls awaiting approval"), declared, link, is_work=True)
    if may("orders.view_payout"):
        recorded = Payout.objects.filter(is_confirmed=None)
        link = _list("orders_payout", {"is_confirmed__isempty": "1"})
        yield _of(_("Payouts to confirm"), recorded, link, is_work=True)
    if may("orders.view_paymentattempt"):
        ways = methods.overview()
        link = reverse("admin:orders_paymentattempt_methods")
        yield Tile(_("Payment methods on offer"), ways.on_offer, link, is_urgent=ways.is_urgent)
    if may("orders.view_case"):
        unanswered = Case.objects.filter(state=CaseState.OPEN)
        link = _list("orders_case", {"state__exact": CaseState.OPEN})
        yield _of(_("Cases waiting for an answer"), unanswered, link, is_work=True)
        late = Case.objects.overdue(timezone.now())
        yield _of(_("Overdue cases"), late, _list("orders_case", {"due": "overdue"}), is_work=True)
    if may("inventory.view_supplybatch"):
        today = contract_date(timezone.now())
        overdue = SupplyBatch.objects.filter(state=BatchState.EXPECTED, expected_on__lt=today)
        yield _of(
            _("Overdue batches"), overdue, _list("inventory_supplybatch", {"due": "overdue"}), is_work=True
        )
    if may("inventory.view_quarantine"):
        kept = Quarantine.objects.filter(ended_at=None)
        link = _list("inventory_quarantine", {"ended_at__isempty": "1"})
        yield _of(_("Devices in quarantine"), kept, link, is_work=True)
    if may("notices.view_delivery"):
        unexpanded = Notice.objects.filter(is_expanded=False)
        yield _of(
            _("Notices not yet handed out"), unexpanded, _list("notices_notice", {"is_expanded__exact": "0"})
        )
        queued = Delivery.objects.filter(state=DeliveryState.QUEUED)
        link = _list("notices_delivery", {"state__exact": DeliveryState.QUEUED})
        yield _of(_("Deliveries in the outbox"), queued, link)
        dead = Delivery.objects.filter(state__in=(DeliveryState.UNCERTAIN, DeliveryState.DEAD))
        link = _list("notices_delivery", {"state__in": f"{DeliveryState.UNCERTAIN},{DeliveryState.DEAD}"})
        yield _of(_("Deliveries refused or uncertain"), dead, link)


def _of(title: str, rows: "QuerySet[Any]", link: str, *, is_work: bool = False) -> Tile:
    number = rows.order_by().count()
    return Tile(title, number, link, is_urgent=is_work and number > 0)


def _plans() -> Iterator[PlanRow]:
    plans = list(Plan.objects.order_by("rank", "id"))
    ids = [plan.pk for plan in plans]
    waiting, free = units_waiting_by_plan(ids), free_devices_by_plan(ids)
    for plan in plans:
        yield PlanRow(
            plan,
            waiting.get(plan.pk, 0),
            _list("orders_orderline", {"plan__id__exact": str(plan.pk), "state": LineState.WAITING}),
            free.get(plan.pk, 0),
            _list("inventory_device", {"plan__id__exact": str(plan.pk), "state__exact": DeviceState.FREE}),
        )


def _list(name: str, query: Mapping[str, str]) -> str:
    return f"{reverse(f'admin:{name}_changelist')}?{urlencode(query)}"
