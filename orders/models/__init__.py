"""The rows of the sale, in the order in which they come to be."""

from orders.models.case import Case, CaseMessage, CaseState, Matter, Outcome, Side
from orders.models.document import Document, DocumentKind
from orders.models.fairness import PublishedHead, QueueEvent, QueueEventKind
from orders.models.guardian import GuardianAnswer, GuardianRequest
from orders.models.order import LineState, Order, OrderLine, OrderState, new_reference
from orders.models.payment import (
    BY_HAND,
    AttemptState,
    EntryKind,
    LedgerEntry,
    PaymentAttempt,
    ReviewItem,
    ReviewKind,
    WebhookEvent,
)
from orders.models.queue import Allocation, Basis, Cause, Estimate, EstimateRound, Forecast
from orders.models.refund import (
    Ground,
    MoneyReturn,
    Payout,
    Refund,
    RefundLine,
    RefundState,
    ReturnReason,
    ReturnState,
)
from orders.models.segment import PlanFigures, SegmentCount
from orders.models.shortfall import Shortfall, ShortfallLine, ShortfallLineState, ShortfallState

__all__ = (
    "BY_HAND",
    "Allocation",
    "AttemptState",
    "Basis",
    "Case",
    "CaseMessage",
    "CaseState",
    "Cause",
    "Document",
    "DocumentKind",
    "EntryKind",
    "Estimate",
    "EstimateRound",
    "Forecast",
    "Ground",
    "GuardianAnswer",
    "GuardianRequest",
    "LedgerEntry",
    "LineState",
    "Matter",
    "MoneyReturn",
    "Order",
    "OrderLine",
    "OrderState",
    "Outcome",
    "PaymentAttempt",
    "Payout",
    "PlanFigures",
    "PublishedHead",
    "QueueEvent",
    "QueueEventKind",
    "Refund",
    "RefundLine",
    "RefundState",
    "ReturnReason",
    "ReturnState",
    "ReviewItem",
    "ReviewKind",
    "SegmentCount",
    "Shortfall",
    "ShortfallLine",
    "ShortfallLineState",
    "ShortfallState",
    "Side",
    "WebhookEvent",
    "new_reference",
)
