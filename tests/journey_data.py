"""What the browser tests start from: one plan with fees, no device, no batch, one member of staff.

Run as a program in the environment of the stack; prints what the tests have to know, as JSON.
"""

import json

import django

STAFF_EMAIL, STAFF_PASSWORD = "clerk@example.com", "a long pass phrase"


def main() -> None:
    """Make the data and print it."""
    django.setup()
    # Models can be imported only when Django is set up.
    from allauth.account.models import EmailAddress

    from accounts.models import User
    from tests.builders import make_fee, make_plan

    plan = make_plan("Walkthrough 1", cap=20, limit=10)
    for days, minor in ((7, 179), (30, 499), (90, 1_399)):
        make_fee(plan, days=days, minor=minor)
    clerk = User.objects.create_superuser(STAFF_EMAIL, STAFF_PASSWORD)
    EmailAddress.objects.create(user=clerk, email=clerk.email, primary=True, verified=True)
    print(
        json.dumps(
            {
                "plan_name": plan.name,
                "plan_slug": plan.slug,
                "staff_email": STAFF_EMAIL,
                "staff_password": STAFF_PASSWORD,
            }
        )
    )


if __name__ == "__main__":
    main()
