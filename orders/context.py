"""What the header of every page shows of the shop."""

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone

from orders.basket import Basket

CURRENCY_KEY = "currency"


def currency_of(request: HttpRequest) -> str:
    """The currency the visitor chose, else the first of the shop's."""
    chosen: str = request.session.get(CURRENCY_KEY, "")
    return chosen if chosen in settings.SHOP_CURRENCIES else settings.SHOP_CURRENCIES[0]


def shop(request: HttpRequest) -> dict[str, object]:
    return {
        "basket_count": Basket(request.session, now=timezone.now()).units,
        "currency": currency_of(request),
        "currencies": settings.SHOP_CURRENCIES,
        "is_demo": settings.DEMO,
        "support_email": settings.SUPPORT_EMAIL,
    }
