"""What can be checked about what was told (see `evidence.verification`)."""

from collections.abc import Iterator
from datetime import datetime

from evidence.verification import checks
from notices.models import Message
from notices.rendering import Text


@checks("message texts")
def messages(_now: datetime) -> Iterator[str]:
    """A message whose words are not those that its hash stands for."""
    for message in Message.objects.order_by("pk").iterator(500):
        if Text(message.language, message.subject, message.body).sha256 != message.sha256:
            yield f"Message text {message.pk} was altered: its sha256 is {message.sha256}."
