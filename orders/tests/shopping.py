"""What a customer does in the shop, for tests of its pages."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from django.test import Client

from accounts.models import User
from inventory.models import Fee
from orders.forms import CheckoutForm

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Answer


def log_in(client: Client, customer: User) -> None:
    client.force_login(customer, backend="django.contrib.auth.backends.ModelBackend")


def put_into_basket(client: Client, fee: Fee, quantity: object = 1) -> "Answer":
    """Send the form of the plan's page. The answer is the basket, or that page again with what is wrong."""
    return client.post(
        "/basket/add/", {"plan": fee.term.plan.slug, "term": fee.term_id, "quantity": quantity}, follow=True
    )


def basket_of(client: Client) -> dict[str, int]:
    """Units by term, as the session has them."""
    units: dict[str, int] = client.session.get("basket", {}).get("units", {})
    return units


def open_checkout(client: Client, *, country: str = "HK") -> dict[str, str]:
    """Open the page as an adult who ticks all boxes: what his browser would send. Choosing a country asks for
    what its law adds.
    """
    form = client.get("/checkout/").context["form"]
    law = client.get("/checkout/law/", {"country": country}).context["form"]
    assert isinstance(form, CheckoutForm)
    assert isinstance(law, CheckoutForm)
    return {**_ticked(form, law), "age": "adult", "country": country}


def tick_again(answer: "Answer") -> dict[str, str]:
    """Tick all boxes of a checkout page that came back, and leave the rest as it stands there."""
    form = answer.context["form"]
    assert isinstance(form, CheckoutForm)
    return {**_ticked(form, form), "age": form["age"].value(), "country": form["country"].value()}


def _ticked(page: CheckoutForm, law: CheckoutForm) -> dict[str, str]:
    """The hidden fields and the boxes of a page whose part on the law comes from `law`."""
    hidden = {field.html_name: str(field.value()) for field in (*page.page_fields(), *law.law_fields())}
    boxes = {control.box.html_name: "on" for control in (*page.agreement_controls(), *law.law_controls())}
    return {**hidden, **boxes}


def as_minor(data: Mapping[str, str]) -> dict[str, str]:
    """The same page filled in by a buyer under 18."""
    guardian = {"guardian_name": "Wai Guardian", "guardian_email": "guardian@example.com"}
    return {**data, **guardian, "age": "minor"}
