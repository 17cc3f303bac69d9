"""What an order page shows: how far each line is, and what has happened so far."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from inventory.models import BatchState, SupplyBatch
from orders.models import (
    Allocation,
    AttemptState,
    EntryKind,
    Estimate,
    GuardianAnswer,
    GuardianRequest,
    LineState,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    QueueEvent,
    QueueEventKind,
    RefundState,
)
from orders.queue import Standing, standings
from orders.receipts import ledger_entries


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the fairness ledger, in words."""

    event: QueueEvent
    title: str


@dataclass(frozen=True, slots=True)
class LineProgress:
    """One line. `units_ahead` is None unless the line waits; `estimate` is the one in force.

    `entries` are the line's in the fairness ledger, the oldest first.
    """

    line: OrderLine
    units_ahead: int | None
    estimate: Estimate | None
    previous: Estimate | None
    phones: tuple[Allocation, ...]
    batches: tuple[SupplyBatch, ...]
    entries: tuple[Entry, ...]

    @property
    def is_sealed(self) -> bool:
        """Whether the ledger holds all that has happened to the line."""
        return all(entry.event.sha256 for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Happening:
    """An entry of the timeline; `detail` may be empty."""

    at: datetime
    title: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """An order at one moment. The timeline is newest first; `guardian` is who was asked last, if anybody."""

    order: Order
    lines: tuple[LineProgress, ...]
    timeline: tuple[Happening, ...]
    payable: bool
    guardian: GuardianRequest | None
    awaits_guardian: bool


def progress_of(order: Order, *, now: datetime) -> Progress:
    """Gather what the page of `order` shows, in a fixed number of queries."""
    lines = list(order.lines.select_related("plan", "term", "order"))
    places = standings(line.pk for line in lines if line.state == LineState.WAITING)
    estimates: defaultdict[int, list[Estimate]] = defaultdict(list)
    for estimate in (
        Estimate.objects.filter(line__order=order).select_related("forecast").order_by("line_id", "number")
    ):
        # What was recorded since we looked at the place belongs to another place.
        place = places.get(estimate.line_id)
        if place is None or place.estimate is None or estimate.number <= place.estimate.number:
            estimates[estimate.line_id].append(estimate)
    given: defaultdict[int, list[Allocation]] = defaultdict(list)
    allocations = Allocation.objects.filter(line__order=order).select_related("device")
    for allocation in allocations.order_by("unit"):
        given[allocation.line_id].append(allocation)
    batches: defaultdict[int, list[SupplyBatch]] = defaultdict(list)
    waiting_plans = [line.plan_id for line in lines if line.state == LineState.WAITING]
    for batch in SupplyBatch.objects.filter(plan_id__in=waiting_plans, state=BatchState.EXPECTED):
        batches[batch.plan_id].append(batch)
    attempts = list(order.attempts.order_by("pk"))
    requests = list(order.guardian_requests.order_by("pk"))
    happenings = _order_happenings(order, requests) + _payment_happenings(order, attempts)
    entries = {
        line_id: [Entry(event, _title(event)) for event in events]
        for line_id, events in ledger_entries([line.pk for line in lines]).items()
    }
    for line in lines:
        happenings += _queue_happenings(entries[line.pk], line) + _estimate_happenings(
            estimates[line.pk], line
        )
        happenings += _ended_happenings(given[line.pk], line)
    return Progress(
        order=order,
        lines=tuple(
            LineProgress(
                line=line,
                units_ahead=_units_ahead(line, places.get(line.pk)),
                estimate=estimates[line.pk][-1] if estimates[line.pk] else None,
                previous=estimates[line.pk][-2] if len(estimates[line.pk]) > 1 else None,
                phones=tuple(phone for phone in given[line.pk] if phone.ended_at is None),
                batches=tuple(batches[line.plan_id]),
                entries=tuple(entries[line.pk]),
            )
            for line in lines
        ),
        # Of two at one moment, the one gathered later happened because of the other.
        timeline=tuple(sorted(happenings, key=lambda happening: happening.at))[::-1],
        payable=order.is_payable(now),
        guardian=requests[-1] if requests else None,
        awaits_guardian=order.awaits_guardian(now),
    )


def _units_ahead(line: OrderLine, place: Standing | None) -> int | None:
    """None of a line that does not wait; 0 of one that was served since we read it."""
    if line.state != LineState.WAITING:
        return None
    return place.ahead if place else 0


def _order_happenings(order: Order, requests: list[GuardianRequest]) -> list[Happening]:
    happenings = [
        Happening(
            order.placed_at, _("Order placed"), _("The agreements were accepted and the fee was fixed.")
        )
    ]
    answers = {
        GuardianAnswer.CONFIRMED: _("Guardian has confirmed"),
        GuardianAnswer.REFUSED: _("Guardian has refused"),
    }
    for asked in requests:
        happenings.append(Happening(asked.asked_at, _("Guardian asked to confirm"), asked.email))
        if asked.answer and asked.answered_at:
            happenings.append(Happening(asked.answered_at, answers[GuardianAnswer(asked.answer)], asked.name))
    if order.state == OrderState.EXPIRED:
        happenings.append(Happening(order.pay_until, _("Order expired unpaid")))
    return happenings


def _payment_happenings(order: Order, attempts: list[PaymentAttempt]) -> list[Happening]:
    happenings = [
        Happening(attempt.created_at, _("Payment declined"), attempt.problem)
        for attempt in attempts
        if attempt.state == AttemptState.DECLINED
    ]
    titles = {
        EntryKind.CAPTURE: _("Payment received"),
        EntryKind.REFUND: _("Money paid back"),
        EntryKind.CHARGEBACK: _("Payment taken back by the bank"),
        EntryKind.REVERSAL: _("Payment returned by the bank"),
        EntryKind.BOUNCE: _("Refund came back"),
    }
    happenings += [
        Happening(entry.occurred_at, titles[EntryKind(entry.kind)], entry.money.localised())
        for entry in order.ledger.all()
    ]
    happenings += [
        Happening(refund.decided_at, _("Refund approved"), refund.amount.localised())
        for refund in order.refunds.select_related("order")
        if refund.decided_at and refund.state != RefundState.REJECTED
    ]
    return happenings


def _estimate_happenings(estimates: list[Estimate], line: OrderLine) -> list[Happening]:
    return [
        Happening(
            estimate.made_at,
            _("Estimate: %(plan)s") % {"plan": line.plan},
            _("likely %(likely)s, at the latest %(latest)s")
            % {
                "likely": date_format(estimate.likely, "DATE_FORMAT"),
                "latest": date_format(estimate.latest, "DATE_FORMAT"),
            }
            if estimate.likely and estimate.latest
            else _("not known yet"),
        )
        for estimate in estimates
    ]


def _queue_happenings(entries: list[Entry], line: OrderLine) -> list[Happening]:
    return [
        Happening(
            entry.event.at,
            entry.title,
            _("%(plan)s, entry %(number)d of the ledger") % {"plan": line.plan, "number": entry.event.number}
            if entry.event.number
            else str(line.plan),
        )
        for entry in entries
    ]


def _ended_happenings(given: list[Allocation], line: OrderLine) -> list[Happening]:
    ended = Counter(phone.ended_at for phone in given if phone.ended_at is not None)
    return [
        Happening(
            moment,
            ngettext("Service of %(units)d phone ended", "Service of %(units)d phones ended", units)
            % {"units": units},
            str(line.plan),
        )
        for moment, units in ended.items()
    ]


def _title(event: QueueEvent) -> str:
    units = event.units
    titles = {
        QueueEventKind.JOINED: ngettext(
            "%(units)d phone joined the queue", "%(units)d phones joined the queue", units
        ),
        QueueEventKind.ALLOCATED: ngettext("%(units)d phone allocated", "%(units)d phones allocated", units),
        QueueEventKind.LEFT: ngettext(
            "%(units)d phone left the queue", "%(units)d phones left the queue", units
        ),
        QueueEventKind.HELD: ngettext("%(units)d phone put on hold", "%(units)d phones put on hold", units),
        QueueEventKind.RELEASED: ngettext(
            "%(units)d phone back in its place", "%(units)d phones back in their place", units
        ),
        QueueEventKind.RETURNED: ngettext(
            "%(units)d phone waits again", "%(units)d phones wait again", units
        ),
        QueueEventKind.REFUNDED: ngettext(
            "%(units)d allocated phone refunded", "%(units)d allocated phones refunded", units
        ),
    }
    return titles[QueueEventKind(event.kind)] % {"units": units}
