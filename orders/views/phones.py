"""The phones a customer has, and had."""

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import F
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from accounts.views import CustomerRequest
from agreements.continued_use import counts_as_use
from orders.models import Allocation, LineState, OrderLine

PAGE_SIZE = 20


@login_required
@never_cache
@require_GET
@counts_as_use
def phones(request: CustomerRequest) -> HttpResponse:
    mine = Allocation.objects.filter(line__order__customer=request.user)
    # What is in use comes first, and of it what ends soonest.
    ordered = mine.order_by(F("ended_at").desc(nulls_first=True), "ends_at", "pk")
    page = Paginator(ordered.select_related("device", "line__plan", "line__order"), PAGE_SIZE).get_page(
        request.GET.get("page")
    )
    waiting = OrderLine.objects.filter(order__customer=request.user, state=LineState.WAITING)
    return render(
        request,
        "orders/phones.html",
        {"page": page, "units_waiting": waiting.units(), "now": timezone.now()},
    )
