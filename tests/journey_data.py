"""What the browser tests start from: two plans with fees, no device, no batch, two members of staff.

Each test has a plan of its own, so that nobody waits in another's queue.

`manage.py shell` runs it in the environment of the stack; it prints what the tests have to know, as JSON.
"""

import json
import sys

from allauth.account.models import EmailAddress

from accounts.models import User
from tests.builders import make_fee, make_plan

STAFF_EMAIL, SECOND_STAFF_EMAIL, STAFF_PASSWORD = (
    "clerk@example.com",
    "second@example.com",
    "a long pass phrase",
)

plan, other = make_plan("Walkthrough 1", cap=20, limit=10), make_plan("Walkthrough 2", cap=20, limit=10)
for days, minor in ((7, 179), (30, 499), (90, 1_399)):
    make_fee(plan, days=days, minor=minor)
    make_fee(other, days=days, minor=minor)
    make_fee(other, days=days, minor=7 * minor, currency="CNY")
for email in (STAFF_EMAIL, SECOND_STAFF_EMAIL):
    clerk = User.objects.create_superuser(email, STAFF_PASSWORD)
    EmailAddress.objects.create(user=clerk, email=clerk.email, primary=True, verified=True)
json.dump(
    {
        "plan_name": plan.name,
        "plan_slug": plan.slug,
        "other_plan_slug": other.slug,
        "staff_email": STAFF_EMAIL,
        "second_staff_email": SECOND_STAFF_EMAIL,
        "staff_password": STAFF_PASSWORD,
    },
    sys.stdout,
)
