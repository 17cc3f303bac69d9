"""Handing something to a provider over HTTP: one attempt, with an end in sight, and what its failure means."""

import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache

import httpx
from django.conf import settings

from notices.channels.protocol import Refused, Unavailable, Uncertain

CONNECT_SECONDS = 3.0
# Between two signs of life, and for all of an answer that has begun.
WAIT_SECONDS = 6.0
ANSWER_BYTES = 100_000
LONGEST_PAUSE = timedelta(hours=1)

URL = re.compile(r"https?://[!-~]{1,480}")
# What is answered before the message was looked at: the provider is busy, or our key or account is at fault.
NOT_LOOKED_AT = frozenset({401, 402, 403, 408, 425, 429, 503})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider said. `body` is text, whatever it holds."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def said(self) -> str:
        """Fit to be stored."""
        words = "".join(letter if letter.isprintable() else " " for letter in self.body[:200]).strip()
        return f"{self.status} {words}".strip()

    def retry_after(self, now: datetime) -> timedelta | None:
        """How long to wait, where it says so; never more than an hour."""
        written = self.headers.get("retry-after", "")
        if written.isdecimal():
            pause = timedelta(seconds=min(int(written), 86_400))
        else:
            try:
                pause = parsedate_to_datetime(written).astimezone(UTC) - now
            except ValueError:
                return None
        return min(max(pause, timedelta(0)), LONGEST_PAUSE)


def hand_over(
    url: str, *, content: bytes, headers: Mapping[str, str], method: str = "POST", repeats: bool = False
) -> Answer:
    """Send `content` once and return what is answered, within 15 s.

    Raises Unavailable when no connection came about, Uncertain when no answer did. With `repeats` the provider knows
    a message again that it has had: then silence is Unavailable as well, for asking again does no harm.
    """
    timeout = httpx.Timeout(WAIT_SECONDS, connect=CONNECT_SECONDS)
    silence = Unavailable if repeats else Uncertain
    try:
        with (
            httpx.Client(verify=_trust(), timeout=timeout, trust_env=False) as client,
            client.stream(
                method, url, content=content, headers={"Accept-Encoding": "identity", **headers}
            ) as response,
        ):
            return Answer(response.status_code, response.headers, _body(response))
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL, httpx.UnsupportedProtocol) as failure:
        raise Unavailable(f"No connection: {failure!r}") from failure
    except httpx.HTTPError as failure:
        raise silence(f"No answer: {failure!r}") from failure


def refusal(answer: Answer, *, now: datetime) -> Unavailable | Refused | Uncertain:
    """What an answer that is no success means, where its status is all there is to go by."""
    if answer.status in NOT_LOOKED_AT:
        return Unavailable(answer.said, retry_after=answer.retry_after(now))
    if 400 <= answer.status < 500:
        return Refused(answer.said)
    return Uncertain(answer.said)


def is_reachable(url: str) -> bool:
    """Whether a provider may be at `url`: without https only an emulator."""
    return bool(URL.fullmatch(url)) and (url.startswith("https://") or settings.ALLOW_EMULATORS)


def _body(response: httpx.Response) -> str:
    """The beginning of the answer. What comes too slowly or is too long to be one is cut off: its status counts."""
    body, end = b"", time.monotonic() + WAIT_SECONDS
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > ANSWER_BYTES or time.monotonic() > end:
            break
    return body[:ANSWER_BYTES].decode(errors="replace")


@cache
def _trust() -> ssl.SSLContext:
    """Reading the root certificates takes 20 ms: once is enough."""
    return httpx.create_ssl_context(trust_env=False)
