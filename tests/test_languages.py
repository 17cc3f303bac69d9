"""The shop speaks the reader's language on every page, and both kinds of Chinese say the same."""

import re
from collections import Counter
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from django.conf import settings
from django.core import mail
from django.test import Client

from accounts.models import User
from agreements.publishing import publish_shipped_texts
from notices.outbox import drain
from notices.tests.samples import NOW, told

PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|%[sd%]|\{\w*\}|</?\w[^>]*>")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def page(client: Client, address: str, *, accept: str) -> str:
    answer = client.get(address, headers={"accept-language": accept}, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def catalogue(locale: str) -> Catalog:
    [folder] = settings.LOCALE_PATHS
    with (Path(folder) / locale / "LC_MESSAGES" / "django.po").open("rb") as file:
        return read_po(file, ignore_obsolete=True)


def said(catalog: Catalog) -> dict[tuple[str | None, str], str]:
    """The translation of every message, by its context and its English. Chinese has one form for any number."""
    return {
        (message.context, message.id if isinstance(message.id, str) else message.id[0]): "".join(
            message.string or ()
        )
        for message in catalog
        if message.id
    }


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("zh-HK,zh;q=0.9,en;q=0.8", "zh-hant"),
        ("zh-TW", "zh-hant"),
        ("zh-MO", "zh-hant"),
        ("zh-Hant", "zh-hant"),
        ("zh-Hant-HK", "zh-hant"),
        ("zh-CN,zh;q=0.9", "zh-hans"),
        ("zh-SG", "zh-hans"),
        ("zh-Hans", "zh-hans"),
        ("zh", "zh-hans"),
        ("en-HK", "en"),
        ("fr", "en"),
    ],
)
def test_pages_are_in_the_language_the_browser_asks_for(client: Client, accept: str, language: str) -> None:
    html = page(client, "/", accept=accept)
    assert f'<html lang="{language}">' in html
    assert ("雲手機" in html, "云手机" in html) == (language == "zh-hant", language == "zh-hans")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/accounts/login/", "登入"),
        ("/accounts/signup/", "建立帳戶"),
        ("/agreements/", "預付款購買協議"),
        ("/agreements/prepayment/1/", "預售期內不予退款"),
        ("/admin/", "密碼"),
    ],
)
def test_every_part_of_the_site_speaks_traditional_chinese(client: Client, address: str, words: str) -> None:
    publish_shipped_texts(now=NOW)
    html = page(client, address, accept="zh-HK")
    assert 'lang="zh-hant"' in html
    assert words in html


@pytest.mark.django_db
def test_switch_offers_every_language_in_its_own_name(client: Client) -> None:
    html = page(client, "/", accept="en")
    for language, name in (("en", "English"), ("zh-hans", "简体中文"), ("zh-hant", "繁體中文")):
        assert re.search(rf'<button [^>]*value="{language}" lang="{language}"[^>]*>{name}</button>', html)


@pytest.mark.django_db
def test_who_signs_up_in_traditional_chinese_is_written_to_in_it(client: Client) -> None:
    client.post(
        "/accounts/signup/",
        {"email": "chan@example.com", "password1": "correct horse battery"},
        headers={"accept-language": "zh-HK"},
    )
    assert User.objects.get().language == "zh-hant"
    [confirmation] = mail.outbox
    assert "註冊" in str(confirmation.body)


@pytest.mark.django_db(transaction=True)
@pytest.mark.clause("VIII")
def test_notice_goes_out_in_traditional_chinese() -> None:
    reader = User.objects.create_user("chan@example.com", language="zh-hant", time_zone="Asia/Hong_Kong")
    told(reader)

    drain(now=NOW)

    [message] = mail.outbox
    assert message.subject == "訂單 VP-7K2M 已收到付款"
    assert "付款成功於 2026年11月23日 12:21 (HKT)。" in str(message.body)
    [(html, kind)] = message.alternatives  # type: ignore[attr-defined]
    assert kind == "text/html"
    assert '<html lang="zh-hant">' in str(html)


def test_traditional_chinese_says_everything_that_simplified_chinese_says() -> None:
    hans, hant = said(catalogue("zh_Hans")), said(catalogue("zh_Hant"))
    assert hant.keys() == hans.keys()
    differing = {
        key
        for key, words in hans.items()
        if Counter(PLACEHOLDER.findall(words)) != Counter(PLACEHOLDER.findall(hant[key]))
    }
    assert differing == set()


def test_traditional_catalogue_has_no_simplified_character() -> None:
    for words in said(catalogue("zh_Hant")).values():
        # The character set of Hong Kong has no simplified ones: one that slipped in cannot be encoded.
        "".join(CHINESE.findall(words)).encode("big5hkscs")
