"""Hears what happens to accounts, and what becomes of mails."""

from django.apps import AppConfig


class NoticesConfig(AppConfig):
    name = "notices"

    def ready(self) -> None:
        # Their receivers connect when they are imported, which needs the models (loaded after this module).
        from notices import security  # noqa: F401
        from notices.channels import tracking  # noqa: F401
