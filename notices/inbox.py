"""The customer's inbox on the site: what is in it, and what was read."""

from datetime import datetime

from django.db.models import QuerySet

from notices.models import InboxMessage


def inbox_of(recipient_id: int) -> QuerySet[InboxMessage]:
    """Everything in one customer's inbox, newest first, with its text."""
    return InboxMessage.objects.filter(recipient_id=recipient_id).select_related("message").order_by("-id")


def unread_count(recipient_id: int | None) -> int:
    """How many messages are unread; 0 for nobody."""
    if recipient_id is None:
        return 0
    return InboxMessage.objects.filter(recipient_id=recipient_id, read_at=None).count()


def mark_read(*, recipient_id: int, message_id: int, now: datetime) -> InboxMessage:
    """Note when the customer opened a message; the first time counts. Raises InboxMessage.DoesNotExist for another's."""
    message = InboxMessage.objects.get(pk=message_id, recipient_id=recipient_id)
    InboxMessage.objects.filter(pk=message.pk, read_at=None).update(read_at=now)
    return message


def mark_all_read(*, recipient_id: int, up_to: int, now: datetime) -> int:
    """Mark what the customer has seen: everything up to the id `up_to`. What came after that stays unread."""
    return InboxMessage.objects.filter(recipient_id=recipient_id, read_at=None, pk__lte=up_to).update(
        read_at=now
    )
