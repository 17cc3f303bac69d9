"""What providers of mail report of what they have taken: Anymail reads all their ways of saying it.

Their webhooks come in below `callbacks/email/`, from the provider that sends our mail and from no other: whoever posts in
the name of one whose key we do not hold proves nothing, and what is reported is evidence. Many are sent again and again;
what is known already changes nothing.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import anymail.urls
from anymail.signals import AnymailTrackingEvent, EventType, tracking
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from notices import deliveries
from notices.channels.email import CARRY_NOTHING, METADATA, Email
from notices.channels.protocol import Report
from notices.deliveries import SILENCE
from notices.kinds import KINDS
from notices.preferences import choose

logger = logging.getLogger(__name__)

# Whether the request that is being answered has told of a mail just sent that we do not know, or not yet.
_unknown: ContextVar[bool] = ContextVar("_unknown", default=False)

ARRIVED = frozenset({EventType.DELIVERED})
RETURNED = frozenset({EventType.BOUNCED, EventType.REJECTED, EventType.FAILED})
UNWANTED = frozenset({EventType.COMPLAINED, EventType.UNSUBSCRIBED})

# The user and password in the address that a provider is given. It proves the reports of those that do not sign.
IN_THE_ADDRESS = "WEBHOOK_SECRET"
# What proves the reports of providers that sign always: without their key Anymail reads none, whatever else there is.
SIGNED_WITH = {
    "mailersend": "MAILERSEND_SIGNING_SECRET",
    "mailgun": "MAILGUN_WEBHOOK_SIGNING_KEY",
    "mandrill": "MANDRILL_WEBHOOK_KEY",
    "postal": "POSTAL_WEBHOOK_KEY",
    "unisender_go": "UNISENDER_GO_API_KEY",
}
# And of those that sign where they are told to.
MAY_BE_SIGNED_WITH = {
    "mailtrap": "MAILTRAP_TRACKING_SECRET",
    "resend": "RESEND_SIGNING_SECRET",
    "sendgrid": "SENDGRID_TRACKING_WEBHOOK_VERIFICATION_KEY",
}


def addresses() -> Sequence[URLPattern]:
    """Where the provider that sends our mail reports: one address, or none where a report could not be proved."""
    offered = _offered() if _is_proved() else ()
    return tuple(path(str(one.pattern), _patient(one.callback), name=one.name) for one in offered)


@register
def reports_are_proved(**_: Any) -> Sequence[CheckMessage]:
    """Have no command run where mail goes by a provider whose reports could be anybody's."""
    if not _offered() or _is_proved():
        return ()
    return [
        Error(
            f"Nothing proves what {settings.EMAIL_BACKEND} reports of the mail it sends.",
            hint=f"Put {' or '.join(_proofs())} into ANYMAIL; docs/operating.md says what the provider is told.",
            id="notices.E001",
        )
    ]


def _provider() -> str:
    """As Anymail's modules are called; empty for a backend that is not Anymail's."""
    package, _, name = settings.EMAIL_BACKEND.removesuffix(".EmailBackend").rpartition(".")
    return name if package == "anymail.backends" else ""


def _offered() -> Sequence[URLPattern]:
    """Anymail's address for this provider. Mandrill has one for all that it tells."""
    names = (f"{_provider()}_tracking_webhook", f"{_provider()}_webhook")
    return tuple(pattern for pattern in anymail.urls.urlpatterns if pattern.name in names)


def _proofs() -> Sequence[str]:
    """Of these settings one is enough."""
    if key := SIGNED_WITH.get(_provider()):
        return (key,)
    key = MAY_BE_SIGNED_WITH.get(_provider())
    return (key, IN_THE_ADDRESS) if key else (IN_THE_ADDRESS,)


def _is_proved() -> bool:
    keys: Mapping[str, Any] = getattr(settings, "ANYMAIL", {})
    return any(keys.get(name) for name in _proofs())


@receiver(tracking, dispatch_uid="notices.channels.tracking")
def mail_reported(event: AnymailTrackingEvent, esp_name: str, **_: Any) -> None:
    """Put on record what became of a mail; who says that he does not want it gets no more of what is optional."""
    ours = (event.metadata or {}).get(METADATA)
    told = Report(
        event.message_id or "",
        has_arrived=event.event_type in ARRIVED,
        detail=event.mta_response or event.description or event.reject_reason or "",
        our_reference=ours if isinstance(ours, str) else "",
    )
    if not (told.provider_reference or told.our_reference):
        logger.warning("%s reports %s of a mail that it does not name.", esp_name, event.event_type)
        return
    now = timezone.now()
    if event.event_type in UNWANTED:
        _switch_off(told)
    elif event.event_type in ARRIVED | RETURNED and not deliveries.report(
        channel=Email.slug, told=told, now=now
    ):
        logger.warning("%s reports a mail that we do not know: %s", esp_name, told)
        _unknown.set(_unknown.get() or (event.timestamp is not None and now - event.timestamp < SILENCE))


def _patient(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Have a provider ask again who knows a mail by his own name alone, and has reported it before we had written that down."""

    @csrf_exempt
    @functools.wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        _unknown.set(False)
        response = view(request, *args, **kwargs)
        is_early = _unknown.get() and settings.EMAIL_BACKEND in CARRY_NOTHING
        return HttpResponse(status=503) if is_early else response

    return answer


def _switch_off(told: Report) -> None:
    delivery = deliveries.named(Email.slug, told).select_related("notice").first()
    kind = KINDS.get(delivery.notice.kind) if delivery else None
    if delivery and kind and not kind.contractual:
        choose(
            customer_id=delivery.notice.recipient_id,
            wanted={(kind.slug, Email.slug): False},
            now=timezone.now(),
        )
