"""Charts as SVG, drawn by attributes: the policy of the site allows no inline style, and the admin has none of ours.

Places are per cent of the width, so that a chart fits any screen and its words stay readable. The figures are beside each
in a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from django import template

from orders.figures import Day
from orders.track_record import TrackRecord

register = template.Library()

# In pixels: the bars, and the words below them.
HEIGHT = 120
# Of the room of a bar, so much is left empty.
GAP = 0.24


@dataclass(frozen=True, slots=True)
class Column:
    """One bar with what it stands for. `y` and `height` are in pixels, the rest in per cent; `is_named` has a label."""

    x: str
    width: str
    middle: str
    y: float
    height: float
    of: object
    is_named: bool


def columns(values: Sequence[tuple[object, float | None]], *, top: float, named_every: int) -> list[Column]:
    """A column for each (what it is of, how much of `top`); None and nothing have no height."""
    room = 100 / max(1, len(values))
    drawn = []
    for number, (of, value) in enumerate(values):
        height = round(HEIGHT * (value or 0) / top, 1) if top else 0
        # What is there at all can be seen.
        height = max(height, 1.5) if value else 0
        drawn.append(
            Column(
                x=f"{room * (number + GAP / 2):.2f}%",
                width=f"{room * (1 - GAP):.2f}%",
                middle=f"{room * (number + 0.5):.2f}%",
                y=round(HEIGHT - height, 1),
                height=height,
                of=of,
                is_named=(len(values) - 1 - number) % named_every == 0,
            )
        )
    return drawn


@register.inclusion_tag("orders/chart_allocated.html")
def allocated_chart(days: Sequence[Day]) -> dict[str, object]:
    """Units allocated per day: a bar for each, and the figures of days with any."""
    top = max((day.units for day in days), default=0)
    first, last = (days[0].day, days[-1].day) if days else (date.min, date.min)
    return {
        "columns": columns([(day, day.units) for day in days], top=top, named_every=len(days) + 1),
        "height": HEIGHT,
        "top": top,
        "first": first,
        "last": last,
        "total": sum(day.units for day in days),
        "busy": [day for day in reversed(days) if day.units],
    }


@register.inclusion_tag("orders/chart_record.html")
def record_chart(record: TrackRecord) -> dict[str, object]:
    """The share of promises kept, month by month."""
    shares = [(month, month.score.share) for month in record.months]
    return {
        "columns": columns(shares, top=1, named_every=1),
        "height": HEIGHT,
        "record": record,
        # Our own measure: "at the latest" means nine in ten.
        "aim": round(HEIGHT * 0.1, 1),
    }
