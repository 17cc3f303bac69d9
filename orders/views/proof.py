"""What proves an order and its place in the queue, to be kept."""

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from accounts.views import CustomerRequest
from orders.models import Order
from orders.proof import proof_of_order
from orders.receipts import receipt_of
from orders.views.orders import own_order


@login_required
@never_cache
@require_GET
def proof(request: CustomerRequest, reference: str) -> HttpResponse:
    return proof_response(own_order(request, reference))


@login_required
@never_cache
@require_GET
def receipt(request: CustomerRequest, reference: str) -> HttpResponse:
    """For the customer, and for staff whom he shows it."""
    if request.user.is_staff and request.user.has_perm("orders.view_order"):
        order = get_object_or_404(Order, reference=reference)
    else:
        order = own_order(request, reference)
    return JsonResponse(
        receipt_of(order, now=timezone.now()),
        json_dumps_params={"indent": 2},
        headers={"Content-Disposition": f'attachment; filename="receipt-{order.reference}.json"'},
    )


def proof_response(order: Order) -> HttpResponse:
    """The PDF, in the language of the page that asks for it."""
    return HttpResponse(
        proof_of_order(order, now=timezone.now()),
        content_type="application/pdf",
        headers={"Content-Disposition": f'inline; filename="evidence-{order.reference}.pdf"'},
    )
