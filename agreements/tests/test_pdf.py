"""An agreement as a PDF: every word of it, what has to be known of it, and what proves it."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
import time_machine
from django.test import Client
from django.utils import translation
from django.utils.translation import gettext
from pytest_django import Settings

from accounts.models import User
from agreements.models import Document, Finding, Text, Version
from agreements.pdf import agreement_pdf
from agreements.publishing import publish_shipped_texts
from agreements.rulings import record_ruling
from agreements.tests.editions import NOW
from agreements.texts import blocks
from evidence.pdf import Unprintable
from tests.pdfs import around, attached, printed, squeezed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _today() -> Iterator[None]:
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def shipped() -> None:
    publish_shipped_texts(now=NOW)


def text_of(document: Document = Document.PREPAYMENT, language: str = "en") -> Text:
    text: Text = Text.objects.select_related("version").get(version__document=document, language=language)
    return text


def revision(*, body: str = "# Terms\n\n## I. Scope\n\nPhones.\n", **version: object) -> Text:
    """A second version of the pre-payment agreement, in English alone."""
    edition = Version.objects.create(
        **{
            "document": Document.PREPAYMENT,
            "number": 2,
            "published_at": NOW - timedelta(days=1),
            "effective_at": NOW,
            **version,
        }
    )
    text: Text = Text.objects.create(
        version=edition,
        language="en",
        is_authoritative=True,
        title="Terms",
        summary="Phones are now blue.",
        important=[],
        matters_most=[],
        retroactive_effect="Yours is blue, too." if edition.is_retroactive else "",
        body=body,
        sha256=hashlib.sha256(body.encode()).hexdigest(),
    )
    return text


def hold_invalid(version: Version, staff: User, *, clause: str, finding: Finding = Finding.INVALID) -> None:
    record_ruling(
        version_id=version.pk,
        clause=clause,
        finding=finding,
        authority="High Court",
        reference="HCA 1/2026",
        decided_on=date(2026, 11, 20),
        recorded_by_id=staff.pk,
        now=NOW,
    )


@pytest.mark.clause("9.5")
@pytest.mark.parametrize("document", Document)
@pytest.mark.parametrize("language", ["en", "zh-hans", "zh-hant"])
def test_every_word_is_printed_in_its_place_and_nothing_between(
    shipped: None, document: Document, language: str
) -> None:
    text = text_of(document, language)
    with translation.override(language):
        label = gettext("Important")

    # The cover and the contents come first.
    rest = printed(agreement_pdf(text), from_page=3)

    labels = 0
    for block in blocks(text.body):
        words = squeezed(block.words)
        if not rest.startswith(words):
            assert rest.startswith(label), rest[:200]
            rest = rest.removeprefix(label)
            labels += 1
        assert rest.startswith(words)
        rest = rest.removeprefix(words)
    assert labels == len(text.important)
    assert rest.endswith(squeezed(text.sha256 + _attached(language)))


def _attached(language: str) -> str:
    with translation.override(language):
        return gettext(
            "The text is attached to this PDF as a file, and its fingerprint can be made anew from that file."
        )


@pytest.mark.clause("preamble")
def test_important_clauses_carry_a_label_in_the_text_and_in_the_contents(shipped: None) -> None:
    words = printed(agreement_pdf(text_of()))
    assert "ImportantII.ApplicableLawandJurisdictionTheestablishment" in words
    assert "II.ApplicableLawandJurisdictionImportant" in words
    assert "ImportantIII." not in words
    assert "ImportantI." not in words


def test_cover_says_what_has_to_be_known_before_reading(shipped: None) -> None:
    text = text_of()
    words = printed(agreement_pdf(text))
    for said in (
        "Version 1",
        "Published March 21, 2025",
        "Takes effect March 21, 2025",
        "Language English",
        text.sha256,
        "This is the authoritative text; the others are translations of it.",
        "Where they differ, this document comes first (clause 1.2).",
        "What matters most",
        text.matters_most[0],
    ):
        assert squeezed(said) in words
    assert squeezed("What this version changes") not in words


@pytest.mark.clause("1.2")
def test_translation_and_purchase_agreement_say_what_comes_first(shipped: None) -> None:
    with translation.override("zh-hans"):
        said = gettext(
            "This is a translation. If the two differ, the text in %(language)s is the one that counts."
        ) % {"language": gettext("English")}
    assert squeezed(said) in printed(agreement_pdf(text_of(language="zh-hans")))
    assert squeezed("the Pre-payment Purchase Agreement comes first (its clause 1.2)") in printed(
        agreement_pdf(text_of(Document.PURCHASE))
    )


def test_every_page_says_what_it_belongs_to_and_which_it_is(shipped: None) -> None:
    text = text_of()
    said = around(agreement_pdf(text), page=4)
    assert squeezed("VMOS Cloud Pre-payment Purchase Agreement · Version 1") in said
    assert f"sha256{text.sha256}" in said
    assert "Page4of7" in said


@pytest.mark.clause("9.1")
def test_retroactive_version_says_what_it_changes_for_earlier_orders() -> None:
    words = printed(agreement_pdf(revision(is_retroactive=True)))
    assert squeezed("Phones are now blue.") in words
    assert squeezed("It also applies to orders that were placed before it took effect (9.1).") in words
    assert squeezed("Yours is blue, too.") in words


@pytest.mark.clause("9.1")
def test_any_other_revision_says_that_earlier_orders_keep_theirs() -> None:
    words = printed(agreement_pdf(revision()))
    assert squeezed("Phones are now blue.") in words
    assert squeezed("placed before it took effect keep the version that was accepted with them") in words


@pytest.mark.clause("9.3")
def test_clause_held_invalid_is_marked_below_its_heading(shipped: None, customer: User) -> None:
    text = text_of()
    hold_invalid(text.version, customer, clause="3.3")
    mark = "Held invalid by High Court, HCA 1/2026, Nov. 20, 2026. The rest of the agreement remains in force (9.3)."

    words = printed(agreement_pdf(text))

    assert words.count(squeezed(mark)) == 1
    assert squeezed("3.3 Pre - sale Special Provisions" + mark + "Pre - sale Period and") in words


@pytest.mark.clause("9.5")
@pytest.mark.parametrize("language", ["en", "zh-hans", "zh-hant"])
def test_the_text_is_attached_as_it_was_hashed(shipped: None, language: str) -> None:
    text = text_of(language=language)
    files = attached(agreement_pdf(text))
    assert list(files) == [f"prepayment-1-{language}.md"]
    assert hashlib.sha256(files[f"prepayment-1-{language}.md"]).hexdigest() == text.sha256


def test_same_text_gives_the_same_bytes(shipped: None) -> None:
    assert agreement_pdf(text_of()) == agreement_pdf(text_of())


def test_every_kind_of_markdown_is_printed_and_no_markup_is_read() -> None:
    body = (
        "# Terms\n\n## I. Kinds\n\n*soft* **loud** `code` [the site](https://example.com/a) end\\\nnext\nlast\n\n"
        "- one\n- two\n\n  still two\n\n3. third\n4. fourth\n\n> quoted\n>\n> ### Q\n\n---\n\n```\nfenced\n```\n\n"
        "    indented\n\n- \n\n#### 1.1 Deep\n\n#pagebreak() $x^2$ @ref <b>bold</b> // no comment -- 'quotes' ~\n"
    )
    words = printed(agreement_pdf(revision(body=body)), from_page=3)
    assert words.startswith(
        "TermsI.Kindssoftloudcodethesite(https://example.com/a)endnextlast•one•twostilltwo3.third4.fourthquotedQ"
        "fencedindented•1.1Deep#pagebreak()$x^2$@ref<b>bold</b>//nocomment--'quotes'~"
    )


def test_wording_without_a_shape_is_refused_and_named() -> None:
    with pytest.raises(Unprintable, match=r"😀 \(U\+1F600\)"):
        agreement_pdf(revision(body="# Terms\n\n## I. Scope\n\nPhones 😀.\n"))


def test_pdf_is_shown_in_the_browser_under_its_name_and_may_be_kept(client: Client, shipped: None) -> None:
    response = client.get("/agreements/prepayment/1/zh-hans.pdf")
    assert response.status_code == 200
    assert response.content == agreement_pdf(text_of(language="zh-hans"))
    assert response.headers["Content-Type"] == "application/pdf"
    assert response.headers["Content-Disposition"] == 'inline; filename="prepayment-1-zh-hans.pdf"'
    assert response.headers["Content-Language"] == "zh-hans"
    assert response.headers["Cache-Control"] == "public, max-age=300"


def test_pdf_is_sent_again_only_after_a_ruling(client: Client, shipped: None, customer: User) -> None:
    address = "/agreements/prepayment/1/en.pdf"
    etag = client.get(address).headers["ETag"]
    again = client.get(address, headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)

    version = text_of().version
    hold_invalid(version, customer, clause="3.3")
    ruled = client.get(address, headers={"if-none-match": etag})
    assert ruled.status_code == 200
    assert "Heldinvalid" in printed(ruled.content)

    hold_invalid(version, customer, clause="3.3", finding=Finding.VALID)
    valid = client.get(address, headers={"if-none-match": ruled.headers["ETag"]})
    assert valid.status_code == 200
    assert "Heldinvalid" not in printed(valid.content)


@pytest.mark.parametrize(
    "path", ["prepayment/1/fr", "prepayment/9/en", "other/1/en", "prepayment/2/en", "prepayment/2/zh-hans"]
)
def test_there_is_no_pdf_of_what_is_not_published(client: Client, shipped: None, path: str) -> None:
    revision(published_at=NOW + timedelta(seconds=1), effective_at=NOW + timedelta(days=1))
    assert client.get(f"/agreements/{path}.pdf").status_code == 404


def test_page_of_a_version_leads_to_the_pdf_in_the_language_shown(client: Client, shipped: None) -> None:
    page = client.get("/agreements/prepayment/1/?language=zh-hans").content.decode()
    assert 'href="/agreements/prepayment/1/zh-hans.pdf"' in page


def test_place_of_signing_is_printed(shipped: None, settings: Settings) -> None:
    settings.PLATFORM_LOCATION = "8 Harbour Road, Hong Kong"
    assert squeezed("location of the platform: 8 Harbour Road, Hong Kong (9.2)") in printed(
        agreement_pdf(text_of())
    )


def test_dates_of_the_contract_are_those_of_hong_kong() -> None:
    text = revision(published_at=datetime(2026, 11, 21, 17, tzinfo=UTC))
    assert squeezed("Published Nov. 22, 2026") in printed(agreement_pdf(text))
