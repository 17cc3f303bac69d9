"""Several providers on one port, as the demo runs them: one at the root, the others each below its name."""

from collections.abc import Iterable, Mapping
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from emulators.server import Emulator


class Together:
    """`below` maps a name to the emulator that is reached at /<name>. Served like a single one."""

    def __init__(self, root: Emulator, below: Mapping[str, Emulator]) -> None:
        self._root = root
        self._below = dict(below)
        self._dispatch = DispatcherMiddleware(root, {f"/{name}": each for name, each in below.items()})

    @property
    def public_url(self) -> str:
        return self._root.public_url

    @public_url.setter
    def public_url(self, url: str) -> None:
        self._root.public_url = url
        for name, each in self._below.items():
            each.public_url = f"{url}/{name}"

    def start(self) -> None:
        for each in (self._root, *self._below.values()):
            each.start()

    def stop(self) -> None:
        for each in (self._root, *self._below.values()):
            each.stop()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._dispatch(environ, start_response)
