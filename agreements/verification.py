"""What can be checked about the texts and the acceptances of them (see `evidence.verification`)."""

from collections.abc import Iterator
from datetime import datetime

from agreements.models import Acceptance, Text
from agreements.publishing import digest
from evidence.verification import checks


@checks("agreement texts")
def texts(_now: datetime) -> Iterator[str]:
    """A text whose wording is not what its hash stands for."""
    for text in Text.objects.select_related("version").order_by("pk").iterator(50):
        if digest(text.body) != text.sha256:
            yield f"The text of {text.version} in {text.language} was altered: its sha256 is {text.sha256}."


@checks("acceptances")
def acceptances(_now: datetime) -> Iterator[str]:
    """An acceptance of other words than those that are published."""
    known = dict(Text.objects.values_list("pk", "sha256"))
    accepted = Acceptance.objects.order_by("pk").values_list("pk", "text_id", "text_sha256")
    for number, text_id, sha256 in accepted.iterator(2_000):
        if known[text_id] != sha256:
            yield f"Acceptance {number} is of a text with the sha256 {sha256}, which is not published."
