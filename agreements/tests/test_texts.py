"""Which text applies, and its HTML: anchors, what is set off, nothing reworded, nothing injected."""

import re
from datetime import UTC, date, datetime
from html import unescape
from pathlib import Path

import pytest

from agreements.models import Document, Text, Version
from agreements.publishing import ShippedText, publish_shipped_texts, shipped_versions
from agreements.tests.editions import NOW, PREPAYMENT_BODY, PURCHASE_BODY, write_edition
from agreements.texts import NothingInForce, render, table_of_contents, text_in_force, texts_in_force


def text_of(body: str, *, important: tuple[str, ...] = (), language: str = "en") -> Text:
    return Text(version=Version(), body=body, important=list(important), language=language)


def visible(html: str) -> str:
    """What a reader sees, without blanks and without the marks that we add."""
    without_labels = re.sub(r'<p class="clause__label".*?</p>', "", html)
    return re.sub(r"\s", "", unescape(re.sub(r"<[^>]*>", "", without_labels)))


def in_force(language: str, now: datetime = NOW, document: Document = Document.PREPAYMENT) -> tuple[int, str]:
    text = text_in_force(document=document, language=language, now=now)
    return text.version.number, text.language


# --- which text applies ---


@pytest.mark.clause("9.1")
def test_newest_effective_version_applies_from_its_midnight_in_hong_kong(published: Path) -> None:
    write_edition(published, number=2, on=date(2026, 12, 1))
    publish_shipped_texts(now=NOW, folder=published)

    assert in_force("en", datetime(2026, 11, 30, 15, 59, 59, tzinfo=UTC)) == (1, "en")
    assert in_force("en", datetime(2026, 11, 30, 16, 0, tzinfo=UTC)) == (2, "en")


def test_text_is_in_the_language_asked_for(published: Path) -> None:
    assert in_force("zh-hans") == (1, "zh-hans")


@pytest.mark.django_db
def test_language_without_a_text_gets_the_authoritative_one(tmp_path: Path) -> None:
    write_edition(tmp_path)
    write_edition(
        tmp_path, document=Document.PURCHASE, bodies={"zh-hans": "# 协议\n"}, authoritative="zh-hans"
    )
    publish_shipped_texts(now=NOW, folder=tmp_path)

    assert in_force("en", document=Document.PURCHASE) == (1, "zh-hans")
    assert in_force("fr") == (1, "en")


@pytest.mark.django_db
def test_nothing_is_in_force_while_one_document_has_no_version(tmp_path: Path) -> None:
    write_edition(tmp_path)
    publish_shipped_texts(now=NOW, folder=tmp_path)

    with pytest.raises(NothingInForce, match="No version of purchase is in force"):
        texts_in_force(language="en", now=NOW)


@pytest.mark.clause("1.2")
def test_both_documents_apply_together_the_prepayment_agreement_first(published: Path) -> None:
    assert list(texts_in_force(language="en", now=NOW)) == [Document.PREPAYMENT, Document.PURCHASE]


def test_version_that_is_published_but_not_effective_does_not_apply(published: Path) -> None:
    Version.objects.create(
        document=Document.PREPAYMENT,
        number=2,
        published_at=NOW,
        effective_at=datetime(2027, 1, 1, tzinfo=UTC),
    )

    assert in_force("en") == (1, "en")


# --- the HTML ---


def test_chapters_contain_their_clauses_and_every_clause_has_its_anchor() -> None:
    assert render(text_of(PREPAYMENT_BODY)) == (
        "<h2>Pre-payment Purchase Agreement</h2>\n"
        '<section class="clause" id="preamble">\n'
        "<p>Read it with your <em>guardian</em> if you are under 18.</p>\n"
        "</section>\n"
        '<section class="clause" id="I">\n'
        "<h3>I. Definitions</h3>\n"
        '<section class="clause" id="1.1">\n'
        "<h4>1.1 Service Scope</h4>\n"
        "<p>Phones in the order of payment.</p>\n"
        "</section>\n"
        '<section class="clause" id="1.2">\n'
        "<h4>1.2 This Agreement</h4>\n"
        "<p>It comes first.</p>\n"
        "</section>\n"
        "</section>\n"
        '<section class="clause" id="II">\n'
        "<h3>II. Law</h3>\n"
        "<p>Hong Kong.</p>\n"
        "</section>\n"
        '<section class="clause" id="III">\n'
        "<h3>III. Payment</h3>\n"
        '<section class="clause" id="3.3">\n'
        "<h4>3.3 Special Provisions</h4>\n"
        "<p>No refunds.</p>\n"
        "</section>\n"
        "</section>\n"
    )


@pytest.mark.clause("preamble")
def test_important_clauses_are_set_off_with_a_visible_label() -> None:
    html = render(text_of(PREPAYMENT_BODY, important=("II", "3.3")))

    assert html.count("clause--important") == 2
    assert (
        '<section class="clause clause--important" id="3.3" aria-labelledby="3.3-label 3.3-heading">\n'
        '<p class="clause__label" id="3.3-label">Important</p>\n'
        '<h4 id="3.3-heading">3.3 Special Provisions</h4>\n'
        "<p>No refunds.</p>\n"
        "</section>\n"
    ) in html
    assert '<section class="clause clause--important" id="II"' in html


def test_important_chapter_is_set_off_with_all_its_clauses() -> None:
    html = render(text_of(PREPAYMENT_BODY, important=("I",)))

    chapter = html[html.index('id="I"') : html.index('id="II"')]
    assert html.count("clause--important") == 1
    assert chapter.index("clause__label") < chapter.index('id="1.1"') < chapter.index('id="1.2"')


def test_preamble_can_be_important() -> None:
    html = render(text_of(PREPAYMENT_BODY, important=("preamble",)))

    assert (
        '<section class="clause clause--important" id="preamble" aria-labelledby="preamble-label">\n' in html
    )


@pytest.mark.parametrize(
    ("body", "harm"),
    [
        ("<script>alert(1)</script>\n", "<script"),
        ("## II. <img src=x onerror=alert(1)>\n", "<img"),
        ('## "><svg/onload=alert(1)> x\n', "<svg"),
        ("[read](javascript:alert(1))\n", "href"),
        ("![x](https://elsewhere.example/track.png)\n", "<img"),
        ("<div\nonclick=alert(1)>x</div>\n", "<div"),
    ],
)
def test_markup_in_a_text_stays_text(body: str, harm: str) -> None:
    text = text_of(body, important=("II",))

    assert harm not in render(text)
    assert "alert(1)" in render(text) or "track.png" in render(text)


@pytest.mark.parametrize("wording", ['3.3"onclick="x" Title', "X1 Title", "I agree", "II", "1.2.", "Annex"])
def test_heading_without_a_number_is_no_clause(wording: str) -> None:
    (heading,) = table_of_contents(text_of(f"## {wording}\n"))

    assert (heading.anchor, heading.wording) == ("", wording)


def test_same_text_with_other_important_clauses_is_rendered_anew() -> None:
    assert "clause--important" in render(text_of(PURCHASE_BODY, important=("I",)))
    assert "clause--important" not in render(text_of(PURCHASE_BODY))


def test_two_texts_on_one_page_have_no_id_in_common() -> None:
    text = text_of(PREPAYMENT_BODY, important=("3.3", "preamble"))

    plain, prefixed = (
        re.findall(r' id="([^"]*)"', html) for html in (render(text), render(text, id_prefix="p-"))
    )

    assert prefixed == [f"p-{name}" for name in plain]
    assert 'aria-labelledby="p-3.3-label p-3.3-heading"' in render(text, id_prefix="p-")


def test_contents_list_chapters_with_their_clauses() -> None:
    contents = table_of_contents(text_of(PREPAYMENT_BODY, important=("3.3",)))

    assert [(chapter.anchor, [clause.anchor for clause in chapter.children]) for chapter in contents] == [
        ("I", ["1.1", "1.2"]),
        ("II", []),
        ("III", ["3.3"]),
    ]
    assert contents[2].children[0].wording == "3.3 Special Provisions"
    assert contents[2].children[0].is_important
    assert not contents[0].is_important


# --- the texts that ship ---

SHIPPED_TEXTS = [
    pytest.param(text, id=f"{version}, {text.language}")
    for version in shipped_versions()
    for text in version.texts
]


@pytest.mark.parametrize("shipped", SHIPPED_TEXTS)
def test_rendering_leaves_the_wording_as_it_is(shipped: ShippedText) -> None:
    source = re.sub(r"^(#+|>) ", "", shipped.body, flags=re.MULTILINE)

    assert visible(render(text_of(shipped.body, important=tuple(shipped.important)))) == re.sub(
        r"\s", "", source
    )


@pytest.mark.parametrize("shipped", SHIPPED_TEXTS)
def test_every_important_clause_is_a_clause_of_the_text(shipped: ShippedText) -> None:
    html = render(text_of(shipped.body, important=tuple(shipped.important)))

    set_off = re.findall(r'<section class="clause clause--important" id="([^"]*)"', html)
    assert sorted(set_off) == sorted(shipped.important)


def test_every_heading_of_the_shipped_agreement_is_a_clause_that_can_be_linked() -> None:
    for version in shipped_versions():
        for text in version.texts:
            for chapter in table_of_contents(text_of(text.body)):
                assert all(heading.anchor for heading in (chapter, *chapter.children))
