"""Every version that ships can be read in every language of the shop, and says the same in each."""

import re
import shutil
from pathlib import Path

import pytest
from django.conf import settings

from agreements.models import Text
from agreements.publishing import SHIPPED, ShippedVersion, publish_shipped_texts, shipped_versions
from agreements.tests.editions import NOW

LANGUAGES = {code for code, _ in settings.LANGUAGES}
VERSIONS = [pytest.param(version, id=str(version)) for version in shipped_versions(SHIPPED)]

# What stays of a line when its words are taken away: "### 3.3", "(a)", ">", or that it is there.
SKELETON = re.compile(r"#+(?: (?:[IVXLC]+\.|\d+\.\d+))?|\([a-z]\)|>|(?=\S)")


def skeleton(body: str) -> list[str]:
    return [found[0] if (found := SKELETON.match(line)) else "nothing" for line in body.split("\n")]


@pytest.mark.parametrize("version", VERSIONS)
def test_version_ships_in_every_language(version: ShippedVersion) -> None:
    assert {text.language for text in version.texts} == LANGUAGES
    assert all(text.title and text.summary for text in version.texts)
    assert len({len(text.matters_most) for text in version.texts}) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_headings_numbers_and_items_are_the_same_in_every_language(version: ShippedVersion) -> None:
    authoritative = next(text for text in version.texts if text.is_authoritative)
    for text in version.texts:
        assert skeleton(text.body) == skeleton(authoritative.body), text.language


@pytest.mark.parametrize("version", VERSIONS)
def test_both_chinese_texts_hold_the_same_numbers_and_names(version: ShippedVersion) -> None:
    bodies = {text.language: text.body for text in version.texts}
    # Android is 安卓 in Simplified Chinese only.
    named = {
        language: [word for word in re.findall(r"[A-Za-z0-9.]+", bodies[language]) if word != "Android"]
        for language in ("zh-hans", "zh-hant")
    }
    assert named["zh-hant"] == named["zh-hans"]


@pytest.mark.parametrize("version", VERSIONS)
def test_traditional_text_has_no_simplified_character(version: ShippedVersion) -> None:
    text = next(text for text in version.texts if text.language == "zh-hant")
    # The character set of Hong Kong has no simplified ones: one that slipped in cannot be encoded.
    "".join((text.title, text.summary, *text.matters_most, text.body)).encode("big5hkscs")


@pytest.mark.django_db
def test_traditional_texts_join_versions_that_were_published_without_them(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.glob("*/*/zh-hant.md"):
        file.unlink()
    publish_shipped_texts(now=NOW, folder=tmp_path)
    before = list(Text.objects.order_by("pk").values())

    publication = publish_shipped_texts(now=NOW)

    assert {text.language for text in publication.added} == {"zh-hant"}
    assert len(publication.added) == len(VERSIONS)
    assert not any(text.is_authoritative for text in publication.added)
    assert list(Text.objects.exclude(language="zh-hant").order_by("pk").values()) == before
