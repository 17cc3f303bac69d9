"""What customers choose to hear by which way, and the hours in which nothing rings."""

from datetime import UTC, datetime, time

import pytest
from django.test import Client

from accounts.models import User
from notices.channels.email import compose
from notices.channels.protocol import Outgoing
from notices.kinds import ESTIMATE_CHANGED, KINDS, NEWS, PAYMENT_RECEIVED, Kind, Topic, Urgency
from notices.links import switch_off
from notices.models import Preference, QuietHours
from notices.preferences import (
    Choice,
    NotAChoice,
    asked_off,
    choices_of,
    choose,
    end_of_quiet,
    is_wanted,
    keep_quiet,
    kinds_to_choose,
)
from notices.tests.samples import NOW, customer

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

PAGE = "/messages/preferences/"


def said_of(ada: User) -> dict[tuple[str, str], bool]:
    return {
        (preference.kind, preference.channel): preference.is_wanted
        for preference in Preference.objects.filter(customer=ada)
    }


def chosen(ada: User, kind: Kind) -> list[Choice]:
    [choices] = [found for found in choices_of(ada)[kind.topic] if found.kind is kind]
    return list(choices.by_channel)


def logged_in(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


# --- choosing ----------------------------------------------------------------------------------------


def test_what_is_owed_comes_to_the_inbox_and_by_mail_whatever_is_said() -> None:
    for channel in ("in-site", "email"):
        assert is_wanted(PAYMENT_RECEIVED, channel, said=False)
    assert not is_wanted(PAYMENT_RECEIVED, "push", said=False)
    assert is_wanted(PAYMENT_RECEIVED, "push", said=None)
    assert not is_wanted(NEWS, "email", said=False)
    assert not is_wanted(NEWS, "sms", said=None)
    assert is_wanted(NEWS, "sms", said=True)


def test_every_kind_that_comes_by_more_than_one_way_can_be_chosen_under_its_topic() -> None:
    shown = choices_of(customer())
    assert {choices.kind.slug for topic in shown.values() for choices in topic} == {
        kind.slug for kind in kinds_to_choose()
    }
    assert set(shown) == set(Topic)
    assert {slug for slug in KINDS if KINDS[slug] not in kinds_to_choose()} == {
        "order-placed",
        "guardian-asked",
        "plan-estimate",
        "fees-announced",
        "contact-code",
        "contact-test",
    }


def test_a_choice_is_kept_and_what_is_fixed_is_not_touched() -> None:
    ada = customer()
    choose(
        customer_id=ada.pk,
        wanted={("news", "email"): False, ("news", "in-site"): True, ("payment-received", "email"): False},
        now=NOW,
    )
    assert said_of(ada) == {("news", "email"): False}
    assert chosen(ada, NEWS) == [Choice("in-site", True, False), Choice("email", False, False)]
    assert chosen(ada, PAYMENT_RECEIVED) == [Choice("in-site", True, True), Choice("email", True, True)]


def test_a_choice_that_is_taken_back_is_kept_too() -> None:
    ada = customer()
    choose(customer_id=ada.pk, wanted={("news", "email"): False}, now=NOW)
    choose(customer_id=ada.pk, wanted={("news", "email"): True}, now=NOW)
    assert said_of(ada) == {("news", "email"): True}


def test_what_does_not_exist_cannot_be_chosen_and_nothing_else_is_kept_with_it() -> None:
    ada = customer()
    for unknown in (("news", "pigeon"), ("gossip", "email")):
        with pytest.raises(NotAChoice):
            choose(customer_id=ada.pk, wanted={("news", "email"): False, unknown: True}, now=NOW)
    assert said_of(ada) == {}


# --- the page ----------------------------------------------------------------------------------------


def test_the_page_shows_what_is_chosen_and_keeps_what_is_changed(client: Client) -> None:
    ada = customer()
    page = logged_in(client, ada).get(PAGE).text
    assert '<input type="checkbox" name="news:email" checked>' in page
    assert '<input type="checkbox" name="payment-received:email" checked disabled>' in page

    saved = client.post(
        PAGE, {"news:in-site": "on", "next-in-line:email": "on", "begin_at": "", "end_at": ""}
    )

    assert (saved.status_code, saved.headers["Location"]) == (302, PAGE)
    assert said_of(ada) == {("news", "email"): False, ("next-in-line", "in-site"): False}
    assert '<input type="checkbox" name="news:email">' in client.get(PAGE).text


def test_quiet_hours_are_kept_changed_and_given_up(client: Client) -> None:
    ada = customer()
    logged_in(client, ada).post(PAGE, {"begin_at": "22:00", "end_at": "07:30"})
    assert list(QuietHours.objects.values_list("customer", "begin_at", "end_at")) == [
        (ada.pk, time(22), time(7, 30))
    ]
    assert 'value="07:30"' in client.get(PAGE).text
    client.post(PAGE, {"begin_at": "", "end_at": ""})
    assert not QuietHours.objects.exists()


@pytest.mark.parametrize(
    ("begin_at", "end_at", "said"),
    [
        ("22:00", "", "Give both times, or neither."),
        ("22:00", "22:00", "The quiet hours begin and end at the same time."),
        ("late", "07:00", "Enter a valid time."),
    ],
)
def test_half_of_the_quiet_hours_is_refused_and_nothing_is_kept(
    client: Client, begin_at: str, end_at: str, said: str
) -> None:
    ada = customer()
    refused = logged_in(client, ada).post(PAGE, {"begin_at": begin_at, "end_at": end_at})
    assert refused.status_code == 422
    assert said in refused.text
    assert said_of(ada) == {}
    assert not QuietHours.objects.exists()


def test_half_of_the_quiet_hours_is_no_quiet() -> None:
    for begin_at, end_at in ((time(22), None), (None, time(7)), (time(0), time(0))):
        with pytest.raises(ValueError, match="a beginning and another end"):
            keep_quiet(customer_id=customer().pk, begin_at=begin_at, end_at=end_at)
        User.objects.all().delete()


def test_the_page_is_for_customers_only(client: Client) -> None:
    assert client.get(PAGE).status_code == 302


# --- quiet hours ---------------------------------------------------------------------------------------


def utc(month: int, day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("begin", "end", "zone", "at", "rings_at"),
    [
        # Over midnight: in Berlin it is one hour later than UTC in winter.
        (time(22), time(7), "Europe/Berlin", utc(11, 23, 20, 59), utc(11, 23, 20, 59)),
        (time(22), time(7), "Europe/Berlin", utc(11, 23, 21), utc(11, 24, 6)),
        (time(22), time(7), "Europe/Berlin", utc(11, 24, 5, 59), utc(11, 24, 6)),
        (time(22), time(7), "Europe/Berlin", utc(11, 24, 6), utc(11, 24, 6)),
        # Within one day.
        (time(12), time(14), "Europe/Berlin", utc(11, 23, 11, 30), utc(11, 23, 13)),
        (time(12), time(14), "Europe/Berlin", utc(11, 23, 13), utc(11, 23, 13)),
        # Without a zone of his own, the contract's: Hong Kong.
        (time(22), time(7), "", utc(11, 23, 14), utc(11, 23, 23)),
        # The night in which Berlin's clocks are put back is an hour longer.
        (time(22), time(7), "Europe/Berlin", utc(10, 24, 21), utc(10, 25, 6)),
    ],
)
def test_what_can_wait_rings_when_the_quiet_hours_are_over(
    begin: time, end: time, zone: str, at: datetime, rings_at: datetime
) -> None:
    hours = QuietHours(begin_at=begin, end_at=end)
    assert end_of_quiet(hours, time_zone=zone, urgency=Urgency.NORMAL, now=at) == rings_at
    assert end_of_quiet(hours, time_zone=zone, urgency=Urgency.URGENT, now=at) == at


# --- the link in a mail --------------------------------------------------------------------------------


def mail(ada: User, kind: Kind) -> Outgoing:
    return Outgoing(
        delivery_id=17,
        message_id=1,
        recipient_id=ada.pk,
        address=ada.email,
        details={},
        about="",
        kind=kind,
        language="en",
        subject="Subject",
        body="Words.",
        url="",
    )


def test_a_mail_program_switches_off_what_is_optional_with_one_click(client: Client) -> None:
    ada = customer()
    message = compose(mail(ada, NEWS))
    address = message.extra_headers["List-Unsubscribe"].strip("<>")
    assert message.extra_headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert address in message.body

    path = address.removeprefix("http://127.0.0.1:8000")
    assert "Switch off" in client.get(path).text
    assert said_of(ada) == {}
    done = Client(enforce_csrf_checks=True).post(path, {"List-Unsubscribe": "One-Click"})

    assert done.status_code == 200
    assert said_of(ada) == {("news", "email"): False}


def test_what_is_owed_has_no_such_link() -> None:
    message = compose(mail(customer(), ESTIMATE_CHANGED))
    assert "List-Unsubscribe" not in message.extra_headers
    assert "/off/" not in message.body


@pytest.mark.parametrize("spoil", [lambda path: path[:-3] + "xx/", lambda _: "/messages/off/nonsense/"])
def test_a_spoilt_link_switches_nothing_off(client: Client, spoil: object) -> None:
    ada = customer()
    path = spoil(switch_off(customer_id=ada.pk, kind="news", channel="email"))  # type: ignore[operator]
    assert client.post(path).status_code == 404
    assert said_of(ada) == {}


def test_a_genuine_link_cannot_switch_off_what_is_owed() -> None:
    path = switch_off(customer_id=customer().pk, kind="payment-received", channel="email")
    with pytest.raises(NotAChoice, match="owed"):
        asked_off(path.split("/")[-2])
