"""From the basket to the money: checkout, the choice of a way to pay, the return from the gateway."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_GET, require_http_methods
from django_htmx.http import HttpResponseClientRedirect, HttpResponseClientRefresh

from accounts.models import User
from accounts.views import CustomerRequest
from agreements.acceptance import CannotAccept, required_of_buyer
from agreements.diff import Difference, difference
from agreements.models import Text
from agreements.rights import in_language, right_of, withdrawal_ends
from agreements.texts import render as render_text
from agreements.witness import witness_of
from inventory.money import Money
from orders.basket import Basket
from orders.checkout import CannotPlace, place_order
from orders.context import currency_of
from orders.forms import CheckoutForm, PayForm
from orders.gateways import methods_on_offer
from orders.gateways.protocol import Declined, Unavailable
from orders.guardians import CannotAsk
from orders.ledger import missing_of
from orders.models import AttemptState, Order, OrderLine, OrderState, PaymentAttempt
from orders.offers import Offer, offers_of
from orders.payments import NotPayable, Payer, begin_payment, refresh_attempt
from orders.views.basket import PricedBasket, priced
from orders.views.orders import own_order

# Kept by the browser and by nobody else: "back" to a page that a form answered would otherwise ask to send
# the form again. What it shows may be old, and is checked when it is sent.
going_back_shows_it = cache_control(private=True, no_cache=True)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an unpaid order stands: its payment, and what is `due`; that is less than all where a payment was short."""

    attempt: PaymentAttempt | None
    due: Money
    is_short: bool

    @property
    def offered(self) -> str:
        """What there is a way to pay; empty while a payment is being confirmed."""
        is_confirming = self.attempt is not None and self.attempt.state == AttemptState.CONFIRMING
        return "" if is_confirming else str(self.due)


@login_required
@going_back_shows_it
@require_http_methods(["GET", "POST"])
def checkout(request: CustomerRequest) -> HttpResponse:
    now, currency = timezone.now(), currency_of(request)
    basket = Basket(request.session, now=now)
    held = priced(basket.wishes, currency=currency, now=now)
    country = request.POST.get("country", "") if request.method == "POST" else _country_before(request)
    form = _form(request.user, held, country=country, data=request.POST or None)
    if request.method == "POST":
        placed = _placed_before(request, form)
        if placed is not None:
            return _next_step(placed)
    if not held.can_be_ordered:
        if not held.lines and not basket.is_expired:
            messages.info(request, _("Your basket is empty."))
        return redirect("orders:basket")
    if form.is_bound and form.key is None:
        return _render_anew(
            request, form, reason=_("The page was not sent completely. Please check it and try again.")
        )
    if not form.is_valid():
        return _render(request, form, held)
    try:
        order = place_order(
            customer_id=request.user.pk,
            checkout_key=form.cleaned_data["checkout_key"],
            wishes=basket.wishes,
            currency=currency,
            seen_total=form.total_seen(currency),
            country=form.cleaned_data["country"],
            consents=form.consents(),
            witness=witness_of(request, button=str(CheckoutForm.BUTTON)),
            guardian=form.guardian,
            language=_language(),
            now=now,
        )
    except (CannotPlace, CannotAccept, CannotAsk) as no:
        return _render_anew(request, form, reason=str(no))
    basket.clear()
    return _next_step(order)


@never_cache
@require_GET
def law(request: HttpRequest) -> HttpResponse:
    """The part of the checkout page that the law of a country adds, for the country chosen on it."""
    if not request.user.is_authenticated:
        return HttpResponseClientRefresh()
    held = PricedBasket((), None)
    form = _form(request.user, held, country=request.GET.get("country", ""), data=None)
    return render(request, "orders/checkout_law.html", {"form": form, **_law(form)})


@login_required
@going_back_shows_it
@require_http_methods(["GET", "POST"])
def pay(request: CustomerRequest, reference: str) -> HttpResponse:
    order, now = own_order(request, reference), timezone.now()
    if not order.is_payable(now):
        return redirect(order)
    methods = methods_on_offer(order.currency)
    form = PayForm(request.POST or None, methods=methods)
    if form.is_valid():
        try:
            attempt = begin_payment(
                order_id=order.pk,
                method=form.cleaned_data["method"],
                payer=_payer(request, order),
                now=now,
            )
        except NotPayable as no:
            form.add_error(None, str(no))
        except Unavailable:
            form.add_error(
                None,
                _(
                    "The payment page cannot be reached at the moment. Nothing was charged. "
                    "Please try again, or choose another way to pay."
                ),
            )
        except Declined:
            form.add_error(
                None, _("This way to pay was refused. Nothing was charged. Please choose another one.")
            )
        else:
            # What can be paid from our own page is, with the provider's beside it.
            ours = reverse("orders:pay", args=[order.reference])
            return redirect(ours if attempt.instructions else attempt.pay_url or ours)
    return render(
        request,
        "orders/pay.html",
        {
            "order": order,
            "lines": _with_offers(order, now=now),
            "form": form,
            "methods": methods,
            "standing": _standing(order),
        },
    )


@never_cache
@require_GET
def pay_live(request: HttpRequest, reference: str) -> HttpResponse:
    """What became of the payment; leads to the order as soon as there is nothing left to pay.

    When the ways to pay go because it is being confirmed, or come back because it was not, the page around asks
    for itself anew.
    """
    if not request.user.is_authenticated:
        return HttpResponseClientRefresh()
    order = get_object_or_404(Order, reference=reference, customer_id=request.user.pk)
    if not order.is_payable(timezone.now()):
        return HttpResponseClientRedirect(order.get_absolute_url())
    standing = _standing(order)
    if standing.offered != request.GET.get("offered"):
        return HttpResponseClientRedirect(reverse("orders:pay", args=[order.reference]))
    if standing.attempt is not None and standing.attempt.seen_as == request.GET.get("seen"):
        return HttpResponse(status=204)
    return render(request, "orders/pay_live.html", {"order": order, "standing": standing})


@login_required
@never_cache
@require_GET
def payment_return(request: CustomerRequest, reference: str) -> HttpResponse:
    """Where the gateway sends the buyer back to. The gateway is asked; the address says nothing."""
    order = own_order(request, reference)
    attempt = order.attempts.order_by("-pk").first()
    if attempt is not None and attempt.state in AttemptState.open():
        try:
            refresh_attempt(attempt_id=attempt.pk, now=timezone.now())
        except Unavailable:
            messages.info(
                request,
                _(
                    "We are asking for the result of your payment. This page changes by itself as soon as it is known."
                ),
            )
    order.refresh_from_db()
    if order.state == OrderState.PAID:
        messages.success(request, _("Your payment has arrived, and your place in the queue is fixed."))
        return redirect(order)
    return redirect("orders:pay", order.reference)


def _form(
    customer: User,
    held: PricedBasket,
    *,
    country: str,
    data: QueryDict | None,
    initial: Mapping[str, object] | None = None,
) -> CheckoutForm:
    """The page's form, with what a buyer who lives in `country` must accept now."""
    language = _language()
    right = right_of(country)
    return CheckoutForm(
        data,
        initial={"country": country, **(initial or {})},
        customer=customer,
        language=language,
        required=required_of_buyer(now=timezone.now(), language=language, right=right),
        right=right,
        total=held.total,
    )


def _country_before(request: CustomerRequest) -> str:
    """Where the buyer lived when he ordered last; empty the first time."""
    orders = Order.objects.filter(customer=request.user).order_by("-placed_at", "-pk")
    return orders.values_list("country", flat=True).first() or ""


def _placed_before(request: CustomerRequest, form: CheckoutForm) -> Order | None:
    """The order this very page has placed already, for a second click or the back button."""
    if form.key is None:
        return None
    return Order.objects.filter(checkout_key=form.key, customer=request.user).first()


def _next_step(order: Order) -> HttpResponse:
    """Paying, or seeing what the order waits for."""
    return (
        redirect(order)
        if order.state == OrderState.AWAITING_GUARDIAN
        else redirect("orders:pay", order.reference)
    )


def _render_anew(request: CustomerRequest, refused: CheckoutForm, *, reason: str) -> HttpResponse:
    """The page with what is true now, after something on it had changed: to be read and ticked again."""
    now, currency = timezone.now(), currency_of(request)
    held = priced(Basket(request.session, now=now).wishes, currency=currency, now=now)
    kept = {name: refused[name].value() for name in ("age", "guardian_name", "guardian_email")}
    if refused.key is not None:
        kept["checkout_key"] = refused.key
    form = _form(request.user, held, country=str(refused["country"].value() or ""), data=None, initial=kept)
    return _render(request, form, held, reason=reason, differences=_differences(refused, form, now=now))


def _differences(refused: CheckoutForm, form: CheckoutForm, *, now: datetime) -> list[Difference]:
    """What changed from each text that was on the page to the one that is in force now."""
    in_force = {consent.text.version.document: consent.text for consent in form.required}
    shown = Text.objects.filter(pk__in=refused.shown_text_ids, version__published_at__lte=now)
    return [
        difference(text, new)
        for text in shown.select_related("version").order_by("version__document")
        if (new := in_force[text.version.document]).version_id != text.version_id
        # Two languages have no word in common.
        and new.language == text.language
    ]


def _render(
    request: CustomerRequest,
    form: CheckoutForm,
    held: PricedBasket,
    *,
    reason: str = "",
    differences: Sequence[Difference] = (),
) -> HttpResponse:
    texts = {consent.text.pk: consent.text for consent in form.required}
    return render(
        request,
        "orders/checkout.html",
        {
            "form": form,
            "basket": held,
            "reason": reason,
            "differences": differences,
            # Two texts on one page: each gets anchors of its own.
            "texts": [
                (text, render_text(text, id_prefix=f"{text.version.document}-")) for text in texts.values()
            ],
            "payment_minutes": int(settings.PAYMENT_WINDOW.total_seconds() // 60),
            "guardian_hours": int(settings.GUARDIAN_WINDOW.total_seconds() // 3600),
            **_law(form),
        },
    )


def _law(form: CheckoutForm) -> dict[str, object]:
    """What the law of the chosen country adds, in the page's language; nothing for most."""
    right, language = form.right, _language()
    if right is None:
        return {"right": None}
    return {
        "right": right,
        "right_title": in_language(right.title, language),
        "right_explanation": in_language(right.explanation, language),
        "withdraw_until": withdrawal_ends(right, ordered_at=timezone.now()),
    }


def _with_offers(order: Order, *, now: datetime) -> list[tuple[OrderLine, Offer]]:
    """Each line with what paying for it now would mean: its own units are among those that are held already."""
    lines = list(order.lines.select_related("plan", "term", "order"))
    plans = list({line.plan_id: line.plan for line in lines}.values())
    offers = {offer.plan.pk: offer for offer in offers_of(plans, currency=order.currency, now=now, units=0)}
    return [(line, offers[line.plan_id]) for line in lines]


def _payer(request: CustomerRequest, order: Order) -> Payer:
    return Payer(
        return_url=request.build_absolute_uri(reverse("orders:payment-return", args=[order.reference])),
        language=_language(),
        # Good enough to choose between a code to scan and an app to open: both pay.
        is_phone="Mobi" in request.headers.get("User-Agent", ""),
        address=witness_of(request).ip_address,
    )


def _standing(order: Order) -> Standing:
    """Of several payments the one that is being confirmed counts, or else the newest."""
    attempts = list(order.attempts.order_by("-pk"))
    attempt = max(attempts, key=lambda each: each.state == AttemptState.CONFIRMING, default=None)
    is_short = any(each.state == AttemptState.CAPTURED for each in attempts)
    return Standing(attempt, due=missing_of(order) if is_short else order.total, is_short=is_short)


def _language() -> str:
    return get_language() or settings.LANGUAGE_CODE
