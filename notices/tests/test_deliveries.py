"""What staff can do for a delivery, and what a provider reports of it later."""

from datetime import timedelta

import pytest

from accounts.models import User
from notices import deliveries
from notices.channels import CHANNELS
from notices.channels.protocol import Accepted, Refused, Report, Uncertain
from notices.kinds import ALLOCATED
from notices.models import ContactPoint, Delivery, DeliveryEvent
from notices.outbox import drain
from notices.tests.samples import NOW, Outside, Phones, customer, told

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

LATER = NOW + timedelta(hours=1)


@pytest.fixture
def staff() -> User:
    return customer("staff@example.com")


def sent_with(monkeypatch: pytest.MonkeyPatch, *answers: Accepted | BaseException) -> Outside:
    """A notice to Ada went out by mail and met with these answers."""
    double = Outside(*answers)
    monkeypatch.setitem(CHANNELS, "email", double)
    told(customer())
    drain(now=NOW)
    return double


def mail() -> Delivery:
    delivery: Delivery = Delivery.objects.get(channel="email")
    return delivery


def steps() -> list[tuple[int, str, str]]:
    return list(mail().events.order_by("id").values_list("attempt", "step", "detail"))


# --- sending again -----------------------------------------------------------------------------------


def test_what_was_refused_is_sent_again_with_the_same_words(
    monkeypatch: pytest.MonkeyPatch, staff: User
) -> None:
    double = sent_with(monkeypatch, Refused("550 unknown"))
    assert deliveries.resend(delivery_ids=[mail().pk], by=staff, now=LATER) == 1
    drain(now=LATER)
    assert [outgoing.message_id for outgoing in double.taken] == [mail().message_id] * 2
    assert (mail().state, mail().attempts) == ("sent", 2)
    assert steps() == [
        (1, "begun", ""),
        (1, "refused", "550 unknown"),
        (1, "resent", "Asked for by staff@example.com."),
        (2, "begun", ""),
        (2, "accepted", ""),
    ]


def test_what_may_have_arrived_is_sent_again_and_said_to_come_perhaps_twice(
    monkeypatch: pytest.MonkeyPatch, staff: User
) -> None:
    sent_with(monkeypatch, Uncertain("no answer"))
    deliveries.resend(delivery_ids=[mail().pk], by=staff, now=LATER)
    assert steps()[-1] == (1, "resent", "Asked for by staff@example.com. It may arrive twice.")


def test_what_was_sent_or_waits_is_not_sent_again(monkeypatch: pytest.MonkeyPatch, staff: User) -> None:
    sent_with(monkeypatch)
    told(customer("ben@example.com"), key="waits")
    everything = list(Delivery.objects.values_list("pk", flat=True))
    assert deliveries.resend(delivery_ids=everything, by=staff, now=LATER) == 0


# --- what is reported later --------------------------------------------------------------------------


def report(reference: str, *, has_arrived: bool = True, detail: str = "") -> bool:
    return deliveries.report(channel="email", told=Report(reference, has_arrived, detail), now=LATER)


@pytest.mark.parametrize("by", ["his own", "ours", "ours in a Message-ID"])
def test_what_has_arrived_is_written_down_once(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    sent_with(monkeypatch, Accepted("ref-1"))
    reference = {
        "his own": "ref-1",
        "ours": f"delivery-{mail().pk}",
        "ours in a Message-ID": f"<delivery-{mail().pk}@example.com>",
    }[by]
    assert [report(reference, detail="250 ok"), report(reference, detail="250 ok")] == [True, True]
    assert steps() == [(1, "begun", ""), (1, "accepted", ""), (1, "received", "250 ok")]
    assert DeliveryEvent.objects.get(step="received").at == LATER


def test_what_nobody_knew_of_was_sent_when_it_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    sent_with(monkeypatch, Uncertain("no answer"))
    begun = DeliveryEvent.objects.get(step="begun", delivery=mail())
    assert report(f"delivery-{mail().pk}")
    assert (mail().state, mail().sent_at) == ("sent", begun.at)


@pytest.mark.parametrize("reference", ["", "ref-2", "delivery-999999", "delivery-", "nonsense"])
def test_a_report_of_what_we_do_not_know_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    sent_with(monkeypatch, Accepted("ref-1"))
    assert not report(reference)
    assert len(steps()) == 2


def test_a_report_for_another_channel_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    sent_with(monkeypatch, Accepted("ref-1"))
    assert not deliveries.report(channel="sms", told=Report("ref-1", has_arrived=True), now=LATER)


def test_what_comes_back_is_told_by_another_way_and_its_address_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ada, phones = customer(), Phones()
    monkeypatch.setitem(CHANNELS, "sms", phones)
    monkeypatch.setitem(CHANNELS, "email", Outside(Accepted("ref-1")))
    told(ada, kind=ALLOCATED, key="allocated:1")
    drain(now=NOW)
    point = ContactPoint.objects.create(
        customer=ada, channel="sms", address="+85251234567", created_at=NOW, verified_at=NOW
    )

    assert report("ref-1", has_arrived=False, detail="mailbox full")

    assert steps()[-1] == (1, "returned", "mailbox full")
    assert mail().state == "sent"
    drain(now=LATER)
    assert [outgoing.address for outgoing in phones.taken] == [point.address]

    text = Delivery.objects.get(channel="sms")
    reference = f"delivery-{text.pk}"
    assert deliveries.report(channel="sms", told=Report(reference, False, "number given up"), now=LATER)
    point.refresh_from_db()
    assert (point.removed_at, point.removal) == (LATER, "number given up")
