"""The door for the gateways' webhooks: verified, stored, answered; worked off later."""

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from orders.gateways import GATEWAYS, gateway_named
from orders.gateways.protocol import BadSignature, Unavailable
from orders.payments import receive_webhook

LARGEST_BODY = 1024 * 1024


@csrf_exempt
@require_POST
def webhook(request: HttpRequest, gateway: str) -> HttpResponse:
    """200 only for what is stored: a provider repeats everything else."""
    if gateway not in GATEWAYS:
        raise Http404
    # Known before it is read, and read no further than announced.
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        return HttpResponseBadRequest()
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        receive_webhook(gateway=gateway, headers=headers, body=request.body, now=timezone.now())
    except BadSignature:
        return HttpResponseBadRequest()
    except Unavailable:
        return HttpResponse(status=503)
    answer = gateway_named(gateway).webhook_answer
    return HttpResponse(answer.body, status=answer.status, content_type=answer.content_type)
