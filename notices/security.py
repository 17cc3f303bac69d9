"""What happens to an account is told to whoever owns it, by every way that reaches him (agreement 4.1).

allauth logs in, and changes passwords, addresses and second factors, and says so by its signals; we tell in the same
transaction. Contact points are ours: `notices.contacts` tells of them.
"""

from typing import Any

from allauth.account import signals
from allauth.account.models import EmailAddress
from allauth.mfa import signals as mfa
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import get_random_string

from accounts.browsers import remember
from accounts.models import User
from accounts.visitors import address_of, browser_name
from notices.kinds import SECURITY
from notices.outbox import Draft, tell

# By it a browser is recognised in which somebody has logged in before.
BROWSER_COOKIE = "browser"
BROWSER_COOKIE_AGE = 2 * 365 * 24 * 3600


def tell_of(event: str, *, customer_id: int, detail: str = "", address: str = "", to_email: str = "") -> None:
    """Tell a customer what happened to his account, in a transaction if there is one.

    `address` is the internet address it came from; `to_email` the one mail address to tell, where it is not his any more.
    """
    now = timezone.now()
    with transaction.atomic():
        tell(
            [
                Draft(
                    recipient_id=customer_id,
                    kind=SECURITY,
                    about="",
                    url=reverse("accounts:profile"),
                    facts={"event": event, "detail": detail, "at": now.isoformat(), "address": address},
                    dedupe_key=f"{SECURITY.slug}:{event}:{customer_id}:{now.isoformat()}:{to_email}",
                    to_channel="email" if to_email else "",
                    to_address=to_email,
                )
            ],
            now=now,
        )


@receiver(
    [signals.password_changed, signals.password_set, signals.password_reset], dispatch_uid="security.password"
)
def password_changed(request: HttpRequest | None, user: User, **_: Any) -> None:
    tell_of("password-changed", customer_id=user.pk, address=_address(request))


@receiver(signals.email_added, dispatch_uid="security.email_added")
def email_added(request: HttpRequest | None, user: User, email_address: EmailAddress, **_: Any) -> None:
    tell_of("email-added", customer_id=user.pk, detail=email_address.email, address=_address(request))


@receiver(signals.email_changed, dispatch_uid="security.email_changed")
def email_changed(
    request: HttpRequest | None,
    user: User,
    from_email_address: EmailAddress | None,
    to_email_address: EmailAddress,
    **_: Any,
) -> None:
    """Tell both addresses: whoever has taken over an account reads the new one only."""
    said = {"detail": to_email_address.email, "address": _address(request)}
    tell_of("email-changed", customer_id=user.pk, **said)
    if from_email_address:
        tell_of("email-changed", customer_id=user.pk, to_email=from_email_address.email, **said)


@receiver(signals.email_removed, dispatch_uid="security.email_removed")
def email_removed(request: HttpRequest | None, user: User, email_address: EmailAddress, **_: Any) -> None:
    """Tell the address that was removed as well, if it ever was proved to be his."""
    said = {"detail": email_address.email, "address": _address(request)}
    tell_of("email-removed", customer_id=user.pk, **said)
    if email_address.verified:
        tell_of("email-removed", customer_id=user.pk, to_email=email_address.email, **said)


@receiver(signals.user_logged_in, dispatch_uid="security.logged_in")
def logged_in(request: HttpRequest, response: HttpResponse, user: User, **_: Any) -> None:
    """Tell of a browser in which he has not logged in before; not of his first one, with which he has signed up."""
    token = request.COOKIES.get(BROWSER_COOKIE) or get_random_string(32)
    response.set_cookie(
        BROWSER_COOKIE,
        token,
        max_age=BROWSER_COOKIE_AGE,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
    label = browser_name(request.headers.get("User-Agent", ""))
    if remember(user_id=user.pk, token=token, label=label, now=timezone.now()):
        tell_of("new-browser", customer_id=user.pk, detail=label, address=_address(request))


@receiver([mfa.authenticator_added, mfa.authenticator_reset], dispatch_uid="security.second_factor_added")
def second_factor_added(
    request: HttpRequest | None, user: User, authenticator: Authenticator, **_: Any
) -> None:
    """Recovery codes come with the first factor, and are made anew when he wants it."""
    are_codes = authenticator.type == Authenticator.Type.RECOVERY_CODES
    event = "recovery-codes-made" if are_codes else "second-factor-added"
    tell_of(event, customer_id=user.pk, address=_address(request))


@receiver(mfa.authenticator_removed, dispatch_uid="security.second_factor_removed")
def second_factor_removed(
    request: HttpRequest | None, user: User, authenticator: Authenticator, **_: Any
) -> None:
    """Recovery codes go with the last factor, of which he is told."""
    if authenticator.type != Authenticator.Type.RECOVERY_CODES:
        tell_of("second-factor-removed", customer_id=user.pk, address=_address(request))


def _address(request: HttpRequest | None) -> str:
    return (address_of(request) if request else None) or ""
