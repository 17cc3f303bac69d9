"""Figures and their table."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure has to reach, and what would be more: from below, or from above."""

    enough: float
    stretch: float
    is_ceiling: bool

    def is_reached(self, value: float, goal: float) -> bool:
        return value <= goal if self.is_ceiling else value >= goal


def at_least(enough: float, stretch: float) -> Goal:
    return Goal(enough, stretch, is_ceiling=False)


def at_most(enough: float, stretch: float) -> Goal:
    return Goal(enough, stretch, is_ceiling=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio or a count, and its goal. Without a goal it only informs."""

    name: str
    value: float
    goal: Goal | None = None
    detail: str = ""

    def goals(self) -> tuple[str, str]:
        """What is enough and what would be more, as the table shows them."""
        if self.goal is None:
            return "–", "–"
        sign = "≤" if self.goal.is_ceiling else "≥"
        return f"{sign} {self.goal.enough:g}", f"{sign} {self.goal.stretch:g}"

    def verdict(self) -> str:
        if self.goal is None:
            return "–"
        if self.goal.is_reached(self.value, self.goal.stretch):
            return "stretch"
        return "pass" if self.goal.is_reached(self.value, self.goal.enough) else "BELOW"


def interleaved(runs: int, *measures: Callable[[], float]) -> list[float]:
    """The median of each measure; they take turns, so that a slow minute of the machine falls upon all."""
    found: list[list[float]] = [[] for _ in measures]
    for _ in range(runs):
        for values, measure in zip(found, measures, strict=True):
            values.append(measure())
    return [median(values) for values in found]


def say(what: str) -> None:
    """Progress, apart from the table."""
    print(what, file=sys.stderr, flush=True)


def print_table(figures: Sequence[Figure]) -> None:
    print("| figure | measured | pass | stretch | |")
    print("|---|---|---|---|---|")
    for figure in figures:
        enough, stretch = figure.goals()
        print(
            f"| {figure.name} | **{figure.value:.2f}** | {enough} | {stretch} "
            f"| {figure.verdict()}{f'; {figure.detail}' if figure.detail else ''} |"
        )
