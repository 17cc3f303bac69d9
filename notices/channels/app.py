"""Client push to the platform's own mobile app: by its server, signed as Standard Webhooks prescribe.

The message is a POST of JSON to APP_PUSH_URL:

    {"device": …, "title": …, "text": …, "url": …, "kind": …, "about": …, "thread": …, "language": …}

`Webhook-Id` is the same at every attempt: the app's server shows a message once, however often it comes. It answers
2xx with {"id": …}, 410 for a device that has the app no more, 429 or 503 when it is to be asked later.

A device is bound in the other direction (`read_binding`). The customer opens APP_BIND_URL in the app, by the code that
our page shows him: its token proves who he is. The app's server then calls us, with the same signature, and says which
device it was.
"""

import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlencode

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError

from accounts.models import User
from notices.channels.addresses import addresses_of
from notices.channels.asking import hand_over, is_reachable, refusal
from notices.channels.protocol import (
    Accepted,
    Address,
    Gone,
    NotProven,
    Outgoing,
    Unavailable,
    text_beside_title,
)
from notices.kinds import Form


@dataclass(frozen=True, slots=True)
class Binding:
    """What the app's server says of a device. With a `token` it is bound to whom that proves; without, to nobody."""

    device: str
    token: str
    label: str


class App:
    """Settings: APP_PUSH_URL, APP_PUSH_SECRET (whsec_ and base64) and APP_BIND_URL. The address is a device's token."""

    slug = "app"
    label: str | Promise = _("Mobile app")
    is_ours = False
    is_by_hand = False
    is_repeatable = True
    form = Form.SHORT
    rings = True
    per_second: float | None = settings.APP_PER_SECOND
    claimed_at_once = 10

    def missing(self) -> Sequence[str]:
        missing = [] if is_reachable(settings.APP_PUSH_URL) else ["APP_PUSH_URL"]
        missing += [] if _signer() else ["APP_PUSH_SECRET"]
        return missing if settings.APP_BIND_URL else [*missing, "APP_BIND_URL"]

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        return addresses_of(self.slug, recipients)

    def fitted(self, outgoing: Outgoing) -> Outgoing:
        return replace(outgoing, body=text_beside_title(outgoing))

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        signer = _signer()
        if not signer:
            raise Unavailable("There is no secret to sign with.")
        body = json.dumps(
            {
                "device": outgoing.address,
                "title": outgoing.subject,
                "text": outgoing.body,
                "url": f"{settings.SITE_URL}{outgoing.url}" if outgoing.url else "",
                "kind": outgoing.kind.slug,
                "about": outgoing.about,
                "thread": outgoing.thread,
                "language": outgoing.language,
            },
            ensure_ascii=False,
        )
        # Real time: the receiver compares it with his.
        at = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "Webhook-Id": outgoing.reference,
            "Webhook-Timestamp": str(int(at.timestamp())),
            "Webhook-Signature": signer.sign(outgoing.reference, at, body),
        }
        answer = hand_over(settings.APP_PUSH_URL, content=body.encode(), headers=headers, repeats=True)
        if 200 <= answer.status < 300:
            return Accepted(provider_reference=_id_in(answer.body) or outgoing.reference)
        if answer.status == 410:
            raise Gone(answer.said)
        if answer.status >= 500:
            raise Unavailable(answer.said, retry_after=answer.retry_after(now))
        raise refusal(answer, now=now)


def bind_url(token: str) -> str:
    """What the app opens to bind its device."""
    return f"{settings.APP_BIND_URL}?{urlencode({'token': token})}"


def read_binding(body: bytes, headers: Mapping[str, str]) -> Binding:
    """What the app's server says. Raises NotProven unless it is surely its word, and ValueError if it makes no sense."""
    signer = _signer()
    if not signer:
        raise NotProven("There is no secret to verify with.")
    try:
        signer.verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as failure:
        raise NotProven(str(failure)) from None
    match json.loads(body):
        case {"device": str(device), **rest} if 0 < len(device) <= 500:
            token, label = rest.get("token", ""), rest.get("label", "")
            if isinstance(token, str) and isinstance(label, str):
                return Binding(device, token, label)
    raise ValueError("It does not say which device.")


def _signer() -> Webhook | None:
    try:
        return Webhook(settings.APP_PUSH_SECRET) if settings.APP_PUSH_SECRET.startswith("whsec_") else None
    except (EmptyWebhookSecretError, binascii.Error):
        return None


def _id_in(body: str) -> str:
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    match content:
        case {"id": str(reference)}:
            return reference
    return ""
