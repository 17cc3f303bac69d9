"""What is not sent after all: on record with who wanted it, and told by another way if that was the last hope."""

from datetime import time, timedelta

import pytest
from django.db import transaction
from django.db.models import QuerySet
from pytest_django import Settings

from accounts.models import User
from notices import contacts, deliveries, expansion
from notices.cancelling import cancel, give_up
from notices.channels import CHANNELS
from notices.channels.protocol import Gone, Refused, Unavailable
from notices.contacts import PostalAddress
from notices.expansion import expand
from notices.kinds import ALLOCATED, PAYMENT_RECEIVED
from notices.models import ContactPoint, Delivery, DeliveryEvent, Message, Notice, QuietHours
from notices.outbox import drain
from notices.tests.samples import NOW, Outside, Phones, customer, told
from tests.racing import in_background, wait_until_blocked

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("VIII")]


@pytest.fixture(autouse=True)
def phones(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Phones:
    """The channel "sms" ends here, and letters can be written."""
    settings.SELLER_ADDRESS = "1 Harbour Road\nHong Kong"
    double = Phones()
    monkeypatch.setitem(CHANNELS, "sms", double)
    return double


def mails_end_in(monkeypatch: pytest.MonkeyPatch, *answers: BaseException) -> Outside:
    double = Outside(*answers)
    monkeypatch.setitem(CHANNELS, "email", double)
    return double


def reached_at(reader: User, channel: str, address: str) -> ContactPoint:
    point: ContactPoint = ContactPoint.objects.create(
        customer=reader, channel=channel, address=address, created_at=NOW, verified_at=NOW
    )
    return point


def drain_all() -> None:
    while drain(now=NOW):
        pass


def states(notice: Notice) -> list[tuple[str, str, str]]:
    """Of what leaves our site, by channel."""
    outside = notice.deliveries.exclude(channel="in-site").order_by("channel", "id")
    return list(outside.values_list("channel", "address", "state"))


@pytest.fixture
def waiting_text(monkeypatch: pytest.MonkeyPatch) -> Delivery:
    """A text message that waits for the end of quiet hours; the mail of the same notice was refused."""
    ada = customer()
    mails_end_in(monkeypatch, Refused("550 no such user"))
    reached_at(ada, "sms", "+85251234567")
    reached_at(ada, "letter", "Ada, 1 Old Street, GB")
    QuietHours.objects.create(customer=ada, begin_at=time(12), end_at=time(14))
    notice = told(ada, kind=ALLOCATED)
    drain_all()
    assert [state for _, _, state in states(notice)] == ["dead", "queued"]
    text: Delivery = notice.deliveries.select_related("contact_point__customer").get(channel="sms")
    return text


# --- the last hope -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["the customer", "the provider", "staff"])
def test_a_notice_whose_last_hope_is_cancelled_goes_by_the_next_fallback(
    waiting_text: Delivery, by: str
) -> None:
    point = waiting_text.contact_point
    assert point
    staff = customer("staff@example.com")
    if by == "the customer":
        contacts.remove(customer_id=point.customer_id, contact_point_id=point.pk, now=NOW)
    elif by == "the provider":
        contacts.unbind(channel="sms", identity=point.address, reason="It is used no more.", now=NOW)
    else:
        assert cancel(delivery_ids=[waiting_text.pk], by=staff, now=NOW) == 1

    said = {
        "the customer": "The customer has removed it.",
        "the provider": "It is used no more.",
        "staff": "Cancelled by staff@example.com.",
    }[by]
    assert states(waiting_text.notice) == [
        ("email", "ada@example.com", "dead"),
        ("letter", "Ada, 1 Old Street, GB", "queued"),
        ("sms", "+85251234567", "cancelled"),
    ]
    [event] = waiting_text.events.all()
    assert (event.step, event.attempt, event.at, event.address, event.message, event.detail) == (
        "cancelled",
        0,
        NOW,
        "+85251234567",
        None,
        said,
    )
    waiting_text.refresh_from_db()
    assert waiting_text.problem == said


def test_an_address_that_is_gone_takes_what_waits_for_it_to_the_fallback(
    monkeypatch: pytest.MonkeyPatch, phones: Phones
) -> None:
    ada = customer()
    mails_end_in(monkeypatch, Refused("550 no such user"), Refused("550 no such user"))
    reached_at(ada, "sms", "+85251234567")
    reached_at(ada, "letter", "Ada, 1 Old Street, GB")
    phones.answers = [Gone("no such number")]
    phones.claimed_at_once = 1
    first, second = (told(ada, kind=ALLOCATED, key=key) for key in ("first", "second"))
    drain_all()
    letter = ("letter", "Ada, 1 Old Street, GB", "queued")
    assert states(first)[1:] == [letter, ("sms", "+85251234567", "dead")]
    assert states(second)[1:] == [letter, ("sms", "+85251234567", "cancelled")]
    [event] = DeliveryEvent.objects.filter(delivery__notice=second, delivery__channel="sms")
    assert (event.step, event.detail) == ("cancelled", "no such number")


def test_as_long_as_another_way_is_open_nothing_takes_the_place_of_what_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ada = customer()
    mails_end_in(monkeypatch, Unavailable("busy"))
    point = reached_at(ada, "sms", "+85251234567")
    reached_at(ada, "letter", "Ada, 1 Old Street, GB")
    QuietHours.objects.create(customer=ada, begin_at=time(12), end_at=time(14))
    notice = told(ada, kind=ALLOCATED)
    drain_all()
    contacts.remove(customer_id=ada.pk, contact_point_id=point.pk, now=NOW)
    assert states(notice) == [("email", "ada@example.com", "queued"), ("sms", "+85251234567", "cancelled")]


def test_what_something_newer_tells_better_gets_no_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = customer()
    mails_end_in(monkeypatch)
    point = reached_at(ada, "sms", "+85251234567")
    reached_at(ada, "letter", "Ada, 1 Old Street, GB")
    old = told(ada, kind=ALLOCATED)
    expand(now=NOW)
    old.deliveries.filter(channel="email").update(state="superseded")
    contacts.remove(customer_id=ada.pk, contact_point_id=point.pk, now=NOW)
    assert states(old) == [("email", "ada@example.com", "superseded"), ("sms", "+85251234567", "cancelled")]


def test_what_waits_can_be_cancelled_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    staff = customer("staff@example.com")
    mails_end_in(monkeypatch, Unavailable("busy"))
    notice = told(customer())
    drain_all()
    everything = list(Delivery.objects.values_list("pk", flat=True))
    assert cancel(delivery_ids=everything, by=staff, now=NOW) == 1
    assert cancel(delivery_ids=everything, by=staff, now=NOW) == 0
    mail = notice.deliveries.get(channel="email")
    assert (mail.state, mail.problem) == ("cancelled", "Cancelled by staff@example.com.")
    assert list(mail.events.values_list("attempt", "step", "detail")) == [
        (1, "begun", ""),
        (1, "failed", "busy"),
        (1, "cancelled", "Cancelled by staff@example.com."),
    ]
    assert drain(now=NOW + timedelta(days=2)) == 0


def test_what_a_worker_has_claimed_is_cancelled_before_it_begins() -> None:
    ada = customer()
    point = reached_at(ada, "sms", "+85251234567")
    told(ada, kind=ALLOCATED)
    expand(now=NOW)
    with transaction.atomic():
        [claimed] = deliveries.claim(channel="sms", limit=1, now=NOW)
    contacts.remove(customer_id=ada.pk, contact_point_id=point.pk, now=NOW)
    message = Message.objects.create(sha256="0" * 64, language="en", subject="s", body="b")
    with transaction.atomic():
        assert deliveries.begin(claimed, message=message, now=NOW) is None
    assert Delivery.objects.get(pk=claimed.id).state == "cancelled"


# --- one address for another -------------------------------------------------------------------------


def test_what_waits_for_an_old_address_goes_to_the_new_one() -> None:
    ada = customer()
    old = PostalAddress("Ada", ("1 Old Street",), "GB")
    new = PostalAddress("Ada", ("2 New Street",), "GB")
    contacts.add_postal_address(customer_id=ada.pk, postal=old, now=NOW)
    notice = told(ada, kind=PAYMENT_RECEIVED)
    Notice.objects.exclude(pk=notice.pk).update(is_expanded=True)
    expand(now=NOW)
    point = ContactPoint.objects.get(channel="letter")
    # It has no fallbacks: what waits would be lost without the new address.
    Delivery.objects.create(
        notice=notice, channel="letter", address=point.address, contact_point=point, due_at=NOW
    )
    later = NOW + timedelta(days=1)
    contacts.add_postal_address(customer_id=ada.pk, postal=new, now=later)
    assert states(notice) == [
        ("email", "ada@example.com", "queued"),
        ("letter", "Ada, 1 Old Street, GB", "cancelled"),
        ("letter", "Ada, 2 New Street, GB", "queued"),
    ]
    letter = notice.deliveries.get(channel="letter", state="queued")
    assert (letter.contact_point, letter.due_at) == (ContactPoint.objects.get(removed_at=None), NOW)


def test_an_address_that_is_only_set_otherwise_keeps_what_waits_for_it() -> None:
    ada = customer()
    contacts.add_postal_address(
        customer_id=ada.pk, postal=PostalAddress("Ada", ("1 Old Street, Leeds",), "GB"), now=NOW
    )
    notice = told(ada)
    point = ContactPoint.objects.get(channel="letter")
    Delivery.objects.create(
        notice=notice, channel="letter", address=point.address, contact_point=point, due_at=NOW
    )
    contacts.add_postal_address(
        customer_id=ada.pk, postal=PostalAddress("Ada", ("1 Old Street", "Leeds"), "GB"), now=NOW
    )
    assert states(notice) == [("letter", "Ada, 1 Old Street, Leeds, GB", "queued")]


# --- at once -----------------------------------------------------------------------------------------


@pytest.mark.postgres
@pytest.mark.parametrize("locks", [True, False])
def test_two_last_hopes_lost_at_the_same_moment_leave_one_fallback(
    monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """Without the lock on the notice each of the two sees hope in the other's delivery, and nothing is sent."""
    ada = customer()
    numbers = [reached_at(ada, "sms", number) for number in ("+85251234567", "+85251234568")]
    reached_at(ada, "letter", "Ada, 1 Old Street, GB")
    notice = told(ada, kind=ALLOCATED)
    expand(now=NOW)
    notice.deliveries.filter(channel="email").update(state="dead")
    if not locks:
        monkeypatch.setattr(QuerySet, "select_for_update", lambda rows, **_: rows)

    def lose(point: ContactPoint) -> None:
        with transaction.atomic():
            give_up([point.pk], reason="Gone.", now=NOW)

    with transaction.atomic():
        give_up([numbers[0].pk], reason="Gone.", now=NOW)
        other = in_background(lambda: lose(numbers[1]))
        if locks:
            wait_until_blocked()
        else:
            other.result(60)
    other.result(60)
    letters = [address for channel, address, _ in states(notice) if channel == "letter"]
    assert letters == (["Ada, 1 Old Street, GB"] if locks else [])


@pytest.mark.postgres
@pytest.mark.parametrize("looks", [True, False])
def test_what_is_written_for_a_number_while_it_is_removed_does_not_go_there(
    monkeypatch: pytest.MonkeyPatch, phones: Phones, looks: bool
) -> None:
    """Whoever removes it does not see it yet, and it was read as one in use. Without the look before it is sent, it goes there."""
    ada = customer()
    mails_end_in(monkeypatch, Refused("550 no such user"), Refused("550 no such user"))
    point = reached_at(ada, "sms", "+85251234567")
    reached_at(ada, "letter", "Ada, 1 Old Street, GB")
    notice = told(ada, kind=ALLOCATED)
    insert = expansion._insert

    def late(routes: list[expansion._Route]) -> None:
        in_background(lambda: contacts.remove(customer_id=ada.pk, contact_point_id=point.pk, now=NOW)).result(
            60
        )
        insert(routes)

    with monkeypatch.context() as slow:
        slow.setattr(expansion, "_insert", late)
        expand(now=NOW)
    if not looks:
        monkeypatch.setattr(deliveries, "still_reached", lambda claimed, **_: claimed)
    drain_all()
    assert [text.address for text in phones.taken] == ([] if looks else ["+85251234567"])
    if looks:
        assert states(notice) == [
            ("email", "ada@example.com", "dead"),
            ("letter", "Ada, 1 Old Street, GB", "queued"),
            ("sms", "+85251234567", "cancelled"),
        ]
        assert notice.deliveries.get(channel="sms").problem == "The customer has removed it."
