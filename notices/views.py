"""The inbox, the number of unread messages that every page shows, and what customers want to hear."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import condition, require_GET, require_http_methods, require_POST

from accounts.views import CustomerRequest
from evidence.contract_time import contract_zone
from notices.announcements import on_the_site
from notices.channels import CHANNELS
from notices.contacts import mail_came_back
from notices.context import SEEN
from notices.evidence import deliveries_to, prove
from notices.exporting import exported
from notices.forms import QuietHoursForm
from notices.inbox import inbox_of, mark_all_read, mark_read, unread_count
from notices.kinds import KINDS
from notices.models import InboxMessage, QuietHours
from notices.preferences import NotAChoice, asked_off, choices_of, choose, keep_quiet

PAGE_SIZE = 20
YEAR = 365 * 24 * 3600
# The status by which htmx polls no more: there is nobody to poll for.
STOP_POLLING = 286


@login_required
@never_cache
@require_GET
def inbox(request: CustomerRequest) -> HttpResponse:
    told = inbox_of(request.user.pk)
    page = Paginator(told, PAGE_SIZE).get_page(request.GET.get("page"))
    newest = told.values_list("pk", flat=True).first()
    context = {"page": page, "newest": newest, "mail_came_back": mail_came_back(request.user)}
    return render(request, "notices/inbox.html", context)


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


@login_required
@never_cache
@require_http_methods(["GET", "POST"])
def preferences(request: CustomerRequest) -> HttpResponse:
    """What comes by which way, and the quiet hours."""
    quiet = QuietHours.objects.filter(customer=request.user).first()
    initial = {"begin_at": quiet.begin_at, "end_at": quiet.end_at} if quiet else {}
    form = QuietHoursForm(request.POST or None, initial=initial)
    shown = choices_of(request.user)
    if form.is_valid():
        choose(
            customer_id=request.user.pk,
            wanted={
                (choices.kind.slug, choice.channel): f"{choices.kind.slug}:{choice.channel}" in request.POST
                for topic in shown.values()
                for choices in topic
                for choice in choices.by_channel
            },
            now=timezone.now(),
        )
        keep_quiet(customer_id=request.user.pk, **form.cleaned_data)
        messages.success(request, _("Your choice is saved."))
        return redirect("notices:preferences")
    return render(
        request,
        "notices/preferences.html",
        {
            "form": form,
            "topics": [(topic.label, choices) for topic, choices in shown.items()],
            "time_zone": request.user.time_zone or settings.CONTRACT_TIME_ZONE,
        },
        status=422 if form.errors else 200,
    )


@csrf_exempt
@never_cache
@require_http_methods(["GET", "POST"])
def switch_off(request: HttpRequest, token: str) -> HttpResponse:
    """Switch off what the token names: by a button, or by the mail program itself (RFC 8058), without a login."""
    try:
        customer_id, kind, channel = asked_off(token)
    except NotAChoice:
        return render(request, "notices/switched_off.html", {"kind": None}, status=404)
    if request.method == "POST":
        choose(customer_id=customer_id, wanted={(kind.slug, channel): False}, now=timezone.now())
    label = CHANNELS[channel].label
    context = {"kind": kind, "channel": label, "is_done": request.method == "POST"}
    return render(request, "notices/switched_off.html", context)


@require_GET
def announcements(request: HttpRequest) -> HttpResponse:
    """Everything announced on the site, newest first."""
    page = Paginator(on_the_site(), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "notices/announcements.html", {"page": page, "zone": contract_zone()})


@require_GET
def announcement(request: HttpRequest, announcement_id: int) -> HttpResponse:
    found = get_object_or_404(on_the_site(), pk=announcement_id)
    return render(request, "notices/announcement.html", {"found": found, "zone": contract_zone()})


@require_POST
def close_announcement(request: HttpRequest) -> HttpResponse:
    """Remember in the browser that everything up to this announcement was seen, and go back to the page."""
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure()):
        back = "/"
    response = redirect(back)
    seen = request.POST.get("seen", "")
    if seen.isdecimal():
        response.set_cookie(
            SEEN, seen, max_age=YEAR, samesite="Lax", secure=settings.SESSION_COOKIE_SECURE, httponly=True
        )
    return response


@login_required
@never_cache
@require_GET
def log(request: CustomerRequest) -> HttpResponse:
    """Everything we sent to a customer, with the evidence of it."""
    about = request.GET.get("about", "").strip()
    page = Paginator(deliveries_to(request.user.pk, about=about), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(
        request,
        "notices/log.html",
        {
            "page": page,
            "about": about,
            "proofs": [
                {
                    "proof": prove(delivery),
                    "kind": KINDS[delivery.notice.kind].label if delivery.notice.kind in KINDS else "",
                    "channel": CHANNELS[delivery.channel].label
                    if delivery.channel in CHANNELS
                    else delivery.channel,
                }
                for delivery in page
            ],
        },
    )


@login_required
@never_cache
@require_GET
def export_log(request: CustomerRequest, form: str) -> HttpResponseBase:
    """The same as a file, CSV or JSON, whole."""
    return exported(request.user.pk, form, about=request.GET.get("about", "").strip())
