"""The desk of the sale. Each module registers the tables that it is named for."""

from orders.admin import cases, guardians, orders, payments, plans, queue, refunds

__all__ = ("cases", "guardians", "orders", "payments", "plans", "queue", "refunds")
