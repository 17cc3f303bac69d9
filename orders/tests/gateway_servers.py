"""The other end of a connection, for tests: it keeps what it is sent and answers what it is told to."""

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


class Listener:
    """Answers the answers put into `answers` one after the other, then 200 for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def next(self, seconds: float = 10) -> Request:
        """The next request. Raises queue.Empty when none comes in time."""
        return self._requests.get(timeout=seconds)

    def rest(self) -> list[Request]:
        """All requests that have come and were not asked for."""
        requests = []
        while not self._requests.empty():
            requests.append(self._requests.get())
        return requests

    def take(self, request: Request) -> Answer:
        self._requests.put(request)
        try:
            return self.answers.get_nowait()
        except queue.Empty:
            return Answer()


@contextmanager
def listening() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = listener.take(Request(self.command, self.path, headers, body))
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # who has read enough of a long answer hangs up
                self.wfile.write(answer.body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    listener = Listener(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
