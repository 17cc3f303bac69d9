"""The evidence of an order, to be kept."""

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from accounts.views import CustomerRequest
from orders.models import Order
from orders.proof import proof_of_order
from orders.views.orders import own_order


@login_required
@never_cache
@require_GET
def proof(request: CustomerRequest, reference: str) -> HttpResponse:
    return proof_response(own_order(request, reference))


def proof_response(order: Order) -> HttpResponse:
    """The PDF, in the language of the page that asks for it."""
    return HttpResponse(
        proof_of_order(order, now=timezone.now()),
        content_type="application/pdf",
        headers={"Content-Disposition": f'inline; filename="evidence-{order.reference}.pdf"'},
    )
