"""The demo's mailbox, and the browser of its phone."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import httpx
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from accounts.views import CustomerRequest
from notices.channels.push import public_key
from notices.contacts import NotAnAddress, TooMany, add_browser

PAGE_SIZE = 20


@dataclass(frozen=True, slots=True)
class Mail:
    """One written message. `name` is its file's, without the ending."""

    name: str
    sender: str
    recipient: str
    subject: str
    sent_at: datetime
    message_id: str
    text: str


@require_GET
@never_cache
def mail(request: HttpRequest) -> HttpResponse:
    """Every mail the demo has sent, newest first."""
    names = sorted((path.stem for path in _folder().glob("*.eml")), reverse=True)
    page = Paginator(names, PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "demo/mail.html", {"page": page, "mails": [_read(name) for name in page]})


@require_GET
def mail_message(request: HttpRequest, name: str) -> HttpResponse:
    """One mail. The address admits letters, digits and hyphens only, so no name leads out of the folder."""
    try:
        found = _read(name)
    except FileNotFoundError:
        raise Http404 from None
    return render(request, "demo/mail_message.html", {"mail": found})


@login_required
@require_POST
def phone_browser(request: CustomerRequest) -> HttpResponse:
    """Subscribe the browser of the demo's phone: a real one needs its maker's push service, and the internet."""
    try:
        with httpx.Client(trust_env=False, timeout=5) as client:
            response = client.post(
                f"{settings.PHONE_URL}/push/subscriptions",
                headers={"Authorization": f"Bearer {settings.PHONE_KEY}"},
                json={"applicationServerKey": public_key()},
            ).raise_for_status()
        subscription = response.json()
        add_browser(
            customer_id=request.user.pk,
            endpoint=subscription["endpoint"],
            keys=subscription["keys"],
            label=_("Browser of the demo's phone"),
            now=timezone.now(),
        )
    except (httpx.HTTPError, httpx.InvalidURL):
        messages.error(request, _("The demo's phone does not answer."))
    except (NotAnAddress, TooMany) as problem:
        messages.error(request, str(problem))
    else:
        messages.success(request, _("The browser of the demo's phone is notified now."))
    return redirect("notices:contacts")


def _folder() -> Path:
    return Path(settings.MAILBOX_DIR)


def _read(name: str) -> Mail:
    """Raises FileNotFoundError."""
    path = _folder() / f"{name}.eml"
    with path.open("rb") as file:
        message = BytesParser(_class=EmailMessage, policy=policy.default).parse(file)
    part = message.get_body(preferencelist=("plain", "html"))
    return Mail(
        name=name,
        sender=str(message["From"] or ""),
        recipient=str(message["To"] or ""),
        subject=str(message["Subject"] or ""),
        sent_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        message_id=str(message["Message-ID"] or ""),
        text=part.get_content() if part else "",
    )
