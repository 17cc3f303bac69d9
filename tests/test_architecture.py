"""Views, forms, tasks and admin pages translate; what happens, happens in verbs. Read off the source."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
APPS = ("accounts", "agreements", "inventory", "notices", "orders")
TRANSLATORS = ("views", "forms", "tasks", "admin")
# What only a verb may set, and the calls by which rows come to be.
STATE = {
    "state",
    "paid_at",
    "allocated",
    "withdrawn",
    "sent_at",
    "read_at",
    "resolved_at",
    "received_at",
    "is_expanded",
}
WRITERS = {"create", "bulk_create", "bulk_update", "get_or_create", "update_or_create"}


def translators() -> list[Path]:
    return sorted(
        path
        for app in APPS
        for path in (PROJECT / app).rglob("*.py")
        if "tests" not in path.parts
        and (path.stem.split("_")[0] in TRANSLATORS or set(path.parts) & set(TRANSLATORS))
    )


def breaches(source: str) -> list[str]:
    """What in `source` a verb should do."""
    found = []
    for node in ast.walk(ast.parse(source)):
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AugAssign)
            else []
        )
        found += [
            f"line {target.lineno} sets .{target.attr}"
            for target in targets
            if isinstance(target, ast.Attribute) and target.attr in STATE
        ]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            named = {keyword.arg for keyword in node.keywords if keyword.arg}
            if node.func.attr == "update" and named & STATE:
                found.append(f"line {node.lineno} updates {', '.join(sorted(named & STATE))}")
            if node.func.attr in WRITERS and isinstance(node.func.value, ast.Attribute):
                found.append(f"line {node.lineno} calls .{node.func.attr}()")
    return found


@pytest.mark.parametrize("path", translators(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_translators_leave_state_to_the_verbs(path: Path) -> None:
    assert breaches(path.read_text()) == []


def test_there_are_translators_in_every_app_with_pages() -> None:
    assert {path.relative_to(PROJECT).parts[0] for path in translators()} == set(APPS)


@pytest.mark.parametrize(
    "source",
    [
        "order.state = 'paid'",
        "line.allocated += 1",
        "Order.objects.filter(pk=1).update(state='paid')",
        "Order.objects.create(state='paid')",
    ],
)
def test_control_a_breach_is_seen(source: str) -> None:
    assert len(breaches(source)) == 1
