"""What customers are told about their orders, all of it in one form."""

from collections.abc import Mapping

from notices import kinds
from notices.kinds import JSONValue, Kind
from notices.outbox import Draft
from orders.models import LedgerEntry, MoneyReturn, Order, Refund


def about_order(
    order: Order, kind: Kind, facts: Mapping[str, JSONValue], *, key: str = "", thread: str = ""
) -> Draft:
    """A notice to the customer of `order`, leading to its page.

    The order's reference is put among the facts. Of notices with one `key` the first is told; without a key,
    of one kind about one order.
    """
    return Draft(
        recipient_id=order.customer_id,
        kind=kind,
        about=order.reference,
        url=order.get_absolute_url(),
        facts={"reference": order.reference, **facts},
        dedupe_key=key or f"{kind.slug}:{order.reference}",
        thread=thread,
    )


def about_refund(
    order: Order,
    refund: Refund,
    kind: Kind,
    *,
    entry: LedgerEntry | None = None,
    phones: int = 0,
    means: str = "",
) -> Draft:
    """A notice of what became of a refund: by which `entry` and by which `means`, if not the usual, it was paid, and
    how many phones it ends. What came back is paid again by another entry.
    """
    facts: Mapping[str, JSONValue] = {
        "refund": refund.reference,
        "amount": {"minor": refund.minor, "currency": order.currency},
        "ground": refund.ground,
        "phones": phones,
        "means": means,
        "is_gone": refund.entry_id is not None,
    }
    key = f"{kind.slug}:{refund.reference}" + (f":{entry.pk}" if entry else "")
    return about_order(order, kind, facts, key=key)


def about_bounce(order: Order, bounce: LedgerEntry) -> Draft:
    """A notice of money that was paid back and has come back to us."""
    facts: Mapping[str, JSONValue] = {"amount": {"minor": bounce.minor, "currency": bounce.currency}}
    kind = kinds.REFUND_CAME_BACK
    return about_order(order, kind, facts, key=f"{kind.slug}:{order.reference}:{bounce.pk}")


def about_return(order: Order, back: MoneyReturn) -> Draft:
    """A notice of money that goes back because it was paid for nothing."""
    facts: Mapping[str, JSONValue] = {
        "amount": {"minor": back.minor, "currency": back.currency},
        "reason": back.reason,
    }
    return about_order(
        order, kinds.MONEY_RETURNED, facts, key=f"{kinds.MONEY_RETURNED.slug}:{back.reference}"
    )


def about_claim(order: Order, due: Refund | MoneyReturn) -> Draft:
    """A notice of money that waits for the customer to claim it. Its link is on the order's page, behind his login."""
    currency = order.currency if isinstance(due, Refund) else due.currency
    facts: Mapping[str, JSONValue] = {"amount": {"minor": due.minor, "currency": currency}}
    kind = kinds.MONEY_TO_CLAIM
    return about_order(order, kind, facts, key=f"{kind.slug}:{due.key}")
