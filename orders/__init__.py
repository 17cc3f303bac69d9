"""From the basket to the phone: orders, payments, the queue, allocation, estimates, refunds."""
