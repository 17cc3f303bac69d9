"""The doors by which those who carry our messages tell what became of them, and who is reached there no more.

Each proves itself before a word of it is believed. What is said twice changes nothing the second time.
"""

from collections.abc import Iterable

from django.core.signing import BadSignature
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseForbidden, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from notices import contacts, deliveries
from notices.channels import app, sms, wechat
from notices.channels.protocol import NotProven, Report
from notices.contacts import APP, PHONE, WECHAT, TooMany, Used
from notices.views_contacts import bound_by

LARGEST_BODY = 1024 * 1024


@csrf_exempt
@require_POST
def sms_reports(request: HttpRequest, token: str) -> HttpResponse:
    if _is_too_large(request):
        return HttpResponseBadRequest()
    # Before the form is read, or the body could not be.
    body = request.body
    form = {name: value for name, value in request.POST.items() if isinstance(value, str)}
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        reports = sms.read_reports(body, form, headers, request.get_full_path())
    except NotProven:
        return HttpResponseForbidden()
    _record(PHONE, reports)
    # Alibaba wants these words, Twilio none.
    return JsonResponse({"code": 0, "msg": "OK"})


@csrf_exempt
@require_http_methods(["GET", "POST"])
def wechat_events(request: HttpRequest) -> HttpResponse:
    """GET: WeChat asks whether the address is ours. POST: it tells what happened."""
    query = {name: value for name, value in request.GET.items() if isinstance(value, str)}
    if request.method == "GET":
        if not wechat.is_from_wechat(query):
            return HttpResponseForbidden()
        return HttpResponse(query.get("echostr", ""), content_type="text/plain; charset=utf-8")
    if _is_too_large(request):
        return HttpResponseBadRequest()
    try:
        event = wechat.read_event(request.body, query)
    except NotProven:
        return HttpResponseForbidden()
    if event.report and not _record(WECHAT, [event.report]):
        # The message's name may be on its way to our books still. WeChat tells it again.
        return HttpResponse(status=503)
    if event.left:
        contacts.unbind(
            channel=WECHAT,
            identity=event.left,
            reason="He does not follow the account any more.",
            now=timezone.now(),
        )
    return HttpResponse("success", content_type="text/plain")


@csrf_exempt
@require_POST
def app_devices(request: HttpRequest) -> HttpResponse:
    """The app's server binds a device to a customer (with his token), or says that nobody uses it any more."""
    if _is_too_large(request):
        return HttpResponseBadRequest()
    try:
        binding = app.read_binding(request.body, request.headers)
    except NotProven:
        return HttpResponseForbidden()
    except ValueError:
        return HttpResponseBadRequest()
    now = timezone.now()
    if not binding.token:
        contacts.unbind(channel=APP, identity=binding.device, reason="The app has let it go.", now=now)
        return HttpResponse(status=204)
    try:
        customer_id, allowed_at = bound_by(binding.token, channel=APP)
        contacts.bind(
            customer_id=customer_id,
            channel=APP,
            identity=binding.device,
            label=binding.label,
            allowed_at=allowed_at,
            now=now,
        )
    except (BadSignature, Used):
        return JsonResponse({"problem": "The token is too old, or was used."}, status=410)
    except TooMany as problem:
        return JsonResponse({"problem": str(problem)}, status=422)
    return HttpResponse(status=204)


def _record(channel: str, reports: Iterable[Report]) -> bool:
    """Put on record what became of messages that the provider had taken; False if we know of none such (yet)."""
    known = [deliveries.report(channel=channel, told=told, now=timezone.now()) for told in reports]
    return all(known)


def _is_too_large(request: HttpRequest) -> bool:
    """Known before it is read, and read no further than announced."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    return not length.isdecimal() or int(length) > LARGEST_BODY
