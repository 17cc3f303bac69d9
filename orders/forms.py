"""What a buyer fills in. The forms say what is allowed; the verbs decide."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID, uuid4

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.models import User
from agreements.acceptance import Consent, RequiredConsent
from agreements.models import Role, Subject
from inventory.money import Money
from orders.gateways import Method
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
    """One checkout page: the buyer's consents, the age, and for a minor the guardian's confirmation.

    Nothing is ticked or chosen beforehand. Hidden fields say which checkout this is, which total and which
    texts were on the page; `place_order` compares them with what is true when the button is pressed.
    """

    checkout_key = forms.UUIDField(widget=forms.HiddenInput)
    seen_total = forms.CharField(widget=forms.HiddenInput, required=False)
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
        *args: object,
        customer: User,
        required: Sequence[RequiredConsent],
        total: Money | None,
        **kwargs: object,
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.customer = customer
        self.required = tuple(required)
        self.fields["checkout_key"].initial = uuid4
        self.fields["seen_total"].initial = str(total) if total else ""
        for consent in self.required:
            self.fields[consent.key] = forms.BooleanField(label=consent.statement, required=False)
            # Whatever stands there that is no number was not shown by us: the text is then not in force.
            self.fields[_shown(consent)] = forms.CharField(
                widget=forms.HiddenInput, required=False, initial=consent.text.pk
            )
        # As they stand on the page, and so in the list of what is missing.
        self.order_fields([consent.key for consent in self.required if consent.role == Role.BUYER])

    def clean(self) -> None:
        for consent in self.required:
            if consent.role == Role.GUARDIAN and not self.is_minor:
                continue
            if not self.cleaned_data.get(consent.key):
                self.add_error(consent.key, _missing(consent))
        if self.is_minor:
            if not self.cleaned_data.get("guardian_name"):
                self.add_error("guardian_name", _("Please enter the name of your legal guardian."))
            if not self.cleaned_data.get("guardian_email") and "guardian_email" not in self.errors:
                self.add_error("guardian_email", _("Please enter the email address of your legal guardian."))

    @property
    def is_minor(self) -> bool:
        return self.cleaned_data.get("age") == MINOR

    @property
    def key(self) -> UUID | None:
        """The key of the page that was sent, readable before the form is valid; None if it is not one."""
        try:
            return UUID(str(self["checkout_key"].value()))
        except ValueError:
            return None

    def total_seen(self, currency: str) -> Money:
        """The total the page showed; zero, which no order costs, if it is not an amount of `currency`."""
        written, _space, in_currency = self.cleaned_data["seen_total"].partition(" ")
        try:
            return Money.parse(written, currency) if in_currency == currency else Money(0, currency)
        except ValueError:
            return Money(0, currency)

    def consents(self) -> list[Consent]:
        """What was ticked, by whom, on which text."""
        return [
            Consent(
                text_id=self._text_id(consent),
                subject=consent.subject,
                role=consent.role,
                person_name=self._person(consent.role)[0],
                person_email=self._person(consent.role)[1],
                statement=consent.statement,
            )
            for consent in self.required
            if self.cleaned_data[consent.key] and (consent.role == Role.BUYER or self.is_minor)
        ]

    def buyer_controls(self) -> Iterator[ConsentControl]:
        return self._controls(Role.BUYER)

    def guardian_controls(self) -> Iterator[ConsentControl]:
        return self._controls(Role.GUARDIAN)

    def _controls(self, role: Role) -> Iterator[ConsentControl]:
        for consent in self.required:
            if consent.role == role:
                yield ConsentControl(consent, self[consent.key])

    def _text_id(self, consent: RequiredConsent) -> int:
        shown: str = self.cleaned_data[_shown(consent)]
        return int(shown) if shown.isdecimal() and len(shown) < 19 else 0

    def _person(self, role: Role) -> tuple[str, str]:
        if role == Role.GUARDIAN:
            return self.cleaned_data["guardian_name"], self.cleaned_data["guardian_email"]
        return self.customer.name, self.customer.email


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


def _missing(consent: RequiredConsent) -> str:
    """What to say where a box was not ticked."""
    if consent.subject == Subject.NO_REFUND:
        return str(_("Please confirm that you understand the rule on refunds."))
    if consent.role == Role.GUARDIAN:
        return _("Your guardian has to confirm the %(title)s.") % {"title": consent.text.title}
    return _("Please accept the %(title)s.") % {"title": consent.text.title}
