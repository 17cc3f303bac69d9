"""Forms of the customer's own settings."""

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.models import User, known_time_zones


class ProfileForm(forms.ModelForm[User]):
    """Name, language and time zone. The email address is changed where it is verified."""

    time_zone = forms.ChoiceField(label=_("Time zone"), required=False)

    class Meta:
        model = User
        fields = ("name", "language", "time_zone")
        help_texts = {  # noqa: RUF012 (Django's own shape)
            "name": _("As it should stand on your orders and in the record of what you accept."),
            "language": _("Pages and messages are in this language."),
        }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.fields["name"].widget.attrs["autocomplete"] = "name"
        zones = sorted(
            name
            for name in known_time_zones()
            if "/" in name and not name.startswith(("Etc/", "posix/", "right/"))
        )
        current = self.instance.time_zone
        self.fields["time_zone"].choices = [  # type: ignore[attr-defined]
            ("", _("The same as my browser")),
            *((name, name.replace("_", " ")) for name in sorted({*zones, *filter(None, [current])})),
        ]
