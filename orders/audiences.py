"""Which customers a message of staff goes to, by what they have ordered (see `notices.broadcasts`)."""

from django.db.models import Exists, OuterRef, QuerySet

from accounts.models import User
from notices.broadcasts import Segment, narrows
from orders.models import LineState, Order, OrderLine


@narrows
def by_orders(users: QuerySet[User], segment: Segment) -> QuerySet[User]:
    """`order_state`: who has an order in that state."""
    if not segment.get("order_state"):
        return users
    return users.filter(Exists(Order.objects.filter(customer=OuterRef("pk"), state=segment["order_state"])))


@narrows
def by_queue(users: QuerySet[User], segment: Segment) -> QuerySet[User]:
    """`plan`: who waits in its queue; `first` and `last`: at these places, counted in lines from 1."""
    if not segment.get("plan"):
        return users
    queue = OrderLine.objects.filter(plan=segment["plan"], state=LineState.WAITING).order_by("paid_at", "pk")
    first, last = segment.get("first") or 1, segment.get("last")
    chosen = queue[first - 1 : last] if first > 1 or last else queue
    return users.filter(pk__in=chosen.values("order__customer"))
