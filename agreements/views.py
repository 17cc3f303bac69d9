"""The agreements, open to everybody: what applies, what applied, and the exact wording."""

from dataclasses import dataclass

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.shortcuts import render as render_page
from django.utils import timezone, translation
from django.views.decorators.http import require_safe

from agreements.models import Document, Text, Version
from agreements.texts import best_text, render, table_of_contents

# Dates of the contract are shown in its own zone, not the reader's.
DATES = {"contract_time_zone": settings.CONTRACT_TIME_ZONE}


@dataclass(frozen=True, slots=True)
class Edition:
    """A published version, by the text that a reader of the page's language gets."""

    version: Version
    text: Text
    is_in_force: bool


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Both documents, which of their versions apply, and the earlier and coming ones."""
    now, language = timezone.now(), translation.get_language()
    in_force = Version.objects.in_force(now)
    published = Version.objects.filter(published_at__lte=now).order_by("-effective_at", "-number")
    editions = [
        Edition(version, text, is_in_force=in_force.get(version.document) == version)
        for version in published.prefetch_related("texts")
        if (text := best_text(version.texts.all(), language=language))
    ]
    documents = [
        (document, [edition for edition in editions if edition.version.document == document])
        for document in Document
    ]
    return render_page(request, "agreements/index.html", {"documents": documents, **DATES})


@require_safe
def version(request: HttpRequest, document: str, number: int) -> HttpResponse:
    """One version, in the language of the page or the one asked for by `?language=`."""
    now = timezone.now()
    edition = get_object_or_404(
        Version.objects.prefetch_related("texts"), document=document, number=number, published_at__lte=now
    )
    texts = sorted(edition.texts.all(), key=lambda text: text.language)
    text = best_text(texts, language=request.GET.get("language", translation.get_language()))
    if text is None:
        raise Http404
    later = Version.objects.filter(document=document, published_at__lte=now, number__gt=number)
    return render_page(
        request,
        "agreements/version.html",
        {
            "version": edition,
            "text": text,
            "texts": texts,
            "authoritative": next((each for each in texts if each.is_authoritative), None),
            "is_in_force": Version.objects.in_force(now).get(document) == edition,
            "is_coming": edition.effective_at > now,
            "successor": later.order_by("number").first(),
            "contents": table_of_contents(text),
            "html": render(text),
            **DATES,
        },
    )
