"""The kinds of notice: what may be told, why, and over which channels."""

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Kind:
    """`templates/notices/<slug>/` holds its texts: `subject.txt` and `body.txt`.

    A contractual kind is owed under the agreement (`clause`) and cannot be switched off.
    """

    slug: str
    label: str | Promise
    clause: str
    contractual: bool = True
    channels: tuple[str, ...] = ("in-site", "email")


ORDER_PLACED = Kind("order-placed", _("Order placed"), clause="3.1", channels=("in-site",))
PAYMENT_RECEIVED = Kind("payment-received", _("Payment received"), clause="3.3")
ESTIMATE_MADE = Kind("estimate-made", _("Estimated allocation time"), clause="3.3")
ESTIMATE_CHANGED = Kind("estimate-changed", _("Estimated allocation time changed"), clause="3.3")
ESTIMATE_CONFIRMED = Kind("estimate-confirmed", _("Still on track"), clause="3.3")
ALLOCATED = Kind("allocated", _("Cloud phones allocated"), clause="5.1")
ORDER_EXPIRED = Kind("order-expired", _("Order expired unpaid"), clause="3.1")
REFUND_APPROVED = Kind("refund-approved", _("Refund approved"), clause="3.3")
REFUND_PAID = Kind("refund-paid", _("Refund paid"), clause="3.3")

KINDS: dict[str, Kind] = {
    kind.slug: kind
    for kind in (
        ORDER_PLACED,
        PAYMENT_RECEIVED,
        ESTIMATE_MADE,
        ESTIMATE_CHANGED,
        ESTIMATE_CONFIRMED,
        ALLOCATED,
        ORDER_EXPIRED,
        REFUND_APPROVED,
        REFUND_PAID,
    )
}
