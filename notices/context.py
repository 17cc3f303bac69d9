"""What every page knows of the inbox."""

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from notices import announcements
from notices.inbox import unread_count

# The cookie with the number of the newest announcement that a visitor has closed.
SEEN = "announcements_seen"


def unread(request: HttpRequest) -> dict[str, object]:
    """`unread_messages`: how many there are, and how often a page asks again.

    Asks the database only where a template uses it.
    """
    return {
        "unread_messages": SimpleLazyObject(lambda: unread_count(request.user.pk)),
        "inbox_poll_seconds": settings.INBOX_POLL_SECONDS,
    }


def announced(request: HttpRequest) -> dict[str, object]:
    """`announcement`: the newest for the top of the page that the visitor has not closed, or None.

    Asks the database only where a template uses it.
    """
    seen = request.COOKIES.get(SEEN, "")
    return {
        "announcement": SimpleLazyObject(
            lambda: announcements.banner(seen=int(seen) if seen.isdecimal() else 0, now=timezone.now())
        )
    }
