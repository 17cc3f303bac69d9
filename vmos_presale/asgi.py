"""The entry point for an ASGI server, for hosts that offer nothing else."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vmos_presale.settings")

application = get_asgi_application()
