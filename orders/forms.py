"""What a buyer fills in. The forms say what is allowed; the verbs decide."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID, uuid4

from django import forms
from django.conf import settings
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.countries import countries
from accounts.models import User
from agreements.acceptance import Consent, RequiredConsent
from agreements.models import StatutoryRight, Subject
from inventory.money import Money
from orders.gateways import Method
from orders.guardians import Guardian
from orders.models import GuardianRequest
from orders.offers import Offer

ADULT, MINOR = "adult", "minor"


class QuantityForm(forms.Form):
    """How many phones of one offered plan. `others` of it are in the basket already."""

    quantity = forms.IntegerField(label=_("Quantity"), initial=1)

    def __init__(self, *args: object, offer: Offer, others: int = 0, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.offer, self.others = offer, others
        limit = offer.plan.customer_limit
        quantity = cast(forms.IntegerField, self.fields["quantity"])
        quantity.error_messages["required"] = quantity.error_messages["invalid"] = self._range()
        quantity.widget.attrs.update({"min": 1, "max": max(1, limit - others), "inputmode": "numeric"})

    def clean_quantity(self) -> int:
        """One message for every number that cannot be: it says which can."""
        quantity: int = self.cleaned_data["quantity"]
        wanted = quantity + self.others
        if quantity < 1 or wanted > self.offer.plan.customer_limit:
            raise forms.ValidationError(self._range())
        left = self.offer.units_left
        if wanted > left:
            raise forms.ValidationError(
                ngettext(
                    "Only %(left)d phone of this plan can be ordered at the moment.",
                    "Only %(left)d phones of this plan can be ordered at the moment.",
                    left,
                )
                % {"left": left}
            )
        return quantity

    def _range(self) -> str:
        limit = self.offer.plan.customer_limit
        if not self.others:
            return _("Please enter a whole number from 1 to %(limit)d.") % {"limit": limit}
        if self.others >= limit:
            return _(
                "One order can hold %(limit)d phones of this plan, and your basket has them already."
            ) % {"limit": limit}
        return _(
            "Please enter a whole number from 1 to %(rest)d: one order can hold %(limit)d phones of this plan, "
            "and %(others)d are in your basket already."
        ) % {"rest": limit - self.others, "limit": limit, "others": self.others}


class AddForm(QuantityForm):
    """A term of one offered plan, and how many phones."""

    term = forms.TypedChoiceField(
        label=_("Service period"),
        coerce=int,
        error_messages={
            "required": _("Please choose a service period."),
            "invalid_choice": _("Please choose one of the service periods that are on offer."),
        },
    )

    field_order = ("term", "quantity")

    def __init__(self, *args: object, offer: Offer, others: int = 0, **kwargs: object) -> None:
        super().__init__(*args, offer=offer, others=others, **kwargs)
        available = [term for term in offer.terms if term.is_available]
        term = cast(forms.TypedChoiceField, self.fields["term"])
        term.choices = [(each.term.pk, str(each.term)) for each in available]
        # A month is what most people try first.
        usual = [each.term.pk for each in available if each.term.is_offered_on_presale()]
        term.initial = next(iter(usual or [each.term.pk for each in available]), None)

    def clean(self) -> None:
        """A short term is sold only while devices are free, so also only as many as are free."""
        term_id, quantity = self.cleaned_data.get("term"), self.cleaned_data.get("quantity")
        term = next((each.term for each in self.offer.terms if each.term.pk == term_id), None)
        free = self.offer.devices_free
        if term and quantity and quantity + self.others > free and not term.is_offered_on_presale():
            self.add_error(
                "quantity",
                ngettext(
                    "Only %(free)d phone is free now, and service periods under %(days)d days are not sold on pre-sale.",
                    "Only %(free)d phones are free now, and service periods under %(days)d days are not sold on pre-sale.",
                    free,
                )
                % {"free": free, "days": settings.PRESALE_MINIMUM_DAYS},
            )


@dataclass(frozen=True, slots=True)
class ConsentControl:
    """A box to tick with the words beside it."""

    required: RequiredConsent
    box: forms.BoundField


class CheckoutForm(forms.Form):
    """One checkout page: the buyer's consents, where he lives, his age, and of a minor the guardian.

    Nothing is ticked or chosen beforehand, save the country of the order before. What is `required` depends on
    the country that is chosen. Hidden fields say which checkout this is, which total and which texts were on
    the page; `place_order` compares them with what is true when the button is pressed. A box of a country's
    law counts only if the words of that very `right` were on the page: the country may have been changed since.
    """

    # What stands on the button, and in the record of what was pressed.
    BUTTON = _("Place the order")

    checkout_key = forms.UUIDField(widget=forms.HiddenInput)
    seen_total = forms.CharField(widget=forms.HiddenInput, required=False)
    seen_right = forms.CharField(widget=forms.HiddenInput, required=False)
    country = forms.ChoiceField(
        label=_("Country or region where you live"),
        help_text=_("Its law may give you rights besides the agreement. They are then shown here."),
        error_messages={
            "required": _("Please choose the country or region where you live."),
            "invalid_choice": _("Please choose a country or region of the list."),
        },
    )
    age = forms.ChoiceField(
        label=_("How old are you?"),
        choices=[(ADULT, _("I am 18 or older")), (MINOR, _("I am under 18"))],
        widget=forms.RadioSelect,
        error_messages={"required": _("Please say whether you are 18 or older.")},
    )
    guardian_name = forms.CharField(label=_("Guardian's name"), max_length=150, required=False)
    guardian_email = forms.EmailField(label=_("Guardian's email address"), required=False)

    def __init__(
        self,
        data: QueryDict | None,
        *,
        customer: User,
        language: str,
        required: Sequence[RequiredConsent],
        right: StatutoryRight | None,
        total: Money | None,
        initial: Mapping[str, object],
    ) -> None:
        super().__init__(_as_read(data, required=required, right=right), initial=dict(initial))
        self.customer = customer
        self.required = tuple(required)
        self.right = right
        self.fields["checkout_key"].initial = uuid4
        self.fields["seen_total"].initial = str(total) if total else ""
        self.fields["seen_right"].initial = _edition(right)
        country = cast(forms.ChoiceField, self.fields["country"])
        country.choices = [("", _("Please choose")), *countries(language)]
        country.widget.attrs["autocomplete"] = "country"
        for consent in self.required:
            self.fields[consent.key] = forms.BooleanField(label=consent.statement, required=False)
            # Whatever stands there that is no number was not shown by us: the text is then not in force.
            self.fields[_shown(consent)] = forms.CharField(
                widget=forms.HiddenInput, required=False, initial=consent.text.pk
            )
        # As they stand on the page, and so in the list of what is missing.
        self.order_fields(["country", *(consent.key for consent in self.required)])

    def clean(self) -> None:
        for consent in self.required:
            if not self.cleaned_data.get(consent.key):
                self.add_error(consent.key, _missing(consent))
        if not self.is_minor:
            return
        if not self.cleaned_data.get("guardian_name"):
            self.add_error("guardian_name", _("Please enter the name of your legal guardian."))
        email = self.cleaned_data.get("guardian_email")
        if not email and "guardian_email" not in self.errors:
            self.add_error("guardian_email", _("Please enter the email address of your legal guardian."))
        elif email and email.lower() == self.customer.email:
            self.add_error(
                "guardian_email",
                _("Please enter your guardian's own email address: yours cannot confirm your own order."),
            )

    @property
    def is_minor(self) -> bool:
        return self.cleaned_data.get("age") == MINOR

    @property
    def guardian(self) -> Guardian | None:
        """Who is to confirm, of a buyer under 18. The form must be valid."""
        if not self.is_minor:
            return None
        return Guardian(self.cleaned_data["guardian_name"], self.cleaned_data["guardian_email"])

    @property
    def key(self) -> UUID | None:
        """The key of the page that was sent, readable before the form is valid; None if it is not one."""
        try:
            return UUID(str(self["checkout_key"].value()))
        except ValueError:
            return None

    @property
    def shown_text_ids(self) -> set[int]:
        """The texts that were on the page that was sent, as far as it says."""
        return {_text_id(self[_shown(consent)].value()) for consent in self.required}

    def total_seen(self, currency: str) -> Money:
        """The total the page showed; zero, which no order costs, if it is not an amount of `currency`."""
        written, _space, in_currency = self.cleaned_data["seen_total"].partition(" ")
        try:
            return Money.parse(written, currency) if in_currency == currency else Money(0, currency)
        except ValueError:
            return Money(0, currency)

    def consents(self) -> list[Consent]:
        """What was ticked, on which text."""
        return [
            Consent(
                text_id=_text_id(self.cleaned_data[_shown(consent)]),
                subject=consent.subject,
                role=consent.role,
                person_name=self.customer.name,
                person_email=self.customer.email,
                statement=consent.statement,
            )
            for consent in self.required
            if self.cleaned_data[consent.key]
        ]

    def agreement_controls(self) -> Iterator[ConsentControl]:
        """The boxes that every buyer ticks."""
        for consent in self.required:
            if not _is_of_law(consent):
                yield ConsentControl(consent, self[consent.key])

    def law_controls(self) -> Iterator[ConsentControl]:
        """The boxes that only the law of the buyer's country asks for."""
        for consent in self.required:
            if _is_of_law(consent):
                yield ConsentControl(consent, self[consent.key])

    def page_fields(self) -> list[forms.BoundField]:
        """The hidden fields of the page; those of a country's law come and go with its boxes."""
        of_law = {"seen_right", *(_shown(control.required) for control in self.law_controls())}
        return [field for field in self.hidden_fields() if field.name not in of_law]

    def law_fields(self) -> list[forms.BoundField]:
        """The hidden fields that say which law was shown, and which text its boxes belong to."""
        return [self["seen_right"], *(self[_shown(control.required)] for control in self.law_controls())]


class GuardianContactForm(forms.Form):
    """Who is to be asked (again)."""

    name = forms.CharField(label=_("Guardian's name"), max_length=150)
    email = forms.EmailField(label=_("Guardian's email address"))

    def guardian(self) -> Guardian:
        return Guardian(self.cleaned_data["name"], self.cleaned_data["email"])


class GuardianForm(forms.Form):
    """What a guardian confirms. Nothing is ticked beforehand; his name stands as the buyer wrote it."""

    BUTTON = _("I confirm")

    name = forms.CharField(
        label=_("Your name"),
        max_length=150,
        error_messages={"required": _("Please enter your name.")},
    )

    def __init__(
        self, *args: object, asked: GuardianRequest, required: Sequence[RequiredConsent], **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.asked = asked
        self.required = tuple(required)
        self.fields["name"].initial = asked.name
        self.fields["name"].widget.attrs["autocomplete"] = "name"
        for consent in self.required:
            message = _("Please confirm the %(title)s.") % {"title": consent.text.title}
            self.fields[consent.key] = forms.BooleanField(
                label=consent.statement, error_messages={"required": message}
            )

    def controls(self) -> Iterator[ConsentControl]:
        for consent in self.required:
            yield ConsentControl(consent, self[consent.key])

    def consents(self) -> list[Consent]:
        """What was ticked. The form must be valid."""
        return [
            Consent(
                text_id=consent.text.pk,
                subject=consent.subject,
                role=consent.role,
                person_name=self.cleaned_data["name"],
                person_email=self.asked.email,
                statement=consent.statement,
            )
            for consent in self.required
        ]


class PayForm(forms.Form):
    """The way to pay."""

    method = forms.ChoiceField(
        label=_("Way to pay"),
        widget=forms.RadioSelect,
        error_messages={
            "required": _("Please choose a way to pay."),
            "invalid_choice": _("This way to pay is not available. Please choose another one."),
        },
    )

    def __init__(self, *args: object, methods: Sequence[Method], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        method = cast(forms.ChoiceField, self.fields["method"])
        method.choices = [(each.slug, each.label) for each in methods]
        if len(methods) == 1:
            method.initial = methods[0].slug


def _shown(consent: RequiredConsent) -> str:
    return f"text-{consent.key}"


def _is_of_law(consent: RequiredConsent) -> bool:
    return consent.subject == Subject.EARLY_START


def _edition(right: StatutoryRight | None) -> str:
    return str(right.pk) if right else ""


def _as_read(
    data: QueryDict | None, *, required: Sequence[RequiredConsent], right: StatutoryRight | None
) -> QueryDict | None:
    """What was sent, without ticks beside words of a law that were not on the page.

    Without JavaScript the country changes and the words stay. The page that comes back has the right ones.
    """
    if data is None or data.get("seen_right", "") == _edition(right):
        return data
    read = data.copy()
    read["seen_right"] = _edition(right)
    for consent in required:
        if _is_of_law(consent):
            read.pop(consent.key, None)
            read[_shown(consent)] = str(consent.text.pk)
    return read


def _text_id(written: object) -> int:
    """The id that a hidden field names; 0, which no text has, for what is none."""
    number = str(written)
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 19 else 0


def _missing(consent: RequiredConsent) -> str:
    """What to say where a box was not ticked."""
    match consent.subject:
        case Subject.NO_REFUND:
            return str(_("Please confirm that you understand the rule on refunds."))
        case Subject.EARLY_START:
            return str(
                _("The law of your country asks for this request before your phones can be activated.")
            )
        case Subject.AGREEMENT:
            return _("Please accept the %(title)s.") % {"title": consent.text.title}
