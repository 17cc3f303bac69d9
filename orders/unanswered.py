"""What a gateway does not answer: it is asked again, ever more rarely, and a person hears of it in time.

An event of the inbox and a return are asked about by whoever moves their `next_try_at`: this is the claim, so that
two runs at once do not ask the same, and the pause, so that what is never answered does not come first for ever.
"""

from datetime import datetime, timedelta

from django.db.models import Q

from orders.gateways.protocol import CredentialsRefused, Unavailable, Unreachable
from orders.models import Order, ReviewKind
from orders.reviews import open_review_item

# Longer than a call takes, so that a claim outlives it.
SHORTEST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=1)
# So long something may go without an answer before a person looks at it.
PATIENCE = timedelta(hours=1)


def is_to_be_tried(now: datetime) -> Q:
    """The condition of rows with `next_try_at`; it is empty before the first try."""
    return Q(next_try_at=None) | Q(next_try_at__lte=now)


def next_try(*, since: datetime, now: datetime) -> datetime:
    """When to ask again about what has waited since then: after as long again, within bounds."""
    return now + min(max(now - since, SHORTEST_PAUSE), LONGEST_PAUSE)


def report_silence(
    problem: Unavailable, *, gateway: str, about: str, order: Order | None, since: datetime, now: datetime
) -> None:
    """Tell staff what has gone without an answer for too long, and at once that a gateway does not know us.

    Of a gateway that answers nothing at all they hear once a day, of anything else, `about`, once.
    """
    if isinstance(problem, CredentialsRefused):
        open_review_item(
            kind=ReviewKind.GATEWAY_REFUSES_US,
            key=f"{gateway}:{now:%Y-%m-%d}",
            order=None,
            detail=f"{problem} Asked about {about}; nothing is lost, and it is asked again.",
            now=now,
        )
    elif now - since >= PATIENCE:
        is_everything = isinstance(problem, Unreachable)
        open_review_item(
            kind=ReviewKind.NO_ANSWER,
            key=f"{gateway}:{now:%Y-%m-%d}" if is_everything else f"{gateway}:{about}",
            order=None if is_everything else order,
            detail=f"{gateway} was asked about {about} since {since:%Y-%m-%d %H:%M} UTC: {problem} It is asked again.",
            now=now,
        )
