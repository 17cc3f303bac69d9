"""What every page knows of the inbox."""

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from notices.inbox import unread_count


def unread(request: HttpRequest) -> dict[str, object]:
    """`unread_messages`: how many there are. Asks the database only where a template uses it."""
    return {"unread_messages": SimpleLazyObject(lambda: unread_count(request.user.pk))}
