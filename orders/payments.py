"""What happens when a payment is begun and reported.

A webhook, the buyer's return and the poller never set money: each only makes us `fetch` what the gateway
knows, and `ledger.apply_snapshot` is the only writer of money. No gateway is called inside a transaction.
"""

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from evidence.clock import ticking
from orders.gateways import gateway_named, methods_on_offer
from orders.gateways.protocol import Charge, CredentialsRefused, Declined, Unavailable, Unreachable
from orders.ledger import apply_snapshot, missing_of
from orders.models import AttemptState, Order, OrderState, PaymentAttempt, ReviewKind, WebhookEvent
from orders.reviews import open_review_item
from orders.unanswered import is_to_be_tried, next_try, report_silence

logger = logging.getLogger(__name__)

# When a payment nobody reports on is asked about: after its creation, then hourly until a day past expiry; from
# then on daily, where the gateway says that it can still be paid.
POLL_AFTER = (
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
)
POLL_UNTIL = timedelta(hours=24)
POLL_LATE = timedelta(days=1)
# As many as are counted: the intervals have long stopped growing.
MOST_POLLS = 1_000


class NotPayable(Exception):
    """The order cannot be paid now, or not by this method; the message tells the buyer why."""


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays, as far as providers ask: at a phone or not, from which IP address, and back to which page."""

    return_url: str
    language: str
    is_phone: bool = False
    address: str | None = None


def begin_payment(*, order_id: int, method: str, payer: Payer, now: datetime) -> PaymentAttempt:
    """Open a payment of what the order lacks at the method's gateway and answer the attempt with the way to pay it.

    That is an address to go to (`pay_url`), or `instructions` for our own page, or both.

    A second click finds the first one's attempt; a retry after a lost answer uses the same key, so that the
    gateway has one payment. Raises NotPayable, also while a payment of the order is being confirmed; Declined
    (the attempt is over, another method may do); Unavailable (try again, or another method).

    The poller may have found the payment while the answer to its opening was lost: it is then pending, and
    its address still has to be asked for.
    """
    attempt = _attempt_at(order_id=order_id, method=method, now=now)
    if attempt.amount != missing_of(attempt.order):
        # Begun before a part was paid otherwise. Closed, it makes room for one over what is missing now.
        refresh_attempt(attempt_id=attempt.pk, now=now)
        attempt = _attempt_at(order_id=order_id, method=method, now=now)
        if attempt.amount != missing_of(attempt.order):
            raise NotPayable(
                _("This way to pay is still open for another amount. Please choose another one.")
            )
    if attempt.is_open_to_pay:
        return attempt
    charge = Charge(
        reference=attempt.reference,
        amount=attempt.amount,
        description=_("VMOS Cloud order %(reference)s") % {"reference": attempt.order.reference},
        return_url=payer.return_url,
        expires_at=attempt.expires_at,
        language=payer.language,
        begun_at=attempt.created_at,
        method=method,
        is_phone=payer.is_phone,
        payer_address=payer.address,
    )
    open_here = PaymentAttempt.objects.filter(
        pk=attempt.pk,
        state__in=(AttemptState.CREATED, AttemptState.PENDING),
        pay_url="",
        instructions__isnull=True,
    )
    try:
        opened = gateway_named(attempt.gateway).open(charge)
    except CredentialsRefused as refusal:
        _report_refusal(attempt, refusal, now=now)
        raise
    except Declined as no:
        logger.warning("Payment %s was declined at its opening: %s", attempt.reference, no)
        open_here.update(state=AttemptState.DECLINED, problem=str(no)[:300], next_poll_at=None)
        raise
    open_here.update(
        state=AttemptState.PENDING,
        provider_id=opened.provider_id,
        pay_url=opened.pay_url,
        instructions=dataclasses.asdict(opened.instructions) if opened.instructions else None,
    )
    begun = PaymentAttempt.objects.get(pk=attempt.pk)
    # (Opening it took its time: another may have been seen on its way since.)
    _refuse_a_second(attempt.order)
    if not begun.is_open_to_pay:
        raise NotPayable(_("This payment has ended in the meantime. Please look at your order."))
    return begun


def _attempt_at(*, order_id: int, method: str, now: datetime) -> PaymentAttempt:
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        offered = {offer.slug: offer for offer in methods_on_offer(order.currency)}
        if method not in offered:
            raise NotPayable(_("This way to pay is not available. Please choose another one."))
        due = missing_of(order)
        if order.state == OrderState.PAID or due.minor <= 0:
            raise NotPayable(_("This order is paid."))
        if not order.is_payable(now):
            raise NotPayable(_("The time to pay this order is over. Please order again."))
        _refuse_a_second(order)
        attempts = order.attempts.select_related("order")
        # A captured attempt of an unpaid order was too small; a person looks at it, the buyer may pay the rest.
        attempt = attempts.filter(method=method, state__in=AttemptState.open()).first()
        if attempt is None:
            attempt = PaymentAttempt.objects.create(
                order=order,
                reference=f"{order.reference}-{order.attempts.count() + 1}",
                method=method,
                gateway=offered[method].gateway,
                amount_minor=due.minor,
                currency=order.currency,
                created_at=now,
                expires_at=order.pay_until,
                next_poll_at=now + POLL_AFTER[0],
            )
    return attempt


def _refuse_a_second(order: Order) -> None:
    """Nothing is paid twice at our word. Under the order's lock, no payment comes to be confirmed meanwhile."""
    if order.attempts.filter(state=AttemptState.CONFIRMING).exists():
        raise NotPayable(
            _("A payment of this order is being confirmed. Please don't pay again; we will write to you.")
        )


def receive_webhook(*, gateway: str, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Put a webhook into the inbox, exactly as it came. Header names are lower case.

    Raises BadSignature, or Unavailable where the provider has to be asked whether it is genuine, and then stores
    nothing. The same event again changes nothing.
    """
    provider = gateway_named(gateway)
    event = provider.read_webhook(headers=headers, body=body)
    kept = {
        name: value
        for name, value in headers.items()
        if name.startswith(provider.kept_headers) or name == "content-type"
    }
    WebhookEvent.objects.bulk_create(
        [
            WebhookEvent(
                gateway=gateway,
                dedupe_key=event.dedupe_key,
                attempt_reference=event.attempt_reference,
                headers=kept,
                body=body,
                body_sha256=hashlib.sha256(body).hexdigest(),
                received_at=now,
            )
        ],
        ignore_conflicts=True,
    )


def process_webhooks(*, now: datetime) -> int:
    """Work the inbox off: fetch and apply each payment it names, once. Return how many events were dealt with.

    A gateway that cannot be reached is left alone for this run. An event that gets no answer otherwise is tried
    again later, and after an hour a person hears of it. What goes wrong with one payment does not keep the rest
    waiting: it is raised when they are done.
    """
    waiting = WebhookEvent.objects.filter(is_to_be_tried(now), processed_at=None).order_by("pk")
    of_payment: dict[tuple[str, str], list[WebhookEvent]] = {}
    for event in waiting.defer("body"):
        of_payment.setdefault((event.gateway, event.attempt_reference), []).append(event)
    clock, done = ticking(now), 0
    unreachable: set[str] = set()
    faults: list[Exception] = []
    for (gateway, reference), named in of_payment.items():
        events = [event for event in named if gateway not in unreachable and _claim(event, now=now)]
        if not events:
            continue
        attempt = PaymentAttempt.objects.filter(reference=reference, gateway=gateway).first()
        if attempt is None:
            for event in events:
                open_review_item(
                    kind=ReviewKind.UNKNOWN_REFERENCE,
                    key=f"{gateway}:{event.dedupe_key}",
                    order=None,
                    detail=f"A webhook of {gateway} names the payment {reference!r}, which is not ours.",
                    now=now,
                )
        else:
            try:
                refresh_attempt(attempt_id=attempt.pk, now=clock())
            except Unavailable as problem:
                logger.warning("Webhook %s waits: %s", events[0], problem)
                if isinstance(problem, Unreachable):
                    unreachable.add(gateway)
                report_silence(
                    problem,
                    gateway=gateway,
                    about=attempt.reference,
                    order=attempt.order,
                    since=events[0].received_at,
                    now=now,
                )
                continue
            except Exception as fault:  # noqa: BLE001 (raised below, with the others)
                fault.add_note(f"Webhook {events[0]}, payment {attempt}")
                faults.append(fault)
                continue
        dealt_with = WebhookEvent.objects.filter(pk__in=[event.pk for event in events], processed_at=None)
        done += dealt_with.update(processed_at=now)
    if faults:
        raise ExceptionGroup("Webhooks that could not be processed", faults)
    return done


def _claim(event: WebhookEvent, *, now: datetime) -> int:
    """Whoever moves the date asks: two runs at once do not. 0 for what another has."""
    unclaimed = WebhookEvent.objects.filter(pk=event.pk, next_try_at=event.next_try_at, processed_at=None)
    return unclaimed.update(next_try_at=next_try(since=event.received_at, now=now))


def poll_payments(*, now: datetime) -> int:
    """Ask about payments that nobody reported on (lost webhooks, closed tabs). Return how many were asked.

    A gateway that cannot be reached is left alone for this run, and what goes wrong with one payment is raised
    when the others are done.
    """
    clock, asked = ticking(now), 0
    unreachable: set[str] = set()
    faults: list[Exception] = []
    due = PaymentAttempt.objects.filter(next_poll_at__lte=now).select_related("order")
    for attempt in due.order_by("next_poll_at"):
        if attempt.gateway in unreachable:
            continue
        # Whoever moves the date asks: two pollers at once do not.
        claimed = PaymentAttempt.objects.filter(pk=attempt.pk, next_poll_at=attempt.next_poll_at)
        if not claimed.update(
            next_poll_at=_next_poll(attempt, now=now), polls=min(attempt.polls + 1, MOST_POLLS)
        ):
            continue
        asked += 1
        try:
            refresh_attempt(attempt_id=attempt.pk, now=clock())
        except Unreachable as problem:
            logger.warning("Payment %s was not answered for: %s", attempt, problem)
            unreachable.add(attempt.gateway)
        except Unavailable as problem:
            logger.warning("Payment %s was not answered for: %s", attempt, problem)
            report_silence(
                problem,
                gateway=attempt.gateway,
                about=attempt.reference,
                order=attempt.order,
                since=attempt.created_at,
                now=now,
            )
        except Exception as fault:  # noqa: BLE001 (raised below, with the others)
            fault.add_note(f"Payment {attempt}")
            faults.append(fault)
    if faults:
        raise ExceptionGroup("Payments that could not be refreshed", faults)
    return asked


def _next_poll(attempt: PaymentAttempt, *, now: datetime) -> datetime | None:
    polls = attempt.polls + 1
    later = attempt.created_at + POLL_AFTER[polls] if polls < len(POLL_AFTER) else now + POLL_AFTER[-1]
    if later <= attempt.expires_at + POLL_UNTIL:
        return max(later, now)
    later = now + POLL_LATE
    return later if later <= attempt.expires_at + gateway_named(attempt.gateway).late_for else None


def refresh_attempt(*, attempt_id: int, now: datetime) -> PaymentAttempt:
    """Fetch what the gateway knows of a payment and apply it. Raises Unavailable.

    A payment whose order has ended, is paid by another, or lacks another amount by now, is closed first, so that
    nobody pays it by an old tab; if the buyer was faster, the gateway says so.
    """
    attempt = PaymentAttempt.objects.select_related("order").get(pk=attempt_id)
    gateway = gateway_named(attempt.gateway)
    try:
        if attempt.state == AttemptState.PENDING and not _is_wanted(attempt):
            with contextlib.suppress(Declined):
                gateway.close(provider_id=attempt.provider_id)
        snapshot = gateway.fetch(
            reference=attempt.reference,
            provider_id=attempt.provider_id,
            returns=[
                key for back in (*attempt.refunds.all(), *attempt.money_returns.all()) for key in back.keys
            ],
        )
    except CredentialsRefused as refusal:
        _report_refusal(attempt, refusal, now=now)
        raise
    except Declined as no:
        raise Unavailable(f"{attempt.gateway} does not say what became of {attempt.reference}: {no}") from no
    if snapshot is not None:
        return apply_snapshot(attempt_id=attempt_id, snapshot=snapshot, now=now)
    if attempt.expires_at + settings.PAYMENT_GRACE <= now:
        # The gateway never heard of it, or has forgotten what nobody paid, and it cannot be opened any more.
        PaymentAttempt.objects.filter(
            pk=attempt.pk, state__in=(AttemptState.CREATED, AttemptState.PENDING)
        ).update(state=AttemptState.EXPIRED, next_poll_at=None)
        attempt.refresh_from_db()
    return attempt


def _is_wanted(attempt: PaymentAttempt) -> bool:
    """Whether the order still waits for just this payment."""
    return attempt.order.state == OrderState.UNPAID and attempt.amount == missing_of(attempt.order)


def _report_refusal(attempt: PaymentAttempt, refusal: CredentialsRefused, *, now: datetime) -> None:
    report_silence(refusal, gateway=attempt.gateway, about=attempt.reference, order=None, since=now, now=now)
