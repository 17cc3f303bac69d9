"""Hears what happens to accounts."""

from django.apps import AppConfig


class NoticesConfig(AppConfig):
    name = "notices"

    def ready(self) -> None:
        # Its receivers connect when it is imported, which needs the models (Django loads this module before them).
        from notices import security  # noqa: F401
