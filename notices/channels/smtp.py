"""Django's SMTP backend, which throws away what the relay said when it took a mail. It is evidence, with the relay's own number."""

import smtplib
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends import smtp


class _Listening:
    """Keeps the answer to the last mail that was handed over."""

    answer = ""

    def data(self, msg: Any) -> tuple[int, bytes]:
        code, said = super().data(msg)  # type: ignore[misc]
        self.answer = f"{code} {said.decode(errors='replace')}"
        return code, said


class _Smtp(_Listening, smtplib.SMTP):
    pass


class _SmtpOverTls(_Listening, smtplib.SMTP_SSL):
    pass


class EmailBackend(smtp.EmailBackend):
    """Leaves the relay's answer on each message it has sent, as `relay_answer`."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _SmtpOverTls if self.use_ssl else _Smtp

    def _send(self, email_message: EmailMessage) -> bool:
        sent: bool = super()._send(email_message)  # type: ignore[misc]
        email_message.relay_answer = getattr(self.connection, "answer", "")  # type: ignore[attr-defined]
        return sent
