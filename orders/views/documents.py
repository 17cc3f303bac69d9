"""The invoice and the credit notes of an order, to be kept."""

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from accounts.views import CustomerRequest
from orders.documents import document_pdf
from orders.models import Document
from orders.models.document import numbered
from orders.views.orders import own_order


@login_required
@never_cache
@require_GET
def document(request: CustomerRequest, reference: str, number: str) -> HttpResponse:
    mine = own_order(request, reference).documents
    return document_response(get_object_or_404(mine, numbered(number)))


def document_response(document: Document) -> HttpResponse:
    """The PDF, in the language in which it was issued."""
    return HttpResponse(
        document_pdf(document),
        content_type="application/pdf",
        headers={"Content-Disposition": f'inline; filename="{document.number}.pdf"'},
    )
