"""What the shop shows of a plan: fees, what is free, what waits, and when a phone paid for now would come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from inventory.models import BatchState, Fee, Plan, SupplyBatch, Term
from inventory.money import Money
from inventory.supply import announced_by_plan, oversell_by_plan
from orders.outlooks import outlooks
from orders.queue import free_devices_by_plan, units_held_by_plan, units_waiting_by_plan
from orders.windows import Window, window


@dataclass(frozen=True, slots=True)
class Stock:
    """Units of one plan: `free` devices, paid units `waiting`, unpaid units `held`.

    `presale` is how many may be sold beyond the free devices: the plan's cap, as far as batches are announced or
    staff have decided to sell without.
    """

    free: int
    waiting: int
    held: int
    presale: int

    @property
    def available(self) -> int:
        """Devices that nobody in front claims: bought now, they are allocated at once."""
        return max(0, self.free - self.waiting - self.held)

    @property
    def left(self) -> int:
        """Units that may still be sold."""
        return max(0, self.free + self.presale - self.waiting - self.held)


@dataclass(frozen=True, slots=True)
class TermOffer:
    """A term with its fee; not available without a fee, or when it is too short for pre-sale."""

    term: Term
    fee: Money | None
    is_available: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan as it can be bought at one moment. `window` is None when it is not known yet."""

    plan: Plan
    terms: tuple[TermOffer, ...]
    stock: Stock
    window: Window | None
    next_batches: tuple[SupplyBatch, ...]

    @property
    def devices_free(self) -> int:
        return self.stock.available

    @property
    def units_waiting(self) -> int:
        return self.stock.waiting

    @property
    def units_left(self) -> int:
        return self.stock.left

    @property
    def units_announced(self) -> int:
        """Units of announced batches that are still to come."""
        return sum(batch.outstanding for batch in self.next_batches)

    @property
    def is_presale(self) -> bool:
        return self.stock.available == 0

    @property
    def is_sold_out(self) -> bool:
        return self.stock.left == 0

    @property
    def lowest_fee(self) -> Money | None:
        fees = [offer.fee for offer in self.terms if offer.fee and offer.is_available]
        return min(fees, key=lambda fee: fee.minor, default=None)


def stocks(plans: Sequence[Plan]) -> dict[int, Stock]:
    """The stock of each plan, in five queries; under the plans' locks (`queue.lock_plans`) never too large.

    Their order matters. A payment takes no lock of the plan: units that move from held to waiting between two
    queries are counted twice here, which errs on the safe side, and never not at all. Nor does a receipt: devices that
    come from a batch between two queries are neither free nor announced here, and never both.
    """
    ids = [plan.pk for plan in plans]
    held = units_held_by_plan(ids)
    waiting = units_waiting_by_plan(ids)
    free = free_devices_by_plan(ids)
    announced = announced_by_plan(ids)
    oversell = oversell_by_plan(ids)
    return {
        plan.pk: Stock(
            free=free.get(plan.pk, 0),
            waiting=waiting.get(plan.pk, 0),
            held=held.get(plan.pk, 0),
            presale=min(plan.presale_cap, announced.get(plan.pk, 0) + oversell.get(plan.pk, 0)),
        )
        for plan in plans
    }


def offers(*, currency: str, now: datetime) -> list[Offer]:
    """Every plan on sale, in the shop's order."""
    return offers_of(list(Plan.objects.filter(on_sale=True)), currency=currency, now=now)


def offer_of(plan: Plan, *, currency: str, now: datetime, units: int = 1) -> Offer:
    """One plan, with the window for `units` units."""
    return offers_of([plan], currency=currency, now=now, units=units)[0]


def offers_of(plans: Sequence[Plan], *, currency: str, now: datetime, units: int = 1) -> list[Offer]:
    """`plans` as they can be bought at `now`, in a fixed number of queries."""
    ids = [plan.pk for plan in plans]
    fees = Fee.objects.in_force(currency=currency, at=now)
    stock = stocks(plans)
    outlook = outlooks(ids, now=now)
    terms: dict[int, list[Term]] = {}
    for term in Term.objects.filter(plan_id__in=ids).order_by("days"):
        terms.setdefault(term.plan_id, []).append(term)
    batches: dict[int, list[SupplyBatch]] = {}
    for batch in SupplyBatch.objects.filter(plan_id__in=ids, state=BatchState.EXPECTED):
        if batch.outstanding:
            batches.setdefault(batch.plan_id, []).append(batch)
    return [
        Offer(
            plan=plan,
            terms=tuple(
                _term_offer(term, fee=fees.get(term.pk), stock=stock[plan.pk])
                for term in terms.get(plan.pk, ())
            ),
            stock=stock[plan.pk],
            window=window(
                units=stock[plan.pk].waiting + stock[plan.pk].held + units, outlook=outlook[plan.pk]
            ),
            next_batches=tuple(batches.get(plan.pk, ())),
        )
        for plan in plans
    ]


def _term_offer(term: Term, *, fee: Fee | None, stock: Stock) -> TermOffer:
    sold_now = stock.available > 0 or (stock.left > 0 and term.is_offered_on_presale())
    return TermOffer(term=term, fee=fee.money if fee else None, is_available=fee is not None and sold_now)
