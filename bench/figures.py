"""Figures and their table."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio, and what it has to reach: at least, or at most when the goals fall. Without goals it only informs."""

    name: str
    value: float
    enough: float | None = None
    stretch: float | None = None
    detail: str = ""

    def goals(self) -> tuple[str, str]:
        """What is enough and what would be more, as the table shows them."""
        if self.enough is None or self.stretch is None:
            return "–", "–"
        sign = "≥" if self.stretch >= self.enough else "≤"
        return f"{sign} {self.enough:g}", f"{sign} {self.stretch:g}"

    def verdict(self) -> str:
        if self.enough is None or self.stretch is None:
            return "–"
        rises = self.stretch >= self.enough

        def reaches(goal: float) -> bool:
            return self.value >= goal if rises else self.value <= goal

        return "stretch" if reaches(self.stretch) else "pass" if reaches(self.enough) else "BELOW"


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
