"""The queues, in public: for everybody to read, to download and to check."""

from pathlib import Path

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from orders.public_queue import as_json, plans_with_a_page, public_queues
from orders.queue import fairness, verify_queue_ledger


@require_safe
def queues(request: HttpRequest) -> HttpResponse:
    found = public_queues(plans_with_a_page(), now=timezone.now())
    return render(
        request, "orders/queues.html", {"queues": found, "hold_back": settings.ALLOCATION_HOLD_BACK}
    )


@require_safe
def queue(request: HttpRequest, slug: str) -> HttpResponse:
    plan = get_object_or_404(plans_with_a_page(), slug=slug)
    (found,) = public_queues([plan], now=timezone.now())
    return render(
        request,
        "orders/queue.html",
        {"queue": found, "hold_back": settings.ALLOCATION_HOLD_BACK, "site": settings.SITE_URL},
    )


@cache_control(public=True, max_age=60)
@require_safe
def figures(request: HttpRequest, slug: str) -> HttpResponse:
    """The figures of the page as JSON; their names and units are explained there."""
    now = timezone.now()
    (found,) = public_queues([get_object_or_404(plans_with_a_page(), slug=slug)], now=now)
    return JsonResponse(as_json(found, now=now), headers={"Access-Control-Allow-Origin": "*"})


@require_safe
def ledger(request: HttpRequest, slug: str) -> StreamingHttpResponse:
    """All sealed entries, however many there are: read and sent a few thousand at a time."""
    plan = get_object_or_404(plans_with_a_page(), slug=slug)
    return StreamingHttpResponse(
        fairness.ledger_lines(plan.pk),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="ledger-{plan.slug}.txt"'},
    )


@require_safe
def script(request: HttpRequest) -> FileResponse:
    """What anybody can check a ledger with: the very file that we check it with."""
    return FileResponse(
        Path(verify_queue_ledger.__file__).open("rb"),
        as_attachment=True,
        filename="verify_queue_ledger.py",
        content_type="text/x-python",
    )
