"""The embedded demo: sample data, and the mail it sends, read in the browser."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "vmos_presale.demo"
    label = "demo"
