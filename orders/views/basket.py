"""The basket: add, change, take out, put back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.contrib import messages
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inventory.models import Plan, Term
from inventory.money import Money
from orders.basket import Basket
from orders.checkout import Wish
from orders.context import currency_of
from orders.forms import AddForm, QuantityForm
from orders.models import AttemptState, Order, OrderState, PaymentAttempt
from orders.offers import Offer, TermOffer, offer_of
from orders.views.shop import render_plan


@dataclass(frozen=True, slots=True)
class BasketLine:
    """A wish with what it would cost now. `form` changes its quantity."""

    wish: Wish
    offer: Offer
    term: TermOffer
    form: QuantityForm

    @property
    def total(self) -> Money | None:
        return self.term.fee * self.wish.quantity if self.term.fee else None

    @property
    def is_available(self) -> bool:
        return self.offer.plan.on_sale and self.term.is_available


@dataclass(frozen=True, slots=True)
class PricedBasket:
    """The basket at today's fees. `total` is None while a line cannot be ordered."""

    lines: tuple[BasketLine, ...]
    total: Money | None

    @property
    def can_be_ordered(self) -> bool:
        return self.total is not None

    @property
    def has_presale(self) -> bool:
        return any(line.offer.is_presale for line in self.lines)


def priced(wishes: Sequence[Wish], *, currency: str, now: datetime) -> PricedBasket:
    """What `wishes` cost now, each with the window for all units of its plan that are wished for."""
    terms = {
        term.pk: term
        for term in Term.objects.filter(pk__in=[wish.term_id for wish in wishes]).select_related("plan")
    }
    known = [wish for wish in wishes if wish.term_id in terms]
    units: dict[int, int] = {}
    plans: dict[int, Plan] = {}
    for wish in known:
        plan = terms[wish.term_id].plan
        plans[plan.pk] = plan
        units[plan.pk] = units.get(plan.pk, 0) + wish.quantity
    offers = {pk: offer_of(plan, currency=currency, now=now, units=units[pk]) for pk, plan in plans.items()}
    lines = []
    for wish in known:
        offer = offers[terms[wish.term_id].plan_id]
        lines.append(
            BasketLine(
                wish=wish,
                offer=offer,
                term=next(each for each in offer.terms if each.term.pk == wish.term_id),
                form=QuantityForm(
                    initial={"quantity": wish.quantity},
                    offer=offer,
                    others=units[offer.plan.pk] - wish.quantity,
                    prefix=f"term-{wish.term_id}",
                ),
            )
        )
    totals = [line.total for line in lines if line.is_available]
    total = None
    if lines and len(totals) == len(lines):
        total = sum((each for each in totals if each), Money(0, currency))
    return PricedBasket(tuple(lines), total)


@never_cache
@require_GET
def basket(request: HttpRequest) -> HttpResponse:
    return _render(request, changed=None)


@require_http_methods(["GET", "POST"])
def add(request: HttpRequest) -> HttpResponse:
    """Add phones. A refused form comes back on the page of its plan, as it was filled in."""
    if request.method == "GET":  # the address of a refused form, reloaded
        return redirect("orders:shop")
    now = timezone.now()
    plan = get_object_or_404(Plan, slug=request.POST.get("plan", ""), on_sale=True)
    offer = offer_of(plan, currency=currency_of(request), now=now)
    basket = Basket(request.session, now=now)
    form = AddForm(request.POST, offer=offer, others=_units_of(basket, offer, without=None))
    if not form.is_valid():
        return render_plan(request, offer, form)
    quantity = form.cleaned_data["quantity"]
    basket.add(term_id=form.cleaned_data["term"], quantity=quantity)
    messages.success(
        request,
        ngettext(
            "%(quantity)d phone of %(plan)s is in your basket.",
            "%(quantity)d phones of %(plan)s are in your basket.",
            quantity,
        )
        % {"quantity": quantity, "plan": plan},
    )
    return redirect("orders:basket")


@require_http_methods(["GET", "POST"])
def change(request: HttpRequest) -> HttpResponse:
    """Change the quantity of one line, or take it out. What is refused changes nothing."""
    if request.method == "GET":
        return redirect("orders:basket")
    now = timezone.now()
    basket = Basket(request.session, now=now)
    wish = next((wish for wish in basket.wishes if str(wish.term_id) == request.POST.get("term")), None)
    if wish is None:
        messages.warning(request, _("This phone is not in your basket any more."))
        return redirect("orders:basket")
    if "remove" in request.POST:
        basket.change(term_id=wish.term_id, quantity=0)
        messages.success(request, _("Taken out of your basket."))
        return redirect("orders:basket")
    term = get_object_or_404(Term.objects.select_related("plan"), pk=wish.term_id)
    offer = offer_of(term.plan, currency=currency_of(request), now=now)
    form = QuantityForm(
        request.POST,
        offer=offer,
        others=_units_of(basket, offer, without=wish),
        prefix=f"term-{wish.term_id}",
    )
    if not form.is_valid():
        return _render(request, changed=(wish, form))
    basket.change(term_id=wish.term_id, quantity=form.cleaned_data["quantity"])
    return redirect("orders:basket")


@require_POST
def restore(request: HttpRequest) -> HttpResponse:
    """Put back what an expired basket held, at today's fees."""
    basket = Basket(request.session, now=timezone.now())
    if basket.remembered:
        basket.restore()
        messages.success(request, _("Your phones are back in the basket, at today's fees."))
    return redirect("orders:basket")


def _units_of(basket: Basket, offer: Offer, *, without: Wish | None) -> int:
    """Units of the offer's plan in the basket, leaving one line out."""
    terms = {each.term.pk for each in offer.terms}
    return sum(wish.quantity for wish in basket.wishes if wish.term_id in terms and wish != without)


def _render(request: HttpRequest, *, changed: tuple[Wish, QuantityForm] | None) -> HttpResponse:
    now = timezone.now()
    basket = Basket(request.session, now=now)
    held = priced(basket.wishes or basket.remembered, currency=currency_of(request), now=now)
    refused = {changed[0].term_id: changed[1]} if changed else {}
    return render(
        request,
        "orders/basket.html",
        {
            "basket": held,
            "rows": [(line, refused.get(line.wish.term_id, line.form)) for line in held.lines],
            "is_expired": basket.is_expired,
            "lifetime_hours": int(settings.BASKET_LIFETIME.total_seconds() // 3600),
            "unpaid_order": None if held.lines else _order_to_pay(request, now),
        },
    )


def _order_to_pay(request: HttpRequest, now: datetime) -> Order | None:
    """The order of a customer who came back from the payment page to look for his basket.

    None whose payment is being confirmed: it is not to be paid again.
    """
    if not request.user.is_authenticated:
        return None
    seen = PaymentAttempt.objects.filter(order=OuterRef("pk"), state=AttemptState.CONFIRMING)
    unpaid = Order.objects.filter(
        ~Exists(seen), customer_id=request.user.pk, state=OrderState.UNPAID, pay_until__gt=now
    )
    return unpaid.order_by("-placed_at").first()
