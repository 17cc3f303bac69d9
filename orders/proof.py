"""The evidence of one order on paper: what was agreed, paid, told and said, each with what proves it.

For the customer and the platform alike, so it holds nothing that only staff may see: who of them wrote or
decided, their reasons, and refunds that were not granted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import models
from django.db.models import Q
from django.utils.text import capfirst
from django.utils.translation import get_language, get_language_info, gettext

from accounts.countries import country_name
from accounts.models import User
from agreements.models import Acceptance, Manner, Subject, Text
from agreements.pdf import Agreement, agreement_of
from agreements.rights import in_language
from evidence.contract_time import contract_zone
from evidence.models import Chained, ChainHead
from evidence.pdf import printable, typeset
from inventory.money import Money
from notices.kinds import AGREEMENT_REVISED
from notices.models import Delivery
from orders.models import Case, CaseMessage, Document, LedgerEntry, Order, OrderLine, RefundState
from orders.templatetags.shop import days, method_label

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One thing on record: facts by their labels, and `words` that somebody wrote."""

    title: str
    facts: Facts
    words: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A chapter. One without records says that there are none."""

    title: str
    intro: str
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """What was bought, as a table."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Annex:
    title: str
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Proof:
    """The whole document, in the active language; the annexes are in the languages that were accepted."""

    language: str
    title: str
    made: str
    note: str
    facts: Facts
    lines_title: str
    lines: Lines
    parts: tuple[Part, ...]
    annexes: tuple[Annex, ...]
    labels: dict[str, str]


def proof_of_order(order: Order, *, now: datetime) -> bytes:
    """All that is on record of an order at `now`, as a PDF in the active language, with the texts it accepted.

    What people wrote is printed whatever it says. Raises Unprintable only for an agreement.
    """
    return typeset("order", {"proof": _proof(order, now=now)}, dated=now)


def _proof(order: Order, *, now: datetime) -> Proof:
    acceptances = list(
        Acceptance.objects.filter(customer_id=order.customer_id)
        .filter(
            Q(order_reference=order.reference) | Q(manner=Manner.DEEMED, accepted_at__gte=order.placed_at)
        )
        .select_related("text__version")
        .prefetch_related("text__version__texts", "text__version__rulings")
        .order_by("chain_number")
    )
    reference = order.reference
    return Proof(
        language=get_language() or "en",
        title=gettext("Evidence of order %(reference)s") % {"reference": reference},
        made=gettext("Made at %(moment)s") % {"moment": _moments(now)},
        note=gettext(
            "This is everything that is on record about the order at that time: what was agreed, paid, sent and "
            "said, and by which seals it can be checked that nothing was changed since. A character that our "
            "fonts lack is printed as its code point, like [U+1F600]."
        ),
        facts=_order_facts(order, order.customer),
        lines_title=gettext("What was ordered"),
        lines=lines_of(bought(order), total=order.total),
        parts=tuple(_parts(order, acceptances)),
        annexes=tuple(_annexes(acceptances)),
        labels={
            "contents": gettext("Contents"),
            "nothing": gettext("None on record."),
            "page_of": gettext("Page {page} of {pages}"),
        },
    )


def _parts(order: Order, acceptances: list[Acceptance]) -> Iterator[Part]:
    express = [acceptance for acceptance in acceptances if acceptance.manner == Manner.EXPRESS]
    deemed = [acceptance for acceptance in acceptances if acceptance.manner == Manner.DEEMED]
    if order.right:
        yield Part(
            gettext("What the law gives the customer"),
            gettext("It applies whatever the agreement says."),
            (_right(order),),
        )
    yield Part(
        gettext("What was accepted with the order"),
        gettext("The texts are in the annexes, as they were accepted."),
        tuple(map(_acceptance, express)),
    )
    yield Part(
        gettext("The guardian's confirmation"),
        gettext("A legal guardian is asked to confirm when the buyer is under 18."),
        tuple(
            Record(printable(str(request)), _facts(request, "language", "asked_at", "answer", "answered_at"))
            for request in order.guardian_requests.order_by("pk")
        ),
    )
    yield Part(
        gettext("Later versions, accepted by continued use"),
        gettext("Using the service after a revision was published is deemed acceptance (9.1)."),
        tuple(map(_acceptance, deemed)),
    )
    yield Part(
        gettext("Payments"),
        gettext("Money that moved, as the payment provider stated it."),
        tuple(map(_entry, order.ledger.select_related("attempt"))),
    )
    yield Part(
        gettext("Refunds"),
        gettext("During the pre-sale period there are two grounds, and no third (3.3)."),
        tuple(
            Record(
                f"{refund.reference}: {Money(refund.minor, order.currency).localised()}",
                _facts(refund, "ground", "legal_basis", "state", "requested_at", "decided_at", "paid_at"),
            )
            for refund in order.refunds.filter(state__in=RefundState.granted()).order_by("pk")
        ),
    )
    yield Part(
        gettext("Invoices and credit notes"),
        gettext("They are documents of their own; here are their numbers and seals."),
        tuple(map(_document, order.documents.order_by("chain_number"))),
    )
    yield Part(
        gettext("Notices sent"),
        gettext("A notice counts as delivered on the day it is sent (VIII)."),
        tuple(map(_delivery, _deliveries(order))),
    )
    yield Part(
        gettext("Cases"),
        gettext("What both sides wrote to each other about the order (II)."),
        tuple(
            record
            for case in order.cases.order_by("pk").prefetch_related("messages")
            for record in _case(case)
        ),
    )
    yield Part(
        gettext("How to check"),
        gettext(
            "The records above are sealed in chains: each seal is a sha256 over its record and the seal before "
            "it. At the platform, manage.py verify_evidence --seal with any seal of this document, written as "
            "here, fails if that seal is no longer in its chain, or anything in a chain was altered, taken out "
            "or put in. The sha256 of an agreement is that of its text in UTF-8, which is attached to this "
            "document as a file; that of a notice is of its language, subject and text, with a zero byte between "
            "them. These were the last seals when this "
            "document was made:"
        ),
        tuple(
            Record(head.name, ((gettext("Seal"), f"{head.name}:{head.chain_number}:{head.chain_sha256}"),))
            for head in ChainHead.objects.order_by("name")
        ),
    )


def _order_facts(order: Order, customer: User) -> Facts:
    language = get_language() or "en"
    return (
        *_facts(order, "reference"),
        _said(User, "name", customer.name),
        _said(User, "email", customer.email),
        _said(Order, "country", country_name(order.country, language)),
        *_facts(order, "state"),
        (gettext("Total"), order.total.localised()),
        *_facts(order, "placed_at", "paid_at", "withdraw_until"),
    )


def bought(order: Order) -> Iterator[tuple[OrderLine, int]]:
    """The lines of an order with all their units."""
    for line in order.lines.select_related("order", "plan", "term").order_by("pk"):
        yield line, line.quantity


def lines_of(units: Iterable[tuple[OrderLine, int]], *, total: Money) -> Lines:
    """A table of lines with so many units of each, in the active language. Needs order, plan and term loaded."""
    rows = []
    for line, count in units:
        period = days(line.term.days)
        if line.bonus_days:
            period = gettext("%(period)s and %(bonus)s on top") % {
                "period": period,
                "bonus": days(line.bonus_days),
            }
        cells = (
            str(line.plan),
            period,
            line.unit_fee.localised(),
            str(count),
            (line.unit_fee * count).localised(),
        )
        rows.append(tuple(map(printable, cells)))
    head = (gettext("Plan"), gettext("Service period"), gettext("Fee"), gettext("Quantity"), gettext("Sum"))
    return Lines(head, tuple(rows), (gettext("Total"), total.localised()))


def _right(order: Order) -> Record:
    right, language = order.right, get_language() or "en"
    assert right is not None  # noqa: S101 (for the type checker: asked before)
    return Record(
        printable(in_language(right.title, language)),
        (*_facts(right, "law", "edition"), *_facts(order, "withdraw_until")),
        printable(in_language(right.explanation, language)),
    )


def _acceptance(acceptance: Acceptance) -> Record:
    return Record(
        printable(acceptance.statement),
        (
            *_facts(acceptance, "manner", "subject", "role", "person_name", "person_email", "accepted_at"),
            *_facts(acceptance, "control", "ip_address", "user_agent"),
            (gettext("Text"), printable(_edition(acceptance.text))),
            *_facts(acceptance, "text_sha256"),
            *_seals(acceptance),
        ),
    )


def _entry(entry: LedgerEntry) -> Record:
    return Record(
        f"{entry.get_kind_display()}: {entry.money.localised()}",
        (
            (gettext("Payment method"), printable(str(method_label(entry.attempt.method)))),
            *_facts(entry, "attempt", "gateway", "transaction_id", "occurred_at", "recorded_at"),
        ),
    )


def _document(document: Document) -> Record:
    return Record(
        f"{document.number}: {document.money.localised()}",
        (*_facts(document, "kind", "issued_at"), *_seals(document)),
    )


def _deliveries(order: Order) -> Iterable[Delivery]:
    """What was sent about the order, and of the agreements' revisions since."""
    about_it = Q(notice__about=order.reference)
    revised = Q(notice__kind=AGREEMENT_REVISED.slug, notice__created_at__gte=order.placed_at)
    return (
        Delivery.objects.filter(about_it | revised, notice__recipient=order.customer_id)
        .exclude(sent_at=None)
        .select_related("notice", "message")
        .order_by("sent_at", "pk")
    )


def _delivery(delivery: Delivery) -> Record:
    # A message in the inbox goes to the account, which has no address.
    address = () if delivery.channel == "in-site" else _facts(delivery, "address")
    message = delivery.message
    assert message is not None  # noqa: S101 (a constraint: what was sent has its message)
    return Record(
        printable(str(delivery.notice.get_kind_display())),
        (
            *_facts(delivery, "channel"),
            *address,
            *_facts(delivery, "sent_at", "provider_reference"),
            *_facts(message, "subject", "sha256"),
        ),
    )


def _case(case: Case) -> Iterator[Record]:
    yield Record(
        printable(f"{case.reference}: {case.subject}"),
        (
            *_facts(case, "matter", "ground", "legal_basis", "state", "opened_at"),
            _said(
                Case,
                "answer_due_at",
                gettext("by the end of %(day)s in Hong Kong") % {"day": case.last_day_to_answer.isoformat()},
            ),
            *_facts(case, "first_answered_at", "outcome", "closed_at"),
        ),
    )
    for message in sorted(case.messages.all(), key=lambda message: message.pk):
        yield _message(case, message)


def _message(case: Case, message: CaseMessage) -> Record:
    return Record(
        gettext("%(case)s, message of the %(side)s") % {"case": case, "side": message.get_side_display()},
        (*_facts(message, "written_at"), *_seals(message)),
        printable(message.body),
    )


def _annexes(acceptances: Iterable[Acceptance]) -> Iterator[Annex]:
    """Every text that was accepted with the order, once."""
    texts = {
        acceptance.text_id: acceptance.text
        for acceptance in acceptances
        if acceptance.manner == Manner.EXPRESS and acceptance.subject == Subject.AGREEMENT
    }
    for number, text in enumerate(texts.values(), start=1):
        title = gettext("Annex %(number)d: %(text)s") % {"number": number, "text": _edition(text)}
        yield Annex(title, agreement_of(text))


def _edition(text: Text) -> str:
    return gettext("%(title)s, version %(number)d (%(language)s)") % {
        "title": text.title,
        "number": text.version.number,
        "language": get_language_info(text.language)["name_local"],
    }


def _facts(row: models.Model, *columns: str) -> Facts:
    """Columns that hold something, by their names."""
    return tuple(
        _said(type(row), column, _words(row, column))
        for column in columns
        if getattr(row, column) not in (None, "")
    )


def _words(row: models.Model, column: str) -> str:
    value = getattr(row, column)
    if isinstance(value, datetime):
        return _moments(value)
    display = getattr(row, f"get_{column}_display", None)
    return str(display() if display else value)


def _said(model: type[models.Model], column: str, words: str) -> tuple[str, str]:
    field = model._meta.get_field(column)
    assert isinstance(field, models.Field)  # noqa: S101 (a column, no relation back)
    label = str(field.verbose_name)
    return label if label.startswith("sha256") else capfirst(label), printable(words)


def _seals(row: Chained) -> Facts:
    """As `verify_evidence --seal` takes them; of the row before there is none for the first."""
    chain = row._meta.label_lower
    before = row.chain_number - 1
    return (
        (gettext("Seal"), f"{chain}:{row.chain_number}:{row.chain_sha256}"),
        (gettext("Seal before it"), f"{chain}:{before}:{row.previous_sha256}" if before else gettext("none")),
    )


def _moments(at: datetime) -> str:
    """To the second, in UTC and in Hong Kong."""
    utc, hong_kong = (f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S}" for zone in (UTC, contract_zone()))
    return gettext("%(utc)s UTC, %(hong_kong)s in Hong Kong") % {"utc": utc, "hong_kong": hong_kong}
