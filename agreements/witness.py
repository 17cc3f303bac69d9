"""What the server can testify about where a request came from."""

from django.http import HttpRequest

from accounts.visitors import address_of
from agreements.acceptance import Witness


def witness_of(request: HttpRequest, *, button: str = "") -> Witness:
    """The address and the browser of a request; `button` is what the button said by which it was sent."""
    return Witness(address_of(request), request.headers.get("User-Agent", ""), button)
