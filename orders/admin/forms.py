"""What staff fill in about a sale, on the pages behind the admin's buttons."""

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from orders.models import Ground, OrderLine


class RequestRefundForm(forms.Form):
    """On which ground, why, and how many units of each line that still waits."""

    ground = forms.ChoiceField(
        label=gettext_lazy("Ground"), choices=Ground.choices, widget=UnfoldAdminSelectWidget
    )
    explanation = forms.CharField(
        label=gettext_lazy("Explanation"),
        help_text=gettext_lazy(
            "Which law, or why the platform cannot supply. The second person decides by it."
        ),
        widget=UnfoldAdminTextareaWidget({"rows": 4}),
    )

    def __init__(self, data: Mapping[str, Any] | None, *, lines: Iterable[OrderLine]) -> None:
        """`lines` are those with units that wait, plan and term loaded."""
        super().__init__(data)
        self.lines = tuple(lines)
        for line in self.lines:
            waiting = line.waiting_units
            help_text = ngettext("%(units)d unit waits.", "%(units)d units wait.", waiting) % {
                "units": waiting
            }
            self.fields[f"units_{line.pk}"] = forms.IntegerField(
                label=_("Units of %(plan)s, %(days)d days") % {"plan": line.plan, "days": line.term.days},
                help_text=help_text,
                min_value=0,
                max_value=waiting,
                initial=0,
                widget=UnfoldAdminIntegerFieldWidget,
            )

    def units(self) -> dict[int, int]:
        """How many units of each line, by the line's id. The form must be valid."""
        return {line.pk: self.cleaned_data[f"units_{line.pk}"] for line in self.lines}


class ResolveForm(forms.Form):
    resolution = forms.CharField(
        label=gettext_lazy("What was done"),
        help_text=gettext_lazy("The note stays on record with your name."),
        widget=UnfoldAdminTextareaWidget({"rows": 4}),
    )
