"""Tries to pay, what the gateways reported, and the money that moved."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from evidence.models import AppendOnly, WriteOnce
from inventory.money import Money
from orders.models.order import Order


class AttemptState(models.TextChoices):
    CREATED = "created", _("not yet at the gateway")
    PENDING = "pending", _("waiting for the buyer")
    CONFIRMING = "confirming", _("being confirmed")
    CAPTURED = "captured", _("paid")
    DECLINED = "declined", _("declined")
    CANCELLED = "cancelled", _("cancelled")
    EXPIRED = "expired", _("expired")

    @classmethod
    def open(cls) -> tuple["AttemptState", ...]:
        """States in which the gateway may still report something new of its own accord."""
        return (cls.CREATED, cls.PENDING, cls.CONFIRMING)


class PaymentAttempt(WriteOnce):
    """One try to pay one order by one method through one gateway."""

    order = models.ForeignKey(Order, models.PROTECT, related_name="attempts", verbose_name=_("order"))
    # Our name for it at the gateway, and the root of every idempotency key.
    reference = models.CharField(_("reference"), max_length=32, unique=True)
    method = models.CharField(_("method"), max_length=20)
    gateway = models.CharField(_("gateway"), max_length=20)
    state = models.CharField(
        _("state"), max_length=10, choices=AttemptState.choices, default=AttemptState.CREATED
    )
    amount_minor = models.PositiveBigIntegerField(_("amount in minor units"))
    currency = models.CharField(_("currency"), max_length=3)
    provider_id = models.CharField(_("gateway's id"), max_length=100, blank=True)
    pay_url = models.URLField(_("payment page"), max_length=2000, blank=True)
    # What our own page shows to pay by (`protocol.Instructions`), and how far a payment in coins is
    # (`protocol.CoinProgress`), both as the gateway said them.
    instructions = models.JSONField(_("instructions"), null=True)
    progress = models.JSONField(_("progress"), null=True)
    problem = models.CharField(_("problem"), max_length=300, blank=True)
    # When we saw the money on its way, for as long as it is.
    confirming_since = models.DateTimeField(_("being confirmed since"), null=True)
    created_at = models.DateTimeField(_("created"))
    expires_at = models.DateTimeField(_("expires"))
    next_poll_at = models.DateTimeField(_("next poll"), null=True)
    polls = models.PositiveSmallIntegerField(_("polls"), default=0)

    written_once: ClassVar[tuple[str, ...]] = (
        "order",
        "reference",
        "method",
        "gateway",
        "amount_minor",
        "currency",
        "created_at",
    )

    class Meta:
        verbose_name = _("payment attempt")
        verbose_name_plural = _("payment attempts")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="orders_paymentattempt_state_known", condition=Q(state__in=AttemptState.values)
            ),
            models.CheckConstraint(
                name="orders_paymentattempt_since_iff_confirming",
                condition=Q(state=AttemptState.CONFIRMING, confirming_since__isnull=False)
                | ~Q(state=AttemptState.CONFIRMING) & Q(confirming_since=None),
            ),
            # A double click on Pay finds the attempt that is there.
            models.UniqueConstraint(
                "order",
                "method",
                condition=Q(state__in=(AttemptState.CREATED, AttemptState.PENDING, AttemptState.CONFIRMING)),
                name="orders_paymentattempt_one_open",
            ),
        )
        indexes = (
            models.Index(
                fields=["next_poll_at"],
                name="orders_attempt_to_poll",
                condition=Q(next_poll_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return self.reference

    @property
    def amount(self) -> Money:
        return Money(self.amount_minor, self.currency)

    @property
    def seen_as(self) -> str:
        """Changes whenever there is something new to show of it."""
        progress = self.progress or {}
        return ":".join(
            (
                self.reference,
                self.state,
                *(str(progress[name]) for name in ("received", "confirmations") if progress),
            )
        )

    @property
    def is_open_to_pay(self) -> bool:
        """Whether the gateway has said how to pay it."""
        return bool(self.pay_url) or self.instructions is not None


class WebhookEvent(WriteOnce):
    """The inbox: a webhook whose signature was good, exactly as it came.

    What it holds of the buyer, headers and body, is kept for a time; what stays is that and when it came, and the
    sha256 of the body, by which the provider's copy can be known.
    """

    gateway = models.CharField(_("gateway"), max_length=20)
    dedupe_key = models.CharField(_("event"), max_length=120)
    attempt_reference = models.CharField(_("attempt"), max_length=32, blank=True)
    headers = models.JSONField(_("headers"))
    body = models.BinaryField(_("body"))
    body_sha256 = models.CharField(_("sha256 of the body"), max_length=64)
    received_at = models.DateTimeField(_("received at"))
    # Whoever moves it asks the gateway (`orders.unanswered`); empty before the first try.
    next_try_at = models.DateTimeField(_("next try"), null=True)
    processed_at = models.DateTimeField(_("processed at"), null=True)
    emptied_at = models.DateTimeField(_("headers and body taken out"), null=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "gateway",
        "dedupe_key",
        "attempt_reference",
        "headers",
        "body",
        "body_sha256",
        "received_at",
        "processed_at",
        "emptied_at",
    )
    may_be_emptied: ClassVar[tuple[str, ...]] = ("headers", "body")

    class Meta:
        verbose_name = _("webhook event")
        verbose_name_plural = _("webhook events")
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint("gateway", "dedupe_key", name="orders_webhookevent_unique"),
            models.CheckConstraint(
                name="orders_webhookevent_empty_iff_emptied",
                condition=Q(emptied_at=None) & ~Q(body=b"")
                | Q(emptied_at__isnull=False, processed_at__isnull=False, body=b""),
            ),
            models.CheckConstraint(name="orders_webhookevent_has_sha256", condition=~Q(body_sha256="")),
        )
        indexes = (
            models.Index(fields=["id"], name="orders_webhook_inbox", condition=Q(processed_at=None)),
            models.Index(
                fields=["received_at"], name="orders_webhook_to_empty", condition=Q(emptied_at=None)
            ),
        )

    def __str__(self) -> str:
        return f"{self.gateway} {self.dedupe_key}"


class EntryKind(models.TextChoices):
    CAPTURE = "capture", _("capture")
    REFUND = "refund", _("refund")
    CHARGEBACK = "chargeback", _("chargeback")
    REVERSAL = "reversal", _("chargeback reversed")
    # Of a refund that had been made: it bears that one's transaction.
    BOUNCE = "bounce", _("refund that came back")

    @classmethod
    def of_the_sale(cls) -> tuple["EntryKind", ...]:
        """Kinds of what came for a sale and went back; disputes are another matter."""
        return (cls.CAPTURE, cls.REFUND, cls.BOUNCE)


# In the place of a gateway's name: money that staff sent by other means (`Payout`).
BY_HAND = "by-hand"


class LedgerEntry(AppendOnly):
    """Money that moved, as the gateway states it. `minor` is positive towards us, negative away from us."""

    order = models.ForeignKey(Order, models.PROTECT, related_name="ledger", verbose_name=_("order"))
    attempt = models.ForeignKey(
        PaymentAttempt, models.PROTECT, related_name="ledger", verbose_name=_("attempt")
    )
    gateway = models.CharField(_("gateway"), max_length=20)
    kind = models.CharField(_("kind"), max_length=10, choices=EntryKind.choices)
    transaction_id = models.CharField(_("gateway's transaction"), max_length=100)
    minor = models.BigIntegerField(_("amount in minor units"))
    currency = models.CharField(_("currency"), max_length=3)
    occurred_at = models.DateTimeField(_("occurred at"))
    recorded_at = models.DateTimeField(_("recorded at"))
    # Of a capture: until when the gateway gives it back. Empty where it does so for ever.
    refundable_until = models.DateTimeField(_("refundable until"), null=True)

    class Meta:
        verbose_name = _("ledger entry")
        verbose_name_plural = _("ledger entries")
        ordering = ("occurred_at", "id")
        constraints = (
            models.UniqueConstraint("gateway", "kind", "transaction_id", name="orders_ledgerentry_unique"),
            models.CheckConstraint(
                name="orders_ledgerentry_sign",
                condition=Q(kind__in=(EntryKind.CAPTURE, EntryKind.REVERSAL, EntryKind.BOUNCE), minor__gt=0)
                | Q(kind__in=(EntryKind.REFUND, EntryKind.CHARGEBACK), minor__lt=0),
            ),
        )
        indexes = (
            models.Index(
                fields=["refundable_until"],
                name="orders_ledgerentry_refundable",
                condition=Q(refundable_until__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.transaction_id}"

    @property
    def money(self) -> Money:
        return Money(self.minor, self.currency)


class ReviewKind(models.TextChoices):
    """What did not fit and needs a person."""

    UNKNOWN_REFERENCE = "unknown-reference", _("webhook for an unknown payment")
    UNDERPAID = "underpaid", _("less captured than the order costs")
    SURPLUS = "surplus", _("more captured than the order costs")
    WRONG_CURRENCY = "wrong-currency", _("captured in another currency")
    DUPLICATE = "duplicate", _("captured again for a paid order")
    LATE_WITHOUT_CAP = "late-without-cap", _("captured after expiry, no units left")
    ALREADY_BOOKED = "already-booked", _("transaction booked for another payment")
    CHARGEBACK = "chargeback", _("money taken back by the payer's bank")
    GATEWAY_REFUSES_US = "gateway-refuses-us", _("gateway refuses our credentials")
    NO_ANSWER = "no-answer", _("no answer of the gateway")
    EXTERNAL_REFUND = "external-refund", _("refund made outside the shop")
    REFUND_FAILED = "refund-failed", _("refund refused by the gateway")
    RETURN_FAILED = "return-failed", _("money that was to go back was refused by the gateway")
    DISPUTE_AFTER_REFUND = "disputed-refund", _("disputed although it was paid back")
    BOOKS_DIFFER = "books-differ", _("the gateway's books differ from ours")
    BOOKS_UNSEEN = "books-unseen", _("the gateway does not show its books")
    EVIDENCE_BROKEN = "evidence-broken", _("evidence that was tampered with")
    CASE_OVERDUE = "case-overdue", _("a case without its first answer in time")
    REFUND_WINDOW = "refund-window", _("soon the gateway gives nothing back")


class ReviewItem(WriteOnce):
    """Something that does not fit, until a member of staff has resolved it."""

    kind = models.CharField(_("kind"), max_length=20, choices=ReviewKind.choices)
    dedupe_key = models.CharField(_("key"), max_length=160, unique=True)
    order = models.ForeignKey(
        Order, models.PROTECT, null=True, blank=True, related_name="review_items", verbose_name=_("order")
    )
    # Of a refund at a gateway's own desk, and of a capture that soon cannot be given back.
    entry = models.ForeignKey(
        LedgerEntry,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="review_items",
        verbose_name=_("ledger entry"),
    )
    detail = models.TextField(_("what happened"))
    opened_at = models.DateTimeField(_("opened"))
    resolved_at = models.DateTimeField(_("resolved"), null=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", verbose_name=_("resolved by")
    )
    resolution = models.TextField(_("what was done"), blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "kind",
        "dedupe_key",
        "order",
        "entry",
        "detail",
        "opened_at",
        "resolved_at",
        "resolved_by",
    )

    class Meta:
        verbose_name = _("review item")
        verbose_name_plural = _("review items")
        ordering = ("resolved_at", "-id")
        constraints = (
            models.CheckConstraint(
                name="orders_reviewitem_resolved_by_somebody",
                condition=Q(resolved_at=None, resolved_by=None)
                | Q(resolved_at__isnull=False, resolved_by__isnull=False) & ~Q(resolution=""),
            ),
        )

    def __str__(self) -> str:
        return self.get_kind_display()
