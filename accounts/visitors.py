"""Where a request comes from."""

from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest


def address_of(request: HttpRequest) -> str | None:
    """The visitor's address: behind the trusted proxy what that proxy saw, otherwise the connection's.

    None for what is no address (a Unix socket, a header that somebody made up).
    """
    written = request.META.get("REMOTE_ADDR", "")
    if settings.SECURE_PROXY_SSL_HEADER:
        written = request.headers.get("X-Forwarded-For", written).rsplit(",", 1)[-1].strip()
    try:
        # Without the name of a network card ("fe80::1%eth0"), which is no part of the address.
        return str(ip_address(written.partition("%")[0]))
    except ValueError:
        return None
