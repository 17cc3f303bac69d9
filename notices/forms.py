"""Forms of what customers want to hear."""

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _


class QuietHoursForm(forms.Form):
    """Both times, or neither."""

    begin_at = forms.TimeField(
        label=_("From"), required=False, widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    )
    end_at = forms.TimeField(
        label=_("Until"), required=False, widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    )

    def clean(self) -> dict[str, object]:
        times: dict[str, object] = super().clean() or {}
        begin_at, end_at = times.get("begin_at"), times.get("end_at")
        if self.errors:
            return times
        if (begin_at is None) != (end_at is None):
            self.add_error("begin_at" if begin_at is None else "end_at", _("Give both times, or neither."))
        elif begin_at is not None and begin_at == end_at:
            self.add_error("end_at", ValidationError(_("The quiet hours begin and end at the same time.")))
        return times
