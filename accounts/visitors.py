"""Where a request comes from, and by which browser."""

from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest

# Parts of what browsers call themselves, and their names; the first that fits.
BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "Mac"),
    ("Linux", "Linux"),
)


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


def browser_name(user_agent: str) -> str:
    """What its owner would call it, as far as it says what it is."""
    browser = next((name for part, name in BROWSERS if part in user_agent), "")
    system = next((name for part, name in SYSTEMS if part in user_agent), "")
    return ", ".join(filter(None, (browser, system)))
