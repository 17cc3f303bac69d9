"""The rows of the sale, in the order in which they come to be."""

from orders.models.order import LineState, Order, OrderLine, OrderState, new_reference
from orders.models.payment import (
    AttemptState,
    EntryKind,
    LedgerEntry,
    PaymentAttempt,
    ReviewItem,
    ReviewKind,
    WebhookEvent,
)
from orders.models.queue import Allocation, Basis, Cause, Estimate
from orders.models.refund import Ground, Refund, RefundLine, RefundState

__all__ = (
    "Allocation",
    "AttemptState",
    "Basis",
    "Cause",
    "EntryKind",
    "Estimate",
    "Ground",
    "LedgerEntry",
    "LineState",
    "Order",
    "OrderLine",
    "OrderState",
    "PaymentAttempt",
    "Refund",
    "RefundLine",
    "RefundState",
    "ReviewItem",
    "ReviewKind",
    "WebhookEvent",
    "new_reference",
)
