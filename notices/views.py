"""The inbox, and the number of unread messages that every page shows."""

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.translation import get_language
from django.views.decorators.cache import never_cache
from django.views.decorators.http import condition, require_GET, require_POST

from accounts.views import CustomerRequest
from notices.inbox import inbox_of, mark_all_read, mark_read, unread_count
from notices.models import InboxMessage

PAGE_SIZE = 20
# The status by which htmx polls no more: there is nobody to poll for.
STOP_POLLING = 286


@login_required
@never_cache
@require_GET
def inbox(request: CustomerRequest) -> HttpResponse:
    messages = inbox_of(request.user.pk)
    page = Paginator(messages, PAGE_SIZE).get_page(request.GET.get("page"))
    newest = messages.values_list("pk", flat=True).first()
    return render(request, "notices/inbox.html", {"page": page, "newest": newest})


@login_required
@require_POST
def open_message(request: CustomerRequest, message_id: int) -> HttpResponse:
    """Note that the message was read, and show what it is about."""
    try:
        message = mark_read(recipient_id=request.user.pk, message_id=message_id, now=timezone.now())
    except InboxMessage.DoesNotExist:
        raise Http404 from None
    return redirect(message.url or "notices:inbox")


@login_required
@require_POST
def read(request: CustomerRequest) -> HttpResponse:
    """Mark everything as read up to the newest message that the page showed."""
    newest = request.POST.get("newest", "")
    if newest.isdecimal():
        mark_all_read(recipient_id=request.user.pk, up_to=int(newest), now=timezone.now())
    return redirect("notices:inbox")


def _state_of_badge(request: HttpRequest) -> str:
    return f'"{request.user.pk}-{unread_count(request.user.pk)}-{get_language()}"'


@require_GET
@condition(etag_func=_state_of_badge)
def _badge(request: HttpRequest) -> HttpResponse:
    return render(request, "notices/_badge.html")


@require_GET
def badge(request: HttpRequest) -> HttpResponse:
    """The number alone, for polling: 304 as long as it is the same."""
    if not request.user.is_authenticated:
        return HttpResponse(status=STOP_POLLING)
    response = _badge(request)
    # Kept by the browser, which asks every time whether it is still true.
    patch_cache_control(response, private=True, no_cache=True)
    patch_vary_headers(response, ["Cookie", "Accept-Language"])
    return response
