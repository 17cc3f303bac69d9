"""How fast a channel goes, when it is left alone, and who may stop it."""

from datetime import timedelta

import pytest
from django.db import transaction

from notices import outbox, pacing
from notices.channels import CHANNELS
from notices.channels.protocol import Accepted, Deferred, Refused, Unavailable, Uncertain
from notices.models import ChannelPace, Delivery
from notices.outbox import drain
from notices.tests.samples import NOW, Outside, customer, told
from tests.racing import failures, race

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

SECOND = timedelta(seconds=1)


class Paced(Outside):
    """Takes three a second."""

    per_second: float | None = 3.0


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Paced:
    double = Paced()
    monkeypatch.setitem(CHANNELS, "email", double)
    return double


def tell(count: int) -> None:
    for number in range(count):
        told(customer(f"c{number}@example.com"), key=f"key-{number}")


def allowed(channel: Outside, *, spending: int, after: timedelta = timedelta(0)) -> int:
    """How many may be claimed; so many are."""
    with transaction.atomic():
        may = pacing.allowance(channel, most=10, now=NOW + after)
        if spending:
            pacing.spend(channel, spending, now=NOW + after)
    return may


# --- tokens ------------------------------------------------------------------------------------------


def test_no_more_go_out_in_a_second_than_the_provider_takes(paced: Paced) -> None:
    tell(5)
    while drain(now=NOW):
        pass
    # The clock of a test stands still but for the moments that the sending takes.
    assert len(paced.taken) == 3
    while drain(now=NOW + SECOND):
        pass
    assert len(paced.taken) == 5


def test_the_bucket_fills_with_time_and_holds_a_seconds_worth() -> None:
    channel = Paced()
    assert allowed(channel, spending=3) == 3
    assert allowed(channel, spending=0) == 0
    assert allowed(channel, spending=0, after=0.34 * SECOND) == 1
    assert allowed(channel, spending=2, after=SECOND) == 3
    assert allowed(channel, spending=0, after=SECOND) == 1
    assert allowed(channel, spending=0, after=timedelta(days=1)) == 3


def test_a_slow_channel_sends_one_at_a_time_and_a_free_one_as_many_as_are_asked_for() -> None:
    slow, free = Paced(), Outside()
    slow.per_second = 0.1
    assert allowed(slow, spending=1) == 1
    assert allowed(slow, spending=0, after=9 * SECOND) == 0
    assert allowed(slow, spending=0, after=10 * SECOND) == 1
    free.slug = "free"
    assert [allowed(free, spending=10), allowed(free, spending=10)] == [10, 10]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_workers_share_the_tokens_of_a_channel() -> None:
    channel = Paced()

    def draw() -> int:
        with transaction.atomic():
            may = pacing.allowance(channel, most=1, now=NOW)
            if may:
                pacing.spend(channel, may, now=NOW)
        return may

    drawn = race(*[draw] * 8)
    assert failures(drawn) == []
    assert sum(drawn) == 3


def test_a_slow_channel_gives_its_turn_to_the_others(monkeypatch: pytest.MonkeyPatch, paced: Paced) -> None:
    monkeypatch.setattr(outbox, "TURN", timedelta(0))
    paced.per_second = None
    tell(3)
    drain(now=NOW)
    assert len(paced.taken) == 1
    waiting = Delivery.objects.filter(channel="email", state="queued")
    assert set(waiting.values_list("attempts", "lease_until")) == {(0, None)}
    assert (waiting.count(), drain(now=NOW), len(paced.taken)) == (2, 2, 2)


# --- the breaker -------------------------------------------------------------------------------------


def test_failures_in_a_row_open_the_breaker_and_one_success_closes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    double = Outside(*[Unavailable("503 busy")] * 4, Uncertain("no answer"))
    double.claimed_at_once = 5
    monkeypatch.setitem(CHANNELS, "email", double)
    tell(8)

    assert drain(now=NOW) > 0
    assert (len(double.taken), drain(now=NOW)) == (5, 0)
    pace = ChannelPace.objects.get(channel="email")
    assert (pace.failures, pace.last_problem) == (5, "no answer")
    # What waits is not touched.
    assert Delivery.objects.filter(channel="email", state="queued", attempts=0).count() == 3

    # After the pause one goes ahead; the others follow when it has come through.
    assert (drain(now=NOW + 11 * SECOND), len(double.taken)) == (1, 6)
    drain(now=NOW + 11 * SECOND)
    assert not Delivery.objects.filter(channel="email", attempts=0).exists()
    assert ChannelPace.objects.get(channel="email").failures == 0


def test_one_that_went_ahead_in_vain_makes_the_pause_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    double = Outside(*[Unavailable("503 busy")] * 6)
    double.claimed_at_once = 5
    monkeypatch.setitem(CHANNELS, "email", double)
    tell(8)
    drain(now=NOW)
    drain(now=NOW + 11 * SECOND)
    assert len(double.taken) == 6
    drain(now=NOW + 25 * SECOND)
    assert len(double.taken) == 6
    drain(now=NOW + 32 * SECOND)
    assert len(double.taken) == 7


def test_while_one_goes_ahead_no_other_worker_does() -> None:
    channel = Outside()
    for _ in range(5):
        pacing.went_wrong(channel.slug, problem="busy", now=NOW)  # unknown as long as nobody has claimed
    allowed(channel, spending=1)
    for _ in range(5):
        pacing.went_wrong(channel.slug, problem="busy", now=NOW)
    later = 11 * SECOND
    assert allowed(channel, spending=1, after=later) == 1
    assert allowed(channel, spending=0, after=later) == 0


@pytest.mark.parametrize(
    "outcome",
    [Accepted(), Refused("550 unknown"), Deferred("450 greylisted")],
    ids=lambda each: type(each).__name__,
)
def test_a_provider_that_answers_is_well(
    outcome: Accepted | Refused | Deferred, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Outside(*[Unavailable("503 busy")] * 4, outcome, *[Unavailable("503 busy")] * 4)
    monkeypatch.setitem(CHANNELS, "email", double)
    tell(9)
    drain(now=NOW)
    assert len(double.taken) == 9
    assert ChannelPace.objects.get(channel="email").open_until is None


def test_readers_that_cannot_take_a_message_now_open_no_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    double = Outside(*[Deferred("450 greylisted")] * 6)
    monkeypatch.setitem(CHANNELS, "email", double)
    tell(9)
    drain(now=NOW)
    assert len(double.taken) == 9
    assert ChannelPace.objects.get(channel="email").failures == 0
    waiting = Delivery.objects.filter(channel="email", state="queued", problem="450 greylisted")
    assert waiting.count() == 6


def test_a_provider_that_asks_for_patience_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hour = timedelta(hours=1)
    monkeypatch.setitem(CHANNELS, "email", Outside(Unavailable("429", retry_after=hour)))
    tell(1)
    drain(now=NOW)
    delivery = Delivery.objects.get(channel="email")
    assert (delivery.state, delivery.due_at >= NOW + hour) == ("queued", True)


# --- staff -------------------------------------------------------------------------------------------


def test_staff_stop_a_channel_and_let_it_go_on(paced: Paced) -> None:
    staff = customer("staff@example.com")
    tell(2)
    pacing.pause("email", by_id=staff.pk, now=NOW)
    drain(now=NOW)
    assert (paced.taken, Delivery.objects.filter(channel="email", state="queued").count()) == ([], 2)
    assert pacing.paces()["email"].paused_by == staff

    pacing.resume("email")
    drain(now=NOW)
    assert len(paced.taken) == 2
