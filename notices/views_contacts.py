"""The page on which customers say where they are reached, and what browsers ask for themselves."""

import functools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import constant_time_compare, get_random_string
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.countries import country_name
from accounts.models import User
from accounts.views import CustomerRequest
from accounts.visitors import address_of, browser_name
from notices import contacts
from notices.channels import CHANNELS, app, push, wechat
from notices.channels.protocol import Refused, Unavailable
from notices.contacts import (
    APP,
    LETTER,
    PHONE,
    PUSH,
    WECHAT,
    NotAnAddress,
    TooMany,
    Unknown,
    Used,
    WrongCode,
)
from notices.forms_contacts import CodeForm, PhoneForm, PostalAddressForm
from notices.models import ContactPoint

BINDING_SALT = "notices.binding"
# How long a code on our page can be scanned.
BINDING_SECONDS = 600
WECHAT_STATE = "wechat_state"


@login_required
@never_cache
@require_GET
def contact_points(request: CustomerRequest) -> HttpResponse:
    return _page(request)


@login_required
@require_POST
def add_phone(request: CustomerRequest) -> HttpResponse:
    form = PhoneForm(request.POST)
    if not form.is_valid():
        return _page(request, phone_form=form)
    try:
        contacts.add_phone(
            customer_id=request.user.pk, number=form.cleaned_data["number"], now=timezone.now()
        )
    except (NotAnAddress, TooMany) as problem:
        form.add_error("number", str(problem))
        return _page(request, phone_form=form)
    return redirect("notices:contacts")


@login_required
@require_POST
def send_code(request: CustomerRequest, point_id: int) -> HttpResponse:
    try:
        contacts.send_code(customer_id=request.user.pk, contact_point_id=point_id, now=timezone.now())
    except Unknown:
        raise Http404 from None
    except TooMany as problem:
        messages.error(request, str(problem))
    else:
        messages.success(request, _("A new code is on its way."))
    return redirect("notices:contacts")


@login_required
@require_POST
def prove(request: CustomerRequest, point_id: int) -> HttpResponse:
    form = CodeForm(request.POST, auto_id=f"id_{point_id}_%s")
    if form.is_valid():
        try:
            contacts.prove(
                customer_id=request.user.pk,
                contact_point_id=point_id,
                code=form.cleaned_data["code"],
                now=timezone.now(),
                address=address_of(request) or "",
            )
        except Unknown:
            raise Http404 from None
        except WrongCode as problem:
            form.add_error("code", str(problem))
        else:
            messages.success(request, _("The number is yours: from now on we reach you there, too."))
            return redirect("notices:contacts")
    return _page(request, code_forms={point_id: form})


@login_required
@require_POST
def remove(request: CustomerRequest, point_id: int) -> HttpResponse:
    try:
        contacts.remove(
            customer_id=request.user.pk,
            contact_point_id=point_id,
            now=timezone.now(),
            address=address_of(request) or "",
        )
    except Unknown:
        raise Http404 from None
    messages.success(request, _("Removed. We do not write there any more."))
    return redirect("notices:contacts")


@login_required
@require_POST
def send_test(request: CustomerRequest, point_id: int) -> HttpResponse:
    try:
        contacts.send_test(customer_id=request.user.pk, contact_point_id=point_id, now=timezone.now())
    except Unknown:
        raise Http404 from None
    except TooMany as problem:
        messages.error(request, str(problem))
    else:
        messages.success(request, _("A test message is on its way."))
    return redirect("notices:contacts")


@login_required
@require_POST
def send_test_mail(request: CustomerRequest) -> HttpResponse:
    try:
        contacts.send_test_mail(customer_id=request.user.pk, now=timezone.now())
    except TooMany as problem:
        messages.error(request, str(problem))
    else:
        messages.success(request, _("A test message is on its way."))
    return redirect("notices:contacts")


@login_required
@require_POST
def add_postal_address(request: CustomerRequest) -> HttpResponse:
    form = PostalAddressForm(request.POST)
    if not form.is_valid():
        return _page(request, postal_form=form)
    try:
        contacts.add_postal_address(
            customer_id=request.user.pk,
            postal=form.postal_address(),
            now=timezone.now(),
            address=address_of(request) or "",
        )
    except NotAnAddress as problem:
        form.add_error(None, str(problem))
        return _page(request, postal_form=form)
    messages.success(request, _("Your postal address is saved."))
    return redirect("notices:contacts")


# --- browsers ----------------------------------------------------------------------------------------


@require_GET
def push_worker(request: HttpRequest) -> HttpResponse:
    """The script that shows notifications. From the root of the site, for there it may act on every page."""
    response = HttpResponse(_worker(), content_type="text/javascript; charset=utf-8")
    # A browser asks for it anew at most once a day, and at once where we say so.
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Service-Worker-Allowed"] = "/"
    return response


@never_cache
@require_http_methods(["GET", "POST"])
def browser(request: HttpRequest) -> HttpResponse:
    """For the scripts: GET has the key to subscribe with, and a token for what follows; POST keeps a subscription.

    A POST with `old` is the browser's own doing: it has replaced that subscription.
    """
    if not request.user.is_authenticated or CHANNELS[PUSH].missing():
        return JsonResponse({}, status=403)
    if request.method == "GET":
        return JsonResponse({"key": push.public_key(), "token": get_token(request)})
    try:
        match json.loads(request.body):
            case {"endpoint": str(endpoint), "keys": {"p256dh": str(p256dh), "auth": str(auth)}, **rest} if (
                len(endpoint) <= 500
            ):
                old = rest.get("old")
                _keep(request, request.user, endpoint, {"p256dh": p256dh, "auth": auth}, old=old)
            case _:
                return JsonResponse({}, status=400)
    except (ValueError, RecursionError):
        return JsonResponse({}, status=400)
    except (NotAnAddress, TooMany) as problem:
        return JsonResponse({"problem": str(problem)}, status=422)
    return JsonResponse({}, status=201)


def _keep(
    request: HttpRequest, customer: User, endpoint: str, keys: Mapping[str, str], *, old: object
) -> None:
    label = browser_name(request.headers.get("User-Agent", ""))
    now = timezone.now()
    if isinstance(old, str):
        contacts.replace_browser(
            customer_id=customer.pk, old_endpoint=old, endpoint=endpoint, keys=keys, label=label, now=now
        )
    else:
        contacts.add_browser(
            customer_id=customer.pk,
            endpoint=endpoint,
            keys=keys,
            label=label,
            now=now,
            address=address_of(request) or "",
        )


# --- the app and WeChat ------------------------------------------------------------------------------


def binding_token(*, channel: str, customer_id: int) -> str:
    """Proves for some minutes, to who holds it, whose contact point a device becomes."""
    return signing.dumps([channel, customer_id, timezone.now().timestamp()], salt=BINDING_SALT)


def bound_by(token: str, *, channel: str) -> tuple[int, datetime]:
    """The customer whom a token names, and when it was made. Raises BadSignature."""
    named, customer_id, made_at = signing.loads(token, salt=BINDING_SALT, max_age=BINDING_SECONDS)
    if named != channel:
        raise signing.BadSignature
    return customer_id, datetime.fromtimestamp(made_at, UTC)


@never_cache
@require_GET
def bind_wechat(request: HttpRequest, token: str) -> HttpResponse:
    """In WeChat, on a phone that nobody is logged in on: whose messages it will get, and a link that goes on.

    Without the link somebody could be sent here, and would be told what is another's.
    """
    try:
        customer_id, _made_at = bound_by(token, channel=WECHAT)
        customer = User.objects.get(pk=customer_id)
    except (signing.BadSignature, User.DoesNotExist):
        return render(request, "notices/wechat_bound.html", {"problem": _too_old()}, status=410)
    # WeChat brings it back; it counts in this browser only, and once.
    state = get_random_string(32)
    request.session[WECHAT_STATE] = {"state": state, "token": token}
    back_to = settings.SITE_URL + reverse("notices:wechat-bound")
    url = wechat.authorize_url(back_to=back_to, state=state)
    return render(request, "notices/wechat_bind.html", {"email": customer.email, "url": url})


@never_cache
@require_GET
def wechat_bound(request: HttpRequest) -> HttpResponse:
    """Back from WeChat, which says who it is that has come."""
    kept = request.session.pop(WECHAT_STATE, {})
    given = request.GET.get("state", "")
    try:
        if not kept or not constant_time_compare(kept["state"], given):
            raise signing.BadSignature
        customer_id, made_at = bound_by(kept["token"], channel=WECHAT)
        contacts.bind(
            customer_id=customer_id,
            channel=WECHAT,
            identity=wechat.openid_of(request.GET.get("code", "")),
            label="WeChat",
            allowed_at=made_at,
            now=timezone.now(),
            address=address_of(request) or "",
        )
    except (signing.BadSignature, Used, Refused):
        return render(request, "notices/wechat_bound.html", {"problem": _too_old()}, status=410)
    except TooMany as problem:
        return render(request, "notices/wechat_bound.html", {"problem": str(problem)}, status=422)
    except Unavailable:
        problem_there = _("WeChat does not answer at the moment. Please scan the code again in a minute.")
        return render(request, "notices/wechat_bound.html", {"problem": problem_there}, status=503)
    return render(request, "notices/wechat_bound.html", {"problem": ""})


def _page(
    request: CustomerRequest,
    *,
    phone_form: PhoneForm | None = None,
    postal_form: PostalAddressForm | None = None,
    code_forms: Mapping[int, CodeForm] | None = None,
) -> HttpResponse:
    """All contact points and what may be added; a form that was filled in wrongly, as it was filled in."""
    wrong = [form for form in (phone_form, postal_form, *(code_forms or {}).values()) if form]
    points: dict[str, list[ContactPoint]] = {}
    for point in ContactPoint.objects.filter(customer=request.user, removed_at=None):
        points.setdefault(point.channel, []).append(point)
    given_up = contacts.given_up(request.user, now=timezone.now())
    usable = {slug for slug, channel in CHANNELS.items() if not channel.missing()}
    phones = [
        (
            point,
            contacts.readable(point.address),
            (code_forms or {}).get(point.pk) or CodeForm(auto_id=f"id_{point.pk}_%s"),
        )
        for point in points.get(PHONE, ())
    ]
    bindings = {
        slug: binding_token(channel=slug, customer_id=request.user.pk)
        for slug in (APP, WECHAT)
        if slug in usable
    }
    context = {
        "form": wrong[0] if wrong else None,
        "mail_came_back": contacts.mail_came_back(request.user),
        "phones": phones,
        "given_up": given_up,
        "lost_phones": [(point, contacts.readable(point.address)) for point in given_up.get(PHONE, ())],
        "phone_form": phone_form or PhoneForm(),
        "browsers": points.get(PUSH, ()),
        "wechats": points.get(WECHAT, ()),
        "devices": points.get(APP, ()),
        "letters": [
            (point, country_name(str(point.details.get("country", "")), get_language() or "en"))
            for point in points.get(LETTER, ())
        ],
        "postal_form": postal_form or PostalAddressForm(initial={"name": request.user.name}),
        "takes_phones": PHONE in usable,
        "demo_phone": settings.PHONE_URL,
        "push_key": push.public_key() if PUSH in usable else "",
        "endpoints": json.dumps([point.address for point in points.get(PUSH, ())]),
        "wechat_url": settings.SITE_URL + reverse("notices:bind-wechat", args=[bindings[WECHAT]])
        if WECHAT in bindings
        else "",
        "app_url": app.bind_url(bindings[APP]) if APP in bindings else "",
    }
    return render(request, "notices/contacts.html", context, status=422 if wrong else 200)


def _too_old() -> str:
    return _("This code is too old, or it was used. Open your contact points again and scan the new one.")


@functools.cache
def _worker() -> bytes:
    return Path(settings.BASE_DIR, "static", "js", "push-worker.js").read_bytes()
