"""A buyer under 18: nothing is paid before the guardian has confirmed what the buyer accepted."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from agreements.acceptance import GuardianMissing, TextSuperseded, Witness
from agreements.models import Acceptance, Document, Role
from agreements.publishing import publish_shipped_texts
from agreements.tests.editions import publish_both, write_edition
from inventory.models import Fee
from notices.models import Delivery, InboxMessage, Notice
from notices.outbox import drain
from orders.checkout import CapReached, cancel_order, expire_orders
from orders.guardians import (
    MOST_REQUESTS,
    CannotAnswer,
    CannotAsk,
    Guardian,
    ask_again,
    confirm,
    refuse,
)
from orders.models import GuardianAnswer, GuardianRequest, Order, OrderState
from orders.payments import NotPayable, Payer, begin_payment
from orders.tests.minors import LATER, MEI, consents_of, make_minor, place, say_yes
from tests.builders import NOW, make_fee, make_plan, make_user
from tests.racing import failures, in_background, race, wait_until_blocked

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("preamble")]

WITNESS = Witness("203.0.113.9", "Firefox", "I confirm")


@pytest.fixture
def buyer() -> User:
    return make_minor()


@pytest.fixture
def fee() -> Fee:
    return make_fee(make_plan(cap=2))


@pytest.fixture
def order(tmp_path: Path, buyer: User, fee: Fee) -> Order:
    """Two phones, ordered by a minor whose guardian is Mei."""
    publish_both(tmp_path)
    return place(buyer, fee)


def state_of(order: Order) -> str:
    return Order.objects.values_list("state", flat=True).get(pk=order.pk)


def confirmations() -> int:
    """Texts that guardians have confirmed."""
    return Acceptance.objects.filter(role=Role.GUARDIAN).count()


# --- asking ------------------------------------------------------------------------------------------


def test_the_order_waits_for_the_guardian_and_the_buyer_is_not_asked_to_pay(
    order: Order, settings: Settings
) -> None:
    assert order.state == OrderState.AWAITING_GUARDIAN
    assert order.pay_until == NOW + settings.GUARDIAN_WINDOW
    request = order.guardian_requests.get()
    assert (request.name, request.email, request.language, request.asked_at, request.answer) == (
        "Mei",
        "mei@example.com",
        "en",
        NOW,
        None,
    )
    assert list(Notice.objects.values_list("kind", "to_address", "facts")) == [
        (
            "guardian-asked",
            "mei@example.com",
            {
                "reference": order.reference,
                "guardian": "Mei",
                "buyer": "Lin (buyer@example.com)",
                "units": 2,
                "total": {"minor": 998, "currency": "USD"},
                "until": "2026-11-26T04:00:00+00:00",
            },
        )
    ]


def test_a_buyer_without_a_name_is_introduced_by_his_address(
    tmp_path: Path, order: Order, buyer: User
) -> None:
    User.objects.filter(pk=buyer.pk).update(name="")

    ask_again(order_id=order.pk, guardian=MEI, language="en", now=LATER)

    assert Notice.objects.latest("pk").facts["buyer"] == "buyer@example.com"


@pytest.mark.parametrize("email", ["buyer@example.com", "Buyer@Example.COM", " BUYER@EXAMPLE.COM "])
def test_the_buyer_is_not_his_own_guardian(tmp_path: Path, buyer: User, fee: Fee, email: str) -> None:
    publish_both(tmp_path)

    with pytest.raises(CannotAsk, match="yours cannot confirm your own order"):
        place(buyer, fee, guardian=Guardian("Lin", email))

    assert not Order.objects.exists()
    assert not Notice.objects.exists()


def test_asking_again_sends_a_new_link_and_the_old_one_stops_working(order: Order) -> None:
    old = order.guardian_requests.get()

    new = ask_again(
        order_id=order.pk, guardian=Guardian("Wai", "wai@example.com"), language="zh-hans", now=LATER
    )

    assert (new.name, new.email, new.language) == ("Wai", "wai@example.com", "zh-hans")
    with pytest.raises(CannotAnswer, match="newer mail"):
        say_yes(old)
    with pytest.raises(CannotAnswer, match="newer mail"):
        refuse(request_id=old.pk, now=LATER)
    assert say_yes(new).state == OrderState.UNPAID
    assert list(order.guardian_requests.order_by("pk").values_list("answer", flat=True)) == [
        None,
        "confirmed",
    ]


def test_asking_again_gives_the_guardian_no_more_time(order: Order) -> None:
    ask_again(order_id=order.pk, guardian=MEI, language="en", now=LATER)

    assert Order.objects.get().pay_until == order.pay_until


@pytest.mark.parametrize("email", ["buyer@example.com", "Buyer@Example.COM"])
def test_the_buyer_does_not_become_his_own_guardian_later(order: Order, email: str) -> None:
    with pytest.raises(CannotAsk, match="yours cannot confirm your own order"):
        ask_again(order_id=order.pk, guardian=Guardian("Lin", email), language="en", now=LATER)

    assert order.guardian_requests.count() == 1


def test_a_stranger_is_not_pestered(order: Order) -> None:
    for _ in range(MOST_REQUESTS - 1):
        ask_again(order_id=order.pk, guardian=MEI, language="en", now=LATER)

    with pytest.raises(CannotAsk, match="asked 5 times"):
        ask_again(order_id=order.pk, guardian=MEI, language="en", now=LATER)

    assert order.guardian_requests.count() == 5
    assert Notice.objects.filter(kind="guardian-asked").count() == 5


@pytest.mark.parametrize(
    "end",
    [
        lambda order: say_yes(order.guardian_requests.get()),
        lambda order: refuse(request_id=order.guardian_requests.get().pk, now=LATER),
        lambda order: cancel_order(order_id=order.pk, now=LATER),
    ],
    ids=["confirmed", "refused", "cancelled"],
)
def test_nobody_is_asked_about_an_order_that_waits_for_nobody(
    order: Order, end: Callable[[Order], object]
) -> None:
    end(order)

    with pytest.raises(CannotAsk, match="does not wait for a guardian"):
        ask_again(order_id=order.pk, guardian=MEI, language="en", now=LATER)


def test_nobody_is_asked_when_the_time_is_over(order: Order) -> None:
    with pytest.raises(CannotAsk, match="does not wait for a guardian"):
        ask_again(order_id=order.pk, guardian=MEI, language="en", now=order.pay_until)


# --- confirming and refusing ---------------------------------------------------------------------------


def test_nothing_can_be_paid_before_the_guardian_has_confirmed(order: Order) -> None:
    with pytest.raises(NotPayable):
        begin_payment(order_id=order.pk, method="sandbox", payer=Payer("", "en"), now=NOW)

    assert not order.attempts.exists()


def test_confirming_opens_the_order_for_payment_and_tells_the_buyer(order: Order, settings: Settings) -> None:
    confirmed = say_yes(order.guardian_requests.get())

    assert confirmed.state == OrderState.UNPAID
    assert confirmed.pay_until == LATER + settings.PAYMENT_WINDOW_AFTER_GUARDIAN
    assert confirmed.is_payable(LATER)
    request = order.guardian_requests.get()
    assert (request.answer, request.answered_at) == (GuardianAnswer.CONFIRMED, LATER)
    notice = Notice.objects.get(kind="guardian-confirmed")
    assert (notice.recipient, notice.about, notice.to_address) == (order.customer, order.reference, "")


@pytest.mark.clause("9.5")
def test_what_the_guardian_confirmed_is_on_record_with_his_name(order: Order) -> None:
    say_yes(order.guardian_requests.get())

    rows = Acceptance.objects.filter(role=Role.GUARDIAN).order_by("chain_number")
    assert [(row.text.version.document, row.person_name, row.person_email) for row in rows] == [
        ("prepayment", "Mei Lin", "mei@example.com"),
        ("purchase", "Mei Lin", "mei@example.com"),
    ]
    assert {(row.ip_address, row.accepted_at, row.order_reference) for row in rows} == {
        ("203.0.113.9", LATER, order.reference)
    }
    assert rows[0].control == "checkbox prepayment-agreement-guardian, button 'I confirm'"


@pytest.mark.clause("9.1")
def test_the_guardian_confirms_the_texts_that_the_buyer_accepted_also_after_a_revision(
    tmp_path: Path, order: Order
) -> None:
    write_edition(tmp_path, document=Document.PURCHASE, number=2, on=NOW.date())
    publish_shipped_texts(now=LATER, folder=tmp_path)

    say_yes(order.guardian_requests.get())

    texts = {role: set(order_texts(order, role)) for role in Role}
    assert texts[Role.GUARDIAN] == texts[Role.BUYER] == {("prepayment", 1), ("purchase", 1)}


def order_texts(order: Order, role: Role) -> QuerySet[Acceptance, tuple[str, int]]:
    rows = Acceptance.objects.filter(order_reference=order.reference, role=role)
    return rows.values_list("text__version__document", "text__version__number")


def test_half_a_confirmation_is_none(order: Order) -> None:
    request = order.guardian_requests.get()

    with pytest.raises(GuardianMissing):
        confirm(request_id=request.pk, consents=consents_of(request)[:1], witness=WITNESS, now=LATER)

    request.refresh_from_db()
    assert (state_of(order), request.answer, confirmations()) == (OrderState.AWAITING_GUARDIAN, None, 0)
    assert not Notice.objects.filter(kind="guardian-confirmed").exists()


def test_what_was_confirmed_for_another_order_does_not_count(tmp_path: Path, order: Order, fee: Fee) -> None:
    write_edition(tmp_path, document=Document.PURCHASE, number=2, on=NOW.date())
    publish_shipped_texts(now=NOW, folder=tmp_path)
    other = place(make_user(), make_fee(make_plan()))

    with pytest.raises(TextSuperseded):
        confirm(
            request_id=order.guardian_requests.get().pk,
            consents=consents_of(other.guardian_requests.get()),
            witness=WITNESS,
            now=LATER,
        )

    assert (state_of(order), confirmations()) == (OrderState.AWAITING_GUARDIAN, 0)


def test_the_second_click_changes_nothing(order: Order) -> None:
    request = order.guardian_requests.get()

    first, second = say_yes(request), say_yes(request, now=LATER + timedelta(minutes=1))

    assert first.pay_until == second.pay_until
    assert confirmations() == 2
    assert Notice.objects.filter(kind="guardian-confirmed").count() == 1
    with pytest.raises(CannotAnswer, match="does not wait"):
        refuse(request_id=request.pk, now=LATER)
    assert state_of(order) == OrderState.UNPAID


def test_refusing_cancels_the_order_gives_its_units_back_and_tells_the_buyer(order: Order, fee: Fee) -> None:
    request = order.guardian_requests.get()

    assert refuse(request_id=request.pk, now=LATER).state == OrderState.CANCELLED
    assert refuse(request_id=request.pk, now=LATER).state == OrderState.CANCELLED

    assert Notice.objects.get(kind="guardian-refused").recipient == order.customer
    with pytest.raises(CannotAnswer, match="does not wait"):
        say_yes(request)
    assert confirmations() == 0
    assert place(make_user(), fee, guardian=None).state == OrderState.UNPAID


def test_of_an_orders_requests_the_database_lets_one_be_answered(order: Order) -> None:
    ask_again(order_id=order.pk, guardian=MEI, language="en", now=LATER)

    with pytest.raises(IntegrityError, match=r"one_answer|order_id"):
        GuardianRequest.objects.update(answer=GuardianAnswer.CONFIRMED, answered_at=LATER)


# --- the time runs out -----------------------------------------------------------------------------------


def test_waiting_for_a_guardian_holds_the_units_and_ends_like_any_unpaid_order(
    order: Order, fee: Fee, settings: Settings
) -> None:
    with pytest.raises(CapReached):
        place(make_user(), fee, guardian=None)
    over = order.pay_until + settings.PAYMENT_GRACE

    assert expire_orders(now=over - timedelta(seconds=1)) == 0
    assert expire_orders(now=over) == 1
    assert expire_orders(now=over) == 0

    assert state_of(order) == OrderState.EXPIRED
    notice = Notice.objects.get(kind="order-expired")
    assert (notice.recipient, notice.facts["awaited_guardian"]) == (order.customer, True)
    assert place(make_user(), fee, guardian=None).state == OrderState.UNPAID


@pytest.mark.parametrize("late", [timedelta(0), timedelta(minutes=15), timedelta(days=1)])
def test_a_guardian_who_comes_too_late_confirms_nothing(order: Order, late: timedelta) -> None:
    now = order.pay_until + late
    expire_orders(now=now)

    with pytest.raises(CannotAnswer):
        say_yes(order.guardian_requests.get(), now=now)
    with pytest.raises(CannotAnswer):
        refuse(request_id=order.guardian_requests.get().pk, now=now)

    assert confirmations() == 0
    assert not Notice.objects.filter(kind__in=("guardian-confirmed", "guardian-refused")).exists()


def test_a_confirmed_order_that_is_not_paid_expires_by_its_new_deadline(
    order: Order, settings: Settings
) -> None:
    confirmed = say_yes(order.guardian_requests.get(), now=order.pay_until - timedelta(seconds=1))
    over = confirmed.pay_until + settings.PAYMENT_GRACE

    assert expire_orders(now=over - timedelta(seconds=1)) == 0
    assert expire_orders(now=over) == 1
    assert Notice.objects.get(kind="order-expired").facts["awaited_guardian"] is False


# --- the link ------------------------------------------------------------------------------------------


def test_the_link_goes_to_the_guardian_alone_and_is_kept_nowhere(
    client: Client, order: Order, settings: Settings
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    while drain(now=timezone.now()):
        pass

    (letter,) = mail.outbox
    assert isinstance(letter, EmailMultiAlternatives)
    assert letter.to == ["mei@example.com"]
    link = next(word for word in str(letter.body).split() if "/guardian/" in word)
    proof = link.partition("proof=")[2]
    assert len(proof) > 20
    assert client.get(link.removeprefix(settings.SITE_URL)).status_code in (200, 410)
    assert Delivery.objects.get().address == "mei@example.com"
    assert not InboxMessage.objects.exists()
    rows = [row for model in apps.get_models() for row in model._default_manager.values()]
    assert len(rows) > 10
    assert not [row for row in rows if proof in str(row)]


# --- races ---------------------------------------------------------------------------------------------


@pytest.mark.postgres
def test_two_clicks_at_once_confirm_once(order: Order) -> None:
    request = order.guardian_requests.get()

    outcomes = race(*[lambda: say_yes(request)] * 4)

    assert failures(outcomes) == []
    assert (state_of(order), confirmations()) == (OrderState.UNPAID, 2)
    assert Notice.objects.filter(kind="guardian-confirmed").count() == 1


@pytest.mark.postgres
def test_confirming_and_refusing_at_once_ends_in_exactly_one_of_them(order: Order) -> None:
    request = order.guardian_requests.get()

    outcomes = race(lambda: say_yes(request), lambda: refuse(request_id=request.pk, now=LATER))

    assert [type(failure) for failure in failures(outcomes)] == [CannotAnswer]
    request.refresh_from_db()
    assert (state_of(order), request.answer, confirmations()) in (
        (OrderState.UNPAID, GuardianAnswer.CONFIRMED, 2),
        (OrderState.CANCELLED, GuardianAnswer.REFUSED, 0),
    )


def one_after_the_other(order: Order, *works: Callable[[], Any]) -> list[Any]:
    """Start each while somebody holds the order, the next when the one before it waits; what each returned."""
    with transaction.atomic():
        Order.objects.filter(pk=order.pk).update(pay_until=F("pay_until"))
        waiting = []
        for n, work in enumerate(works, start=1):
            waiting.append(in_background(work))
            wait_until_blocked(n)
    return [each.exception(60) or each.result() for each in waiting]


def confirm_as_it_expires(order: Order, settings: Settings) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A guardian at the last second, and the job that thinks he did not come."""
    request = order.guardian_requests.get()
    last, over = order.pay_until - timedelta(seconds=1), order.pay_until + settings.PAYMENT_GRACE
    return (lambda: say_yes(request, now=last)), (lambda: expire_orders(now=over))


@pytest.mark.postgres
def test_an_order_that_is_confirmed_while_it_was_to_expire_does_not_expire(
    order: Order, settings: Settings
) -> None:
    confirming, expiring = confirm_as_it_expires(order, settings)

    confirmed, expired = one_after_the_other(order, confirming, expiring)

    assert (confirmed.state, expired) == (OrderState.UNPAID, 0)
    assert (state_of(order), confirmations()) == (OrderState.UNPAID, 2)
    assert not Notice.objects.filter(kind="order-expired").exists()


@pytest.mark.postgres
def test_control_without_the_orders_lock_a_confirmed_order_expires(
    order: Order, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuerySet, "select_for_update", lambda rows, **_: rows)
    confirming, expiring = confirm_as_it_expires(order, settings)

    one_after_the_other(order, confirming, expiring)

    assert (state_of(order), confirmations()) == (OrderState.EXPIRED, 2)


@pytest.mark.postgres
def test_an_order_that_expires_before_it_is_confirmed_stays_expired(order: Order, settings: Settings) -> None:
    confirming, expiring = confirm_as_it_expires(order, settings)

    expired, refused = one_after_the_other(order, expiring, confirming)

    assert (expired, type(refused)) == (1, CannotAnswer)
    assert (state_of(order), confirmations()) == (OrderState.EXPIRED, 0)


@pytest.mark.postgres
@pytest.mark.parametrize("cancelled_first", [True, False])
def test_an_order_that_its_buyer_cancels_as_it_is_confirmed_is_cancelled(
    order: Order, cancelled_first: bool
) -> None:
    request = order.guardian_requests.get()
    works = [lambda: cancel_order(order_id=order.pk, now=LATER), lambda: say_yes(request)]

    outcomes = one_after_the_other(order, *(works if cancelled_first else reversed(works)))

    assert [type(failure) for failure in failures(outcomes)] == ([CannotAnswer] if cancelled_first else [])
    assert (state_of(order), confirmations()) == (OrderState.CANCELLED, 0 if cancelled_first else 2)
    with pytest.raises(NotPayable):
        begin_payment(order_id=order.pk, method="sandbox", payer=Payer("", "en"), now=LATER)


@pytest.mark.postgres
def test_asking_again_as_the_old_link_is_used_leaves_one_of_them(order: Order) -> None:
    request = order.guardian_requests.get()

    new, refused = one_after_the_other(
        order,
        lambda: ask_again(order_id=order.pk, guardian=MEI, language="en", now=LATER),
        lambda: say_yes(request),
    )

    assert (type(refused), confirmations()) == (CannotAnswer, 0)
    assert say_yes(new).state == OrderState.UNPAID
