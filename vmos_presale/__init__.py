"""The front door: settings, URLs and processes. It knows every app; no app imports it."""

from vmos_presale.celery import app as celery_app

__all__ = ("celery_app",)
