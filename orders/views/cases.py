"""A customer's cases: a disagreement, a withdrawal, a request for a refund, and what both sides wrote (II, 3.3)."""

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from accounts.views import CustomerRequest
from agreements.models import Acceptance, Document, Role, Subject, Version
from agreements.rights import in_language
from orders.cases import LONGEST, CaseRefused, can_be_refunded, close_case, open_case, write
from orders.models import Case, CaseState, Ground, Matter, Order, Outcome, Refund, Side
from orders.views.checkout import going_back_shows_it
from orders.views.orders import own_order

PAGE_SIZE = 10


class WordsForm(forms.Form):
    """What a customer has to say. Counting its length is for the verb, which counts line breaks once."""

    body = forms.CharField(
        label=gettext_lazy("Your message"),
        widget=forms.Textarea({"rows": 6, "maxlength": LONGEST}),
        error_messages={"required": gettext_lazy("Please write a message.")},
    )


class OpenForm(WordsForm):
    subject = forms.CharField(
        label=gettext_lazy("What is it about?"),
        max_length=Case._meta.get_field("subject").max_length,
        error_messages={"required": gettext_lazy("Please say what it is about.")},
    )

    field_order = ("subject", "body")


class WithdrawForm(WordsForm):
    body = forms.CharField(
        label=gettext_lazy("Your statement"),
        widget=forms.Textarea({"rows": 5, "maxlength": LONGEST}),
        error_messages={"required": gettext_lazy("Please write a message.")},
    )


class RefundForm(WordsForm):
    """On which of the two grounds a customer asks for a refund (3.3). Neither is chosen for him."""

    ground = forms.ChoiceField(
        label=gettext_lazy("On which ground?"),
        choices=[
            (Ground.LAW, gettext_lazy("The law requires it.")),
            (
                Ground.UNABLE_TO_SUPPLY,
                gettext_lazy("The platform is unable to supply, for reasons of its own."),
            ),
        ],
        widget=forms.RadioSelect,
        error_messages={"required": gettext_lazy("Please choose one of the two grounds.")},
    )
    legal_basis = forms.CharField(
        label=gettext_lazy("Which rule of the law? (only for that ground)"),
        help_text=gettext_lazy("Act and section, or court and reference."),
        max_length=Case._meta.get_field("legal_basis").max_length,
        required=False,
    )
    body = forms.CharField(
        label=gettext_lazy("Why it applies to your order"),
        widget=forms.Textarea({"rows": 6, "maxlength": LONGEST}),
        error_messages={"required": gettext_lazy("Please write a message.")},
    )

    field_order = ("ground", "legal_basis", "body")

    def clean(self) -> None:
        is_law = self.cleaned_data.get("ground") == Ground.LAW
        if is_law and not self.cleaned_data.get("legal_basis") and "legal_basis" not in self.errors:
            self.add_error("legal_basis", _("Please name the rule of the law that requires a refund."))
        elif not is_law:
            # (Written before the other ground was chosen.)
            self.cleaned_data["legal_basis"] = ""


class CloseForm(forms.Form):
    """How a customer ends a case. Where he adds no words, his choice is what he says."""

    outcome = forms.ChoiceField(
        label=gettext_lazy("Why do you close it?"),
        choices=[
            (Outcome.SETTLED, gettext_lazy("This is settled.")),
            (Outcome.DROPPED, gettext_lazy("I drop this case.")),
        ],
        widget=forms.RadioSelect,
        error_messages={"required": gettext_lazy("Please choose why you close the case.")},
    )
    last_words = forms.CharField(
        label=gettext_lazy("Anything to add? (optional)"),
        widget=forms.Textarea({"rows": 3, "maxlength": LONGEST}),
        required=False,
    )

    def words(self) -> str:
        """What goes on record. The form must be valid."""
        choices = dict(self.fields["outcome"].choices)  # type: ignore[attr-defined]
        return self.cleaned_data["last_words"] or str(choices[self.cleaned_data["outcome"]])


@login_required
@never_cache
@require_GET
def cases(request: CustomerRequest) -> HttpResponse:
    mine = Case.objects.filter(order__customer=request.user).select_related("order")
    page = Paginator(mine.order_by("-pk"), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(
        request,
        "orders/cases.html",
        {"page": page, "now": timezone.now(), **_agreement_in_force()},
    )


@login_required
@going_back_shows_it
@require_http_methods(["GET", "POST"])
def open_dispute(request: CustomerRequest, reference: str) -> HttpResponse:
    order = own_order(request, reference)
    form = OpenForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        opened = _open(request, form, order, Matter.DISPUTE, subject=form.cleaned_data["subject"])
        if opened:
            messages.success(
                request, _("Your case is open, and a copy of your message is on its way to you.")
            )
            return redirect(opened)
    return render(
        request,
        "orders/case_open.html",
        {"form": form, "order": order, "answer_days": settings.CASE_ANSWER_DAYS, **_agreement_of(order)},
    )


@login_required
@going_back_shows_it
@require_http_methods(["GET", "POST"])
def withdraw(request: CustomerRequest, reference: str) -> HttpResponse:
    """The statement of withdrawal. Whoever has made it already is led to what became of it."""
    order = own_order(request, reference)
    form = WithdrawForm(request.POST or None, initial={"body": _statement(request, order)})
    if request.method == "POST" and form.is_valid():
        subject = _("Withdrawal from order %(reference)s") % {"reference": order.reference}
        opened = _open(request, form, order, Matter.WITHDRAWAL, subject=subject)
        if opened:
            messages.success(
                request,
                _("We have received your withdrawal, and acknowledge it by email and in your messages."),
            )
            return redirect(opened)
    elif request.method == "GET":
        stated = order.cases.filter(matter=Matter.WITHDRAWAL).exclude(state=CaseState.CLOSED).first()
        if stated:
            return redirect(stated)
        if not order.can_be_withdrawn_from(timezone.now()):
            messages.info(request, _("This order cannot be withdrawn from (any more)."))
            return redirect(order)
    right = order.right
    language = get_language() or settings.LANGUAGE_CODE
    return render(
        request,
        "orders/case_withdraw.html",
        {
            "form": form,
            "order": order,
            "right": right,
            "right_title": in_language(right.title, language) if right else "",
            "right_explanation": in_language(right.explanation, language) if right else "",
            "answer_days": settings.CASE_ANSWER_DAYS,
            **_agreement_of(order),
        },
    )


@login_required
@going_back_shows_it
@require_http_methods(["GET", "POST"])
def ask_for_refund(request: CustomerRequest, reference: str) -> HttpResponse:
    """The request for a refund, below the rule that there is none. Whoever has made it is led to what became of it."""
    order = own_order(request, reference)
    form = RefundForm(request.POST or None, initial={"legal_basis": order.right.law if order.right else ""})
    if request.method == "POST" and form.is_valid():
        opened = _open(
            request,
            form,
            order,
            Matter.REFUND,
            subject=_("Refund of order %(reference)s") % {"reference": order.reference},
            ground=Ground(form.cleaned_data["ground"]),
            legal_basis=form.cleaned_data["legal_basis"],
        )
        if opened:
            messages.success(request, _("Your request is with us, and a copy of it is on its way to you."))
            return redirect(opened)
    elif request.method == "GET":
        asked = order.cases.filter(matter=Matter.REFUND).exclude(state=CaseState.CLOSED).first()
        if asked:
            return redirect(asked)
        if not can_be_refunded(order):
            messages.info(request, _("Nothing of this order is paid and not refunded yet."))
            return redirect(order)
    return render(
        request,
        "orders/case_refund.html",
        {
            "form": form,
            "order": order,
            "can_withdraw": order.can_be_withdrawn_from(timezone.now()),
            "answer_days": settings.CASE_ANSWER_DAYS,
            **_agreement_of(order),
        },
    )


@login_required
@never_cache
@require_http_methods(["GET", "POST"])
def case(request: CustomerRequest, reference: str) -> HttpResponse:
    """What both sides wrote. A message that is sent here is added to it."""
    found = _own_case(request, reference)
    form = WordsForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            write(
                case_id=found.pk,
                author_id=request.user.pk,
                side=Side.CUSTOMER,
                body=form.cleaned_data["body"],
                now=timezone.now(),
            )
        except CaseRefused as no:
            form.add_error("body", str(no))
            found.refresh_from_db()
        else:
            messages.success(request, _("Your message is sent."))
            return redirect(found)
    return _render_case(request, found, form, CloseForm())


@login_required
@never_cache
@require_http_methods(["GET", "POST"])
def close(request: CustomerRequest, reference: str) -> HttpResponse:
    """End a case as its customer. A refused form comes back on the page of the case, as it was filled in."""
    found = _own_case(request, reference)
    if request.method == "GET":  # the address of a refused form, reloaded
        return redirect(found)
    form = CloseForm(request.POST)
    if form.is_valid():
        try:
            close_case(
                case_id=found.pk,
                author_id=request.user.pk,
                side=Side.CUSTOMER,
                outcome=Outcome(form.cleaned_data["outcome"]),
                body=form.words(),
                now=timezone.now(),
            )
        except CaseRefused as no:
            form.add_error(None, str(no))
            found.refresh_from_db()
        else:
            messages.success(request, _("The case is closed."))
            return redirect(found)
    return _render_case(request, found, WordsForm(), form)


def _open(
    request: CustomerRequest,
    form: WordsForm,
    order: Order,
    matter: Matter,
    *,
    subject: str,
    ground: Ground | None = None,
    legal_basis: str = "",
) -> Case | None:
    """The case, new or known; None where it was refused, and the form says why."""
    try:
        return open_case(
            order_id=order.pk,
            customer_id=request.user.pk,
            matter=matter,
            subject=subject,
            body=form.cleaned_data["body"],
            now=timezone.now(),
            ground=ground,
            legal_basis=legal_basis,
        )
    except CaseRefused as no:
        form.add_error(None, str(no))
        return None


def _own_case(request: CustomerRequest, reference: str) -> Case:
    """The case, if it is the customer's; 404 does not tell whether others have it."""
    mine = Case.objects.filter(order__customer=request.user).select_related("order")
    return get_object_or_404(mine, reference=reference)


def _render_case(request: HttpRequest, found: Case, form: WordsForm, close_form: CloseForm) -> HttpResponse:
    return render(
        request,
        "orders/case.html",
        {
            "case": found,
            "order": found.order,
            "thread": found.messages.order_by("pk"),
            "refunds": _refunds_of(found),
            "form": form,
            "close_form": close_form,
            "is_overdue": found.is_overdue(timezone.now()),
            **_agreement_of(found.order),
        },
    )


def _refunds_of(found: Case) -> list[Refund]:
    """What has come of a request or a withdrawal. A disagreement leads to none."""
    if found.matter == Matter.DISPUTE:
        return []
    return list(found.refunds.select_related("order").order_by("pk"))


def _statement(request: CustomerRequest, order: Order) -> str:
    """What a customer declares who withdraws, for him to change or add to."""
    declared = _("I hereby withdraw from my order %(reference)s, placed on %(date)s.") % {
        "reference": order.reference,
        "date": date_format(timezone.localtime(order.placed_at), "DATE_FORMAT"),
    }
    name, email = request.user.name, request.user.email
    return f"{declared}\n\n{name} ({email})" if name else f"{declared}\n\n{email}"


def _agreement_of(order: Order) -> dict[str, str]:
    """Where the text is read that the order's buyer accepted, and where it was signed (9.2)."""
    accepted = (
        Acceptance.objects.filter(
            order_reference=order.reference,
            role=Role.BUYER,
            subject=Subject.AGREEMENT,
            text__version__document=Document.PREPAYMENT,
        )
        .select_related("text__version")
        .order_by("pk")
        .first()
    )
    if accepted is None:
        return _agreement_in_force()
    text = accepted.text
    return _said_of(f"{text.version.get_absolute_url()}?language={text.language}")


def _agreement_in_force() -> dict[str, str]:
    version = Version.objects.in_force(timezone.now()).get(Document.PREPAYMENT)
    return _said_of(version.get_absolute_url() if version else reverse("agreements:index"))


def _said_of(agreement_url: str) -> dict[str, str]:
    return {"agreement_url": agreement_url, "place": settings.PLATFORM_LOCATION}
