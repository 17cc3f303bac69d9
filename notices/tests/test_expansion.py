"""From a notice to its deliveries: preferences, quiet hours, threads, fallbacks."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from notices import pacing
from notices.channels import CHANNELS
from notices.channels.protocol import Gone, Refused, Unavailable
from notices.expansion import expand
from notices.kinds import ALLOCATED, ESTIMATE_CHANGED, NEWS, PAYMENT_RECEIVED, SECURITY, Form, Kind
from notices.models import ContactPoint, Delivery, Notice, Preference, QuietHours
from notices.outbox import drain, tell
from notices.tests.samples import NOW, Outside, Phones, customer, draft

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

TOMORROW = NOW + timedelta(days=1)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    """The channel "email" ends here."""
    double = Outside()
    monkeypatch.setitem(CHANNELS, "email", double)
    return double


@pytest.fixture
def phones(monkeypatch: pytest.MonkeyPatch) -> Phones:
    """The channel "sms" ends here; it rings."""
    double = Phones()
    monkeypatch.setitem(CHANNELS, "sms", double)
    return double


def phone_of(customer: User, number: str = "+85251234567") -> ContactPoint:
    point: ContactPoint = ContactPoint.objects.create(
        customer=customer, channel="sms", address=number, created_at=NOW, verified_at=NOW
    )
    return point


def tell_of(kind: Kind, customer: User, *, key: str = "", thread: str = "") -> Notice:
    key = key or f"{kind.slug}:1"
    with transaction.atomic():
        tell([replace(draft(customer, kind=kind, key=key), thread=thread)], now=NOW)
    return Notice.objects.get(dedupe_key=key)


def made(notice: Notice) -> list[tuple[str, str]]:
    return list(notice.deliveries.order_by("id").values_list("channel", "state"))


def drain_all(now: datetime = NOW) -> None:
    """Until nothing is due, each turn a second after the last: what one has made may be another's."""
    while drain(now=now):
        now += timedelta(seconds=1)


# --- what is wanted -----------------------------------------------------------------------------------


def test_a_customers_word_switches_channels_on_and_off_but_not_what_is_owed(phones: Phones) -> None:
    ada = customer()
    phone_of(ada)
    for kind, channel, is_wanted in (
        ("news", "email", False),
        ("news", "sms", True),
        ("allocated", "sms", False),
        ("allocated", "email", False),
    ):
        Preference.objects.create(
            customer=ada, kind=kind, channel=channel, is_wanted=is_wanted, changed_at=NOW
        )
    allocated = tell_of(ALLOCATED, ada)
    security = tell_of(SECURITY, ada)
    with transaction.atomic():
        tell([replace(draft(ada, key="news"), kind=NEWS)], now=NOW)
    expand(now=NOW)

    assert [channel for channel, _ in made(allocated)] == ["in-site", "email"]
    assert sorted(channel for channel, _ in made(security)) == ["email", "in-site", "sms"]
    assert sorted(channel for channel, _ in made(Notice.objects.get(kind="news"))) == ["in-site", "sms"]


def test_who_has_no_address_at_a_channel_is_not_written_to_by_it(phones: Phones) -> None:
    ada, ben = customer(), customer("ben@example.com")
    phone_of(ben)
    gone = phone_of(ada)
    ContactPoint.objects.filter(pk=gone.pk).update(removed_at=NOW)
    of_ada, of_ben = tell_of(ALLOCATED, ada), tell_of(ALLOCATED, ben, key="ben")
    expand(now=NOW)
    assert "sms" not in dict(made(of_ada))
    assert "sms" in dict(made(of_ben))


def test_a_channel_that_lacks_its_settings_gets_nothing_to_do(phones: Phones) -> None:
    ada = customer()
    phone_of(ada)
    phones.lacks = ("SMS_KEY",)
    notice = tell_of(ALLOCATED, ada)
    expand(now=NOW)
    assert [channel for channel, _ in made(notice)] == ["in-site", "email"]


def test_what_can_wait_does_not_ring_at_night_and_the_rest_comes_at_once(phones: Phones) -> None:
    ada = customer()
    phone_of(ada)
    # It is half past twelve at noon in Hong Kong.
    QuietHours.objects.create(customer=ada, begin_at=time(12), end_at=time(14))
    allocated, security = tell_of(ALLOCATED, ada), tell_of(SECURITY, ada)
    expand(now=NOW)

    assert dict(allocated.deliveries.values_list("channel", "due_at")) == {
        "in-site": NOW,
        "email": NOW,
        "sms": datetime(2026, 11, 23, 6, 0, tzinfo=UTC),
    }
    assert set(security.deliveries.values_list("due_at", flat=True)) == {NOW}


@pytest.mark.parametrize("why", ["tried again", "stopped", "hours set later"])
def test_what_rings_when_it_is_sent_and_not_when_it_was_due_waits_for_the_morning(
    phones: Phones, why: str
) -> None:
    ada = customer()
    phone_of(ada)
    # One minute to noon in Hong Kong; her quiet hours are from noon to two.
    before_noon, noon = NOW - timedelta(minutes=31), NOW
    two = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
    if why != "hours set later":
        QuietHours.objects.create(customer=ada, begin_at=time(12), end_at=time(14))
    if why == "tried again":
        phones.answers = [Unavailable("busy", retry_after=timedelta(minutes=20))]
    else:
        pacing.pause("sms", by_id=customer("staff@example.com").pk, now=before_noon)
    tell_of(ALLOCATED, ada)
    drain_all(before_noon)
    if why == "hours set later":
        QuietHours.objects.create(customer=ada, begin_at=time(12), end_at=time(14))
    pacing.resume("sms")
    phones.taken.clear()

    drain_all(noon)
    text = Delivery.objects.get(channel="sms")
    assert phones.taken == []
    assert (text.state, text.due_at, text.lease_until) == ("queued", two, None)
    assert text.attempts == (1 if why == "tried again" else 0)

    drain_all(two)
    assert [outgoing.delivery_id for outgoing in phones.taken] == [text.pk]


def test_what_is_urgent_and_what_does_not_ring_is_sent_in_quiet_hours(
    phones: Phones, outside: Outside
) -> None:
    ada, ben = customer(), customer("ben@example.com")
    for reader in (ada, ben):
        phone_of(reader)
    QuietHours.objects.create(customer=ada, begin_at=time(12), end_at=time(14))
    tell_of(SECURITY, ada)
    tell_of(ALLOCATED, ben)
    drain_all()
    assert {outgoing.recipient_id for outgoing in phones.taken} == {ada.pk, ben.pk}
    assert len(outside.taken) == 2


def test_many_notices_take_as_many_statements_as_one(phones: Phones) -> None:
    people = [customer(f"c{number}@example.com") for number in range(40)]
    for ada in people:
        phone_of(ada)

    def statements(recipients: Sequence[User], *, round_of: str) -> int:
        with transaction.atomic():
            tell(
                [replace(draft(ada, key=f"{round_of}:{ada.pk}"), kind=ALLOCATED) for ada in recipients],
                now=NOW,
            )
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert expand(now=NOW) == len(recipients)
        return len(captured)

    assert statements(people[:1], round_of="one") == statements(people, round_of="many")
    assert Delivery.objects.count() == 41 * 3


# --- threads -------------------------------------------------------------------------------------------


def test_something_newer_supersedes_what_was_not_sent_by_the_same_channel(
    outside: Outside, phones: Phones
) -> None:
    ada = customer()
    phone_of(ada)
    old = tell_of(ESTIMATE_CHANGED, ada, key="old", thread="estimate:1")
    expand(now=NOW)
    # The newer one is less important, and not worth a text message.
    new = tell_of(PAYMENT_RECEIVED, ada, key="new", thread="estimate:1")
    another = tell_of(ESTIMATE_CHANGED, ada, key="another", thread="estimate:2")
    expand(now=NOW)

    assert dict(made(old)) == {"in-site": "superseded", "email": "superseded", "sms": "queued"}
    assert dict(made(new)) == {"in-site": "queued", "email": "queued"}
    assert set(dict(made(another)).values()) == {"queued"}


def test_of_several_of_a_thread_that_are_handed_out_together_the_newest_goes(outside: Outside) -> None:
    ada, ben = customer(), customer("ben@example.com")
    for number in range(3):
        tell_of(ESTIMATE_CHANGED, ada, key=f"ada-{number}", thread="estimate:1")
    tell_of(ESTIMATE_CHANGED, ben, key="ben", thread="estimate:1")
    drain_all()
    assert [outgoing.recipient_id for outgoing in outside.taken] == [ada.pk, ben.pk]
    assert made(Notice.objects.get(dedupe_key="ada-2")) == [("in-site", "sent"), ("email", "sent")]
    assert made(Notice.objects.get(dedupe_key="ada-1")) == [
        ("in-site", "superseded"),
        ("email", "superseded"),
    ]


def test_what_was_sent_before_something_newer_came_stays_as_it_is(outside: Outside) -> None:
    ada = customer()
    old = tell_of(ESTIMATE_CHANGED, ada, key="old", thread="estimate:1")
    drain_all()
    tell_of(ESTIMATE_CHANGED, ada, key="new", thread="estimate:1")
    drain_all()
    assert made(old) == [("in-site", "sent"), ("email", "sent")]
    assert len(outside.taken) == 2


# --- fallbacks -----------------------------------------------------------------------------------------


def test_when_nothing_outside_has_worked_the_fallbacks_of_the_kind_are_used(
    monkeypatch: pytest.MonkeyPatch, phones: Phones
) -> None:
    ada = customer()
    point = phone_of(ada)
    Preference.objects.create(customer=ada, kind="allocated", channel="sms", is_wanted=False, changed_at=NOW)
    monkeypatch.setitem(CHANNELS, "email", Outside(Refused("550 no such mailbox")))
    notice = tell_of(ALLOCATED, ada)
    drain_all()
    assert made(notice) == [("in-site", "sent"), ("email", "dead"), ("sms", "sent")]
    assert notice.deliveries.get(channel="sms").contact_point == point


def test_as_long_as_something_outside_may_still_arrive_no_fallback_is_used(
    monkeypatch: pytest.MonkeyPatch, phones: Phones
) -> None:
    ada = customer()
    phone_of(ada)
    phones.answers = [Refused("the number is barred")]
    monkeypatch.setitem(CHANNELS, "email", Outside())
    notice = tell_of(ALLOCATED, ada)
    drain_all()
    assert sorted(made(notice)) == [("email", "sent"), ("in-site", "sent"), ("sms", "dead")]


def test_who_is_reached_by_no_way_that_is_left_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ada = customer()
    monkeypatch.setitem(CHANNELS, "email", Outside(Refused("550 no such mailbox")))
    notice = tell_of(ALLOCATED, ada)
    drain_all()
    assert f"Notice {notice.pk} reaches ada@example.com by no way that is left." in caplog.text


def test_an_address_that_is_gone_is_written_to_no_more(outside: Outside, phones: Phones) -> None:
    ada = customer()
    point = phone_of(ada)
    phones.answers = [Gone("410 gone")]
    tell_of(ALLOCATED, ada)
    drain_all()
    point.refresh_from_db()
    assert (point.removed_at is not None, point.removal) == (True, "410 gone")
    again = tell_of(ALLOCATED, ada, key="again")
    expand(now=TOMORROW)
    assert "sms" not in dict(made(again))


def test_channels_know_how_much_room_they_have(phones: Phones, outside: Outside) -> None:
    ada = customer()
    phone_of(ada)
    tell_of(ALLOCATED, ada)
    drain_all()
    assert phones.form is Form.SHORT
    [text] = phones.taken
    assert text.subject == "Order VP-7K2M: your cloud phone is ready"
    assert text.body == (
        "Order VP-7K2M: 1 cloud phone Pro & Max is activated. Its service period ends on Dec. 23, 2026, 12:30 p.m. (HKT)."
    )
