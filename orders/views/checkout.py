"""From the basket to the money: checkout, the choice of a way to pay, the return from the gateway."""

from ipaddress import ip_address

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_GET, require_http_methods
from django_htmx.http import HttpResponseClientRedirect, HttpResponseClientRefresh

from accounts.views import CustomerRequest
from agreements.acceptance import CannotAccept, Witness, required_consents
from agreements.texts import render as render_text
from orders.basket import Basket
from orders.checkout import CannotPlace, place_order
from orders.context import currency_of
from orders.forms import CheckoutForm, PayForm
from orders.gateways import methods_on_offer
from orders.gateways.protocol import Declined, Unavailable
from orders.models import AttemptState, Order, OrderState, PaymentAttempt
from orders.payments import NotPayable, begin_payment, refresh_attempt
from orders.views.basket import PricedBasket, priced
from orders.views.orders import own_order

# Kept by the browser and by nobody else: "back" to a page that a form answered would otherwise ask to send
# the form again. What it shows may be old, and is checked when it is sent.
going_back_shows_it = cache_control(private=True, no_cache=True)


@login_required
@going_back_shows_it
@require_http_methods(["GET", "POST"])
def checkout(request: CustomerRequest) -> HttpResponse:
    now, currency, language = timezone.now(), currency_of(request), _language()
    basket = Basket(request.session, now=now)
    held = priced(basket.wishes, currency=currency, now=now)
    # The guardian's boxes are on the page from the start, and needed only of a minor.
    required = required_consents(now=now, language=language, is_minor=True)
    form = CheckoutForm(request.POST or None, customer=request.user, required=required, total=held.total)
    if request.method == "POST":
        placed = _placed_before(request, form)
        if placed is not None:
            return redirect("orders:pay", placed.reference)
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
            consents=form.consents(),
            witness=Witness(_address_of(request), request.headers.get("User-Agent", "")),
            is_minor=form.is_minor,
            language=language,
            now=now,
        )
    except (CannotPlace, CannotAccept) as no:
        return _render_anew(request, form, reason=str(no))
    basket.clear()
    return redirect("orders:pay", order.reference)


@login_required
@going_back_shows_it
@require_http_methods(["GET", "POST"])
def pay(request: CustomerRequest, reference: str) -> HttpResponse:
    order, now = own_order(request, reference), timezone.now()
    if not order.is_payable(now):
        return redirect(order)
    methods = methods_on_offer()
    form = PayForm(request.POST or None, methods=methods)
    if form.is_valid():
        try:
            attempt = begin_payment(
                order_id=order.pk,
                method=form.cleaned_data["method"],
                return_url=request.build_absolute_uri(
                    reverse("orders:payment-return", args=[order.reference])
                ),
                language=_language(),
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
            return redirect(attempt.pay_url)
    return render(
        request,
        "orders/pay.html",
        {
            "order": order,
            "lines": order.lines.select_related("plan", "term", "order"),
            "form": form,
            "methods": methods,
            "attempt": _newest_attempt(order),
        },
    )


@never_cache
@require_GET
def pay_live(request: HttpRequest, reference: str) -> HttpResponse:
    """What became of the newest payment; leads to the order as soon as there is nothing left to pay."""
    if not request.user.is_authenticated:
        return HttpResponseClientRefresh()
    order = get_object_or_404(Order, reference=reference, customer_id=request.user.pk)
    if not order.is_payable(timezone.now()):
        return HttpResponseClientRedirect(order.get_absolute_url())
    attempt = _newest_attempt(order)
    if attempt is not None and f"{attempt.reference}:{attempt.state}" == request.GET.get("seen"):
        return HttpResponse(status=204)
    return render(request, "orders/pay_live.html", {"order": order, "attempt": attempt})


@login_required
@never_cache
@require_GET
def payment_return(request: CustomerRequest, reference: str) -> HttpResponse:
    """Where the gateway sends the buyer back to. The gateway is asked; the address says nothing."""
    order = own_order(request, reference)
    attempt = _newest_attempt(order)
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


def _placed_before(request: CustomerRequest, form: CheckoutForm) -> Order | None:
    """The order this very page has placed already, for a second click or the back button."""
    if form.key is None:
        return None
    return Order.objects.filter(checkout_key=form.key, customer=request.user).first()


def _render_anew(request: CustomerRequest, refused: CheckoutForm, *, reason: str) -> HttpResponse:
    """The page with what is true now, after something on it had changed: to be read and ticked again."""
    now, currency = timezone.now(), currency_of(request)
    held = priced(Basket(request.session, now=now).wishes, currency=currency, now=now)
    required = required_consents(now=now, language=_language(), is_minor=True)
    initial = {name: refused[name].value() for name in ("age", "guardian_name", "guardian_email")}
    if refused.key is not None:
        initial["checkout_key"] = refused.key
    form = CheckoutForm(initial=initial, customer=request.user, required=required, total=held.total)
    return _render(request, form, held, reason=reason)


def _render(
    request: CustomerRequest, form: CheckoutForm, held: PricedBasket, *, reason: str = ""
) -> HttpResponse:
    texts = {consent.text.pk: consent.text for consent in form.required}
    return render(
        request,
        "orders/checkout.html",
        {
            "form": form,
            "basket": held,
            "reason": reason,
            # Two texts on one page: each gets anchors of its own.
            "texts": [
                (text, render_text(text, id_prefix=f"{text.version.document}-")) for text in texts.values()
            ],
            "payment_minutes": int(settings.PAYMENT_WINDOW.total_seconds() // 60),
        },
    )


def _newest_attempt(order: Order) -> PaymentAttempt | None:
    return order.attempts.order_by("-pk").first()


def _language() -> str:
    return get_language() or settings.LANGUAGE_CODE


def _address_of(request: HttpRequest) -> str | None:
    """The buyer's address: behind the trusted proxy what that proxy saw, otherwise the connection's.

    None for what is no address (a Unix socket, a header that somebody made up).
    """
    written = request.META.get("REMOTE_ADDR", "")
    if settings.SECURE_PROXY_SSL_HEADER:
        written = request.headers.get("X-Forwarded-For", written).rsplit(",", 1)[-1].strip()
    try:
        return str(ip_address(written))
    except ValueError:
        return None
