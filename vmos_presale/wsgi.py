"""The web server's entry point (synchronous: the pages are short and read the database)."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vmos_presale.settings")

application = get_wsgi_application()
