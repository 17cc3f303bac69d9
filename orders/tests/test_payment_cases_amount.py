"""Cases 13 to 17 of docs/payment-cases.md: money that is not what the order costs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from inventory.money import Money
from notices.models import Notice
from notices.rendering import render
from orders.checkout import cancel_order, expire_orders
from orders.gateways.emulators import stripe as stripes
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.gateways.emulators.sandbox import Outcome
from orders.gateways.protocol import Unavailable
from orders.models import LedgerEntry, Order, ReturnReason, ReviewItem
from orders.payments import NotPayable, poll_payments
from orders.returns import CannotReturn, give_back, send_returns
from orders.tests.gateway_servers import Listener
from orders.tests.paying import PAID, UNPAID, Door, Standing, begin, hand_on, standing_of
from tests.builders import make_fee, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def now() -> datetime:
    """The providers live in real time, so these tests do."""
    return datetime.now(UTC)


@pytest.fixture
def order(now: datetime) -> Order:
    return make_order([(make_fee(make_plan(), minor=4_990), 1)], placed_at=now)


def what_is_said() -> str:
    """The one review item that there is, after the words that name the capture."""
    detail: str = ReviewItem.objects.get().detail
    return detail.partition(": ")[2]


@pytest.mark.payment_case(13)
def test_one_cent_too_little_does_not_pay_and_what_is_missing_is_shown_for_review(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url, Outcome.PAY_LESS)

    hand_on(sandbox, shop, door, now=now)

    assert standing_of(order) == replace(UNPAID, ledger=(("capture", 4_989, "USD"),), reviews=("underpaid",))
    assert what_is_said() == "0.01 USD are missing."


@pytest.mark.payment_case(13)
def test_buyer_who_paid_too_little_sees_what_is_missing(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url, Outcome.PAY_LESS)
    hand_on(sandbox, shop, door, now=now)

    with door.browser_of(order) as browser:
        page = browser.get(f"/orders/{order.reference}/pay/")
        order_page = browser.get(f"/orders/{order.reference}/")

    assert "A payment has arrived, but it does not cover the order: $0.01 is missing." in page.text
    assert "Pay $0.01" in page.text
    assert "<strong>Not paid in full: $0.01 is missing.</strong>" in order_page.text
    assert [each for each in ("Pay $49.90",) if each in page.text or each in order_page.text] == []


@pytest.mark.payment_case(13)
def test_what_is_missing_is_paid_by_whatever_method_and_pays_the_order(
    sandbox: RunningSandbox, stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url, Outcome.PAY_LESS)
    hand_on(sandbox, shop, door, now=now)

    rest = begin(order, now=now, method="card")
    assert rest.amount == Money(1, "USD")
    stripe.decide(rest.pay_url)
    hand_on(stripe, shop, door, now=now)

    assert standing_of(order) == replace(
        PAID, ledger=(("capture", 4_989, "USD"), ("capture", 1, "USD")), reviews=("underpaid",)
    )


@pytest.mark.payment_case(13, 17)
def test_payment_that_was_begun_over_all_is_closed_and_makes_room_for_one_over_the_rest(
    sandbox: RunningSandbox, stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    over_all = begin(order, now=now, method="card")
    sandbox.decide(begin(order, now=now).pay_url, Outcome.PAY_LESS)
    hand_on(sandbox, shop, door, now=now)

    rest = begin(order, now=now, method="card")

    over_all.refresh_from_db()
    assert (over_all.state, rest.amount, rest.is_open_to_pay) == ("cancelled", Money(1, "USD"), True)
    assert [session["status"] for session in stripe.books()["sessions"]] == ["expired", "open"]


@pytest.mark.payment_case(13, 17)
def test_old_tab_over_all_is_closed_by_the_poller_when_a_part_has_come(
    sandbox: RunningSandbox, stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    begin(order, now=now, method="card")
    sandbox.decide(begin(order, now=now).pay_url, Outcome.PAY_LESS)
    hand_on(sandbox, shop, door, now=now)

    assert poll_payments(now=now) == 1

    [session] = stripe.books()["sessions"]
    assert session["status"] == "expired"


@pytest.mark.payment_case(13, 17)
def test_payment_over_all_that_cannot_be_closed_is_not_led_to(
    sandbox: RunningSandbox, stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    stripe.set_faults(lost_answers=10)
    with pytest.raises(Unavailable):
        begin(order, now=now, method="card")
    stripe.set_faults(lost_answers=0)
    sandbox.decide(begin(order, now=now).pay_url, Outcome.PAY_LESS)
    hand_on(sandbox, shop, door, now=now)

    with pytest.raises(NotPayable, match="still open for another amount"):
        begin(order, now=now, method="card")


@pytest.mark.payment_case(13)
def test_order_that_expires_half_paid_gives_it_back_and_says_so(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url, Outcome.PAY_LESS)
    hand_on(sandbox, shop, door, now=now)
    assert expire_orders(now=now + timedelta(hours=1)) == 1

    with door.browser_of(order) as browser:
        page = browser.get(f"/orders/{order.reference}/")

    assert "What you paid goes back to you, as said below." in page.text
    assert "$49.89 that you paid are given back: it never covered the order." in page.text
    assert "Nothing was charged" not in page.text
    assert "was not paid in full in time" in render(Notice.objects.get(kind="order-expired")).body
    assert "was less than it costs" in render(Notice.objects.get(kind="money-returned")).body

    assert send_returns(now=now) == 1
    hand_on(sandbox, shop, door, now=now)
    assert standing_of(order) == replace(
        UNPAID,
        state="expired",
        ledger=(("capture", 4_989, "USD"), ("refund", -4_989, "USD")),
        returns=(("incomplete", 4_989, "paid"),),
        reviews=("underpaid",),
        told=("money-returned", "order-expired"),
    )


@pytest.mark.payment_case(14)
def test_other_currency_goes_back_when_the_order_has_expired(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url, Outcome.PAY_OTHER_CURRENCY)
    hand_on(sandbox, shop, door, now=now)

    assert [expire_orders(now=now + timedelta(hours=1)) for _ in range(2)] == [1, 0]

    assert standing_of(order) == replace(
        UNPAID,
        state="expired",
        ledger=(("capture", 4_990, "JPY"),),
        returns=(("wrong-currency", 4_990, "due"),),
        reviews=("wrong-currency",),
        told=("money-returned", "order-expired"),
    )


@pytest.mark.payment_case(14)
@pytest.mark.parametrize("gateway", ["sandbox", "stripe"])
def test_right_number_in_another_currency_never_pays_and_is_reviewed(
    request: pytest.FixtureRequest, shop: Listener, order: Order, door: Door, now: datetime, gateway: str
) -> None:
    provider = request.getfixturevalue(gateway)
    method, outcome = {
        "sandbox": ("sandbox", Outcome.PAY_OTHER_CURRENCY),
        "stripe": ("card", stripes.Outcome.PAY_OTHER_CURRENCY),
    }[gateway]
    provider.decide(begin(order, now=now, method=method).pay_url, outcome)

    hand_on(provider, shop, door, now=now)

    assert standing_of(order) == replace(
        UNPAID, ledger=(("capture", 4_990, "JPY"),), reviews=("wrong-currency",)
    )
    assert what_is_said() == "Captured 4990 JPY for 49.90 USD."


@pytest.mark.payment_case(14)
def test_yen_beside_the_right_dollars_change_nothing_but_the_review(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url, Outcome.PAY_OTHER_CURRENCY)
    hand_on(sandbox, shop, door, now=now)
    sandbox.decide(begin(order, now=now).pay_url)
    hand_on(sandbox, shop, door, now=now)

    assert standing_of(order) == replace(
        PAID,
        ledger=(("capture", 4_990, "JPY"), ("capture", 4_990, "USD")),
        reviews=("wrong-currency",),
    )


@pytest.mark.payment_case(15)
def test_surplus_pays_the_order_and_goes_back_when_a_person_has_looked_at_it(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    attempt = begin(order, now=now)
    sandbox.decide(attempt.pay_url, Outcome.PAY_MORE)
    hand_on(sandbox, shop, door, now=now)

    paid = replace(PAID, ledger=(("capture", 5_090, "USD"),), reviews=("surplus",))
    assert standing_of(order) == paid
    assert what_is_said() == "1.00 USD more than the order costs."

    staff = make_user(is_staff=True)

    def back(minor: int) -> None:
        give_back(
            attempt_id=attempt.pk,
            amount=Money(minor, "USD"),
            reason=ReturnReason.SURPLUS,
            decided_by_id=staff.pk,
            now=now,
        )

    with pytest.raises(CannotReturn, match=r"\$1.00 belong to no sale"):
        back(101)
    back(100)
    assert send_returns(now=now) == 1
    hand_on(sandbox, shop, door, now=now)

    assert standing_of(order) == replace(
        paid,
        ledger=(("capture", 5_090, "USD"), ("refund", -100, "USD")),
        returns=(("surplus", 100, "paid"),),
        told=(*paid.told, "money-returned"),
    )
    assert [refund["amount"] for refund in sandbox.books()["payments"][0]["refunds"]] == ["1.00"]


@pytest.mark.payment_case(16)
@pytest.mark.parametrize("gateway", ["sandbox", "stripe", "paypal"])
def test_499_yen_are_asked_for_and_booked_as_499(
    request: pytest.FixtureRequest, shop: Listener, door: Door, now: datetime, gateway: str
) -> None:
    provider = request.getfixturevalue(gateway)
    order = make_order([(make_fee(make_plan(), minor=499, currency="JPY"), 1)], placed_at=now)
    method = "card" if gateway == "stripe" else gateway
    provider.decide(begin(order, now=now, method=method).pay_url)

    hand_on(provider, shop, door, now=now)

    assert standing_of(order) == replace(PAID, ledger=(("capture", 499, "JPY"),))
    assert Notice.objects.get(kind="payment-received").facts["total"] == {"minor": 499, "currency": "JPY"}
    assert str(LedgerEntry.objects.get().money) == "499 JPY"


@pytest.mark.payment_case(17)
def test_total_of_an_order_and_of_its_attempt_never_change(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    attempt = begin(order, now=now)

    for statement, pk in (
        ("UPDATE orders_order SET total_minor = 1 WHERE id = %s", order.pk),
        ("UPDATE orders_paymentattempt SET amount_minor = 1 WHERE id = %s", attempt.pk),
    ):
        with (
            pytest.raises(IntegrityError, match="refused"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement, [pk])

    sandbox.decide(attempt.pay_url)
    hand_on(sandbox, shop, door, now=now)
    assert standing_of(order) == PAID


@pytest.mark.payment_case(17)
def test_who_orders_anew_for_another_total_cannot_pay_the_old_one_by_its_open_tab(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    old = begin(order, now=now)
    cancel_order(order_id=order.pk, now=now)
    dearer = make_order([(order.lines.get().fee, 2)], customer=order.customer, placed_at=now)
    new = begin(dearer, now=now)
    assert poll_payments(now=now) == 1

    sandbox.decide(old.pay_url)
    sandbox.decide(new.pay_url)
    hand_on(sandbox, shop, door, now=now)

    assert [payment["status"] for payment in sandbox.books()["payments"]] == ["cancelled", "captured"]
    assert standing_of(order) == replace(UNPAID, state="cancelled")
    assert standing_of(dearer) == replace(PAID, ledger=(("capture", 9_980, "USD"),))
    old.refresh_from_db()
    assert old.state == "cancelled"


@pytest.mark.payment_case(17)
@pytest.mark.parametrize(
    ("outcome", "standing"),
    [
        (
            Outcome.PAY_LESS,
            replace(
                UNPAID,
                state="cancelled",
                ledger=(("capture", 4_989, "USD"),),
                returns=(("incomplete", 4_989, "due"),),
                reviews=("underpaid",),
                told=("money-returned",),
            ),
        ),
        (Outcome.PAY_MORE, replace(PAID, ledger=(("capture", 5_090, "USD"),), reviews=("surplus",))),
    ],
    ids=["less", "more"],
)
def test_old_attempt_that_is_paid_all_the_same_is_measured_by_its_own_order(
    sandbox: RunningSandbox,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    outcome: Outcome,
    standing: Standing,
) -> None:
    old = begin(order, now=now)
    cancel_order(order_id=order.pk, now=now)
    dearer = make_order([(order.lines.get().fee, 2)], customer=order.customer, placed_at=now)
    # Faster than our closing it.
    sandbox.decide(old.pay_url, outcome)

    hand_on(sandbox, shop, door, now=now)

    assert standing_of(order) == standing
    assert standing_of(dearer) == replace(UNPAID, reviews=standing.reviews)
