"""Shows every time in the customer's own zone."""

import zoneinfo
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from accounts.models import known_time_zones


class TimeZoneMiddleware:
    """Activates the zone of the account, else the one the browser reports in the `time_zone` cookie."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        name = getattr(request.user, "time_zone", "") or request.COOKIES.get("time_zone", "")
        # Only known names: a cookie is a stranger's input, and ZoneInfo would open it as a path.
        with timezone.override(zoneinfo.ZoneInfo(name) if name in known_time_zones() else None):
            return self.get_response(request)
