"""Looking for evidence that was tampered with.

Every app says in its own `verification.py` what can be checked about its records, each check a generator of
sentences about what is wrong; `manage.py verify_evidence` and a nightly job run them all.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.apps import apps
from django.db import connection
from django.utils.module_loading import autodiscover_modules

from evidence.chain import broken_links
from evidence.models import Chained, ChainHead
from evidence.triggers import missing_triggers

Check = Callable[[datetime], Iterator[str]]

_checks: dict[str, Check] = {}


@dataclass(frozen=True, slots=True)
class Report:
    """`findings`: what is wrong, by check; a check that found nothing has none. `heads`: number and seal by chain."""

    findings: Mapping[str, tuple[str, ...]]
    heads: Mapping[str, tuple[int, str]]

    @property
    def is_clean(self) -> bool:
        return not any(self.findings.values())


def checks(name: str) -> Callable[[Check], Check]:
    """Make a generator of sentences one of the checks; it is told the time. `name` says in a few words what it looks at."""

    def register(check: Check) -> Check:
        _checks[name] = check
        return check

    return register


def verify_evidence(*, now: datetime) -> Report:
    """Run every check of every app, as of `now`. Reads much and writes nothing."""
    autodiscover_modules("verification")
    return Report(
        findings={name: tuple(check(now)) for name, check in sorted(_checks.items())},
        heads={
            head.name: (head.chain_number, head.chain_sha256) for head in ChainHead.objects.order_by("name")
        },
    )


@checks("triggers")
def _triggers(_now: datetime) -> Iterator[str]:
    for name in missing_triggers(connection):
        yield f"The trigger {name} is missing: run migrate, and find out who dropped it."


@checks("chains")
def _chains(_now: datetime) -> Iterator[str]:
    for model in apps.get_models():
        if issubclass(model, Chained):
            yield from broken_links(model)
