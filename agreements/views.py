"""The agreements, open to everybody: what applies, what applied, and the exact wording."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.shortcuts import render as render_page
from django.utils import timezone, translation
from django.utils.cache import get_conditional_response, patch_cache_control
from django.utils.http import quote_etag
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from accounts.views import CustomerRequest
from agreements.diff import difference
from agreements.models import Document, Question, Text, Version
from agreements.pdf import agreement_pdf, file_stem
from agreements.questions import CannotAsk, ask
from agreements.texts import best_text, render, table_of_contents

# Dates of the contract are shown in its own zone, not the reader's.
DATES = {"contract_time_zone": settings.CONTRACT_TIME_ZONE}
# Seconds for which a PDF is kept without asking: a ruling shows in it no later.
PDF_MAX_AGE = 300


class QuestionForm(forms.Form):
    body = forms.CharField(
        label=gettext_lazy("Your question, comment or suggestion"),
        widget=forms.Textarea({"rows": 5}),
        error_messages={"required": gettext_lazy("Please write your question.")},
    )


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
    form = QuestionForm()
    return _version_page(request, _published(document, number), form)


@require_safe
def pdf(request: HttpRequest, document: str, number: int, language: str) -> HttpResponse:
    """A version in one of its languages, to be kept. It changes only when a clause is held invalid."""
    edition = _published(document, number)
    text = next((text for text in edition.texts.all() if text.language == language), None)
    if text is None:
        raise Http404
    text.version = edition
    said = [text.sha256, *(str(ruling.pk) for ruling in edition.rulings.all())]
    etag = quote_etag(hashlib.sha256(" ".join(said).encode()).hexdigest())
    response = get_conditional_response(request, etag=etag) or HttpResponse(
        agreement_pdf(text),
        content_type="application/pdf",
        headers={
            "Content-Disposition": f'inline; filename="{file_stem(text)}.pdf"',
            "Content-Language": text.language,
        },
    )
    response.headers["ETag"] = etag
    patch_cache_control(response, public=True, max_age=PDF_MAX_AGE)
    return response


@login_required
@require_http_methods(["GET", "POST"])
def questions(request: CustomerRequest, document: str, number: int) -> HttpResponse:
    """Take a question about a revision. Whoever had to log in for it is led back to the form."""
    edition = _published(document, number)
    form = QuestionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            ask(
                version_id=edition.pk,
                customer_id=request.user.pk,
                body=form.cleaned_data["body"],
                language=translation.get_language(),
                now=timezone.now(),
            )
        except CannotAsk as no:
            form.add_error("body", str(no))
        else:
            messages.success(request, _("Thank you. Your question has arrived, and we will answer it."))
            return redirect(f"{edition.get_absolute_url()}#questions")
    return _version_page(request, edition, form)


@require_safe
def changes(request: HttpRequest, document: str) -> HttpResponse:
    """What changed from version `?from=` to version `?to=`, by default from the last but one to the last."""
    now, language = timezone.now(), translation.get_language()
    if document not in Document.values:
        raise Http404
    published = Version.objects.filter(document=document, published_at__lte=now).order_by("number")
    editions = [
        Edition(version, text, is_in_force=False)
        for version in published.prefetch_related("texts")
        if (text := best_text(version.texts.all(), language=request.GET.get("language", language)))
    ]
    by_number = {str(edition.version.number): edition for edition in editions}
    new = by_number.get(request.GET.get("to", ""), editions[-1] if editions else None)
    old = by_number.get(request.GET.get("from", ""), _before(new, editions) if new else None)
    return render_page(
        request,
        "agreements/changes.html",
        {
            "document": Document(document),
            "editions": editions,
            "old": old,
            "new": new,
            "difference": difference(old.text, new.text) if old and new else None,
            **DATES,
        },
    )


def _published(document: str, number: int) -> Version:
    """The version, if it is published. Raises Http404."""
    published = Version.objects.filter(published_at__lte=timezone.now()).prefetch_related("texts", "rulings")
    return get_object_or_404(published, document=document, number=number)


def _before(edition: Edition, editions: Sequence[Edition]) -> Edition:
    """The one before it, or itself if it is the first."""
    return editions[max(0, editions.index(edition) - 1)]


def _version_page(request: HttpRequest, edition: Version, form: QuestionForm) -> HttpResponse:
    now = timezone.now()
    texts = sorted(edition.texts.all(), key=lambda text: text.language)
    text = best_text(texts, language=request.GET.get("language", translation.get_language()))
    if text is None:
        raise Http404
    text.version = edition
    later = Version.objects.filter(
        document=edition.document, published_at__lte=now, number__gt=edition.number
    )
    asked = Question.objects.filter(version=edition).select_related("answer").order_by("pk")
    return render_page(
        request,
        "agreements/version.html",
        {
            "version": edition,
            "text": text,
            "texts": texts,
            "authoritative": next((each for each in texts if each.is_authoritative), None),
            "is_in_force": Version.objects.in_force(now).get(edition.document) == edition,
            "is_coming": edition.effective_at > now,
            "successor": later.order_by("number").first(),
            "contents": table_of_contents(text),
            "html": render(text),
            "takes_questions": edition.takes_questions(now),
            # A customer's own stand apart, the public ones too.
            "answered": asked.filter(answer__is_public=True).exclude(customer_id=request.user.pk),
            "mine": asked.filter(customer_id=request.user.pk) if request.user.is_authenticated else (),
            "question_form": form,
            "place": settings.PLATFORM_LOCATION,
            **DATES,
        },
        status=422 if form.errors else 200,
    )
