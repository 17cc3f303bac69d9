"""Installs the triggers after every migration, so that a rebuilt table never loses them."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class EvidenceConfig(AppConfig):
    name = "evidence"

    def ready(self) -> None:
        # Models can be imported only now (Django loads this module before them).
        from evidence.triggers import install_triggers

        post_migrate.connect(install_triggers, sender=self, dispatch_uid="evidence.install_triggers")
