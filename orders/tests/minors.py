"""Orders of buyers under 18, and what their guardians say."""

import uuid
from datetime import datetime, timedelta

from accounts.models import User
from agreements.acceptance import Consent, Witness, required_of_buyer, required_of_guardian
from inventory.models import Fee
from inventory.money import Money
from orders.checkout import Wish, place_order
from orders.guardians import Guardian, confirm
from orders.models import GuardianRequest, Order
from tests.builders import NOW, make_user

MEI = Guardian("Mei", "mei@example.com")
LATER = NOW + timedelta(hours=1)


def make_minor(*, name: str = "Lin") -> User:
    user = make_user("buyer@example.com")
    User.objects.filter(pk=user.pk).update(name=name)
    user.refresh_from_db()
    return user


def place(buyer: User, fee: Fee, *, guardian: Guardian | None = MEI, language: str = "en") -> Order:
    """Two phones. The agreements must have been published."""
    return place_order(
        customer_id=buyer.pk,
        checkout_key=uuid.uuid4(),
        wishes=[Wish(fee.term_id, 2)],
        currency="USD",
        seen_total=Money(fee.minor * 2, "USD"),
        country="HK",
        consents=[
            Consent(each.text.pk, each.subject, each.role, buyer.name, buyer.email, each.statement)
            for each in required_of_buyer(now=NOW, language=language, right=None)
        ],
        witness=Witness(None, ""),
        guardian=guardian,
        language=language,
        now=NOW,
    )


def consents_of(request: GuardianRequest) -> list[Consent]:
    """Everything ticked by a guardian who writes his name as "Mei Lin"."""
    return [
        Consent(each.text.pk, each.subject, each.role, "Mei Lin", request.email, each.statement)
        for each in required_of_guardian(order_reference=request.order.reference, language=request.language)
    ]


def say_yes(request: GuardianRequest, *, now: datetime = LATER) -> Order:
    witness = Witness("203.0.113.9", "Firefox", "I confirm")
    return confirm(request_id=request.pk, consents=consents_of(request), witness=witness, now=now)
