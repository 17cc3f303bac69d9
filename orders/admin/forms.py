"""What staff fill in about a sale, on the pages behind the admin's buttons."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from agreements.models import StatutoryRight
from inventory.money import Money
from orders.cases import OUTCOMES
from orders.models import Ground, OrderLine, ReturnReason, Side

# Which rule of the law: the order's own right, or one that is written down.
RIGHT, OTHER = "right", "other"


class RequestRefundForm(forms.Form):
    """On which ground, why, and how many units of each line that still waits."""

    ground = forms.ChoiceField(
        label=gettext_lazy("Ground"), choices=Ground.choices, widget=UnfoldAdminSelectWidget
    )
    rule = forms.ChoiceField(
        label=gettext_lazy("Rule of the law"),
        required=False,
        help_text=gettext_lazy("For a refund that the law requires, and for no other."),
        widget=UnfoldAdminSelectWidget,
    )
    other_law = forms.CharField(
        label=gettext_lazy("Another law"),
        required=False,
        max_length=200,
        help_text=gettext_lazy("Act and section, or court and reference."),
        widget=UnfoldAdminTextInputWidget,
    )
    explanation = forms.CharField(
        label=gettext_lazy("Explanation"),
        help_text=gettext_lazy(
            "Why the law requires it, or why the platform cannot supply. The second person decides by it."
        ),
        widget=UnfoldAdminTextareaWidget({"rows": 4}),
    )

    def __init__(
        self, data: Mapping[str, Any] | None, *, right: StatutoryRight | None, lines: Iterable[OrderLine]
    ) -> None:
        """`right` is the order's; `lines` are those with units that wait, plan and term loaded."""
        super().__init__(data)
        self.right = right
        rule = cast(forms.ChoiceField, self.fields["rule"])
        rule.choices = [
            ("", _("none")),
            *([(RIGHT, right.law)] if right else []),
            (OTHER, _("another law, named below")),
        ]
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

    def legal_basis(self) -> str:
        """The rule that was chosen or written; empty if none was. The form must be valid."""
        if self.cleaned_data["rule"] == RIGHT and self.right:
            return self.right.law
        written: str = self.cleaned_data["other_law"]
        return written if self.cleaned_data["rule"] == OTHER else ""

    def right_id(self) -> int | None:
        """The order's statutory right, if that was chosen. The form must be valid."""
        return self.right.pk if self.cleaned_data["rule"] == RIGHT and self.right else None

    def units(self) -> dict[int, int]:
        """How many units of each line, by the line's id. The form must be valid."""
        return {line.pk: self.cleaned_data[f"units_{line.pk}"] for line in self.lines}


class GiveBackForm(forms.Form):
    """How much of a payment belongs to no sale, and why. `free` is what can be given back at most."""

    reason = forms.ChoiceField(
        label=gettext_lazy("Reason"), choices=ReturnReason.choices, widget=UnfoldAdminSelectWidget
    )
    amount = forms.CharField(label=gettext_lazy("Amount"), widget=UnfoldAdminTextInputWidget)

    def __init__(self, data: Mapping[str, Any] | None, *, free: Money) -> None:
        super().__init__(data)
        self.free = free
        self.fields["amount"].initial = free.written()
        self.fields["amount"].help_text = _("In %(currency)s, %(amount)s at most.") % {
            "currency": free.currency,
            "amount": free.written(),
        }

    def clean_amount(self) -> Money:
        try:
            return Money.parse(self.cleaned_data["amount"], self.free.currency)
        except ValueError:
            raise forms.ValidationError(_("Please enter an amount, as in 4.99.")) from None


class ResolveForm(forms.Form):
    resolution = forms.CharField(
        label=gettext_lazy("What was done"),
        help_text=gettext_lazy("The note stays on record with your name."),
        widget=UnfoldAdminTextareaWidget({"rows": 4}),
    )


class AnswerForm(forms.Form):
    body = forms.CharField(
        label=gettext_lazy("Answer"),
        help_text=gettext_lazy("The customer reads it word for word. It stays on record."),
        widget=UnfoldAdminTextareaWidget({"rows": 8}),
    )


class CloseCaseForm(forms.Form):
    outcome = forms.ChoiceField(
        label=gettext_lazy("Outcome"),
        choices=[(outcome.value, outcome.label) for outcome in OUTCOMES[Side.PLATFORM]],
        widget=UnfoldAdminSelectWidget,
    )
    body = forms.CharField(
        label=gettext_lazy("Closing message"),
        help_text=gettext_lazy("The customer reads it word for word. It stays on record."),
        widget=UnfoldAdminTextareaWidget({"rows": 6}),
    )
