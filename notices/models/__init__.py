"""What customers were told and shall be told, and where they are reached."""

from notices.models.announcements import Announcement, Broadcast, BroadcastRecipient, BroadcastState
from notices.models.contacts import ContactPoint, Preference, QuietHours
from notices.models.letters import Letter, LetterBatch
from notices.models.outbox import (
    Delivery,
    DeliveryEvent,
    DeliveryState,
    DeliveryStep,
    InboxMessage,
    Message,
    Notice,
)
from notices.models.pacing import ChannelPace
from notices.models.wordings import Wording

__all__ = [
    "Announcement",
    "Broadcast",
    "BroadcastRecipient",
    "BroadcastState",
    "ChannelPace",
    "ContactPoint",
    "Delivery",
    "DeliveryEvent",
    "DeliveryState",
    "DeliveryStep",
    "InboxMessage",
    "Letter",
    "LetterBatch",
    "Message",
    "Notice",
    "Preference",
    "QuietHours",
    "Wording",
]
