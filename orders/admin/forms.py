"""What staff fill in about a sale, on the pages behind the admin's buttons."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from django import forms
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.widgets import (
    BASE_INPUT_CLASSES,
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from agreements.models import StatutoryRight
from inventory.models import Plan, SupplyBatch
from inventory.money import Money
from orders.cases import OUTCOMES
from orders.models import Allocation, Case, Ground, Matter, OrderLine, Refund, ReturnReason, Side

# Which rule of the law: the order's own right, or one that is written down.
RIGHT, OTHER = "right", "other"
# What a refund at the gateway's desk was for, where it was no refund of ours.
UNITS, GOODWILL = "units", "goodwill"


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

    phones = forms.TypedMultipleChoiceField(
        label=gettext_lazy("Phones to take back"),
        required=False,
        coerce=int,
        help_text=gettext_lazy(
            "Units that are allocated already. Their service ends with the approval, and the devices go into "
            "quarantine."
        ),
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )

    def __init__(
        self,
        data: Mapping[str, Any] | None,
        *,
        right: StatutoryRight | None,
        lines: Iterable[OrderLine],
        phones: Iterable[Allocation],
        case: Case | None = None,
    ) -> None:
        """`right` is the order's; `lines` are those with units that wait, plan and term loaded; `phones` are in use,
        device and plan loaded. With `case` it is filled in as the customer asks there."""
        super().__init__(data)
        self.right = right
        if case:
            self.initial = _as_asked(case, right)
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
                initial=waiting if case else 0,
                widget=UnfoldAdminIntegerFieldWidget,
            )
        field = cast(forms.TypedMultipleChoiceField, self.fields.pop("phones"))
        field.choices = [
            (
                phone.pk,
                _("%(device)s, %(plan)s, until %(day)s")
                % {
                    "device": phone.device,
                    "plan": phone.line.plan,
                    "day": date_format(phone.ends_at, "DATE_FORMAT"),
                },
            )
            for phone in phones
        ]
        if field.choices:
            self.fields["phones"] = field  # below the units

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

    def phone_ids(self) -> list[int]:
        """The allocations to take back. The form must be valid."""
        ids: list[int] = self.cleaned_data.get("phones", [])
        return ids


def _as_asked(case: Case, right: StatutoryRight | None) -> dict[str, str]:
    """What a form says that is filled in as a customer withdrew, or asked for a refund."""
    is_right = right is not None and (case.matter == Matter.WITHDRAWAL or case.legal_basis == right.law)
    return {
        "ground": case.ground or Ground.LAW,
        "rule": RIGHT if is_right else OTHER if case.legal_basis else "",
        "other_law": "" if is_right else case.legal_basis,
        "explanation": _("As asked in case %(case)s: %(subject)s") % {"case": case, "subject": case.subject},
    }


class ExternalRefundForm(RequestRefundForm):
    """What a refund at the gateway's own desk was for: units, a refund that had failed, or nothing."""

    purpose = forms.ChoiceField(
        label=gettext_lazy("It was for"),
        help_text=gettext_lazy(
            "Units leave the queue, and phones go into quarantine, when a second member of staff approves. No money "
            "moves any more. Goodwill takes nothing from the customer."
        ),
        widget=UnfoldAdminSelectWidget,
    )
    field_order = ("purpose",)

    def __init__(
        self,
        data: Mapping[str, Any] | None,
        *,
        right: StatutoryRight | None,
        lines: Iterable[OrderLine],
        phones: Iterable[Allocation],
        failed: Iterable[Refund],
    ) -> None:
        """`failed` are refunds of the same amount that the gateway refused."""
        super().__init__(data, right=right, lines=lines, phones=phones)
        cast(forms.ChoiceField, self.fields["purpose"]).choices = [
            (UNITS, _("units named below")),
            *(
                (f"{refund.pk}", _("refund %(refund)s, which had failed") % {"refund": refund})
                for refund in failed
            ),
            (GOODWILL, _("nothing: goodwill")),
        ]


class PayoutForm(forms.Form):
    means = forms.CharField(
        label=gettext_lazy("Sent by"),
        max_length=100,
        help_text=gettext_lazy("The customer reads it: bank transfer, or a wallet, with its last digits."),
        widget=UnfoldAdminTextInputWidget,
    )
    reference = forms.CharField(
        label=gettext_lazy("Reference of the transfer"), max_length=60, widget=UnfoldAdminTextInputWidget
    )
    paid_on = forms.DateField(
        label=gettext_lazy("Sent on"),
        help_text=gettext_lazy("The day in Hong Kong."),
        widget=forms.DateInput(
            {"type": "date", "class": " ".join([*BASE_INPUT_CLASSES, "max-w-2xl"])}, format="%Y-%m-%d"
        ),
    )


class WhatIsMissingForm(forms.Form):
    """A plan, or a batch, in one list; the value is the query of the page that declares it."""

    what = forms.ChoiceField(label=gettext_lazy("What cannot be supplied"), widget=UnfoldAdminSelectWidget)

    def __init__(
        self, data: Mapping[str, Any] | None, *, plans: Iterable[Plan], batches: Iterable[SupplyBatch]
    ) -> None:
        super().__init__(data)
        cast(forms.ChoiceField, self.fields["what"]).choices = [
            (_("A whole plan"), [(f"plan={plan.pk}", str(plan)) for plan in plans]),
            (
                _("What is outstanding of a batch"),
                [(f"batch={batch.pk}", f"{batch}, {batch.plan}") for batch in batches],
            ),
        ]


class DeclareShortfallForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        help_text=gettext_lazy(
            "Why it cannot be supplied. The second person decides by it; it stays on record."
        ),
        widget=UnfoldAdminTextareaWidget({"rows": 4}),
    )


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
