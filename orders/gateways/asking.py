"""Asking a provider over HTTP: JSON in, JSON out, with an end in sight."""

import json
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import httpx
from django.utils.functional import Promise
from django.utils.translation import gettext

from orders.gateways.protocol import CredentialsRefused, Declined, Unavailable, Unreachable

# For everything that one call of ours asks of a provider.
CALL_SECONDS = 14.0
CONNECT_SECONDS = 3.0
WAIT_SECONDS = 7.0
ANSWER_BYTES = 4_000_000

Query = Sequence[tuple[str, str]]


class Number(str):
    """A number of a JSON text, digit for digit as it was written there: nothing passes through float."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: object

    def reason(self) -> str:
        """The provider's words for a refusal, fit to be shown and stored; empty where it has none."""
        match self.content:
            case {"message": str(message)} | [{"message": str(message)}, *_]:
                return "".join(letter for letter in message[:200] if letter.isprintable())
        return ""


class Asking:
    """All that one call of ours asks of a provider: it ends within CALL_SECONDS, whatever the provider does.

    `headers` hold the credentials; nothing else of a request does, for addresses are logged.
    """

    def __init__(self, provider: str | Promise, url: str, headers: Mapping[str, str]) -> None:
        self.provider = provider
        self._url = url
        self._headers = {
            "Accept": "application/json",
            # A few compressed bytes may be a great many.
            "Accept-Encoding": "identity",
            **headers,
        }
        self._end = time.monotonic() + CALL_SECONDS

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Put one question. Raises CredentialsRefused, or Unavailable without an answer."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Unreachable(f"{self.provider} answers too slowly.")
        wait = min(WAIT_SECONDS, left / 2)
        timeout = httpx.Timeout(wait, connect=min(CONNECT_SECONDS, left / 4))
        with httpx.Client(verify=_trust(), timeout=timeout, trust_env=False) as client:
            request = client.build_request(
                method,
                self._url + path,
                params=list(query) or None,
                content=None if body is None else body.encode(),
                headers={
                    **self._headers,
                    **({} if body is None else {"Content-Type": "application/json"}),
                    **(headers or {}),
                },
            )
            # What is left after it suffices for waiting once more.
            last_start = time.monotonic() + left - wait
            try:
                try:
                    status, raw = self._send(client, request, last_start)
                except httpx.ConnectError:
                    status, raw = self._send(client, request, last_start)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Unreachable(f"{self.provider} did not answer ({type(error).__name__}).") from error
        if status in (401, 403):
            raise CredentialsRefused(
                gettext("%(provider)s refuses our credentials.") % {"provider": self.provider}
            )
        if status in (408, 425, 429) or not (200 <= status < 300 or 400 <= status < 500):
            raise Unreachable(f"{self.provider} answered with status {status}.")
        try:
            return Answer(status, read_json(raw))
        except ValueError:
            raise self.no_sense("something that is not JSON") from None

    def no_sense(self, what: str) -> Unavailable:
        return Unavailable(f"{self.provider} answered {what}.")

    def refusal(self, answer: Answer) -> Declined:
        return Declined(
            gettext("%(provider)s refused: %(reason)s")
            % {"provider": self.provider, "reason": answer.reason() or f"status {answer.status}"}
        )

    def _send(self, client: httpx.Client, request: httpx.Request, last_start: float) -> tuple[int, bytes]:
        """Status and body. Raises Unavailable when the body grows too long or comes too slowly."""
        body = b""
        response = client.send(request, stream=True, follow_redirects=False)
        try:
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > ANSWER_BYTES:
                    raise self.no_sense("too much")
                if time.monotonic() > last_start:
                    raise Unreachable(f"{self.provider} answers too slowly.")
        finally:
            response.close()
        return response.status_code, body


def read_json(raw: bytes) -> object:
    """What `raw` says, with every number as a `Number`. Raises ValueError for anything that is not JSON in UTF-8."""
    try:
        content: object = json.loads(
            raw.decode(), parse_int=Number, parse_float=Number, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("The JSON is too deep.") from None
    return content


def _no_constant(written: str) -> object:
    raise ValueError(f"{written} is not JSON.")


@cache
def _trust() -> ssl.SSLContext:
    """Reading the root certificates takes 20 ms: once is enough."""
    return httpx.create_ssl_context(trust_env=False)
