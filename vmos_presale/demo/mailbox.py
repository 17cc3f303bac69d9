"""Mail that goes nowhere: every message becomes a file, which the demo shows in the browser."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend


class MailboxBackend(BaseEmailBackend):
    """Writes each message to MAILBOX_DIR. The names sort by the time of writing; no file is ever half written."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        folder = Path(settings.MAILBOX_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        for message in email_messages:
            name = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(4)}"
            written = folder / f"{name}.part"
            written.write_bytes(message.message().as_bytes())
            written.rename(folder / f"{name}.eml")
        return len(email_messages)
