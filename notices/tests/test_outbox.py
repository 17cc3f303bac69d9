"""The outbox: with its cause or not at all, at least once, recorded once for each channel."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from accounts.models import User
from notices import deliveries, outbox, pacing
from notices.channels import CHANNELS
from notices.channels.in_site import InSite
from notices.channels.protocol import Accepted, Outgoing, Refused, Report, Unavailable, Uncertain
from notices.expansion import expand
from notices.kinds import ESTIMATE_CHANGED, GUARDIAN_ASKED, KINDS, ORDER_PLACED, REFUND_APPROVED, SECURITY
from notices.links import signed
from notices.models import Delivery, DeliveryEvent, DeliveryState, InboxMessage, Message, Notice
from notices.outbox import Draft, drain, tell
from notices.tests.carrying import proved_phone
from notices.tests.samples import NOW, Outside, Phones, customer, draft, told

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("VIII")]

HOUR = timedelta(hours=1)
LATER = NOW + timedelta(minutes=6)  # after every lease, before no pause
TOMORROW = NOW + timedelta(days=1)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    """The channel "email" ends here."""
    double = Outside()
    monkeypatch.setitem(CHANNELS, "email", double)
    return double


def answer_with(monkeypatch: pytest.MonkeyPatch, *answers: Accepted | BaseException) -> Outside:
    double = Outside(*answers)
    monkeypatch.setitem(CHANNELS, "email", double)
    return double


def email_delivery() -> Delivery:
    return Delivery.objects.get(channel="email")


def steps(delivery: Delivery) -> list[tuple[int, str]]:
    return [(event.attempt, event.step) for event in delivery.events.all()]


# --- telling -----------------------------------------------------------------------------------------


def test_a_notice_goes_with_its_cause_when_that_is_rolled_back() -> None:
    ada = customer()

    def rename_and_tell() -> None:
        with transaction.atomic():
            User.objects.filter(pk=ada.pk).update(name="Ada")
            tell([draft(ada)], now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rename_and_tell()
    assert User.objects.get(pk=ada.pk).name == ""
    assert Notice.objects.count() == 0
    assert drain(now=NOW) == 0


def test_a_notice_cannot_be_told_outside_a_transaction() -> None:
    ada = customer()
    with pytest.raises(transaction.TransactionManagementError):
        tell([draft(ada)], now=NOW)


def test_what_has_one_key_is_told_once_and_the_first_words_stand() -> None:
    ada = customer()
    first = told(ada)
    again = Draft(ada.pk, ORDER_PLACED, "VP-XXXX", "/", {"reference": "VP-XXXX"}, first.dedupe_key)
    with transaction.atomic():
        tell([again, draft(ada, key="another")], now=LATER)
    assert list(Notice.objects.order_by("id").values_list("dedupe_key", "kind", "created_at")) == [
        ("payment-received:1", "payment-received", NOW),
        ("another", "payment-received", LATER),
    ]


def test_every_channel_is_named_by_some_kind() -> None:
    assert set(CHANNELS) <= {slug for kind in KINDS.values() for slug in (*kind.channels, *kind.fallbacks)}


# --- handing to the channels -------------------------------------------------------------------------


def test_expansion_makes_one_delivery_for_each_channel_of_the_kind() -> None:
    ada = customer()
    told(ada)
    told(ada, kind=ORDER_PLACED, key="order-placed:1")
    assert expand(now=NOW) == 2
    assert list(
        Delivery.objects.order_by("id").values_list("notice__kind", "channel", "address", "state")
    ) == [
        ("payment-received", "in-site", str(ada.pk), "queued"),
        ("payment-received", "email", "ada@example.com", "queued"),
        ("order-placed", "in-site", str(ada.pk), "queued"),
    ]


@pytest.mark.clause("preamble")
def test_what_is_told_to_somebody_without_an_account_goes_to_his_address_by_mail_alone(
    outside: Outside,
) -> None:
    ada = customer()
    with transaction.atomic():
        tell(
            [
                replace(draft(ada), to_channel="email", to_address="mei@example.com"),
                draft(ada, key="another"),
            ],
            now=NOW,
        )

    while drain(now=NOW):
        pass

    made = Delivery.objects.order_by("notice_id", "channel").values_list(
        "notice__dedupe_key", "channel", "address"
    )
    assert list(made) == [
        ("payment-received:1", "email", "mei@example.com"),
        ("another", "email", "ada@example.com"),
        ("another", "in-site", str(ada.pk)),
    ]
    assert [mail.address for mail in outside.taken] == ["mei@example.com", "ada@example.com"]
    assert InboxMessage.objects.count() == 1


@pytest.mark.clause("preamble")
def test_a_link_gets_its_proof_on_the_way_out_and_is_kept_without_it(outside: Outside) -> None:
    ada = customer()
    asked = replace(
        draft(ada, kind=GUARDIAN_ASKED), url="/guardian/7/", to_channel="email", to_address="mei@example.com"
    )
    with transaction.atomic():
        tell([asked, draft(ada, key="another")], now=NOW)

    while drain(now=NOW):
        pass

    assert [mail.url for mail in outside.taken] == [signed("/guardian/7/"), "/orders/VP-7K2M/"]
    proof = signed("/guardian/7/").partition("=")[2]
    for model in (Notice, Delivery, DeliveryEvent, Message, InboxMessage):
        assert not [row for row in model._default_manager.values() if proof in str(row)]


@pytest.mark.clause("preamble")
def test_a_link_with_a_proof_goes_by_no_channel_that_keeps_it() -> None:
    proving = [kind for kind in KINDS.values() if kind.signs_link]
    assert proving == [GUARDIAN_ASKED]
    assert not [slug for kind in proving for slug in kind.channels if CHANNELS[slug].is_ours]


def test_expansion_twice_makes_no_second_delivery() -> None:
    notice = told(customer())
    assert expand(now=NOW) == 1
    assert expand(now=NOW) == 0
    Notice.objects.filter(pk=notice.pk).update(is_expanded=False)  # as if the mark had been lost
    assert expand(now=NOW) == 1
    assert Delivery.objects.count() == 2


# --- sending -----------------------------------------------------------------------------------------


@pytest.mark.clause("3.3")
def test_a_notice_reaches_the_inbox_and_the_mailbox_with_evidence_of_both(outside: Outside) -> None:
    ada = customer()
    told(ada)
    assert drain(now=NOW) == 3  # one notice, two deliveries
    assert drain(now=NOW) == 0

    inbox_message = InboxMessage.objects.get()
    assert inbox_message.recipient_id == ada.pk
    assert inbox_message.url == "/orders/VP-7K2M/"
    assert inbox_message.read_at is None
    (mail,) = outside.taken
    assert (mail.address, mail.subject) == ("ada@example.com", "Payment received for order VP-7K2M")
    assert Message.objects.count() == 1  # the same words, kept once

    for delivery in Delivery.objects.all():
        assert delivery.state == DeliveryState.SENT
        assert delivery.attempts == 1
        assert delivery.lease_until is None
        begun, accepted = delivery.events.all()
        assert (begun.step, accepted.step) == ("begun", "accepted")
        assert begun.address == accepted.address == delivery.address
        assert begun.message == accepted.message == delivery.message == inbox_message.message
        assert NOW <= begun.at <= accepted.at == delivery.sent_at
    assert email_delivery().provider_reference == "ref-1"
    assert email_delivery().events.last().provider_reference == "ref-1"  # type: ignore[union-attr]


def test_begun_is_committed_before_the_wire_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, list[tuple[int, str]]]] = []

    class Looking(Outside):
        def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
            seen.append((connection.in_atomic_block, steps(Delivery.objects.get(pk=outgoing.delivery_id))))
            return Accepted()

    monkeypatch.setitem(CHANNELS, "email", Looking())
    told(customer())
    drain(now=NOW)
    assert seen == [(False, [(1, "begun")])]


def test_what_was_surely_not_taken_is_sent_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = answer_with(monkeypatch, Unavailable("451 busy"))
    told(customer())
    drain(now=NOW)
    delivery = email_delivery()
    assert (delivery.state, delivery.problem) == (DeliveryState.QUEUED, "451 busy")
    assert delivery.due_at > NOW + deliveries.FIRST_PAUSE / 2
    assert drain(now=NOW) == 0

    drain(now=LATER)
    delivery = email_delivery()
    assert (delivery.state, delivery.problem, delivery.attempts) == (DeliveryState.SENT, "", 2)
    assert steps(delivery) == [(1, "begun"), (1, "failed"), (2, "begun"), (2, "accepted")]
    assert [outgoing.message_id for outgoing in outside.taken] == [delivery.message_id] * 2
    assert {outgoing.reference for outgoing in outside.taken} == {f"delivery-{delivery.pk}"}


def test_a_second_attempt_sends_the_words_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = answer_with(monkeypatch, Unavailable("451 busy"))
    ada = customer()
    told(ada)
    drain(now=NOW)
    User.objects.filter(pk=ada.pk).update(time_zone="America/New_York")
    drain(now=LATER)
    first, second = outside.taken
    assert first.body == second.body
    assert "(HKT)" in second.body


def test_what_is_refused_for_good_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = answer_with(monkeypatch, Refused("550 no such mailbox"))
    told(customer())
    drain(now=NOW)
    drain(now=TOMORROW)
    delivery = email_delivery()
    assert (delivery.state, delivery.problem) == (DeliveryState.DEAD, "550 no such mailbox")
    assert steps(delivery) == [(1, "begun"), (1, "refused")]
    assert len(outside.taken) == 1
    assert InboxMessage.objects.count() == 1  # the other channel is not touched by it


@pytest.mark.parametrize("ending", [Uncertain("no answer"), RuntimeError("what is this?")])
def test_what_nobody_knows_the_end_of_is_sent_once_more_when_no_report_has_come(
    monkeypatch: pytest.MonkeyPatch, ending: Exception
) -> None:
    outside = answer_with(monkeypatch, ending)
    told(customer())
    drain(now=NOW)
    drain(now=NOW + HOUR)
    assert (email_delivery().state, email_delivery().sent_at) == ("uncertain", None)
    assert len(outside.taken) == 1

    drain(now=NOW + HOUR + timedelta(seconds=1))
    delivery = email_delivery()
    assert delivery.state == "sent"
    assert steps(delivery) == [(1, "begun"), (1, "unknown"), (1, "repeated"), (2, "begun"), (2, "accepted")]
    assert delivery.events.get(step="repeated").detail == "No report has come. It may arrive twice."
    first, second = outside.taken
    assert (first.body, first.reference) == (second.body, second.reference)


def test_what_ends_so_a_second_time_is_for_a_person_and_the_fallbacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside, phones = answer_with(monkeypatch, *[Uncertain("no answer")] * 2), Phones()
    monkeypatch.setitem(CHANNELS, "sms", phones)
    ada = customer()
    told(ada, kind=REFUND_APPROVED)
    proved_phone(ada)
    drain(now=NOW)
    assert not phones.taken
    drain(now=TOMORROW)
    delivery = email_delivery()
    assert (delivery.state, delivery.lease_until) == (DeliveryState.UNCERTAIN, None)
    assert steps(delivery)[-2:] == [(2, "begun"), (2, "unknown")]

    drain(now=TOMORROW + timedelta(days=30))
    assert (len(outside.taken), len(phones.taken)) == (2, 1)


def test_what_is_reported_while_it_waits_to_be_sent_once_more_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = answer_with(monkeypatch, Uncertain("no answer"))
    later = NOW + 2 * HOUR
    told(customer())
    drain(now=NOW)
    with transaction.atomic():
        deliveries.recover(now=later)
    assert (email_delivery().state, steps(email_delivery())[-1]) == ("queued", (1, "repeated"))
    told_of = Report(f"delivery-{email_delivery().pk}", has_arrived=True)
    assert deliveries.report(channel="email", told=told_of, now=later)
    drain(now=TOMORROW)
    assert (email_delivery().state, len(outside.taken)) == ("sent", 1)


def test_what_was_reported_before_its_worker_could_say_that_nobody_knows_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class ReportsFirst(Outside):
        def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
            self.taken.append(outgoing)
            told_of = Report(outgoing.reference, has_arrived=True)
            assert deliveries.report(channel="email", told=told_of, now=now)
            raise Uncertain("no answer")

    outside = ReportsFirst()
    monkeypatch.setitem(CHANNELS, "email", outside)
    told(customer())
    drain(now=NOW)
    drain(now=TOMORROW)
    delivery = email_delivery()
    assert (delivery.state, len(outside.taken)) == ("sent", 1)
    assert delivery.sent_at == delivery.events.get(step="begun").at


def test_one_failure_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, RuntimeError("what is this?"))
    for number in range(3):
        told(customer(f"{number}@example.com"), key=f"key-{number}")
    drain(now=NOW)
    states = Delivery.objects.filter(channel="email").order_by("id").values_list("state", flat=True)
    assert list(states) == ["uncertain", "sent", "sent"]


def test_trying_ends_after_so_many_attempts_and_begins_anew_by_a_persons_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = deliveries.MOST_ATTEMPTS
    outside = answer_with(monkeypatch, *[Unavailable("451 busy")] * (most + 2))
    told(customer())
    for day in range(most + 2):
        drain(now=NOW + timedelta(days=day))
    delivery = email_delivery()
    assert (delivery.state, delivery.attempts) == (DeliveryState.DEAD, most)
    assert len(outside.taken) == most

    later = NOW + timedelta(days=most + 2)
    deliveries.resend(delivery_ids=[delivery.pk], by=customer("staff@example.com"), now=later)
    drain(now=later)
    assert (email_delivery().state, email_delivery().attempts) == ("queued", most + 1)
    # The pause is that after a first failure.
    assert email_delivery().due_at <= later + deliveries.FIRST_PAUSE + timedelta(seconds=5)


def test_pauses_double_up_to_the_longest() -> None:
    for failures, whole in ((1, 15), (2, 30), (3, 60), (8, 1920), (9, 3600), (40, 3600)):
        for _ in range(20):
            pause = deliveries.pause_after(failures).total_seconds()
            assert whole / 2 <= pause <= whole


def test_a_notice_that_cannot_be_written_waits_and_holds_up_nobody(outside: Outside) -> None:
    ada = customer()
    with transaction.atomic():
        broken = Draft(ada.pk, KINDS["payment-received"], "VP-1", "/", {"reference": "VP-1"}, "broken")
        tell([broken, draft(ada)], now=NOW)
    drain(now=NOW)
    assert [outgoing.subject for outgoing in outside.taken] == ["Payment received for order VP-7K2M"]
    for delivery in Delivery.objects.filter(notice__dedupe_key="broken"):
        assert (delivery.state, delivery.attempts) == (DeliveryState.QUEUED, 1)
        assert delivery.problem.startswith("It cannot be written: ")
        assert delivery.message is None
        assert steps(delivery) == []


# --- one turn --------------------------------------------------------------------------------------


def claimed_at(place: deliveries.Place, *, limit: int) -> list[str]:
    with transaction.atomic():
        taken = deliveries.claim(channel="email", limit=limit, now=LATER, place=place)
    keys = dict(Delivery.objects.values_list("pk", "notice__dedupe_key"))
    return [keys[each.id] for each in taken]


def test_a_worker_goes_on_where_it_was_and_what_is_urgent_gets_in() -> None:
    for number in range(6):
        told(customer(f"{number}@example.com"), key=f"n{number}")
    expand(now=NOW)
    place = deliveries.Place()
    assert claimed_at(place, limit=2) == ["n0", "n1"]
    # What comes back to the head is left for the next turn, or for when the queue is through.
    Delivery.objects.filter(notice__dedupe_key="n0").update(state="queued")
    told(customer("s@example.com"), kind=SECURITY, key="urgent", now=LATER)
    expand(now=LATER)
    assert claimed_at(place, limit=2) == ["urgent", "n2"]
    assert claimed_at(place, limit=2) == ["n3", "n4"]
    assert claimed_at(place, limit=3) == ["n5", "n0"]
    assert claimed_at(place, limit=3) == []


def test_more_that_is_urgent_than_a_worker_takes_at_once_loses_nobody_his_place() -> None:
    for number in range(3):
        told(customer(f"{number}@example.com"), key=f"n{number}")
    expand(now=NOW)
    place = deliveries.Place()
    assert claimed_at(place, limit=1) == ["n0"]
    for number in range(3):
        told(customer(f"s{number}@example.com"), kind=SECURITY, key=f"urgent{number}", now=LATER)
    expand(now=LATER)
    Delivery.objects.filter(notice__dedupe_key="n0").update(state="queued")
    assert [claimed_at(place, limit=2) for _ in range(3)] == [
        ["urgent0", "urgent1"],
        ["urgent2", "n1"],
        ["n2", "n0"],
    ]


# --- dying in the middle -----------------------------------------------------------------------------


def test_a_worker_that_dies_before_the_wire_delays_a_delivery_and_no_more(outside: Outside) -> None:
    told(customer())
    expand(now=NOW)
    with transaction.atomic():
        assert len(deliveries.claim(channel="email", limit=10, now=NOW)) == 1
    # Here it dies. While its lease runs, nobody touches what it holds.
    drain(now=NOW + deliveries.LEASE - timedelta(seconds=1))
    assert outside.taken == []
    drain(now=LATER)
    drain(now=TOMORROW)
    assert len(outside.taken) == 1
    assert steps(email_delivery()) == [(1, "begun"), (1, "accepted")]


def test_a_worker_that_dies_after_the_wire_leaves_an_uncertain_delivery_that_is_sent_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = answer_with(monkeypatch, SystemExit())
    told(customer())
    with pytest.raises(SystemExit):
        drain(now=NOW)
    assert len(outside.taken) == 1
    assert email_delivery().state == DeliveryState.SENDING

    drain(now=LATER)
    delivery = email_delivery()
    assert (delivery.state, delivery.sent_at) == (DeliveryState.UNCERTAIN, None)
    assert steps(delivery) == [(1, "begun"), (1, "unknown")]
    assert delivery.events.get(step="unknown").message == delivery.message
    assert len(outside.taken) == 1

    drain(now=LATER + 2 * HOUR)
    drain(now=TOMORROW)
    assert (email_delivery().state, len(outside.taken)) == ("sent", 2)
    assert steps(email_delivery())[2:] == [(1, "repeated"), (2, "begun"), (2, "accepted")]


def test_where_a_provider_knows_a_message_again_a_worker_that_died_delays_it_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = answer_with(monkeypatch, SystemExit(), RuntimeError("what is this?"))
    outside.is_repeatable = True
    told(customer())
    with pytest.raises(SystemExit):
        drain(now=NOW)
    drain(now=LATER)
    drain(now=LATER + timedelta(minutes=1))
    drain(now=LATER + timedelta(minutes=2))
    assert email_delivery().state == "sent"
    assert steps(email_delivery()) == [
        (1, "begun"),
        (1, "unknown"),
        (2, "begun"),
        (2, "failed"),
        (3, "begun"),
        (3, "accepted"),
    ]
    assert {outgoing.reference for outgoing in outside.taken} == {f"delivery-{email_delivery().pk}"}


def test_a_worker_that_dies_writing_the_inbox_leaves_nothing_and_the_next_writes_once(
    monkeypatch: pytest.MonkeyPatch, outside: Outside
) -> None:
    class Dying(InSite):
        def send_all(self, outgoings: Sequence[Outgoing], *, now: datetime) -> None:
            super().send_all(outgoings, now=now)
            raise SystemExit

    told(customer())
    with monkeypatch.context() as dying:
        dying.setitem(CHANNELS, "in-site", Dying())
        with pytest.raises(SystemExit):
            drain(now=NOW)
    assert InboxMessage.objects.count() == 0
    assert DeliveryEvent.objects.count() == 0
    drain(now=LATER)
    drain(now=TOMORROW)
    assert InboxMessage.objects.count() == 1
    assert steps(Delivery.objects.get(channel="in-site")) == [(1, "begun"), (1, "accepted")]


def test_an_answer_that_comes_after_the_silence_was_given_up_on_still_counts(outside: Outside) -> None:
    told(customer())
    expand(now=NOW)
    with transaction.atomic():
        (claimed,) = deliveries.claim(channel="email", limit=1, now=NOW)
        message = Message.objects.create(sha256="0" * 64, language="en", subject="s", body="b")
        attempt = deliveries.begin(claimed, message=message, now=NOW)
        assert attempt
        deliveries.recover(now=LATER)
    assert email_delivery().state == DeliveryState.UNCERTAIN
    with transaction.atomic():
        deliveries.record(attempt, Accepted("late"), now=LATER)
    delivery = email_delivery()
    assert (delivery.state, delivery.sent_at, delivery.provider_reference) == ("sent", LATER, "late")
    assert steps(delivery) == [(1, "begun"), (1, "unknown"), (1, "accepted")]


def test_an_answer_that_comes_while_it_waits_to_be_sent_once_more_spares_that(outside: Outside) -> None:
    told(customer())
    expand(now=NOW)
    with transaction.atomic():
        (claimed,) = deliveries.claim(channel="email", limit=1, now=NOW)
        message = Message.objects.create(sha256="0" * 64, language="en", subject="s", body="b")
        attempt = deliveries.begin(claimed, message=message, now=NOW)
        assert attempt
        deliveries.recover(now=LATER)
        deliveries.recover(now=TOMORROW)
        assert email_delivery().state == DeliveryState.QUEUED
        deliveries.record(attempt, Accepted("very late"), now=TOMORROW)
    drain(now=TOMORROW)
    assert (email_delivery().state, outside.taken) == ("sent", [])


# --- several workers ---------------------------------------------------------------------------------


def test_of_two_workers_that_hold_the_same_delivery_one_begins_it() -> None:
    told(customer())
    expand(now=NOW)
    with transaction.atomic():
        (mine,) = deliveries.claim(channel="email", limit=1, now=NOW)
        deliveries.recover(now=LATER)  # the lease ran out, and another takes it
        (theirs,) = deliveries.claim(channel="email", limit=1, now=LATER)
        message = Message.objects.create(sha256="0" * 64, language="en", subject="s", body="b")
        assert deliveries.begin(theirs, message=message, now=LATER)
        assert deliveries.begin(mine, message=message, now=LATER) is None
    assert steps(email_delivery()) == [(1, "begun")]


@pytest.mark.clause("3.3")
def test_what_is_older_does_not_come_on_top_of_what_is_newer_when_it_is_handed_out_later(
    outside: Outside,
) -> None:
    ada, ben = customer(), customer("ben@example.com")
    older, newer, of_another = (
        replace(draft(reader, kind=ESTIMATE_CHANGED, key=key), thread="estimate:1")
        for reader, key in ((ada, "older"), (ada, "newer"), (ben, "another"))
    )
    with transaction.atomic():
        tell([older, newer, of_another], now=NOW)
    # Another worker has taken the older one, and is slow.
    Notice.objects.filter(dedupe_key="older").update(is_expanded=True)
    while drain(now=NOW):
        pass
    Notice.objects.filter(dedupe_key="older").update(is_expanded=False)
    while drain(now=NOW):
        pass

    inbox = InboxMessage.objects.order_by("id").values_list("delivery__notice__dedupe_key", flat=True)
    assert list(inbox) == ["newer", "another"]
    states = Delivery.objects.filter(notice__dedupe_key="older").values_list(
        "channel", "state", "lease_until"
    )
    assert set(states) == {("in-site", "superseded", None), ("email", "superseded", None)}


class Crowd(Outside):
    """Taken by several threads at once."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        with self._lock:
            self.taken.append(outgoing)
        return Accepted()


def at_once(work: Callable[[], None], *, threads: int = 4) -> list[Exception]:
    """Run `work` in so many threads that start together; return what they raised."""
    start = threading.Barrier(threads)
    raised: list[Exception] = []

    def run() -> None:
        try:
            start.wait()
            work()
        except Exception as failure:  # noqa: BLE001 (the test looks at it)
            raised.append(failure)
        finally:
            connection.close()

    crowd = [threading.Thread(target=run) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return raised


def tell_300_customers() -> None:
    crowd = User.objects.bulk_create(User(email=f"{number}@example.com") for number in range(300))
    with transaction.atomic():
        tell((draft(user, key=f"key-{user.pk}") for user in crowd), now=NOW)


@pytest.mark.postgres
def test_four_workers_send_300_notices_exactly_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd()
    monkeypatch.setitem(CHANNELS, "email", crowd)
    tell_300_customers()

    def work() -> None:
        while drain(now=NOW + timedelta(seconds=1)):
            pass

    assert at_once(work) == []
    drain(now=NOW + timedelta(seconds=1))  # what one had claimed when another found nothing
    assert len(crowd.taken) == 300
    assert {outgoing.address for outgoing in crowd.taken} == {
        f"{number}@example.com" for number in range(300)
    }
    assert InboxMessage.objects.count() == 300
    assert Delivery.objects.filter(state=DeliveryState.SENT, attempts=1).count() == 600
    assert DeliveryEvent.objects.filter(step="begun").count() == 600
    assert DeliveryEvent.objects.filter(step="accepted").count() == 600


@pytest.mark.postgres
def test_without_the_guards_the_same_workers_send_some_of_them_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd()
    tell_300_customers()
    expand(now=NOW)
    monkeypatch.setattr(outbox, "CHANNELS", {"email": crowd})
    everybody_has_looked = threading.Barrier(4)

    def claim(
        *, channel: str, limit: int, now: datetime, place: deliveries.Place
    ) -> list[deliveries.Claimed]:
        queued = Delivery.objects.filter(channel=channel, state=DeliveryState.QUEUED, due_at__lte=now)
        found = list(queued.order_by("due_at", "id").values_list("pk", flat=True)[:limit])
        everybody_has_looked.wait(60)
        Delivery.objects.filter(pk__in=found).update(state=DeliveryState.LEASED)
        return deliveries.read(found)

    def begin(delivery: deliveries.Claimed, *, message: Message, now: datetime) -> deliveries.Attempt:
        return deliveries.Attempt(delivery.id, 1, delivery.address, message)

    # The lock under which tokens are drawn would keep the others out, too.
    monkeypatch.setattr(pacing, "allowance", lambda _channel, *, most, now: most)
    monkeypatch.setattr(pacing, "spend", lambda _channel, _count, *, now: None)
    monkeypatch.setattr(deliveries, "claim", claim)
    monkeypatch.setattr(deliveries, "begin", begin)

    def work() -> None:
        drain(now=NOW + timedelta(seconds=1))

    failures = at_once(work)
    # Four workers sent the same first one. Only the unique evidence tells, too late, three of them so.
    assert len(crowd.taken) > len({outgoing.delivery_id for outgoing in crowd.taken})
    assert {type(failure) for failure in failures} == {IntegrityError}
