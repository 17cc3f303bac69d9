"""What customers fill in to be reached."""

from typing import Any

from django import forms
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from accounts.countries import countries
from evidence.pdf import unprintable
from notices.contacts import NotAnAddress, PostalAddress, e164

# What fits into the window of an envelope beside name and country.
MOST_LINES = 4
LONGEST_LINE = 40


class PhoneForm(forms.Form):
    number = forms.CharField(
        label=_("Mobile number"),
        max_length=40,
        help_text=_("With + and the code of the country, like +852 5123 4567."),
        widget=forms.TextInput(attrs={"type": "tel", "autocomplete": "tel"}),
    )

    def clean_number(self) -> str:
        try:
            return e164(self.cleaned_data["number"])
        except NotAnAddress as problem:
            raise forms.ValidationError(str(problem)) from None


class CodeForm(forms.Form):
    code = forms.CharField(
        label=_("Code"),
        max_length=20,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "one-time-code"}),
    )


class PostalAddressForm(forms.Form):
    name = forms.CharField(
        label=_("Name"), max_length=LONGEST_LINE, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    lines = forms.CharField(
        label=_("Address"),
        max_length=MOST_LINES * (LONGEST_LINE + 2),
        help_text=_("Up to four lines, as on an envelope: street, postal code and town."),
        widget=forms.Textarea(attrs={"rows": MOST_LINES, "autocomplete": "street-address"}),
    )
    country = forms.ChoiceField(
        label=_("Country or region"), widget=forms.Select(attrs={"autocomplete": "country"})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = countries(get_language() or "en")
        self.fields["country"].choices = [("", "—"), *known]  # type: ignore[attr-defined]

    def clean_name(self) -> str:
        return self._printable(self.cleaned_data["name"])

    def clean_lines(self) -> list[str]:
        written = (" ".join(line.split()) for line in self.cleaned_data["lines"].splitlines())
        lines = [line for line in written if line]
        if not lines or len(lines) > MOST_LINES or any(len(line) > LONGEST_LINE for line in lines):
            raise forms.ValidationError(
                _("Write at most %(lines)s lines of at most %(length)s characters."),
                params={"lines": MOST_LINES, "length": LONGEST_LINE},
            )
        self._printable("".join(lines))
        return lines

    def postal_address(self) -> PostalAddress:
        """What was filled in, once it is valid."""
        return PostalAddress(**self.cleaned_data)

    def _printable(self, written: str) -> str:
        if odd := unprintable(written):
            raise forms.ValidationError(
                _("Our printer has no shape for: %(characters)s"), params={"characters": odd}
            )
        return written
