"""What staff fill in about the agreements, on the pages behind the admin's buttons."""

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminDateWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from agreements.models import Document, Finding
from agreements.texts import Heading


class BeginDraftForm(forms.Form):
    document = forms.ChoiceField(
        label=_("Document"),
        choices=Document.choices,
        help_text=_("The draft begins with the wording of its newest version, in every language."),
        widget=UnfoldAdminSelectWidget,
    )


class RulingForm(forms.Form):
    """An authority's word on one clause. `contents` are the headings of the version."""

    clause = forms.ChoiceField(label=_("Clause"), widget=UnfoldAdminSelectWidget)
    finding = forms.ChoiceField(label=_("Finding"), choices=Finding.choices, widget=UnfoldAdminSelectWidget)
    authority = forms.CharField(
        label=_("Authority"),
        max_length=200,
        help_text=_("The court or other competent authority, as it calls itself."),
        widget=UnfoldAdminTextInputWidget,
    )
    reference = forms.CharField(
        label=_("Reference"),
        max_length=200,
        help_text=_("The number of the case or decision."),
        widget=UnfoldAdminTextInputWidget,
    )
    decided_on = forms.DateField(label=_("Decided on"), widget=UnfoldAdminDateWidget)

    def __init__(self, data: Mapping[str, Any] | None, *, contents: Sequence[Heading]) -> None:
        super().__init__(data)
        clause = self.fields["clause"]
        assert isinstance(clause, forms.ChoiceField)  # noqa: S101 (for the type checker)
        clause.choices = [
            (heading.anchor, heading.wording)
            for chapter in contents
            for heading in (chapter, *chapter.children)
            if heading.anchor
        ]


class AnswerForm(forms.Form):
    body = forms.CharField(
        label=_("Answer"),
        help_text=_("In the language of the question. It cannot be changed afterwards."),
        widget=UnfoldAdminTextareaWidget({"rows": 8}),
    )
    is_public = forms.BooleanField(
        label=_("Show question and answer to everybody"),
        required=False,
        help_text=_(
            "On the page of the version, without the customer's name. Check that the question names nobody."
        ),
        widget=UnfoldBooleanWidget,
    )
