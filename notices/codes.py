"""The code that proves a phone number. It is put into the message when that goes out, and is kept nowhere.

It follows from the secret key, the contact point and when the code was asked for. So neither the outbox nor the
evidence of what was sent lets anybody who reads them prove a number that is not his; a code that is asked for anew
makes the one before worthless.
"""

import hmac
from datetime import datetime, timedelta

from django.utils.crypto import constant_time_compare, salted_hmac

from notices.models import ContactPoint

# Stands in the stored message where the code goes.
PLACEHOLDER = "••••••"
VALID_FOR = timedelta(minutes=15)
DIGITS = 6


def code_of(point: ContactPoint) -> str:
    """The code last asked for. Raises ValueError if none was."""
    if point.asked_at is None:
        raise ValueError("No code was asked for.")
    asked = f"{point.pk} {point.channel} {point.address} {point.asked_at.isoformat()}"
    digest: hmac.HMAC = salted_hmac("notices.codes", asked, algorithm="sha256")
    return f"{int.from_bytes(digest.digest()) % 10**DIGITS:0{DIGITS}}"


def is_valid(point: ContactPoint, now: datetime) -> bool:
    """Whether its code still proves it."""
    return (
        point.verified_at is None
        and point.removed_at is None
        and point.asked_at is not None
        and now < point.asked_at + VALID_FOR
    )


def is_right(point: ContactPoint, code: str) -> bool:
    return constant_time_compare(code_of(point), code)


def current(*, customer_id: int, channel: str, address: str, now: datetime) -> str | None:
    """The code that a message to this address shall have in it; None if nothing is left to be proved by it."""
    points = ContactPoint.objects.filter(
        customer=customer_id, channel=channel, address=address, removed_at=None
    )
    point = points.order_by("-id").first()
    return code_of(point) if point and is_valid(point, now) else None
