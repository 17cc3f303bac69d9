"""What the law of a country gives: published by edition, found by country, its period never cut short."""

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings as shop
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from agreements.models import StatutoryRight
from agreements.rights import SHIPPED, UnknownRight, in_language, publish_rights, right_of, withdrawal_ends
from agreements.tests.editions import NOW

EU = (SHIPPED / "eu.toml").read_text(encoding="utf-8")


@pytest.fixture
def both(settings: Settings, db: None) -> tuple[StatutoryRight, StatutoryRight]:
    """The rights that ship, in force."""
    settings.STATUTORY_RIGHTS = ["eu", "uk"]
    european, british = publish_rights(now=NOW)
    return european, british


# --- publishing ---


def test_shipped_rights_say_everything_in_every_language(
    both: tuple[StatutoryRight, StatutoryRight],
) -> None:
    languages = {code for code, _name in shop.LANGUAGES}
    for right in both:
        assert set(right.title) == set(right.explanation) == set(right.waiver) == languages
        assert (right.edition, right.withdrawal_days) == (1, 14)
    assert [len(right.countries) for right in both] == [27, 1]


@pytest.mark.usefixtures("both")
def test_publishing_again_adds_nothing() -> None:
    assert publish_rights(now=NOW) == []
    assert StatutoryRight.objects.count() == 2


def test_changed_right_is_a_new_edition_and_the_one_before_stays(
    both: tuple[StatutoryRight, StatutoryRight], settings: Settings, tmp_path: Path
) -> None:
    settings.STATUTORY_RIGHTS = ["eu"]
    (tmp_path / "eu.toml").write_text(
        EU.replace("withdrawal_days = 14", "withdrawal_days = 30"), encoding="utf-8"
    )

    (changed,) = publish_rights(now=NOW, folder=tmp_path)

    assert (changed.key, changed.edition, changed.withdrawal_days) == ("eu", 2, 30)
    both[0].refresh_from_db()
    assert (both[0].edition, both[0].withdrawal_days) == (1, 14)
    assert right_of("DE") == changed


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "STATUTORY_RIGHTS names eu, but there is no "),
        (EU.replace('law = "Directive', 'act = "Directive'), "eu.toml does not say: law."),
    ],
)
def test_right_without_a_file_or_with_a_gap_is_not_published(
    settings: Settings, tmp_path: Path, content: str | None, message: str
) -> None:
    settings.STATUTORY_RIGHTS = ["eu"]
    if content is not None:
        (tmp_path / "eu.toml").write_text(content, encoding="utf-8")

    with pytest.raises(UnknownRight, match=message):
        publish_rights(now=NOW, folder=tmp_path)

    assert not StatutoryRight.objects.exists()


@pytest.mark.django_db
def test_command_publishes_rights_and_says_so_once(settings: Settings) -> None:
    settings.STATUTORY_RIGHTS = ["eu"]
    first, second = StringIO(), StringIO()

    call_command("publish_agreements", stdout=first)
    call_command("publish_agreements", stdout=second)

    said = "published right eu, edition 1: Directive 2011/83/EU, articles 9 to 16"
    assert said in first.getvalue().splitlines()
    assert "published right" not in second.getvalue()
    assert second.getvalue().splitlines()[0] == "nothing new to publish"


@pytest.mark.django_db
def test_command_refuses_a_right_that_is_not_there(settings: Settings) -> None:
    settings.STATUTORY_RIGHTS = ["atlantis"]

    with pytest.raises(CommandError, match="STATUTORY_RIGHTS names atlantis"):
        call_command("publish_agreements", stdout=StringIO())


# --- which applies ---


@pytest.mark.clause("3.3")
def test_country_has_the_right_that_names_it(both: tuple[StatutoryRight, StatutoryRight]) -> None:
    european, british = both
    assert [right_of(country) for country in ("DE", "GR", "GB", "HK", "CH", "")] == [
        european,
        european,
        british,
        None,
        None,
        None,
    ]


@pytest.mark.usefixtures("both")
def test_right_that_the_setting_does_not_name_does_not_apply(settings: Settings) -> None:
    settings.STATUTORY_RIGHTS = []
    assert right_of("DE") is None


def test_what_is_not_said_in_a_language_is_said_in_the_shops_own() -> None:
    said = {"en": "Hello", "zh-hans": "你好"}
    assert [in_language(said, language) for language in ("zh-hans", "zh-hant")] == ["你好", "Hello"]


# --- how long ---


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("ordered_at", "ends"),
    [
        # 04:00 UTC is November 23 everywhere from UTC-4 to UTC+14; the 14th day after it is December 7.
        (datetime(2026, 11, 23, 4, tzinfo=UTC), datetime(2026, 12, 8, 12, tzinfo=UTC)),
        (datetime(2026, 11, 23, 9, 59, 59, tzinfo=UTC), datetime(2026, 12, 8, 12, tzinfo=UTC)),
        # At 10:00 UTC November 24 begins where days begin first.
        (datetime(2026, 11, 23, 10, tzinfo=UTC), datetime(2026, 12, 9, 12, tzinfo=UTC)),
    ],
)
def test_last_day_is_the_14th_after_the_day_of_the_order(ordered_at: datetime, ends: datetime) -> None:
    assert withdrawal_ends(StatutoryRight(withdrawal_days=14), ordered_at=ordered_at) == ends


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("ordered_at", "whole_period_ends"),
    [
        ("2026-11-23T00:30+01:00", "2026-12-08T00:00+01:00"),  # Berlin
        ("2026-11-23T23:59+01:00", "2026-12-08T00:00+01:00"),  # Berlin
        ("2026-07-01T00:30+03:00", "2026-07-16T00:00+03:00"),  # Helsinki
        ("2026-11-23T01:00+04:00", "2026-12-08T00:00+04:00"),  # Réunion
        ("2026-11-23T23:00-04:00", "2026-12-08T00:00-04:00"),  # Martinique
        ("2026-11-23T00:00+14:00", "2026-12-08T00:00+14:00"),  # Kiritimati
        ("2026-11-23T23:59-11:00", "2026-12-08T00:00-11:00"),  # Pago Pago
    ],
)
def test_nobody_has_fewer_than_the_whole_days_by_his_own_clock(
    ordered_at: str, whole_period_ends: str
) -> None:
    ends = withdrawal_ends(StatutoryRight(withdrawal_days=14), ordered_at=datetime.fromisoformat(ordered_at))
    assert ends >= datetime.fromisoformat(whole_period_ends)
