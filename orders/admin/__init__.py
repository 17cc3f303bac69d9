"""The desk of the sale. Each module registers the tables that it is named for."""

from orders.admin import (
    broadcasts,
    cases,
    documents,
    guardians,
    orders,
    payments,
    plans,
    queue,
    refunds,
    shortfalls,
)

__all__ = (
    "broadcasts",
    "cases",
    "documents",
    "guardians",
    "orders",
    "payments",
    "plans",
    "queue",
    "refunds",
    "shortfalls",
)
