"""The guardian of a buyer under 18: the page behind the link in the mail, and asking again."""

import zoneinfo

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from accounts.views import CustomerRequest
from agreements.acceptance import CannotAccept, required_of_guardian
from agreements.texts import render as render_text
from agreements.witness import witness_of
from notices.links import PARAMETER, is_signed
from orders.forms import GuardianContactForm, GuardianForm
from orders.guardians import CannotAnswer, CannotAsk, ask_again, buyer_of, check_answerable, confirm, refuse
from orders.models import GuardianRequest
from orders.views.orders import own_order

GONE = 410


@never_cache
@require_http_methods(["GET", "POST"])
def guardian(request: HttpRequest, request_id: int) -> HttpResponse:
    """Where a guardian reads what was ordered and agreed, and confirms it or does not.

    The link is the key: who has it had the mail. Opening it changes nothing, since programs that look for
    harmful mail open links as well.
    """
    if not is_signed(request.path, request.GET.get(PARAMETER, "")):
        raise Http404
    requests = GuardianRequest.objects.select_related("order__customer")
    asked = get_object_or_404(requests, pk=request_id)
    _address(request, language=asked.language)
    if asked.answer:
        return _say(request, asked)
    now = timezone.now()
    required = required_of_guardian(order_reference=asked.order.reference, language=asked.language)
    refuses = "refuse" in request.POST
    form = GuardianForm(None if refuses else request.POST or None, asked=asked, required=required)
    try:
        check_answerable(asked, now=now)
        if refuses:
            refuse(request_id=asked.pk, now=now)
            return redirect(request.get_full_path())
        if form.is_valid():
            confirm(
                request_id=asked.pk,
                consents=form.consents(),
                witness=witness_of(request, button=str(GuardianForm.BUTTON)),
                now=now,
            )
            return redirect(request.get_full_path())
    except CannotAnswer as no:
        return _say(request, asked, reason=str(no), status=GONE)
    except CannotAccept as no:
        form.add_error(None, str(no))
    texts = [consent.text for consent in required]
    return render(
        request,
        "orders/guardian.html",
        {
            "asked": asked,
            "buyer": buyer_of(asked.order),
            "order": asked.order,
            "lines": asked.order.lines.select_related("plan", "term", "order"),
            "form": form,
            "texts": [(text, render_text(text, id_prefix=f"{text.version.document}-")) for text in texts],
        },
        status=422 if form.errors else 200,
    )


@login_required
@require_POST
def guardian_ask(request: CustomerRequest, reference: str) -> HttpResponse:
    """The buyer has the mail sent again, perhaps to another address."""
    order = own_order(request, reference)
    form = GuardianContactForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("Please enter the name and the email address of your legal guardian."))
        return redirect(order)
    try:
        asked = ask_again(
            order_id=order.pk,
            guardian=form.guardian(),
            language=translation.get_language(),
            now=timezone.now(),
        )
    except CannotAsk as no:
        messages.error(request, str(no))
    else:
        messages.success(
            request,
            _("A new mail is on its way to %(email)s. Earlier links no longer work.")
            % {"email": asked.email},
        )
    return redirect(order)


def _say(
    request: HttpRequest, asked: GuardianRequest, *, reason: str = "", status: int = 200
) -> HttpResponse:
    """What became of the request, or why it cannot be answered."""
    context = {"asked": asked, "buyer": buyer_of(asked.order), "order": asked.order, "reason": reason}
    return render(request, "orders/guardian_answered.html", context, status=status)


def _address(request: HttpRequest, *, language: str) -> None:
    """Speak the language of the mail and name the contract's hours, unless the reader has others of his own."""
    if settings.LANGUAGE_COOKIE_NAME not in request.COOKIES:
        translation.activate(language)
    if timezone.get_current_timezone_name() == settings.TIME_ZONE:
        timezone.activate(zoneinfo.ZoneInfo(settings.CONTRACT_TIME_ZONE))
