"""`manage.py publish_agreements`: make the shipped texts the published ones."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from agreements.models import Document
from agreements.publishing import NotPublishable, TextDiffers, publish_shipped_texts
from agreements.rights import UnknownRight, publish_rights


class Command(BaseCommand):
    help = (
        "Publishes the agreement texts that ship with the code, and the statutory rights that STATUTORY_RIGHTS names. "
        "Safe to run again; never changes a published text."
    )

    def handle(self, **options: Any) -> None:
        try:
            publication = publish_shipped_texts(now=timezone.now())
            rights = publish_rights(now=timezone.now())
        except (NotPublishable, TextDiffers, UnknownRight) as refusal:
            raise CommandError(f"Not everything was published.\n{refusal}") from refusal
        for text in publication.added:
            self.stdout.write(
                f"published {text.version.document} {text.version.number}, {text.language}: {text.sha256}"
            )
        for right in rights:
            self.stdout.write(f"published right {right.key}, edition {right.edition}: {right.law}")
        if not publication.added and not rights:
            self.stdout.write("nothing new to publish")
        for document in Document:
            version = publication.in_force.get(document)
            self.stdout.write(f"in force: {document.value} {version.number if version else 'none'}")
            if version is None:
                self.stderr.write(f"No version of {document.value} is in force: checkout is closed.")
