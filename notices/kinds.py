"""The kinds of notice: what may be told, to whom, why, how urgently, and over which channels."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

# What a notice tells is made of these. No float: amounts are minor units, times and dates are ISO 8601.
JSONValue: TypeAlias = "str | int | bool | Sequence[JSONValue] | Mapping[str, JSONValue] | None"


class Form(enum.Enum):
    """How much room a channel has."""

    FULL = "full"
    SHORT = "short"

    @property
    def label(self) -> str | Promise:
        return {Form.FULL: _("full text"), Form.SHORT: _("short text")}[self]


class Urgency(enum.IntEnum):
    """Of what is due, the smaller number goes first. What is urgent does not wait for quiet hours to end."""

    URGENT = 0
    NORMAL = 5
    BULK = 9


class Topic(enum.Enum):
    """Under what a customer finds a kind in his preferences."""

    ORDERS = "orders"
    WAITING = "waiting"
    PHONES = "phones"
    MONEY = "money"
    ACCOUNT = "account"
    PLATFORM = "platform"

    @property
    def label(self) -> str | Promise:
        return {
            Topic.ORDERS: _("Orders"),
            Topic.WAITING: _("Waiting for phones"),
            Topic.PHONES: _("Cloud phones"),
            Topic.MONEY: _("Refunds and disputes"),
            Topic.ACCOUNT: _("Account and security"),
            Topic.PLATFORM: _("Agreements and the platform"),
        }[self]


# Whoever prepaid can always be reached by these two: what is owed under the agreement goes by both, come what may.
ALWAYS = ("in-site", "email")
# By every way a customer has set up that costs nothing; by text message too where it matters; by letter at last.
FREE = (*ALWAYS, "push", "app", "wechat")
IMPORTANT = (*FREE, "sms")
LAST_RESORT = ("sms", "letter")


@dataclass(frozen=True, slots=True)
class Kind:
    """`templates/notices/<slug>/` holds its texts: `subject.txt`, `body.txt` and, for little room, `short.txt`.

    A contractual kind is owed under the agreement (`clause`): by the channels in ALWAYS it cannot be switched off.
    `channels` are used unless the customer says otherwise; `fallbacks` when none that leaves our site has worked.
    `composed` ones may also be written by staff (MESSAGE and NEWS by nobody else). With `signs_link` the link that goes out proves that whoever follows it had the message
    (`notices.links`).
    """

    slug: str
    label: str | Promise
    clause: str
    topic: Topic
    contractual: bool = True
    channels: tuple[str, ...] = FREE
    fallbacks: tuple[str, ...] = ()
    urgency: Urgency = Urgency.NORMAL
    composed: bool = False
    signs_link: bool = False

    def is_fixed(self, channel: str) -> bool:
        """Whether it goes by `channel` whatever the customer prefers."""
        return self.contractual and channel in self.channels and channel in ALWAYS


# --- orders ------------------------------------------------------------------------------------------

ORDER_PLACED = Kind(
    "order-placed", _("Order placed"), clause="3.1", topic=Topic.ORDERS, channels=("in-site",)
)
PAYMENT_RECEIVED = Kind("payment-received", _("Payment received"), clause="3.3", topic=Topic.ORDERS)
ORDER_EXPIRED = Kind("order-expired", _("Order expired unpaid"), clause="3.1", topic=Topic.ORDERS)
# To the guardian, who has no account: by mail alone.
GUARDIAN_ASKED = Kind(
    "guardian-asked",
    _("Guardian asked to confirm"),
    clause="preamble",
    topic=Topic.ORDERS,
    channels=("email",),
    urgency=Urgency.URGENT,
    signs_link=True,
)
GUARDIAN_CONFIRMED = Kind(
    "guardian-confirmed",
    _("Guardian has confirmed"),
    clause="preamble",
    topic=Topic.ORDERS,
    channels=IMPORTANT,
)
GUARDIAN_REFUSED = Kind("guardian-refused", _("Guardian has refused"), clause="preamble", topic=Topic.ORDERS)

# --- waiting -----------------------------------------------------------------------------------------

ESTIMATE_MADE = Kind("estimate-made", _("Estimated allocation time"), clause="3.3", topic=Topic.WAITING)
ESTIMATE_CHANGED = Kind(
    "estimate-changed",
    _("Estimated allocation time changed"),
    clause="3.3",
    topic=Topic.WAITING,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
)
ESTIMATE_CONFIRMED = Kind("estimate-confirmed", _("Still on track"), clause="3.3", topic=Topic.WAITING)
NEXT_IN_LINE = Kind("next-in-line", _("You are next"), clause="3.3", topic=Topic.WAITING, contractual=False)
# Announced on the site; everybody who waits is told his own.
PLAN_ESTIMATE = Kind(
    "plan-estimate", _("Estimates of a plan have changed"), clause="3.3", topic=Topic.WAITING, channels=()
)
# Later than the law lets a seller be without asking: with the choice that the buyer has.
DELAYED = Kind(
    "delayed",
    _("Delay, and your choice"),
    clause="3.3",
    topic=Topic.WAITING,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
)

# --- phones ------------------------------------------------------------------------------------------

ALLOCATED = Kind(
    "allocated",
    _("Cloud phones allocated"),
    clause="5.1",
    topic=Topic.PHONES,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
)
DEVICE_REPLACED = Kind("device-replaced", _("Cloud phone replaced"), clause="5.1", topic=Topic.PHONES)
EXPIRING = Kind("expiring", _("Term ends soon"), clause="5.1", topic=Topic.PHONES, channels=IMPORTANT)
EXPIRED = Kind(
    "expired",
    _("Term has ended"),
    clause="5.1",
    topic=Topic.PHONES,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
)
SUSPENDED = Kind(
    "suspended",
    _("Service suspended"),
    clause="5.3",
    topic=Topic.PHONES,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
    urgency=Urgency.URGENT,
    composed=True,
)
RESUMED = Kind(
    "resumed", _("Service resumed"), clause="5.3", topic=Topic.PHONES, channels=IMPORTANT, composed=True
)
TERMINATED = Kind(
    "terminated",
    _("Service terminated"),
    clause="5.3",
    topic=Topic.PHONES,
    channels=(*IMPORTANT, "letter"),
    composed=True,
)

# --- refunds, disputes, cases ------------------------------------------------------------------------

REFUND_APPROVED = Kind(
    "refund-approved", _("Refund approved"), clause="3.3", topic=Topic.MONEY, fallbacks=LAST_RESORT
)
REFUND_PAID = Kind(
    "refund-paid",
    _("Refund paid"),
    clause="3.3",
    topic=Topic.MONEY,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
)
REFUND_CAME_BACK = Kind(
    "refund-came-back",
    _("Refund came back"),
    clause="3.3",
    topic=Topic.MONEY,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
)
MONEY_RETURNED = Kind("money-returned", _("Payment returned"), clause="3.1", topic=Topic.MONEY)
MONEY_TO_CLAIM = Kind(
    "money-to-claim",
    _("Money to be claimed"),
    clause="3.3",
    topic=Topic.MONEY,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
)
PAYMENT_DISPUTED = Kind("payment-disputed", _("Payment disputed"), clause="3.1", topic=Topic.MONEY)
DISPUTE_ENDED = Kind("dispute-ended", _("Dispute of the payment ended"), clause="3.1", topic=Topic.MONEY)
CASE_OPENED = Kind("case-opened", _("Case opened"), clause="II", topic=Topic.MONEY)
CASE_ANSWERED = Kind("case-answered", _("Case answered"), clause="II", topic=Topic.MONEY)
CASE_CLOSED = Kind("case-closed", _("Case closed"), clause="II", topic=Topic.MONEY)

# --- account -----------------------------------------------------------------------------------------

# To an address that is still to be proved, and by its channel alone.
CONTACT_CODE = Kind(
    "contact-code",
    _("Code for a contact point"),
    clause="VIII",
    topic=Topic.ACCOUNT,
    channels=(),
    urgency=Urgency.URGENT,
)
CONTACT_TEST = Kind(
    "contact-test",
    _("Test message"),
    clause="VIII",
    topic=Topic.ACCOUNT,
    contractual=False,
    channels=(),
    urgency=Urgency.URGENT,
)
SECURITY = Kind(
    "security",
    _("Security of your account"),
    clause="4.1",
    topic=Topic.ACCOUNT,
    channels=IMPORTANT,
    urgency=Urgency.URGENT,
)
ACCOUNT_HELD = Kind(
    "account-held",
    _("Account on hold"),
    clause="4.1",
    topic=Topic.ACCOUNT,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
    composed=True,
)

# --- agreements and the platform ---------------------------------------------------------------------

AGREEMENT_REVISED = Kind(
    "agreement-revised",
    _("Agreement revised"),
    clause="9.1",
    topic=Topic.PLATFORM,
    fallbacks=LAST_RESORT,
    urgency=Urgency.BULK,
)
QUESTION_ANSWERED = Kind("question-answered", _("Question answered"), clause="9.1", topic=Topic.PLATFORM)
# Announced on the site ("on the relevant pages", 3.2): what is ordered keeps its fee.
FEES_ANNOUNCED = Kind(
    "fees-announced", _("Fee schedule announced"), clause="3.2", topic=Topic.PLATFORM, channels=()
)
SERVICE_CHANGED = Kind(
    "service-changed",
    _("Change of the service"),
    clause="5.2",
    topic=Topic.PLATFORM,
    urgency=Urgency.BULK,
    composed=True,
)
FORCE_MAJEURE = Kind(
    "force-majeure",
    _("Force majeure"),
    clause="9.4",
    topic=Topic.PLATFORM,
    channels=IMPORTANT,
    fallbacks=LAST_RESORT,
    composed=True,
)
MESSAGE = Kind(
    "message",
    _("Message of the platform"),
    clause="VIII",
    topic=Topic.PLATFORM,
    urgency=Urgency.BULK,
    composed=True,
)
NEWS = Kind(
    "news",
    _("News and offers"),
    clause="VIII",
    topic=Topic.PLATFORM,
    contractual=False,
    channels=("in-site", "email"),
    urgency=Urgency.BULK,
    composed=True,
)

KINDS: dict[str, Kind] = {
    kind.slug: kind
    for kind in (
        ORDER_PLACED,
        PAYMENT_RECEIVED,
        ORDER_EXPIRED,
        GUARDIAN_ASKED,
        GUARDIAN_CONFIRMED,
        GUARDIAN_REFUSED,
        ESTIMATE_MADE,
        ESTIMATE_CHANGED,
        ESTIMATE_CONFIRMED,
        NEXT_IN_LINE,
        PLAN_ESTIMATE,
        DELAYED,
        ALLOCATED,
        DEVICE_REPLACED,
        EXPIRING,
        EXPIRED,
        SUSPENDED,
        RESUMED,
        TERMINATED,
        REFUND_APPROVED,
        REFUND_PAID,
        REFUND_CAME_BACK,
        MONEY_RETURNED,
        MONEY_TO_CLAIM,
        PAYMENT_DISPUTED,
        DISPUTE_ENDED,
        CASE_OPENED,
        CASE_ANSWERED,
        CASE_CLOSED,
        CONTACT_CODE,
        CONTACT_TEST,
        SECURITY,
        ACCOUNT_HELD,
        AGREEMENT_REVISED,
        QUESTION_ANSWERED,
        FEES_ANNOUNCED,
        SERVICE_CHANGED,
        FORCE_MAJEURE,
        MESSAGE,
        NEWS,
    )
}
