"""Whom staff can write to, by what was ordered; and the messages that go there."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NoReturn

import pytest
from django.db import IntegrityError, transaction
from pytest_django import Settings

from accounts.models import User
from notices import broadcasts
from notices.announcements import Incomplete
from notices.broadcasts import NotAllowed, approve, cancel, go_on, recipients, submit
from notices.kinds import ALLOCATED, FORCE_MAJEURE, NEWS
from notices.models import Announcement, Broadcast, InboxMessage, Notice
from notices.outbox import Draft, drain, tell
from orders.models import OrderState
from tests.builders import NOW, make_fee, make_line, make_order, make_plan, make_user

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


def test_what_is_cancelled_goes_to_nobody_else(
    waiting: list[User], staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcasts, "CHUNK", 2)
    broadcast = sent(staff, plan=plan_of(waiting[0]))
    go_on(now=NOW)
    cancel(broadcast_id=broadcast.pk, now=NOW)
    assert go_on(now=NOW) == 0
    assert Notice.objects.filter(kind=FORCE_MAJEURE.slug).count() == 2
    with pytest.raises(NotAllowed):
        cancel(broadcast_id=broadcast.pk, now=NOW)


def test_a_message_can_stand_on_the_site_as_well(waiting: list[User], staff: User) -> None:
    submit(kind=NEWS, segment={}, texts=TEXTS, is_announced=True, by_id=staff.pk, now=NOW)
    assert Announcement.objects.get().texts == TEXTS


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
