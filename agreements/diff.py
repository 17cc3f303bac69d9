"""What changed between two versions, for people who read no diffs: words taken out, words put in.

The texts are compared block by block (a heading, a paragraph, an item), so that a clause that only got
another number does not look like a new one, and changed blocks word by word. Chinese has no spaces: there
each character is a word.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import groupby

from agreements.models import Text
from agreements.texts import CLAUSE_NUMBER, Block, blocks

HAN = "\u3400-\u9fff\uf900-\ufaff"
WORDS = re.compile(rf"[{HAN}]|[^\W{HAN}]+|\s+|[^\w\s]")
# Two blocks that share fewer of their words than this are not one block that was changed.
ALIKE = 0.4


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of words. `tag` is the HTML element that says what became of it; empty for what stayed."""

    tag: str
    words: str


@dataclass(frozen=True, slots=True)
class ChangedClause:
    """What changed below one heading: its changed blocks, each as its pieces in reading order."""

    heading: str
    anchor: str
    blocks: tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Only what changed, clause by clause in the order of the new text."""

    old: Text
    new: Text
    clauses: tuple[ChangedClause, ...]


def difference(old: Text, new: Text) -> Difference:
    """Compare the wording of two texts, which should be in one language. Both need `version` loaded."""
    return Difference(old=old, new=new, clauses=_changed_clauses(old.body, new.body))


# Two long texts that have little in common take half a second, and anybody may ask for them.
@lru_cache(maxsize=32)
def _changed_clauses(old: str, new: str) -> tuple[ChangedClause, ...]:
    changed = groupby(_changed_blocks(blocks(old), blocks(new)), key=lambda change: change[0])
    return tuple(
        ChangedClause(heading, anchor, tuple(pieces for _clause, pieces in changes))
        for (heading, anchor), changes in changed
    )


def _changed_blocks(
    old: Sequence[Block], new: Sequence[Block]
) -> Iterator[tuple[tuple[str, str], tuple[Piece, ...]]]:
    """Yield ((heading, anchor), pieces) of every block that is not in both texts word for word."""
    alignment = SequenceMatcher(
        None, [block.words for block in old], [block.words for block in new], autojunk=False
    )
    for operation, old_from, old_to, new_from, new_to in alignment.get_opcodes():
        if operation == "equal":
            continue
        for was, is_now in _paired(old[old_from:old_to], new[new_from:new_to]):
            place = is_now or was
            if place is not None:
                pieces = _pieces(was.words if was else "", is_now.words if is_now else "")
                yield (place.clause, place.anchor), pieces


def _paired(old: Sequence[Block], new: Sequence[Block]) -> Iterator[tuple[Block | None, Block | None]]:
    """Put each old block beside the new one it became; None where there is no such one. The order stays."""
    rest = list(new)
    for was in old:
        likeness = [_likeness(was, each) for each in rest]
        if not likeness or max(likeness) < ALIKE:
            yield was, None
            continue
        at = likeness.index(max(likeness))
        yield from ((None, added) for added in rest[:at])
        yield was, rest[at]
        rest = rest[at + 1 :]
    yield from ((None, added) for added in rest)


def _likeness(one: Block, other: Block) -> float:
    """How many of their words two blocks share, from 0 to 1. A clause's number says nothing about it."""
    return SequenceMatcher(
        None,
        _words(CLAUSE_NUMBER.sub("", one.words)),
        _words(CLAUSE_NUMBER.sub("", other.words)),
        autojunk=False,
    ).ratio()


def _pieces(was: str, is_now: str) -> tuple[Piece, ...]:
    old, new = _words(was), _words(is_now)
    changes: list[tuple[str, str, str]] = []
    for operation, old_from, old_to, new_from, new_to in SequenceMatcher(
        None, old, new, autojunk=False
    ).get_opcodes():
        taken, put = "".join(old[old_from:old_to]), "".join(new[new_from:new_to])
        # A space between two changes belongs to both: "~~two days~~ three weeks", not word by word.
        if operation == "equal" and taken.strip():
            changes.append(("", taken, put))
        elif changes and changes[-1][0]:
            changes[-1] = ("changed", changes[-1][1] + taken, changes[-1][2] + put)
        else:
            changes.append(("changed", taken, put))
    return tuple(
        piece
        for operation, taken, put in changes
        for piece in ([Piece("", put)] if not operation else [Piece("del", taken), Piece("ins", put)])
        if piece.words.strip() or not piece.tag
    )


def _words(said: str) -> list[str]:
    return WORDS.findall(said)
