"""What an emulator can be told to do wrong."""

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass

MOST_TIMES = 1000
LONGEST_DELAY = 60.0


@dataclass(frozen=True, slots=True)
class Faults:
    """How often each thing shall still go wrong; `delay_seconds` lasts until it is set to 0 again.

    `errors`, `lost_answers` and `delay_seconds` are about answers of the API: a 500 before anything is done,
    a connection closed when all is done, an answer that comes late. The others are about webhooks: signed
    with a wrong key (each sending counts), never sent, sent twice, sent only after the next one.
    """

    errors: int = 0
    lost_answers: int = 0
    delay_seconds: float = 0.0
    wrong_key: int = 0
    drop: int = 0
    duplicate: int = 0
    reorder: int = 0

    def changed(self, changes: Mapping[str, object]) -> "Faults":
        """These faults with `changes`. Raises ValueError on an unknown name or a value out of range."""
        known = {field.name for field in dataclasses.fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"There is no fault {name!r}; there are {', '.join(sorted(known))}.")
            if name == "delay_seconds":
                valid = type(value) in (int, float) and 0 <= value <= LONGEST_DELAY  # type: ignore[operator]
            else:
                valid = type(value) is int and 0 <= value <= MOST_TIMES
            if not valid:
                raise ValueError(f"{name} cannot be {value!r}.")
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


class FaultBoard:
    """The faults that are set now, for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults = Faults()

    def now(self) -> Faults:
        with self._lock:
            return self._faults

    def change(self, changes: Mapping[str, object]) -> Faults:
        """Set what is named, leave the rest. Raises ValueError as `Faults.changed` does."""
        with self._lock:
            self._faults = self._faults.changed(changes)
            return self._faults

    def happens(self, name: str) -> bool:
        """Whether the fault `name` happens this time; if so, it happens once less often from now on."""
        with self._lock:
            left: int = getattr(self._faults, name)
            if left:
                self._faults = dataclasses.replace(self._faults, **{name: left - 1})
            return left > 0
