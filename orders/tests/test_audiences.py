"""Whom staff can write to, by what was ordered; and the messages that go there."""

import itertools
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NoReturn

import pytest
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from accounts.models import User
from inventory.models import Plan
from notices import broadcasts, cancelling, deliveries
from notices.announcements import Incomplete
from notices.broadcasts import (
    NotAllowed,
    Segment,
    approve,
    can_be_stopped,
    cancel,
    go_on,
    recipients,
    submit,
)
from notices.channels import CHANNELS
from notices.channels.protocol import Accepted, Outcome, Outgoing, Refused, Report, Unavailable, Uncertain
from notices.expansion import expand
from notices.kinds import ALLOCATED, FORCE_MAJEURE, NEWS
from notices.models import (
    Announcement,
    Broadcast,
    ContactPoint,
    Delivery,
    DeliveryEvent,
    InboxMessage,
    Notice,
)
from notices.outbox import Draft, drain, tell
from notices.tests.samples import Outside, Phones, draft
from orders.models import LineState, OrderLine, OrderState
from tests.builders import NOW, make_fee, make_line, make_order, make_plan, make_user
from tests.racing import in_background, wait_until_blocked

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

TEXTS = {
    language: {"title": f"A storm ({language})", "body": f"We are closed ({language})."}
    for language in ("en", "zh-hans", "zh-hant")
}


@pytest.fixture
def waiting() -> list[User]:
    """Four customers who wait for one plan, in the order of their places; the third reads Chinese."""
    fee = make_fee(make_plan())
    lines = [make_line(fee, paid_at=NOW + timedelta(minutes=minute)) for minute in range(4)]
    User.objects.filter(pk=lines[2].order.customer_id).update(language="zh-hans")
    make_line(make_fee(make_plan("V06")), paid_at=NOW)
    make_user(is_staff=True)
    return [line.order.customer for line in lines]


@pytest.fixture
def staff() -> User:
    return make_user("staff@example.com", is_staff=True)


def chosen(**segment: object) -> list[int]:
    return list(recipients(segment).values_list("pk", flat=True))


def sent(staff: User, **segment: object) -> Broadcast:
    return submit(
        kind=FORCE_MAJEURE, segment=segment, texts=TEXTS, is_announced=False, by_id=staff.pk, now=NOW
    )


def told_of_it() -> list[int]:
    return sorted(Notice.objects.filter(facts__has_key="broadcast").values_list("recipient", flat=True))


def broadcast_again(broadcast: Broadcast) -> Broadcast:
    found: Broadcast = Broadcast.objects.get(pk=broadcast.pk)
    return found


def plan_of(customer: User) -> int:
    found: int = customer.orders.get().lines.get().plan_id
    return found


# --- segments ------------------------------------------------------------------------------------------


def test_a_segment_is_narrowed_by_plan_place_language_and_state_of_the_order(waiting: list[User]) -> None:
    unpaid = make_order([(make_fee(make_plan("V04")), 1)]).customer
    ids = [customer.pk for customer in waiting]
    plan = plan_of(waiting[0])
    assert len(chosen()) == 6
    assert chosen(plan=plan) == ids
    assert chosen(plan=plan, first=2, last=3) == ids[1:3]
    assert chosen(plan=plan, first=4) == ids[3:]
    assert chosen(plan=plan, language="zh-hans") == [ids[2]]
    assert chosen(order_state=OrderState.UNPAID) == [unpaid.pk]


# --- messages ------------------------------------------------------------------------------------------


def test_a_message_to_few_goes_out_at_once_in_everybodys_language(waiting: list[User], staff: User) -> None:
    broadcast = sent(staff, plan=plan_of(waiting[0]))
    while go_on(now=NOW):
        pass
    while drain(now=NOW):
        pass
    broadcast.refresh_from_db()
    assert (broadcast.state, broadcast.recipients, broadcast.told) == ("done", 4, 4)
    texts = InboxMessage.objects.order_by("recipient").values_list("message__subject", "message__body")
    assert list(texts)[1:3] == [
        ("A storm (en)", "We are closed (en)."),
        ("A storm (zh-hans)", "We are closed (zh-hans)."),
    ]


def test_a_message_to_many_waits_for_another_persons_word(
    waiting: list[User], staff: User, settings: Settings
) -> None:
    settings.BROADCAST_ALONE = 3
    broadcast = sent(staff, plan=plan_of(waiting[0]))
    assert go_on(now=NOW) == 0
    with pytest.raises(NotAllowed, match="Somebody else"):
        approve(broadcast_id=broadcast.pk, by_id=staff.pk, now=NOW)

    approve(broadcast_id=broadcast.pk, by_id=make_user(is_staff=True).pk, now=NOW)
    assert go_on(now=NOW) == 4
    with pytest.raises(NotAllowed):
        approve(broadcast_id=broadcast.pk, by_id=make_user(is_staff=True).pk, now=NOW)


def test_the_database_lets_nobody_approve_his_own(
    waiting: list[User], staff: User, settings: Settings
) -> None:
    settings.BROADCAST_ALONE = 3
    broadcast = sent(staff, plan=plan_of(waiting[0]))
    with pytest.raises(IntegrityError), transaction.atomic():
        Broadcast.objects.filter(pk=broadcast.pk).update(approved_by=staff, approved_at=NOW)


def test_a_worker_that_dies_in_the_middle_tells_nobody_twice_and_forgets_nobody(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcasts, "CHUNK", 2)
    broadcast = sent(staff, plan=plan_of(waiting[0]))
    assert go_on(now=NOW) == 2

    def die(drafts: Iterable[Draft], *, now: datetime) -> NoReturn:
        tell(drafts, now=now)
        raise SystemExit

    with monkeypatch.context() as dying:
        dying.setattr(broadcasts, "tell", die)
        with pytest.raises(SystemExit):
            go_on(now=NOW)
    broadcast.refresh_from_db()
    assert broadcast.told == 2

    while go_on(now=NOW):
        pass
    assert sorted(Notice.objects.filter(kind=FORCE_MAJEURE.slug).values_list("recipient", flat=True)) == [
        customer.pk for customer in waiting
    ]


def test_a_message_goes_to_those_it_was_submitted_for_however_the_queue_moves(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.BROADCAST_ALONE = 1
    monkeypatch.setattr(broadcasts, "CHUNK", 1)
    plan = plan_of(waiting[0])
    first_two = [customer.pk for customer in waiting[:2]]
    broadcast = sent(staff, plan=plan, first=1, last=2)
    assert chosen(plan=plan, first=1, last=2) == first_two

    approve(broadcast_id=broadcast.pk, by_id=make_user(is_staff=True).pk, now=NOW)
    assert go_on(now=NOW) == 1
    # Whoever was first is served: the places are those of others now.
    OrderLine.objects.filter(order__customer=waiting[0]).update(state=LineState.HELD)
    assert chosen(plan=plan, first=1, last=2) == [customer.pk for customer in waiting[1:3]]
    while go_on(now=NOW):
        pass

    broadcast.refresh_from_db()
    assert (broadcast.state, broadcast.recipients, broadcast.told) == ("done", 2, 2)
    assert told_of_it() == first_two
    assert not broadcast.left.exists()


def test_what_is_stopped_goes_to_nobody_else(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcasts, "CHUNK", 2)
    broadcast = sent(staff, plan=plan_of(waiting[0]))
    go_on(now=NOW)
    cancel(broadcast_id=broadcast.pk, by=staff, now=NOW)
    while go_on(now=NOW):
        pass
    assert told_of_it() == [customer.pk for customer in waiting[:2]]
    broadcast.refresh_from_db()
    assert (broadcast.state, broadcast.told, broadcast.stopped_by) == ("cancelled", 2, staff)
    with pytest.raises(NotAllowed):
        cancel(broadcast_id=broadcast.pk, by=staff, now=NOW)


@pytest.mark.parametrize("is_expanded", [False, True], ids=["not yet at the channels", "queued"])
@pytest.mark.parametrize("chunk", [1, 100], ids=["by workers", "at once"])
def test_what_everybody_was_to_be_told_is_stopped_as_long_as_it_waits(
    waiting: list[User],
    staff: User,
    monkeypatch: pytest.MonkeyPatch,
    is_expanded: bool,
    chunk: int,
) -> None:
    monkeypatch.setattr(broadcasts, "CHUNK", chunk)
    email = Outside()
    monkeypatch.setitem(CHANNELS, "email", email)
    broadcast = sent(staff, plan=plan_of(waiting[0]))
    while go_on(now=NOW):
        pass
    broadcast.refresh_from_db()
    assert broadcast.state == "done"
    if is_expanded:
        expand(now=NOW)

    cancel(broadcast_id=broadcast.pk, by=staff, now=NOW)
    while go_on(now=NOW):
        pass
    while drain(now=NOW):
        pass

    assert email.taken == []
    assert not InboxMessage.objects.exists()
    events = DeliveryEvent.objects.values_list("step", "detail")
    assert list(events) == [("cancelled", f"Stopped by {staff}.")] * (8 if is_expanded else 0)
    broadcast.refresh_from_db()
    assert (broadcast.state, broadcast.told) == ("cancelled", 4)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("looks_again", [True, False])
def test_what_is_being_handed_to_the_channels_at_that_moment_is_stopped_as_well(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch, looks_again: bool
) -> None:
    """Without the second look, what was not yet there at the first one goes out."""
    broadcast = sent(staff, plan=plan_of(waiting[0]), first=1, last=1)
    go_on(now=NOW)
    if not looks_again:
        look, looks = cancelling._keep_back, itertools.count()
        monkeypatch.setattr(
            cancelling, "_keep_back", lambda *args, **said: None if next(looks) else look(*args, **said)
        )
    with transaction.atomic():
        notice = Notice.objects.select_for_update().get(kind=FORCE_MAJEURE.slug)
        stopping = in_background(lambda: cancel(broadcast_id=broadcast.pk, by=staff, now=NOW))
        wait_until_blocked()
        Delivery.objects.create(notice=notice, channel="email", address="ada@example.com", due_at=NOW)
        Notice.objects.filter(pk=notice.pk).update(is_expanded=True)
    stopping.result(60)
    assert notice.deliveries.get().state == ("cancelled" if looks_again else "queued")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("answer", "state", "steps"),
    [
        (Unavailable("busy"), "cancelled", ["begun", "failed", "cancelled"]),
        (Uncertain("no answer"), "uncertain", ["begun", "unknown"]),
        (SystemExit(), "uncertain", ["begun", "unknown"]),
        (Accepted(), "sent", ["begun", "accepted"]),
    ],
    ids=["not taken", "no answer", "the worker dies", "taken"],
)
def test_what_is_being_sent_while_it_is_stopped_is_not_sent_once_more(
    waiting: list[User],
    staff: User,
    monkeypatch: pytest.MonkeyPatch,
    answer: Outcome | SystemExit,
    state: str,
    steps: list[str],
) -> None:
    class Stopped(Outside):
        def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
            if not self.taken:
                assert can_be_stopped(broadcast_again(broadcast))
                cancel(broadcast_id=broadcast.pk, by=staff, now=NOW)
            return super().send(outgoing, now=now)

    email = Stopped(answer)
    monkeypatch.setitem(CHANNELS, "email", email)
    broadcast = sent(staff, plan=plan_of(waiting[0]), first=1, last=1)
    go_on(now=NOW)
    with suppress(SystemExit):
        drain(now=NOW)
    for hours in (1, 3, 50):
        drain(now=NOW + timedelta(hours=hours))
    assert len(email.taken) == 1
    mail = Delivery.objects.get(channel="email")
    assert (mail.state, mail.lease_until) == (state, None)
    assert list(mail.events.values_list("step", flat=True)) == steps


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("locks", [True, False])
def test_what_goes_back_into_the_queue_at_that_moment_is_stopped_as_well(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """Without the lock on the notice, each of the two looks before the other has written."""
    monkeypatch.setitem(CHANNELS, "email", Outside(SystemExit()))
    broadcast = sent(staff, plan=plan_of(waiting[0]), first=1, last=1)
    go_on(now=NOW)
    with pytest.raises(SystemExit):
        drain(now=NOW)
    mail = Delivery.objects.select_related("message").get(channel="email")
    assert mail.message
    attempt = deliveries.Attempt(mail.pk, mail.attempts, mail.address, mail.message)
    if not locks:
        monkeypatch.setattr(QuerySet, "select_for_update", lambda rows, **_: rows)
    with transaction.atomic():
        deliveries.record(attempt, Unavailable("busy"), now=NOW)
        stopping = in_background(lambda: cancel(broadcast_id=broadcast.pk, by=staff, now=NOW))
        if locks:
            wait_until_blocked()
        else:
            stopping.result(60)
    stopping.result(60)
    mail.refresh_from_db()
    assert mail.state == ("cancelled" if locks else "queued")


def test_what_was_stopped_goes_by_no_fallback_either(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    sms = Phones()
    monkeypatch.setitem(CHANNELS, "sms", sms)
    monkeypatch.setitem(CHANNELS, "email", Outside())
    broadcast = sent(staff, plan=plan_of(waiting[0]), first=1, last=1)
    go_on(now=NOW)
    expand(now=NOW)
    drain(now=NOW)
    ContactPoint.objects.create(
        customer=waiting[0], channel="sms", address="+85251234567", created_at=NOW, verified_at=NOW
    )
    [notice] = Notice.objects.filter(kind=FORCE_MAJEURE.slug)
    assert not can_be_stopped(broadcast_again(broadcast))
    Delivery.objects.create(notice=notice, channel="push", address="p", due_at=NOW)
    cancel(broadcast_id=broadcast.pk, by=staff, now=NOW)

    mail = notice.deliveries.get(channel="email")
    told = Report(mail.provider_reference, has_arrived=False, detail="550 unknown")
    assert deliveries.report(channel="email", told=told, now=NOW)
    assert not notice.deliveries.filter(channel="sms").exists()


def test_what_was_stopped_is_not_sent_once_more_when_nobody_knows_of_it(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    email = Outside(Uncertain("no answer"))
    monkeypatch.setitem(CHANNELS, "email", email)
    broadcast = sent(staff, plan=plan_of(waiting[0]), first=1, last=1)
    go_on(now=NOW)
    expand(now=NOW)
    drain(now=NOW)
    cancel(broadcast_id=broadcast.pk, by=staff, now=NOW)
    drain(now=NOW + timedelta(days=1))
    assert len(email.taken) == 1


def test_what_was_stopped_is_not_sent_again_with_what_staff_send_again(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    monkeypatch.setitem(CHANNELS, "email", Outside(Refused("550 no such user"), Refused("550 blocked")))
    broadcast = sent(staff, plan=plan_of(waiting[0]), first=1, last=1)
    go_on(now=NOW)
    with transaction.atomic():
        tell([draft(waiting[1])], now=NOW)
    drain(now=NOW)
    [stopped] = Delivery.objects.filter(channel="email", notice__kind=FORCE_MAJEURE.slug)
    Delivery.objects.create(notice=stopped.notice, channel="push", address="p", due_at=NOW)
    client.force_login(User.objects.create_superuser("boss@example.com"))
    page = reverse("admin:notices_delivery_change", args=[stopped.pk])
    button = reverse("admin:notices_delivery_send_again", args=[stopped.pk])
    assert button in client.get(page).text
    cancel(broadcast_id=broadcast.pk, by=staff, now=NOW)
    assert button not in client.get(page).text
    refused = Delivery.objects.filter(state="dead")
    assert refused.count() == 2
    assert deliveries.resend(delivery_ids=refused.values_list("pk", flat=True), by=staff, now=NOW) == 1
    assert refused.get() == stopped


def test_what_went_out_to_everybody_cannot_be_stopped(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHANNELS, "email", Outside())
    broadcast = sent(staff, plan=plan_of(waiting[0]))
    while go_on(now=NOW):
        pass
    while drain(now=NOW):
        pass
    with pytest.raises(NotAllowed, match="sent to everybody already"):
        cancel(broadcast_id=broadcast.pk, by=staff, now=NOW)
    assert broadcast_again(broadcast).state == "done"


# --- on the site ---------------------------------------------------------------------------------------


def announced(staff: User, segment: Segment | None) -> Broadcast:
    return submit(
        kind=NEWS,
        segment=segment,
        texts=TEXTS,
        is_announced=True,
        banner_days=3,
        by_id=staff.pk,
        now=NOW,
    )


def test_what_everybody_reads_on_the_site_waits_for_another_person_however_few_it_is_sent_to(
    waiting: list[User], staff: User
) -> None:
    broadcast = announced(staff, {"language": "zh-hans"})
    assert (broadcast.recipients, broadcast.state) == (1, "submitted")
    assert not Announcement.objects.exists()
    with pytest.raises(NotAllowed, match="Somebody else"):
        approve(broadcast_id=broadcast.pk, by_id=staff.pk, now=NOW)
    assert not Announcement.objects.exists()

    second = make_user(is_staff=True)
    approve(broadcast_id=broadcast.pk, by_id=second.pk, now=NOW)
    [published] = Announcement.objects.all()
    assert (published.texts, published.published_by, published.approved_by) == (TEXTS, staff, second)
    assert published.banner_until == NOW + timedelta(days=3)


def test_an_announcement_is_sent_to_nobody(waiting: list[User], staff: User) -> None:
    broadcast = announced(staff, None)
    approve(broadcast_id=broadcast.pk, by_id=make_user(is_staff=True).pk, now=NOW)
    assert go_on(now=NOW) == 0
    assert (broadcast_again(broadcast).state, Announcement.objects.count()) == ("done", 1)
    assert told_of_it() == []


def test_what_is_stopped_comes_off_the_site(waiting: list[User], staff: User) -> None:
    broadcast = announced(staff, {})
    approve(broadcast_id=broadcast.pk, by_id=make_user(is_staff=True).pk, now=NOW)
    cancel(broadcast_id=broadcast.pk, by=staff, now=NOW)
    assert Announcement.objects.get().withdrawn_at == NOW


@pytest.mark.parametrize(
    "change",
    [{"approved_at": NOW}, {"needs_approval": False, "approved_at": NOW, "state": "sending"}],
    ids=["approved by nobody", "needs no approval"],
)
def test_the_database_lets_nobody_announce_alone(staff: User, change: dict[str, object]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Broadcast.objects.create(
            **{
                "kind": NEWS.slug,
                "texts": TEXTS,
                "is_announced": True,
                "composed_by": staff,
                "composed_at": NOW,
                "recipients": 0,
                "needs_approval": True,
                **change,
            }
        )
    for second in (None, staff):
        with pytest.raises(IntegrityError), transaction.atomic():
            Announcement.objects.create(
                kind=NEWS.slug,
                texts=TEXTS,
                sha256="",
                published_at=NOW,
                dedupe_key="alone",
                published_by=staff,
                approved_by=second,
            )


def test_what_nobody_would_read_or_staff_do_not_write_is_refused(waiting: list[User], staff: User) -> None:
    with pytest.raises(NotAllowed, match="Nobody belongs"):
        sent(staff, plan=plan_of(waiting[0]), first=5)
    with pytest.raises(NotAllowed, match="not written by staff"):
        submit(kind=ALLOCATED, segment={}, texts=TEXTS, is_announced=False, by_id=staff.pk, now=NOW)
    with pytest.raises(Incomplete, match="in zh-hans"):
        submit(
            kind=NEWS,
            segment={},
            texts={"en": TEXTS["en"]},
            is_announced=False,
            by_id=staff.pk,
            now=NOW,
        )
    assert not Broadcast.objects.exists()


def test_the_page_of_a_message_says_in_words_whom_it_goes_to(waiting: list[User], client: Client) -> None:
    boss = User.objects.create_superuser("boss@example.com")
    client.force_login(boss)
    plan = Plan.objects.get(pk=plan_of(waiting[0]))
    broadcast = sent(boss, plan=plan.pk, first=2, language="en")
    page = client.get(reverse("admin:notices_broadcast_change", args=[broadcast.pk])).text
    assert f"Who wait for the plan: {plan}, From place: 2, Who read: en" in page
