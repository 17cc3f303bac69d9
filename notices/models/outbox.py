"""The outbox and its evidence.

A `Notice` is written in the transaction of its cause. A worker expands it into one `Delivery` per channel
and address, and sends those. A delivery moves

    queued → leased → sending → sent
       ↘ superseded, cancelled     ↘ uncertain (nobody knows whether it went out) → queued, once  ↘ dead (refused for good)

and every step that touches the outside is a `DeliveryEvent`, which stays.
"""

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from evidence.models import AppendOnly, WriteOnce
from notices.kinds import KINDS, Urgency
from notices.models.contacts import ContactPoint


class Notice(WriteOnce):
    """Something told to a customer: the facts, before any wording or channel."""

    recipient = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="notices", verbose_name=_("recipient")
    )
    kind = models.CharField(_("kind"), max_length=40, choices=[(k.slug, k.label) for k in KINDS.values()])
    # The reference of what it is about (an order), and the page that shows it.
    about = models.CharField(_("about"), max_length=40, blank=True, db_index=True)
    url = models.CharField(_("page"), max_length=200, blank=True)
    facts = models.JSONField(_("facts"))
    # Of the notices of one thread to one recipient, only the newest is worth sending. Empty: each is.
    thread = models.CharField(_("thread"), max_length=120, blank=True)
    # Set for what goes to one address only: of somebody without an account (the recipient is then whose matter it
    # is), or one that is still to be proved.
    to_channel = models.CharField(_("sent by"), max_length=20, blank=True)
    to_address = models.CharField(_("sent to"), max_length=500, blank=True)
    dedupe_key = models.CharField(_("key"), max_length=120, unique=True)
    created_at = models.DateTimeField(_("created"))
    is_expanded = models.BooleanField(_("handed to the channels"), default=False)
    # From then on it goes no way that it has not gone, also by no fallback.
    called_back_at = models.DateTimeField(_("called back"), null=True, blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "recipient",
        "kind",
        "about",
        "url",
        "facts",
        "thread",
        "to_channel",
        "to_address",
        "dedupe_key",
        "created_at",
        "called_back_at",
    )

    class Meta:
        verbose_name = _("notice")
        verbose_name_plural = _("notices")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="notices_notice_address_with_its_channel",
                condition=Q(to_channel="", to_address="") | ~Q(to_channel="") & ~Q(to_address=""),
            ),
        )
        indexes = (
            models.Index(fields=["id"], name="notices_notice_outbox", condition=Q(is_expanded=False)),
            models.Index(
                fields=["recipient", "thread", "-id"], name="notices_notice_thread", condition=~Q(thread="")
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.about}"


class Message(AppendOnly):
    """A rendered text, as it went over the wire: kept once, however often it is sent. Short ones have no subject."""

    sha256 = models.CharField(_("sha256"), max_length=64, unique=True)
    language = models.CharField(_("language"), max_length=10)
    subject = models.CharField(_("subject"), max_length=200, blank=True)
    body = models.TextField(_("text"), blank=True)

    class Meta:
        verbose_name = _("message text")
        verbose_name_plural = _("message texts")

    def __str__(self) -> str:
        return self.subject or self.beginning

    @property
    def beginning(self) -> str:
        """What stands for it where it has no subject."""
        return Truncator(" ".join(self.body.split())).chars(80)


class DeliveryState(models.TextChoices):
    QUEUED = "queued", _("queued")
    LEASED = "leased", _("taken by a worker")
    SENDING = "sending", _("being sent")
    SENT = "sent", _("sent")
    UNCERTAIN = "uncertain", _("outcome unknown")
    DEAD = "dead", _("refused for good")
    SUPERSEDED = "superseded", _("replaced by a newer one")
    CANCELLED = "cancelled", _("cancelled")


class Delivery(WriteOnce):
    """The sending of one notice by one channel to one address."""

    notice = models.ForeignKey(Notice, models.PROTECT, related_name="deliveries", verbose_name=_("notice"))
    channel = models.CharField(_("channel"), max_length=20)
    address = models.CharField(_("address"), max_length=500)
    contact_point = models.ForeignKey(
        ContactPoint, models.PROTECT, null=True, related_name="deliveries", verbose_name=_("contact point")
    )
    # Of what is due at one time, the smaller goes first.
    priority = models.PositiveSmallIntegerField(_("priority"), default=Urgency.NORMAL)
    state = models.CharField(
        _("state"), max_length=10, choices=DeliveryState.choices, default=DeliveryState.QUEUED
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    # Attempts in a row that have failed since it was queued, or since staff had it sent again.
    failures = models.PositiveSmallIntegerField(_("failures in a row"), default=0, db_default=0)
    due_at = models.DateTimeField(_("due"))
    # Leased or being sent: so long another worker leaves it alone. Uncertain: so long a provider's report is waited for,
    # then it is sent once more; None if it was, and a person has to look.
    lease_until = models.DateTimeField(_("lease until"), null=True)
    message = models.ForeignKey(
        Message, models.PROTECT, null=True, related_name="+", verbose_name=_("message text")
    )
    provider_reference = models.CharField(_("provider's reference"), max_length=200, blank=True)
    sent_at = models.DateTimeField(_("sent at"), null=True)
    problem = models.CharField(_("problem"), max_length=300, blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "notice",
        "channel",
        "address",
        "contact_point",
        "message",
        "sent_at",
    )

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint("notice", "channel", "address", name="notices_delivery_unique"),
            models.CheckConstraint(
                name="notices_delivery_state_known", condition=Q(state__in=DeliveryState.values)
            ),
            models.CheckConstraint(
                name="notices_delivery_sent_iff_dated",
                condition=Q(state=DeliveryState.SENT, sent_at__isnull=False, message__isnull=False)
                | ~Q(state=DeliveryState.SENT) & Q(sent_at=None),
            ),
        )
        indexes = (
            models.Index(
                fields=["channel", "priority", "due_at", "id"],
                name="notices_delivery_due",
                condition=Q(state=DeliveryState.QUEUED),
            ),
            models.Index(
                fields=["channel", "state"],
                name="notices_delivery_for_staff",
                condition=Q(state__in=(DeliveryState.DEAD, DeliveryState.UNCERTAIN)),
            ),
            models.Index(
                fields=["channel", "provider_reference"],
                name="notices_delivery_reference",
                condition=~Q(provider_reference=""),
            ),
            models.Index(
                fields=["lease_until"],
                name="notices_delivery_claimed",
                condition=Q(state__in=(DeliveryState.LEASED, DeliveryState.SENDING, DeliveryState.UNCERTAIN)),
            ),
        )

    def __str__(self) -> str:
        return f"{self.channel} to {self.address}"


class DeliveryStep(models.TextChoices):
    BEGUN = "begun", _("begun")
    ACCEPTED = "accepted", _("accepted")
    FAILED = "failed", _("failed, will be tried again")
    REFUSED = "refused", _("refused for good")
    UNKNOWN = "unknown", _("outcome unknown")
    # What the provider reports later.
    RECEIVED = "received", _("received by the recipient's system")
    RETURNED = "returned", _("returned as undeliverable")
    # It may have arrived, no report has come: the outbox sends it once more, and it may arrive twice.
    REPEATED = "repeated", _("sent again, may arrive twice")
    # What becomes of it by somebody's word.
    RESENT = "resent", _("sent again by staff")
    CANCELLED = "cancelled", _("cancelled")


class DeliveryEvent(AppendOnly):
    """Evidence: one step of one attempt at sending. `BEGUN` is committed before the wire is touched.

    Of each attempt a step is recorded once, however often a provider reports it.
    """

    delivery = models.ForeignKey(Delivery, models.PROTECT, related_name="events", verbose_name=_("delivery"))
    attempt = models.PositiveSmallIntegerField(_("attempt"))
    step = models.CharField(_("step"), max_length=10, choices=DeliveryStep.choices)
    at = models.DateTimeField(_("at"))
    address = models.CharField(_("address"), max_length=500)
    # None where it was cancelled before there were any words.
    message = models.ForeignKey(
        Message, models.PROTECT, null=True, related_name="+", verbose_name=_("message text")
    )
    provider_reference = models.CharField(_("provider's reference"), max_length=200, blank=True)
    detail = models.CharField(_("detail"), max_length=300, blank=True)

    class Meta:
        verbose_name = _("delivery event")
        verbose_name_plural = _("delivery events")
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint("delivery", "attempt", "step", name="notices_deliveryevent_unique"),
            models.CheckConstraint(
                name="notices_deliveryevent_of_a_message",
                condition=Q(message__isnull=False) | Q(step=DeliveryStep.CANCELLED),
            ),
        )
        indexes = (models.Index(fields=["at"], name="notices_deliveryevent_at"),)

    def __str__(self) -> str:
        return f"{self.step} at {self.at:%Y-%m-%d %H:%M}"

    @classmethod
    def of(cls, delivery: Delivery, step: DeliveryStep, *, at: datetime, detail: str) -> "DeliveryEvent":
        """A step of a delivery's last attempt, still to be saved."""
        return cls(
            delivery=delivery,
            attempt=delivery.attempts,
            step=step,
            at=at,
            address=delivery.address,
            message_id=delivery.message_id,
            detail=detail[:300],
        )


class InboxMessage(WriteOnce):
    """A notice in the customer's inbox on the site."""

    recipient = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="inbox", verbose_name=_("recipient")
    )
    delivery = models.OneToOneField(
        Delivery, models.PROTECT, related_name="inbox_message", verbose_name=_("delivery")
    )
    message = models.ForeignKey(Message, models.PROTECT, related_name="+", verbose_name=_("message text"))
    url = models.CharField(_("page"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("created"))
    read_at = models.DateTimeField(_("read at"), null=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "recipient",
        "delivery",
        "message",
        "url",
        "created_at",
        "read_at",
    )

    class Meta:
        verbose_name = _("inbox message")
        verbose_name_plural = _("inbox messages")
        ordering = ("-id",)
        indexes = (
            models.Index(fields=["recipient"], name="notices_inbox_unread", condition=Q(read_at=None)),
            models.Index(fields=["recipient", "-id"], name="notices_inbox_of"),
        )

    def __str__(self) -> str:
        return f"inbox message {self.pk}"
