"""Staff's own words for a kind, a language and a form, in the place of those that ship with the code.

They are Django templates of which only a little is let in: choosing between words, naming facts, and writing money, days
and moments as the shipped words do. Nothing can be loaded, included, called or repeated.
"""

import functools
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.template import Context, Engine, TemplateSyntaxError
from django.template.base import Lexer, TokenType
from django.utils.translation import gettext as _

from accounts.models import User
from notices.codes import PLACEHOLDER
from notices.kinds import Form
from notices.models import Broadcast, Wording
from notices.samples import FACTS

TAGS = frozenset({"if", "elif", "else", "endif", "with", "endwith"})
FILTERS = frozenset({"money", "day", "moment", "default"})
LONGEST = 5_000
# Of a subject, when it is filled in.
SUBJECT_LIMIT = 200
# What comes later may be cut off in a text message.
CODE_WITHIN = 50
MISSING = "⟦%s⟧"


class NotSafe(Exception):
    """Words that are not let in, or do not fit every shape of the facts; the message tells staff why."""


def change(
    *, kind: str, language: str, form: Form, subject: str, body: str, by: User, now: datetime
) -> Wording:
    """Have a kind told in other words from now on; with an empty body, in the shipped ones again. Raises NotSafe."""
    if body.strip():
        check(kind=kind, subject=subject, body=body)
    wording: Wording = Wording.objects.create(
        kind=kind,
        language=language,
        form=form.value,
        subject=subject.strip(),
        body=body.strip(),
        written_by=by,
        written_at=now,
    )
    return wording


def check(*, kind: str, subject: str, body: str) -> list[tuple[str, str]]:
    """Subject and text for every shape that the facts of a kind can have. Raises NotSafe."""
    if kind not in FACTS:
        raise NotSafe(_("The words of this kind are written for each message."))
    if len(subject) > LONGEST or len(body) > LONGEST:
        raise NotSafe(_("It is too long."))
    for words in (subject, body):
        _let_in(words)
    written = []
    for facts in FACTS[kind]:
        pair = tuple(fill(words, facts) for words in (subject, body))
        if not pair[0].strip() or not pair[1].strip():
            raise NotSafe(_("For some notices nothing would be left of it."))
        if PLACEHOLDER in facts.values() and PLACEHOLDER not in " ".join(pair[1].split())[:CODE_WITHIN]:
            raise NotSafe(
                _("The code has to be among the first %(most)d characters of the text.")
                % {"most": CODE_WITHIN}
            )
        if len(" ".join(pair[0].split())) > SUBJECT_LIMIT:
            raise NotSafe(
                _("For some notices the subject has more than %(most)d characters.") % {"most": SUBJECT_LIMIT}
            )
        written.append((pair[0], pair[1]))
    return written


class Said:
    """What staff have said, read from the database when it is asked for, and each part once.

    Made for a batch of notices and let go with it: whoever remembers rows for longer, remembers what was rolled back
    or changed meanwhile.
    """

    def __init__(self) -> None:
        self._wordings: dict[tuple[str, str, Form], Wording | None] = {}
        self._broadcasts: dict[int, Mapping[str, Mapping[str, str]]] = {}

    def wording(self, kind: str, language: str, form: Form) -> Wording | None:
        """The words that they have given, or None where the shipped ones apply."""
        key = (kind, language, form)
        if key not in self._wordings:
            given = Wording.objects.filter(kind=kind, language=language, form=form.value)
            newest = given.order_by("-pk").first()
            self._wordings[key] = newest if newest and newest.body else None
        return self._wordings[key]

    def texts(self, broadcast_id: int) -> Mapping[str, Mapping[str, str]]:
        """A message to many, by language: title and body."""
        if broadcast_id not in self._broadcasts:
            broadcasts = Broadcast.objects.values_list("texts", flat=True)
            self._broadcasts[broadcast_id] = broadcasts.get(pk=broadcast_id)
        return self._broadcasts[broadcast_id]


def fill(words: str, facts: Mapping[str, Any]) -> str:
    """Words with their facts; in the active language and time zone. Raises NotSafe, also for a fact that is not there."""
    try:
        filled: str = _engine().from_string(words).render(Context(dict(facts), autoescape=False))
    except (TemplateSyntaxError, ValueError, TypeError, KeyError) as mistake:
        raise NotSafe(str(mistake)) from mistake
    if "⟦" in filled:
        raise NotSafe(_("It names a fact that is not always there: %(words)s") % {"words": filled[:200]})
    return filled


def _let_in(words: str) -> None:
    try:
        tokens = Lexer(words).tokenize()
    except TemplateSyntaxError as mistake:
        raise NotSafe(str(mistake)) from None
    for token in tokens:
        if token.token_type == TokenType.BLOCK:
            tag = token.split_contents()[0] if token.contents.strip() else ""
            if tag not in TAGS:
                raise NotSafe(_("{%% %(tag)s %%} is not let in.") % {"tag": tag})
        if token.token_type in (TokenType.BLOCK, TokenType.VAR):
            unknown = set(re.findall(r"\|\s*(\w+)", token.contents)) - FILTERS
            if unknown:
                raise NotSafe(_("The filter %(name)s is not let in.") % {"name": min(unknown)})


@functools.cache
def _engine() -> Engine:
    """One that finds no file and no library."""
    return Engine(
        loaders=[],
        builtins=["notices.templatetags.notice_format"],
        string_if_invalid=MISSING,
    )
