"""Installs the functions and triggers of the queue after every migration."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OrdersConfig(AppConfig):
    name = "orders"

    def ready(self) -> None:
        # Models can be imported only now (Django loads this module before them). The first two register themselves.
        from orders import audiences, checks  # noqa: F401
        from orders.queue import segments

        post_migrate.connect(segments.install, sender=self, dispatch_uid="orders.queue.segments")
