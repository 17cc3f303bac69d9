"""One step of a measurement in a process of its own: python -m bench.child MODULE:FUNCTION ARGUMENTS"""

import json
import os
import sys
from importlib import import_module

import django

if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    module, _, function = sys.argv[1].partition(":")
    returned = getattr(import_module(module), function)(**json.loads(sys.argv[2]))
    print(json.dumps(returned))
