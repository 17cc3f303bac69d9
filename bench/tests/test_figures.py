"""What the table says of a figure."""

import pytest

from bench.figures import Figure, Goal, at_least, at_most


@pytest.mark.parametrize(
    ("value", "goal", "verdict"),
    [
        (0.75, at_least(0.6, 0.75), "stretch"),
        (0.74, at_least(0.6, 0.75), "pass"),
        (0.59, at_least(0.6, 0.75), "BELOW"),
        (1.1, at_most(1.3, 1.1), "stretch"),
        (1.2, at_most(1.3, 1.1), "pass"),
        (1.31, at_most(1.3, 1.1), "BELOW"),
    ],
)
def test_verdict_says_which_goal_is_reached(value: float, goal: Goal, verdict: str) -> None:
    assert Figure("a ratio", value, goal).verdict() == verdict


def test_one_wrong_answer_is_below_a_goal_of_none() -> None:
    goal = at_most(0, 0)

    assert Figure("wrong answers", 0, goal).verdict() == "stretch"
    assert Figure("wrong answers", 1, goal).verdict() == "BELOW"


def test_goals_show_their_direction() -> None:
    assert Figure("wrong answers", 0, at_most(0, 0)).goals() == ("≤ 0", "≤ 0")
    assert Figure("a ratio", 1, at_least(0.6, 0.75)).goals() == ("≥ 0.6", "≥ 0.75")


def test_figure_without_a_goal_is_not_judged() -> None:
    figure = Figure("a ratio", 0.2)

    assert (figure.goals(), figure.verdict()) == (("–", "–"), "–")
