"""The basket: what a customer means to buy, kept in the session.

It holds no units and no fee; both are settled when the order is placed. Untouched for
`settings.BASKET_LIFETIME` it expires: its wishes are then only remembered, until they are put back or
something new is added.
"""

from datetime import datetime

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase

from orders.checkout import Wish

SESSION_KEY = "basket"


class Basket:
    """The basket of one session at the moment `now`. Every change is stored at once."""

    def __init__(self, session: SessionBase, *, now: datetime) -> None:
        self._session = session
        self._now = now
        stored = session.get(SESSION_KEY, {})
        self._units: dict[int, int] = {int(term): units for term, units in stored.get("units", {}).items()}
        self._touched_at: float = stored.get("touched_at", 0.0)

    @property
    def is_expired(self) -> bool:
        age = self._now.timestamp() - self._touched_at
        return bool(self._units) and age > settings.BASKET_LIFETIME.total_seconds()

    @property
    def wishes(self) -> tuple[Wish, ...]:
        """What would be ordered now, in the order in which it was added; nothing once the basket expired."""
        return () if self.is_expired else self._all()

    @property
    def remembered(self) -> tuple[Wish, ...]:
        """What an expired basket held."""
        return self._all() if self.is_expired else ()

    @property
    def units(self) -> int:
        return sum(wish.quantity for wish in self.wishes)

    def add(self, *, term_id: int, quantity: int) -> None:
        """Add to what is there. An expired basket is begun anew."""
        if self.is_expired:
            self._units = {}
        self._units[term_id] = self._units.get(term_id, 0) + quantity
        self._store()

    def change(self, *, term_id: int, quantity: int) -> None:
        """Set the quantity of a term; 0 takes it out."""
        self._units[term_id] = quantity
        if not quantity:
            del self._units[term_id]
        self._store()

    def restore(self) -> None:
        """Put back what an expired basket held."""
        self._store()

    def clear(self) -> None:
        self._units = {}
        self._store()

    def _all(self) -> tuple[Wish, ...]:
        return tuple(Wish(term_id, quantity) for term_id, quantity in self._units.items())

    def _store(self) -> None:
        self._touched_at = self._now.timestamp()
        self._session[SESSION_KEY] = {
            "units": {str(term): units for term, units in self._units.items()},
            "touched_at": self._touched_at,
        }
