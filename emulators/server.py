"""What all emulators share: an API behind a key, pages for the buyer, knobs for the tester, and a server to run them.

    POST /_faults   {"errors": 2, "drop": 1, …}: see `faults.Faults`; answers the faults that are set now
    GET  /_books    everything the emulator knows

Both want the key of the API.
"""

import hmac
import ipaddress
import json
import logging
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, Self, TypeAlias
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIEnvironment

from django.template.loader import render_to_string
from werkzeug.exceptions import HTTPException, UnsupportedMediaType
from werkzeug.routing import Map, Rule
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from emulators import deliveries
from emulators.books import Books
from emulators.faults import FaultBoard

logger = logging.getLogger(__name__)

JSON: TypeAlias = Mapping[str, object]
View: TypeAlias = Callable[..., Response]

STYLE = Path(__file__).with_name("page.css").read_bytes()
LONGEST_BODY = 64_000
# No script, nothing from elsewhere, in no frame.
POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"


class Refused(Exception):
    """An API's answer to a request that it will not fulfil."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Emulator(ABC):
    """A payment provider as a WSGI application. Subclasses give `schema`, `routes` and `sign`."""

    schema: str

    def __init__(self, *, key: str, books: str, backoff: Sequence[float] = deliveries.BACKOFF) -> None:
        """`books` is the SQLite file to keep them in, or ":memory:"; `backoff` see `deliveries.BACKOFF`."""
        self._key = key
        self._stopping = threading.Event()
        # Where buyers reach it; the server sets it when it knows its port.
        self.public_url = ""
        self.faults = FaultBoard()
        self.books = Books(books, deliveries.SCHEMA, self.schema)
        self.deliveries = deliveries.Deliveries(self.books, self.faults, sign=self.sign, backoff=backoff)
        self._map = Map(
            [
                *self.routes(),
                Rule("/page.css", methods=["GET"], endpoint=self._style),
                Rule("/_faults", methods=["GET", "POST"], endpoint=self.guarded(self._faults)),
                Rule("/_books", methods=["GET"], endpoint=self.guarded(self._show_books)),
            ]
        )

    @abstractmethod
    def routes(self) -> list[Rule]:
        """Rules whose endpoints are views; those of the API are wrapped in `api`."""

    @abstractmethod
    def sign(self, webhook_id: str, body: str, is_right: bool, /) -> Mapping[str, str]:
        """The headers that prove a webhook, or with a wrong key seem to."""

    @abstractmethod
    def everything(self) -> JSON:
        """What /_books shows beside the deliveries."""

    def start(self) -> None:
        self.deliveries.start()

    def stop(self) -> None:
        self._stopping.set()
        self.deliveries.stop()
        self.books.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = LONGEST_BODY
        try:
            view, arguments = self._map.bind_to_environ(environ).match()
            response: Response = view(request, **arguments)
        except Refused as refused:
            response = answer({"error": {"code": refused.code, "message": refused.message}}, refused.status)
        except HTTPException as problem:
            code = problem.name.lower().replace(" ", "_")
            response = answer({"error": {"code": code, "message": problem.description}}, problem.code or 500)
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response(environ, start_response)

    def guarded(self, view: View) -> View:
        """`view` for those who have the key."""

        def with_key(request: Request, **arguments: str) -> Response:
            authorization = request.authorization
            token = (authorization.token if authorization and authorization.type == "bearer" else None) or ""
            if not hmac.compare_digest(token.encode(), self._key.encode()):
                raise Refused(401, "unauthorized", "The key is not known.")
            return view(request, **arguments)

        return with_key

    def api(self, view: View) -> View:
        """`view` as a part of the API: for those who have the key, with the faults that are set."""

        def with_faults(request: Request, **arguments: str) -> Response:
            if self.faults.happens("errors"):
                raise Refused(500, "internal_error", "Something went wrong.")
            try:
                response = view(request, **arguments)
            finally:
                self._stopping.wait(self.faults.now().delay_seconds)
            if self.faults.happens("lost_answers"):
                request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return response

        return self.guarded(with_faults)

    def _style(self, _request: Request) -> Response:
        return Response(STYLE, content_type="text/css; charset=utf-8")

    def _faults(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                self.faults.change(read_object(request))
            except ValueError as error:
                raise Refused(422, "invalid", str(error)) from None
        return answer(asdict(self.faults.now()))

    def _show_books(self, _request: Request) -> Response:
        with self.books.transaction() as db:
            rows = [dict(row) for row in db.execute("SELECT * FROM delivery ORDER BY id")]
        return answer({**self.everything(), "deliveries": rows})


def answer(content: JSON, status: int = 200) -> Response:
    return Response(json.dumps(content), status, content_type="application/json")


def page(template: str, context: Mapping[str, object], status: int = 200) -> Response:
    return Response(
        render_to_string(template, dict(context)), status, content_type="text/html; charset=utf-8"
    )


def read_object(request: Request) -> JSON:
    """The JSON object in the body. Raises Refused or UnsupportedMediaType."""
    # A page of another site cannot send this type without asking first, and we do not answer that question.
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    try:
        content = json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise Refused(400, "malformed", "The body is not JSON.") from None
    if not isinstance(content, dict):
        raise Refused(400, "malformed", "The body is not a JSON object.")
    return content


class Served(Protocol):
    """What can answer on a port: one emulator, or several together."""

    public_url: str

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]: ...


class _Handler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # Without the query, and in the words of our own log.
        path = quote(self.path.partition("?")[0], safe="/%")
        logger.info("%s %s %s", self.command, path, int(code) if code != "-" else code)


class Listening:
    """An emulator that answers on a port, in threads of this process, from `with` to its end.

    Raises OSError when the port is taken. Port 0 is any that is free.
    """

    def __init__(self, emulator: Served, *, host: str, port: int, public_url: str = "") -> None:
        self._emulator = emulator
        # Werkzeug exits when it cannot have the port.
        self._socket = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self._server = make_server(
            host, port, emulator, threaded=True, request_handler=_Handler, fd=self._socket.fileno()
        )
        shown_host = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown_host}:{self._server.port}"
        emulator.public_url = public_url or self.url
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="emulator")

    def __enter__(self) -> Self:
        self._emulator.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._socket.close()
        self._emulator.stop()


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
