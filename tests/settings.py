"""The settings of the test run: those of the shop, with what makes tests quick and needs nothing set."""

import os

os.environ.setdefault("SECRET_KEY", "tests")
# The files are not collected for the tests, so their hashed names are not known.
os.environ.setdefault("STATICFILES_BACKEND", "django.contrib.staticfiles.storage.StaticFilesStorage")

from vmos_presale.settings import *  # noqa: F403

# WhiteNoise warns of a folder that is not there, and a warning is an error.
STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # noqa: F405

# Passwords are made slow to guess, which every test that makes a user would pay for.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Emptied before every test, which nobody else may be using.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
