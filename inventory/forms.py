"""What staff fill in about supply and fees, on the pages behind the admin's buttons."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from django import forms
from django.forms import BoundField
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import (
    BASE_INPUT_CLASSES,
    DATETIME_CLASSES,
    UnfoldAdminFileFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from inventory.models import DeviceState, Plan, SupplyBatch, Term
from inventory.money import Money
from inventory.receiving import MAX_BYTES


def _moment_input(kind: str, written: str) -> forms.DateTimeInput:
    """The browser's own control for a date or a time, in the theme's clothes."""
    return forms.DateTimeInput(
        {"type": kind, "class": " ".join([*DATETIME_CLASSES, "max-w-2xl"])}, format=written
    )


class AnnounceBatchForm(forms.Form):
    plan = forms.ModelChoiceField(
        queryset=Plan.objects.all(), label=gettext_lazy("Plan"), widget=UnfoldAdminSelectWidget
    )
    reference = forms.CharField(
        label=gettext_lazy("Supplier's reference"), max_length=60, widget=UnfoldAdminTextInputWidget
    )
    quantity = forms.IntegerField(
        label=gettext_lazy("Quantity"), min_value=1, widget=UnfoldAdminIntegerFieldWidget
    )
    expected_on = forms.DateField(
        label=gettext_lazy("Expected on"),
        help_text=gettext_lazy("The day in Hong Kong. Estimates are made from it at once."),
        widget=_moment_input("date", "%Y-%m-%d"),
    )


class ChangeBatchForm(forms.Form):
    expected_on = forms.DateField(
        label=gettext_lazy("Expected on"),
        help_text=gettext_lazy(
            "The day in Hong Kong. Customers who wait are told if their estimate changes."
        ),
        widget=_moment_input("date", "%Y-%m-%d"),
    )
    quantity = forms.IntegerField(
        label=gettext_lazy("Quantity"),
        min_value=1,
        help_text=gettext_lazy("All units of the batch, those that have arrived included."),
        widget=UnfoldAdminIntegerFieldWidget,
    )

    def __init__(self, data: Mapping[str, Any] | None, *, batch: SupplyBatch) -> None:
        super().__init__(data, initial={"expected_on": batch.expected_on, "quantity": batch.quantity})


class OversellForm(forms.Form):
    plan = forms.ModelChoiceField(
        queryset=Plan.objects.all(), label=gettext_lazy("Plan"), widget=UnfoldAdminSelectWidget
    )
    units = forms.IntegerField(
        label=gettext_lazy("Units beyond the announced supply"),
        min_value=0,
        help_text=gettext_lazy(
            "All units that may be sold although no announced batch covers them; replaces earlier decisions. "
            "The plan's cap stays the limit."
        ),
        widget=UnfoldAdminIntegerFieldWidget,
    )
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=500, widget=UnfoldAdminTextInputWidget)


class ReceiveForm(forms.Form):
    file = forms.FileField(
        label=gettext_lazy("CSV file"),
        help_text=gettext_lazy(
            "UTF-8, with a header row and the columns code and plan; comma or semicolon. Other columns are ignored."
        ),
        widget=UnfoldAdminFileFieldWidget,
    )
    more_to_come = forms.BooleanField(
        label=gettext_lazy("More of this batch is still to come"), required=False, widget=UnfoldBooleanWidget
    )

    def clean_file(self) -> Any:
        """Refuse by size before the file is read into memory; the rest is told by receiving it."""
        file = self.cleaned_data["file"]
        if file.size > MAX_BYTES:
            raise forms.ValidationError(
                _("The file has more than %(megabytes)d MB. Split it, and say that more is to come.")
                % {"megabytes": MAX_BYTES // 1_000_000}
            )
        return file


class AnnounceFeesForm(forms.Form):
    """One currency's fees for every term, as a person writes them: "4.99"."""

    effective_at = forms.DateTimeField(
        label=gettext_lazy("Takes effect"), widget=_moment_input("datetime-local", "%Y-%m-%dT%H:%M")
    )

    def __init__(
        self,
        data: Mapping[str, Any] | None,
        *,
        currency: str,
        terms: Sequence[Term],
        present: Mapping[int, Money],
    ) -> None:
        """`present` are the fees announced so far by term id; `terms` come ordered by plan, plans loaded."""
        super().__init__(data)
        self.currency = currency
        self.terms = tuple(terms)
        self.fields["effective_at"].help_text = _("In your time zone, %(zone)s.") % {
            "zone": timezone.get_current_timezone_name()
        }
        for term in self.terms:
            fee = present.get(term.pk)
            self.fields[f"fee_{term.pk}"] = forms.CharField(
                label=_("%(days)d days") % {"days": term.days},
                required=False,
                initial=fee.written() if fee else "",
                widget=forms.TextInput({"inputmode": "decimal", "class": " ".join(BASE_INPUT_CLASSES)}),
            )

    def by_plan(self) -> Iterator[tuple[Plan, list[BoundField]]]:
        """The fields of the fees, plan by plan."""
        for plan, terms in groupby(self.terms, key=lambda term: term.plan):
            yield plan, [self[f"fee_{term.pk}"] for term in terms]

    def clean_effective_at(self) -> datetime:
        moment: datetime = self.cleaned_data["effective_at"]
        if moment <= timezone.now():
            raise forms.ValidationError(
                _("A fee schedule is announced before it takes effect (agreement 3.2): give a later time.")
            )
        return moment

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        self.fees: list[tuple[Term, int]] = []
        for term in self.terms:
            if not (written := self.cleaned_data.get(f"fee_{term.pk}")):
                continue
            try:
                self.fees.append((term, Money.parse(written, self.currency).minor))
            except ValueError:
                self.add_error(
                    f"fee_{term.pk}",
                    _("Write an amount in %(currency)s, like %(example)s.")
                    % {"currency": self.currency, "example": Money(499, self.currency).written()},
                )
        return cleaned


class EndQuarantineForm(forms.Form):
    becomes = forms.ChoiceField(
        label=gettext_lazy("The device goes"),
        choices=[
            (DeviceState.FREE.value, gettext_lazy("back to free stock")),
            (DeviceState.RETIRED.value, gettext_lazy("out of use for good")),
        ],
        widget=UnfoldAdminSelectWidget,
    )
    note = forms.CharField(
        label=gettext_lazy("What was found"),
        help_text=gettext_lazy("The note stays on record with your name."),
        widget=UnfoldAdminTextareaWidget({"rows": 4}),
    )
