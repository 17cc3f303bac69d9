"""The kinds of notice: what may be told, why, and over which channels."""

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Kind:
    """`templates/notices/<slug>/` holds its texts: `subject.txt` and `body.txt`.

    A contractual kind is owed under the agreement (`clause`) and cannot be switched off. With `signs_link`
    the link that goes out proves that whoever follows it had the message (`notices.links`).
    """

    slug: str
    label: str | Promise
    clause: str
    contractual: bool = True
    channels: tuple[str, ...] = ("in-site", "email")
    signs_link: bool = False


ORDER_PLACED = Kind("order-placed", _("Order placed"), clause="3.1", channels=("in-site",))
PAYMENT_RECEIVED = Kind("payment-received", _("Payment received"), clause="3.3")
ESTIMATE_MADE = Kind("estimate-made", _("Estimated allocation time"), clause="3.3")
ESTIMATE_CHANGED = Kind("estimate-changed", _("Estimated allocation time changed"), clause="3.3")
ESTIMATE_CONFIRMED = Kind("estimate-confirmed", _("Still on track"), clause="3.3")
ALLOCATED = Kind("allocated", _("Cloud phones allocated"), clause="5.1")
DEVICE_REPLACED = Kind("device-replaced", _("Cloud phone replaced"), clause="5.1")
ORDER_EXPIRED = Kind("order-expired", _("Order expired unpaid"), clause="3.1")
REFUND_APPROVED = Kind("refund-approved", _("Refund approved"), clause="3.3")
REFUND_PAID = Kind("refund-paid", _("Refund paid"), clause="3.3")
MONEY_RETURNED = Kind("money-returned", _("Payment returned"), clause="3.1")
PAYMENT_DISPUTED = Kind("payment-disputed", _("Payment disputed"), clause="3.1")
DISPUTE_ENDED = Kind("dispute-ended", _("Dispute of the payment ended"), clause="3.1")
# To the guardian, who has no account: by mail alone.
GUARDIAN_ASKED = Kind(
    "guardian-asked", _("Guardian asked to confirm"), clause="preamble", channels=("email",), signs_link=True
)
GUARDIAN_CONFIRMED = Kind("guardian-confirmed", _("Guardian has confirmed"), clause="preamble")
GUARDIAN_REFUSED = Kind("guardian-refused", _("Guardian has refused"), clause="preamble")
AGREEMENT_REVISED = Kind("agreement-revised", _("Agreement revised"), clause="9.1")
QUESTION_ANSWERED = Kind("question-answered", _("Question answered"), clause="9.1")
CASE_OPENED = Kind("case-opened", _("Case opened"), clause="II")
CASE_ANSWERED = Kind("case-answered", _("Case answered"), clause="II")
CASE_CLOSED = Kind("case-closed", _("Case closed"), clause="II")

KINDS: dict[str, Kind] = {
    kind.slug: kind
    for kind in (
        ORDER_PLACED,
        PAYMENT_RECEIVED,
        ESTIMATE_MADE,
        ESTIMATE_CHANGED,
        ESTIMATE_CONFIRMED,
        ALLOCATED,
        DEVICE_REPLACED,
        ORDER_EXPIRED,
        REFUND_APPROVED,
        REFUND_PAID,
        MONEY_RETURNED,
        PAYMENT_DISPUTED,
        DISPUTE_ENDED,
        GUARDIAN_ASKED,
        GUARDIAN_CONFIRMED,
        GUARDIAN_REFUSED,
        AGREEMENT_REVISED,
        QUESTION_ANSWERED,
        CASE_OPENED,
        CASE_ANSWERED,
        CASE_CLOSED,
    )
}
