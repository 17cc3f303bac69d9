"""Placing an order: the fee is fixed, the agreements are accepted, the units are held.

And what becomes of an order nobody pays: cancelled by its buyer, or expired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from agreements.acceptance import Consent, Witness, record_acceptances, required_of_buyer
from agreements.rights import right_of, withdrawal_ends
from inventory.models import Fee, Plan, Term
from inventory.money import Money
from notices import kinds
from notices.kinds import JSONValue
from notices.outbox import tell
from orders.guardians import Guardian, request_confirmation
from orders.models import AttemptState, Order, OrderLine, OrderState, new_reference
from orders.offers import Stock, stocks
from orders.queue import lock_plans, units_of_customer
from orders.returns import give_back_all
from orders.revisions import announce_to
from orders.telling import about_order

# How long past its expiry a payment that is being confirmed keeps its order open. Whatever is confirmed later is a
# late payment: an order is not held by coins that no block ever takes up.
CONFIRMING_HOLDS = timedelta(hours=24)


class CannotPlace(Exception):
    """The order cannot be placed as asked; the message tells the buyer what to do. Nothing was stored."""


class BasketEmpty(CannotPlace):
    """There is nothing to order."""


class NotOffered(CannotPlace):
    """A plan, term, currency or quantity that the shop does not sell (any more)."""


class CapReached(CannotPlace):
    """Fewer units are open for sale than were asked for."""

    def __init__(self, message: str, *, plan: Plan, units_left: int) -> None:
        super().__init__(message)
        self.plan = plan
        self.units_left = units_left


class FeeChanged(CannotPlace):
    """The total is not the one the buyer saw."""

    def __init__(self, message: str, *, new_total: Money) -> None:
        super().__init__(message)
        self.new_total = new_total


class CannotCancel(Exception):
    """The order is not an unpaid one."""


@dataclass(frozen=True, slots=True)
class Wish:
    """So many phones for one term."""

    term_id: int
    quantity: int


def place_order(
    *,
    customer_id: int,
    checkout_key: UUID,
    wishes: Sequence[Wish],
    currency: str,
    seen_total: Money,
    country: str,
    consents: Sequence[Consent],
    witness: Witness,
    guardian: Guardian | None,
    language: str,
    now: datetime,
) -> Order:
    """Place an order and hold its units until it is paid or expires.

    `country` is where the buyer lives: its law may ask for a consent more. A buyer under 18 names a
    `guardian`, who is asked by mail and must confirm before anything can be paid (preamble).

    The plans are locked, so that no two checkouts sell the same unit. Placing again with the same
    `checkout_key` answers the order that is there. Raises a CannotPlace, from `orders.guardians` CannotAsk, or
    from `agreements.acceptance` ConsentMissing or TextSuperseded (clauses 3.3 and 9.1); then nothing is stored.
    """
    right = right_of(country)
    required = required_of_buyer(now=now, language=language, right=right)
    with transaction.atomic(durable=True):
        terms = {term.pk: term for term in Term.objects.filter(pk__in=[wish.term_id for wish in wishes])}
        plans = lock_plans(term.plan_id for term in terms.values())
        # Only after the locks: of two clicks the second finds the first one's order here.
        placed = Order.objects.filter(checkout_key=checkout_key, customer_id=customer_id).first()
        if placed is not None:
            return placed
        lines = _priced(wishes, customer_id=customer_id, terms=terms, plans=plans, currency=currency, now=now)
        total = sum((Money(line.unit_minor, currency) * line.quantity for line in lines), Money(0, currency))
        if total != seen_total:
            raise FeeChanged(
                _("The total is now %(total)s. Please check it and order again.")
                % {"total": total.localised()},
                new_total=total,
            )
        order = Order.objects.create(
            reference=new_reference("VM"),
            customer_id=customer_id,
            checkout_key=checkout_key,
            state=OrderState.AWAITING_GUARDIAN if guardian else OrderState.UNPAID,
            country=country,
            right=right,
            withdraw_until=withdrawal_ends(right, ordered_at=now) if right else None,
            currency=currency,
            total_minor=total.minor,
            placed_at=now,
            pay_until=now + (settings.GUARDIAN_WINDOW if guardian else settings.PAYMENT_WINDOW),
        )
        for line in lines:
            line.order = order
        OrderLine.objects.bulk_create(lines)
        if guardian:
            request_confirmation(order, guardian, language=language, now=now)
        else:
            facts: Mapping[str, JSONValue] = {
                "total": {"minor": order.total_minor, "currency": order.currency},
                "pay_until": order.pay_until.isoformat(),
            }
            tell([about_order(order, kinds.ORDER_PLACED, facts)], now=now)
        announce_to(order.customer, now=now)
        # Last, because it locks the chain of all acceptances.
        record_acceptances(
            customer_id=customer_id,
            order_reference=order.reference,
            required=required,
            consents=consents,
            witness=witness,
            now=now,
        )
    return order


def _priced(
    wishes: Sequence[Wish],
    *,
    customer_id: int,
    terms: dict[int, Term],
    plans: dict[int, Plan],
    currency: str,
    now: datetime,
) -> list[OrderLine]:
    """The lines at today's fees, or the reason why one of them is not for sale. Needs the plans locked."""
    if not wishes:
        raise BasketEmpty(_("Your basket is empty."))
    if currency not in settings.SHOP_CURRENCIES:
        raise NotOffered(_("We do not sell in %(currency)s.") % {"currency": currency})
    fees = Fee.objects.in_force(currency=currency, at=now)
    stock = stocks(list(plans.values()))
    has = units_of_customer(customer_id, plans)
    ordered = dict.fromkeys(plans, 0)
    lines = []
    for wish in wishes:
        term = terms.get(wish.term_id)
        plan = plans[term.plan_id] if term else None
        fee = fees.get(wish.term_id)
        if term is None or plan is None or fee is None or not plan.on_sale:
            raise NotOffered(_("A phone in your basket is not for sale any more. Please remove it."))
        ordered[plan.pk] += wish.quantity
        if wish.quantity < 1 or ordered[plan.pk] + has.get(plan.pk, 0) > plan.customer_limit:
            raise NotOffered(_beyond_limit(plan, has=has.get(plan.pk, 0)))
        is_presale = ordered[plan.pk] > stock[plan.pk].available
        _check_supply(plan, term, units=ordered[plan.pk], stock=stock[plan.pk], is_presale=is_presale)
        lines.append(
            OrderLine(
                plan=plan,
                term=term,
                fee=fee,
                unit_minor=fee.minor,
                quantity=wish.quantity,
                is_presale=is_presale,
                bonus_days=plan.presale_bonus_days if is_presale else 0,
            )
        )
    return lines


def _beyond_limit(plan: Plan, *, has: int) -> str:
    limit = ngettext(
        "A customer can have %(limit)d phone of %(plan)s on order at most, and orders at least 1.",
        "A customer can have %(limit)d phones of %(plan)s on order at most, and orders at least 1.",
        plan.customer_limit,
    ) % {"limit": plan.customer_limit, "plan": plan}
    if not has:
        return limit
    already = ngettext(
        "%(units)d is on order for you already and not allocated yet.",
        "%(units)d are on order for you already and not allocated yet.",
        has,
    ) % {"units": has}
    return f"{limit} {already}"


def _check_supply(plan: Plan, term: Term, *, units: int, stock: Stock, is_presale: bool) -> None:
    if units > stock.left:
        raise CapReached(
            ngettext(
                "Only %(left)d phone of %(plan)s can be ordered at the moment. Please change the quantity.",
                "Only %(left)d phones of %(plan)s can be ordered at the moment. Please change the quantity.",
                stock.left,
            )
            % {"left": stock.left, "plan": plan},
            plan=plan,
            units_left=stock.left,
        )
    if is_presale and not term.is_offered_on_presale():
        raise NotOffered(
            _(
                "%(plan)s is on pre-sale now, for terms of %(days)d days and more. Please choose a longer term."
            )
            % {"plan": plan, "days": settings.PRESALE_MINIMUM_DAYS}
        )


def cancel_order(*, order_id: int, now: datetime) -> Order:
    """Cancel an unpaid order at its buyer's wish. A payment that arrives all the same is treated as late."""
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        if order.state == OrderState.CANCELLED:
            return order
        if order.state not in OrderState.open():
            raise CannotCancel(_("This order cannot be cancelled any more."))
        _end(order, state=OrderState.CANCELLED, now=now)
    return order


def expire_orders(*, now: datetime) -> int:
    """Release the units of orders whose deadline, and the grace for late reports, have passed.

    A payment that is being confirmed keeps its order open, for CONFIRMING_HOLDS. Return how many orders expired.
    """
    deadline = now - settings.PAYMENT_GRACE
    overdue = Order.objects.filter(state__in=OrderState.open(), pay_until__lte=deadline)
    expired = 0
    for order_id in overdue.order_by("pay_until").values_list("pk", flat=True):
        with transaction.atomic(durable=True):
            order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
            confirming = order.attempts.filter(
                state=AttemptState.CONFIRMING, expires_at__gt=now - CONFIRMING_HOLDS
            ).exists()
            # (A guardian who confirmed in the meantime has set a new deadline.)
            if order.state not in OrderState.open() or order.pay_until > deadline or confirming:
                continue
            awaited_guardian = order.state == OrderState.AWAITING_GUARDIAN
            _end(order, state=OrderState.EXPIRED, now=now)
            facts = {"awaited_guardian": awaited_guardian, "was_short": order.ledger.exists()}
            tell([about_order(order, kinds.ORDER_EXPIRED, facts)], now=now)
            expired += 1
    return expired


def _end(order: Order, *, state: OrderState, now: datetime) -> None:
    """Give the units back, and what was paid too little; have the poller close what is open at a gateway."""
    Order.objects.filter(pk=order.pk).update(state=state)
    order.attempts.filter(state=AttemptState.PENDING).update(next_poll_at=now)
    order.refresh_from_db()
    give_back_all(order, now=now)
