"""Tables in docs/ that say of every point of something which code keeps it and which tests prove it.

Everything is read from the source, nothing is imported. The last two columns of such a table are code, as
`path::name`, and tests, as `path::test_name`; a test counts for a point that it is marked with.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

NOT_YET = "not yet"
NOTHING = "asks nothing of the system"
REFERENCE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    """`point` is what a test is marked with, without the part of it ("3.3, order of allocation") the row is about."""

    title: str
    code: str
    tests: str

    @property
    def point(self) -> str:
        return self.title.split(",")[0]

    @property
    def is_open(self) -> bool:
        """Whether there is nothing to prove: nothing asked, or nothing built yet."""
        return self.code in (NOT_YET, NOTHING)

    def references(self, column: str) -> list[str]:
        return REFERENCE.findall(column)


@cache
def rows_of(page: Path, *, heading: str) -> list[Row]:
    """The rows of all tables on a page whose first column is headed so."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]
    return [
        Row(title, code, tests)
        for title, *_words, code, tests in cells
        if title != heading and set(title) != {"-"}
    ]


@cache
def marks(name: str) -> dict[str, set[str]]:
    """The points that each test of the suite is marked with, by `path::name` or `path::Class::name`.

    As with `@pytest.mark.clause("3.3")` and the name "clause".
    """
    pytest_options = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]
    found: dict[str, set[str]] = {}
    for folder in pytest_options["ini_options"]["testpaths"]:
        for file in sorted((PROJECT / folder).rglob("test_*.py")):
            path = file.relative_to(PROJECT).as_posix()
            module = ast.parse(file.read_text(encoding="utf-8"))
            of_module = {
                point
                for node in module.body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
                for point in _points_in(node.value, name)
            }
            found.update(_tests_in(module.body, name, prefix=path, inherited=of_module))
    return found


def _tests_in(
    body: list[ast.stmt], mark: str, *, prefix: str, inherited: set[str]
) -> Iterator[tuple[str, set[str]]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}::{node.name}"
            own = inherited.union(*(_points_in(decorator, mark) for decorator in node.decorator_list))
            if isinstance(node, ast.ClassDef):
                yield from _tests_in(node.body, mark, prefix=name, inherited=own)
            elif node.name.startswith("test_"):
                yield name, own


def _points_in(expression: ast.expr, mark: str) -> set[str]:
    return {
        str(argument.value)
        for node in ast.walk(expression)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{mark}"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }


def names_in(file: Path) -> set[str]:
    """What a module defines: `name`, and `Class.name` for what its classes define."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        for name in _names_of(node):
            found.add(name)
            if isinstance(node, ast.ClassDef):
                found.update(f"{name}.{inner}" for member in node.body for inner in _names_of(member))
    return found


def _names_of(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def check_code(row: Row) -> None:
    """Fail unless the row names code, and all of it is there."""
    references = row.references(row.code)
    assert references, f"Say which code keeps {row.title}."
    for reference in references:
        path, _, name = reference.partition("::")
        assert (PROJECT / path).is_file(), f"{row.title}: there is no file {path}."
        assert not name or name in names_in(PROJECT / path), f"{row.title}: {path} does not define {name}."


def check_tests(row: Row, *, mark: str) -> None:
    """Fail unless the row names tests, and all of them are there and marked with its point."""
    references = row.references(row.tests)
    assert references, f"{row.title}: name at least one test."
    for reference in references:
        assert reference in marks(mark), f"{row.title}: there is no test {reference}."
        assert row.point in marks(mark)[reference], (
            f"{row.title}: {reference} is not marked with @pytest.mark.{mark}, {row.point}."
        )


def unknown_marks(known: set[str], *, mark: str) -> list[str]:
    """Tests that are marked with a point that is not known."""
    return [
        f"{test}: {point}"
        for test, points in marks(mark).items()
        for point in sorted(points)
        if point not in known
    ]
