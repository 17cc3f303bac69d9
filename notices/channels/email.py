"""Email, by whatever backend Django is configured with: SMTP, or a provider's API through Anymail."""

import contextlib
import re
import smtplib
from collections.abc import Mapping, Sequence
from datetime import datetime

import requests
from anymail.exceptions import AnymailAPIError, AnymailError, AnymailRecipientsRefused
from django.conf import settings
from django.core import mail
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.mail.backends.base import BaseEmailBackend
from django.core.validators import validate_email
from django.template.loader import render_to_string
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from urllib3.exceptions import NewConnectionError

from accounts.models import User
from notices.channels.protocol import Accepted, Address, Deferred, Outgoing, Refused, Unavailable, Uncertain
from notices.kinds import Form
from notices.links import switch_off

# The name of a mail's reference in what a provider is given to carry with it.
METADATA = "delivery"
# What a provider's API answers before it has looked at the message: it is busy, or our key or account is
# at fault. The customer's address is not, so the message waits until that is mended.
NOT_LOOKED_AT = frozenset({401, 402, 403, 408, 425, 429, 503})
# What Anymail calls a recipient whose mail the provider has.
TAKEN = frozenset({"sent", "queued", "delivered"})
# Providers that carry nothing of ours with a mail to their reports.
CARRY_NOTHING = frozenset({"anymail.backends.postal.EmailBackend"})
# What a server says of one mailbox, for now: it is busy or full, or unknown senders wait. (RFC 5321, 4.2.3.)
OF_A_MAILBOX = frozenset({450, 451, 452})
# Unless it adds that its own system, its network or the protocol is at fault (RFC 3463).
OF_THE_SERVER = re.compile(r"\d{3}[ -]4\.[345]\.")


class Email:
    """One mail to one person, with a text and an HTML part.

    The connection is opened before anything is sent and closed after every mail: whatever fails while it
    opens has surely sent nothing, and a server that hangs up on an idle connection is never mistaken for
    one that hung up after taking the mail.
    """

    slug = "email"
    label: str | Promise = _("Email")
    is_ours = False
    is_by_hand = False
    is_repeatable = False
    form = Form.FULL
    rings = False
    per_second: float | None = settings.EMAIL_PER_SECOND
    # So many that fetching them costs little, so few that a slow server does not hold back the rest.
    claimed_at_once = 10

    def missing(self) -> Sequence[str]:
        return ()

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        return {recipient.pk: (Address(recipient.email),) for recipient in recipients if recipient.email}

    def fitted(self, outgoing: Outgoing) -> Outgoing:
        return outgoing

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        message = compose(outgoing)
        try:
            connection = mail.get_connection()
            connection.open()
        except (OSError, ImproperlyConfigured) as failure:
            raise Unavailable(f"No connection: {failure}") from failure
        try:
            return _send(message, connection)
        finally:
            # The mail is out or not; how the goodbye went changes nothing (an SMTPException is an OSError).
            with contextlib.suppress(OSError):
                connection.close()


def compose(outgoing: Outgoing) -> mail.EmailMultiAlternatives:
    """The mail as it goes out. Its Message-ID is the same at every attempt, so that it can be found again.

    Raises Refused for what cannot be written as a mail. It is found here, before anything is sent: a backend
    may raise the same errors over a provider's answer, when the mail is long out.
    """
    off = _switch_off(outgoing)
    with translation.override(outgoing.language):
        page = {
            "outgoing": outgoing,
            "address": settings.SITE_URL + outgoing.url if outgoing.url else "",
            "site": settings.SITE_URL,
            "off": off,
        }
        text = render_to_string("notices/email.txt", page)
        html = render_to_string("notices/email.html", page)
    message = mail.EmailMultiAlternatives(
        subject=outgoing.subject,
        body=text,
        to=[outgoing.address],
        reply_to=[settings.SUPPORT_EMAIL] if settings.SUPPORT_EMAIL else None,
        headers={
            "Message-ID": f"<{outgoing.reference}@{settings.SITE_HOST}>",
            # Asks out-of-office programs not to answer (RFC 3834).
            "Auto-Submitted": "auto-generated",
            # The mail program's own button, which asks without opening a page (RFC 2369, RFC 8058).
            **(
                {"List-Unsubscribe": f"<{off}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
                if off
                else {}
            ),
        },
    )
    message.attach_alternative(html, "text/html")
    if settings.EMAIL_BACKEND not in CARRY_NOTHING:
        # Comes back with each report, of providers that give a mail an id of their own.
        message.metadata = {METADATA: outgoing.reference}  # type: ignore[attr-defined]
    try:
        validate_email(outgoing.address)
        message.message()
    except (ValidationError, ValueError) as failure:
        raise Refused(f"It cannot be written as a mail: {failure}") from failure
    return message


def _switch_off(outgoing: Outgoing) -> str:
    """Where its reader switches this kind of mail off; empty for what is owed to him."""
    if outgoing.kind.contractual:
        return ""
    path = switch_off(customer_id=outgoing.recipient_id, kind=outgoing.kind.slug, channel=Email.slug)
    return f"{settings.SITE_URL}{path}"


def _send(message: mail.EmailMultiAlternatives, connection: BaseEmailBackend) -> Accepted:
    try:
        taken = connection.send_messages([message])
    except smtplib.SMTPException as failure:
        raise _smtp_outcome(failure) from failure
    except AnymailRecipientsRefused as failure:
        raise Refused(str(failure)) from failure
    except AnymailAPIError as failure:
        raise _api_outcome(failure) from failure
    except (AnymailError, OSError) as failure:
        raise Uncertain(f"No answer, or one that makes no sense: {failure}") from failure
    if not taken:
        raise Unavailable("The backend took no mail.")
    status = getattr(message, "anymail_status", None)  # set by Anymail's backends only
    if status is None:
        # By SMTP: the server's word, with the number that it is found by in its log.
        answer = getattr(message, "relay_answer", "")
        return Accepted(provider_reference=answer or message.extra_headers["Message-ID"])
    if not status.status <= TAKEN:
        raise Uncertain(f"The provider says no more than {status.status}.")
    return Accepted(provider_reference=status.message_id or message.extra_headers["Message-ID"])


def _smtp_outcome(failure: smtplib.SMTPException) -> Exception:
    """What a failure on an open SMTP connection means."""
    match failure:
        case smtplib.SMTPRecipientsRefused():
            return _of_a_mailbox(*next(iter(failure.recipients.values())))
        case smtplib.SMTPSenderRefused() | smtplib.SMTPHeloError() | smtplib.SMTPAuthenticationError():
            return Unavailable(f"The server refuses us: {failure}")  # our fault, not this message's
        case smtplib.SMTPResponseException():
            return _by_code(failure.smtp_code, failure.smtp_error)
        case smtplib.SMTPNotSupportedError():
            return Refused(f"The server cannot carry it: {failure}")
        case _:  # it hung up, and may have taken the mail before
            return Uncertain(f"No answer: {failure}")


def _of_a_mailbox(code: int, answer: bytes | str) -> Exception:
    """A server's word on one recipient."""
    outcome = _by_code(code, answer)
    if code in OF_A_MAILBOX and not OF_THE_SERVER.match(str(outcome)):
        return Deferred(str(outcome))
    return outcome


def _by_code(code: int, answer: bytes | str) -> Exception:
    """A server's own word: codes of 500 and more are final, those below are not."""
    said = f"{code} {answer.decode(errors='replace') if isinstance(answer, bytes) else answer}"
    return Refused(said) if code >= 500 else Unavailable(said)


def _api_outcome(failure: AnymailAPIError) -> Exception:
    """What a failed call of a provider's API means."""
    status = failure.status_code
    if status is None:
        # A call that never got an answer. It is harmless only if no connection was ever made.
        cause = failure.__cause__
        unconnected = isinstance(cause, requests.ConnectTimeout) or (
            isinstance(cause, requests.ConnectionError)
            and bool(cause.args)
            and isinstance(getattr(cause.args[0], "reason", None), NewConnectionError)
        )
        said = f"{failure.args[0] if failure.args else ''} {cause or ''}".strip()
        return Unavailable(said) if unconnected else Uncertain(said)
    said = f"{failure.esp_name} answered {status}: {failure.args[0] if failure.args else ''}"
    if status in NOT_LOOKED_AT:
        return Unavailable(said)
    if 400 <= status < 500:
        return Refused(said)
    return Uncertain(said)  # 500, 502, 504, and a success whose body made no sense
