"""`docs/clauses.md` says of every clause of the agreement what the system does about it. This keeps it true.

Everything is read from the source, nothing is imported. To have a test count for a clause, mark it with
`@pytest.mark.clause("3.3")`; to show it to a reader, name it in the table as `path::test_name`.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
MAP = PROJECT / "docs" / "clauses.md"
AGREEMENT = PROJECT / "agreements" / "texts" / "prepayment"

NOT_YET = "not yet"
NOTHING = "asks nothing of the system"
ROW = re.compile(
    r"^\| *(?P<clause>[^|]+?) *\|(?P<asks>[^|]*)\|(?P<code>[^|]*)\|(?P<tests>[^|]*)\|$", re.MULTILINE
)
REFERENCE = re.compile(r"`([^`]+)`")
HEADING = re.compile(r"^(?P<level>##|###) (?P<number>[IVX]+(?=\.)|\d+\.\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """`clause` is the number, without the part of it ("3.3, order of allocation") that the row is about."""

    title: str
    code: str
    tests: str

    @property
    def clause(self) -> str:
        return self.title.split(",")[0]

    @property
    def is_open(self) -> bool:
        """Whether there is nothing to prove: nothing asked, or nothing built yet."""
        return self.code in (NOT_YET, NOTHING)

    def references(self, column: str) -> list[str]:
        return REFERENCE.findall(column)


@cache
def rows() -> list[Row]:
    found = [
        Row(match["clause"].strip(), match["code"].strip(), match["tests"].strip())
        for match in ROW.finditer(MAP.read_text(encoding="utf-8"))
    ]
    return [row for row in found if row.title != "Clause" and set(row.title) != {"-"}]


def clauses_of_the_agreement() -> set[str]:
    """The preamble, and every numbered heading of the newest version that has no headings below it."""
    newest = max((int(folder.name) for folder in AGREEMENT.iterdir() if folder.is_dir()), default=0)
    text = (AGREEMENT / str(newest) / "en.md").read_text(encoding="utf-8")
    headings = [(match["level"], match["number"]) for match in HEADING.finditer(text)]
    followers = [level for level, _number in headings[1:]] + ["##"]
    return {"preamble"} | {
        number
        for (level, number), follower in zip(headings, followers, strict=True)
        if level == "###" or follower == "##"
    }


@cache
def marks() -> dict[str, set[str]]:
    """The clauses that each test of the suite is marked with, by `path::name` or `path::Class::name`."""
    pytest_options = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]
    found: dict[str, set[str]] = {}
    for folder in pytest_options["ini_options"]["testpaths"]:
        for file in sorted((PROJECT / folder).rglob("test_*.py")):
            path = file.relative_to(PROJECT).as_posix()
            module = ast.parse(file.read_text(encoding="utf-8"))
            of_module = {
                clause
                for node in module.body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
                for clause in _clauses_in(node.value)
            }
            found.update(_tests_in(module.body, prefix=path, inherited=of_module))
    return found


def _tests_in(body: list[ast.stmt], *, prefix: str, inherited: set[str]) -> Iterator[tuple[str, set[str]]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}::{node.name}"
            own = inherited.union(*(_clauses_in(decorator) for decorator in node.decorator_list))
            if isinstance(node, ast.ClassDef):
                yield from _tests_in(node.body, prefix=name, inherited=own)
            elif node.name.startswith("test_"):
                yield name, own


def _clauses_in(expression: ast.expr) -> set[str]:
    return {
        str(argument.value)
        for node in ast.walk(expression)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.clause"
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


def test_every_clause_of_the_agreement_has_a_row() -> None:
    missing = clauses_of_the_agreement() - {row.clause for row in rows()}
    assert not missing, f"docs/clauses.md has no row for: {', '.join(sorted(missing))}"


def test_every_row_is_of_a_clause_of_the_agreement() -> None:
    unknown = {row.clause for row in rows()} - clauses_of_the_agreement()
    assert not unknown, f"docs/clauses.md has rows for what is no clause: {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.title)
def test_row_names_code_that_exists(row: Row) -> None:
    if row.is_open:
        return
    references = row.references(row.code)
    assert references, f"Say in docs/clauses.md which code keeps {row.title}, or that it is '{NOT_YET}'."
    for reference in references:
        path, _, name = reference.partition("::")
        assert (PROJECT / path).is_file(), f"{row.title}: there is no file {path}."
        assert not name or name in names_in(PROJECT / path), f"{row.title}: {path} does not define {name}."


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.title)
def test_row_names_tests_that_exist_and_are_marked_with_its_clause(row: Row) -> None:
    references = row.references(row.tests)
    if row.is_open:
        assert not references, f"{row.title}: docs/clauses.md names tests, so it cannot be '{row.code}'."
        return
    assert references, f"{row.title}: name at least one test in docs/clauses.md."
    for reference in references:
        assert reference in marks(), f"{row.title}: there is no test {reference}."
        assert row.clause in marks()[reference], f'Mark {reference} with @pytest.mark.clause("{row.clause}").'


def test_every_mark_names_a_clause_that_is_kept() -> None:
    kept = {row.clause for row in rows() if not row.is_open}
    wrong = [
        f"{test}: {clause}"
        for test, clauses in marks().items()
        for clause in sorted(clauses)
        if clause not in kept
    ]
    assert not wrong, (
        "These tests are marked with what docs/clauses.md does not know as a clause that is kept "
        f"(correct the mark, or the row's '{NOT_YET}'):\n" + "\n".join(wrong)
    )
