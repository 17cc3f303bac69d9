"""Friendly consultation before anybody goes to court (agreement, clause II), the statement of withdrawal, and the
request for a refund (3.3).

What either side writes is sealed in a chain, and the customer is told of it: what he wrote himself comes back
as a receipt, so that both sides hold the same words.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from evidence import chain
from evidence.contract_time import contract_date, contract_midnight
from notices import kinds
from notices.kinds import JSONValue, Kind
from notices.outbox import Draft, tell
from orders.models import (
    Case,
    CaseMessage,
    CaseState,
    Ground,
    LineState,
    Matter,
    Order,
    OrderState,
    Outcome,
    ReviewKind,
    Side,
    new_reference,
)
from orders.reviews import open_review_item

# So many disagreements about one order can be open at once. What has a page of its own does not count.
MOST_OPEN = 3
LONGEST = 8_000

# How each side may end a case.
OUTCOMES: Mapping[Side, tuple[Outcome, ...]] = {
    Side.CUSTOMER: (Outcome.SETTLED, Outcome.DROPPED),
    Side.PLATFORM: (Outcome.SETTLED, Outcome.NOT_SETTLED),
}


class CaseRefused(Exception):
    """The case cannot be opened, written to or closed as asked; the message says why."""


def open_case(
    *,
    order_id: int,
    customer_id: int,
    matter: Matter,
    subject: str,
    body: str,
    now: datetime,
    ground: Ground | None = None,
    legal_basis: str = "",
) -> Case:
    """Open a case of an order's customer. The same words again, while it is open, are the same case.

    Who asks for a refund names the `ground`, and if that is the law the rule, `legal_basis`; nobody else does.
    Raises CaseRefused, or Order.DoesNotExist when the order is not the customer's.
    """
    subject, words, legal_basis = subject.strip(), _words(body), legal_basis.strip()
    if not subject:
        raise CaseRefused(_("Please say what it is about."))
    if (ground is not None) != (matter == Matter.REFUND):
        raise CaseRefused(_("Please say on which ground you ask for a refund."))
    if (ground == Ground.LAW) != bool(legal_basis):
        raise CaseRefused(
            _("Please name the rule of the law, if the law is your ground, and none if it is not.")
        )
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id, customer_id=customer_id)
        open_ones = order.cases.filter(matter=matter).exclude(state=CaseState.CLOSED)
        known = open_ones.filter(subject=subject, messages__side=Side.CUSTOMER, messages__body=words).first()
        if known:
            return known
        _check(order, matter, list(open_ones), now=now)
        case = Case.objects.create(
            reference=new_reference("CS"),
            order=order,
            matter=matter,
            subject=subject,
            ground=ground,
            legal_basis=legal_basis,
            opened_at=now,
            answer_due_at=contract_midnight(
                contract_date(now) + timedelta(days=settings.CASE_ANSWER_DAYS + 1)
            ),
        )
        facts: Mapping[str, JSONValue] = {
            "matter": case.matter,
            "subject": case.subject,
            "ground": case.ground or "",
            "legal_basis": case.legal_basis,
            "body": words,
            "opened_at": now.isoformat(),
            "answer_by": case.last_day_to_answer.isoformat(),
        }
        tell([_about(case, kinds.CASE_OPENED, facts)], now=now)
        _append(case, author_id=customer_id, side=Side.CUSTOMER, words=words, now=now)
    return case


def write(*, case_id: int, author_id: int, side: Side, body: str, now: datetime) -> CaseMessage:
    """Add what one side has to say; it is then for the other one to answer. Said twice in a row, it is said once.

    Raises CaseRefused, or Case.DoesNotExist for a customer whose case it is not.
    """
    words = _words(body)
    with transaction.atomic(durable=True):
        case = _locked(case_id, author_id=author_id, side=side)
        last = _last_message(case)
        if (last.author_id, last.side, last.body) == (author_id, side, words):
            return last
        if case.state == CaseState.CLOSED:
            raise CaseRefused(_("This case is closed. Please open a new one if there is more to say."))
        if side == Side.PLATFORM:
            Case.objects.filter(pk=case.pk).update(
                state=CaseState.ANSWERED, first_answered_at=case.first_answered_at or now
            )
            tell([_about(case, kinds.CASE_ANSWERED, {"body": words}, key=str(last.pk))], now=now)
        else:
            Case.objects.filter(pk=case.pk).update(state=CaseState.OPEN)
        return _append(case, author_id=author_id, side=side, words=words, now=now)


def close_case(
    *, case_id: int, author_id: int, side: Side, outcome: Outcome, body: str, now: datetime
) -> Case:
    """End a case for good, with a last word. Of the platform it is an answer, too.

    Raises CaseRefused, or Case.DoesNotExist for a customer whose case it is not.
    """
    words = _words(body)
    if outcome not in OUTCOMES[side]:
        raise CaseRefused(_("A case cannot be closed like this."))
    with transaction.atomic(durable=True):
        case = _locked(case_id, author_id=author_id, side=side)
        if case.state == CaseState.CLOSED:
            last = _last_message(case)
            if (last.author_id, last.side, last.body, case.outcome) == (author_id, side, words, outcome):
                return case
            raise CaseRefused(
                _("This case is closed already: %(outcome)s.") % {"outcome": case.get_outcome_display()}
            )
        answered_at = now if side == Side.PLATFORM else None
        Case.objects.filter(pk=case.pk).update(
            state=CaseState.CLOSED,
            outcome=outcome,
            closed_at=now,
            first_answered_at=case.first_answered_at or answered_at,
        )
        case.refresh_from_db()
        facts: Mapping[str, JSONValue] = {
            "subject": case.subject,
            "outcome": outcome,
            "side": side,
            "body": words,
        }
        tell([_about(case, kinds.CASE_CLOSED, facts)], now=now)
        _append(case, author_id=author_id, side=side, words=words, now=now)
    return case


def report_overdue_cases(*, now: datetime) -> int:
    """Put each case whose first answer is late before staff, once. Returns how many there are."""
    overdue = Case.objects.overdue(now).select_related("order").order_by("pk")
    for case in overdue:
        with transaction.atomic(durable=True):
            open_review_item(
                kind=ReviewKind.CASE_OVERDUE,
                key=case.reference,
                order=case.order,
                detail=f"Case {case.reference} was to be answered by {case.last_day_to_answer}: {case.subject}",
                now=now,
            )
    return len(overdue)


def can_be_refunded(order: Order) -> bool:
    """Whether something of an order is paid for and not refunded yet, so that a refund can be asked for."""
    return order.state == OrderState.PAID and order.lines.exclude(state=LineState.WITHDRAWN).exists()


def _words(body: str) -> str:
    """What was written, with line breaks of one kind. Raises CaseRefused."""
    words = "\n".join(body.strip().splitlines())
    if not words:
        raise CaseRefused(_("Please write a message."))
    if len(words) > LONGEST:
        raise CaseRefused(
            _("Please keep it to %(limit)d characters; this has %(length)d.")
            % {"limit": LONGEST, "length": len(words)}
        )
    return words


def _check(order: Order, matter: Matter, open_ones: Sequence[Case], *, now: datetime) -> None:
    if matter == Matter.WITHDRAWAL:
        if open_ones:
            raise CaseRefused(
                _("You have withdrawn from this order already, in case %(case)s.") % {"case": open_ones[0]}
            )
        if not order.can_be_withdrawn_from(now):
            raise CaseRefused(_("This order cannot be withdrawn from (any more)."))
    elif matter == Matter.REFUND:
        if open_ones:
            raise CaseRefused(
                _("You have asked for a refund of this order already, in case %(case)s.")
                % {"case": open_ones[0]}
            )
        if not can_be_refunded(order):
            raise CaseRefused(_("Nothing of this order is paid and not refunded yet."))
    elif len(open_ones) >= MOST_OPEN:
        raise CaseRefused(
            _("%(count)d cases about this order are open already. Please write in one of them.")
            % {"count": len(open_ones)}
        )


def _locked(case_id: int, *, author_id: int, side: Side) -> Case:
    """The case under its lock; for a customer only his own."""
    cases = Case.objects.select_for_update(no_key=True, of=("self",)).select_related("order")
    if side == Side.CUSTOMER:
        cases = cases.filter(order__customer_id=author_id)
    return cases.get(pk=case_id)


def _last_message(case: Case) -> CaseMessage:
    last: CaseMessage = case.messages.order_by("-pk")[0]  # there is one: the first comes with the case
    return last


def _append(case: Case, *, author_id: int, side: Side, words: str, now: datetime) -> CaseMessage:
    return chain.append([CaseMessage(case=case, author_id=author_id, side=side, body=words, written_at=now)])[
        0
    ]


def _about(case: Case, kind: Kind, facts: Mapping[str, JSONValue], *, key: str = "") -> Draft:
    """A notice to the customer that leads to the case; with a `key` where there is more than one of a kind."""
    return Draft(
        recipient_id=case.order.customer_id,
        kind=kind,
        about=case.order.reference,
        url=case.get_absolute_url(),
        facts={"reference": case.order.reference, "case": case.reference, **facts},
        dedupe_key=f"{kind.slug}:{case.reference}" + (f":{key}" if key else ""),
    )
