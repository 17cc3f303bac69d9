"""`manage.py verify_evidence`: is everything on record as it was written?"""

from argparse import ArgumentParser
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from evidence.models import Chained
from evidence.verification import verify_evidence


class Command(BaseCommand):
    help = (
        "Looks for evidence that was altered, removed or put in. Prints what was checked and the heads of the "
        "chains; exits with 1 if anything is wrong."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--seal",
            action="append",
            default=[],
            metavar="CHAIN:NUMBER:SHA256",
            help="a seal that was printed or published earlier and must still be in its chain; may be repeated",
        )

    def handle(self, *, seal: list[str], **options: Any) -> None:
        report = verify_evidence(now=timezone.now())
        wrong = [sentence for found in report.findings.values() for sentence in found]
        for name, found in report.findings.items():
            self.stdout.write(f"{name}: {f'{len(found)} found' if found else 'nothing wrong'}")
        wrong += [sentence for written in seal if (sentence := _contradiction(written))]
        for name, (number, sha256) in report.heads.items():
            self.stdout.write(f"seal {name}:{number}:{sha256}")
        for sentence in wrong:
            self.stderr.write(sentence)
        if wrong:
            raise CommandError(f"The evidence is not as it was written: {len(wrong)} found.", returncode=1)


def _contradiction(written: str) -> str:
    """What is wrong with the chain if `written` is a seal that it once had; empty if nothing is."""
    name, _colon, rest = written.partition(":")
    number, _colon, sha256 = rest.partition(":")
    chains = {model._meta.label_lower: model for model in apps.get_models() if issubclass(model, Chained)}
    if name not in chains or not number.isdecimal():
        raise CommandError(f"{written} is no seal. It reads CHAIN:NUMBER:SHA256, as this command prints it.")
    row = chains[name].objects.filter(chain_number=int(number)).first()
    return "" if row and row.chain_sha256 == sha256 else f"{name} does not have the seal {number}:{sha256}."
