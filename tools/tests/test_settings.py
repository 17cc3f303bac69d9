"""`.env.example` is the list of everything that can be set."""

import ast
import itertools
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent


def names_read() -> set[str]:
    """The names that settings.py asks the environment for: the first argument of every env.…(…)."""
    tree = ast.parse((PROJECT / "vmos_presale" / "settings.py").read_text())
    return {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "env"
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def test_the_example_names_every_setting_once_with_one_line_about_it() -> None:
    lines = (PROJECT / ".env.example").read_text().splitlines()
    named = [match[1] for line in lines if (match := re.fullmatch(r"#?([A-Z0-9_]+)=.*", line))]
    assert sorted(named) == sorted(names_read())
    for before, line in itertools.pairwise(lines):
        if re.fullmatch(r"#?([A-Z0-9_]+)=.*", line):
            assert before.startswith("# "), f"{line} is not explained"
