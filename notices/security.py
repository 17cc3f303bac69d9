"""What happens to an account is told to whoever owns it, by every way that reaches him (agreement 4.1).

allauth changes passwords, addresses and second factors, and says so by its signals; we tell in the same transaction.
"""

from typing import Any

from allauth.account import signals
from allauth.account.models import EmailAddress
from allauth.mfa import signals as mfa
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from accounts.visitors import address_of
from notices.kinds import SECURITY
from notices.outbox import Draft, tell


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


@receiver([mfa.authenticator_added, mfa.authenticator_reset], dispatch_uid="security.second_factor_added")
def second_factor_added(request: HttpRequest | None, user: User, **_: Any) -> None:
    tell_of("second-factor-added", customer_id=user.pk, address=_address(request))


@receiver(mfa.authenticator_removed, dispatch_uid="security.second_factor_removed")
def second_factor_removed(request: HttpRequest | None, user: User, **_: Any) -> None:
    tell_of("second-factor-removed", customer_id=user.pk, address=_address(request))


def _address(request: HttpRequest | None) -> str:
    return (address_of(request) if request else None) or ""
