"""A buyer under 18: nothing is paid before the guardian has confirmed, by a link that only he has."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.db import transaction
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from agreements.acceptance import Consent, GuardianMissing, Witness, required_of_buyer, required_of_guardian
from agreements.models import Acceptance, Role
from agreements.tests.editions import publish_both
from inventory.models import Fee
from inventory.money import Money
from notices.links import signed
from notices.models import Delivery, DeliveryEvent, InboxMessage, Message, Notice
from notices.outbox import drain
from orders.checkout import CapReached, Wish, cancel_order, expire_orders, place_order
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
from orders.payments import NotPayable, begin_payment
from orders.tests.shopping import log_in
from tests.builders import NOW, make_fee, make_plan, make_user
from tests.racing import failures, race

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("preamble")]

LATER = NOW + timedelta(hours=1)
WITNESS = Witness("203.0.113.9", "Firefox", "I confirm")


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def buyer() -> User:
    user = make_user("buyer@example.com")
    User.objects.filter(pk=user.pk).update(name="Lin")
    user.refresh_from_db()
    return user


@pytest.fixture
def fee() -> Fee:
    return make_fee(make_plan(cap=2))


@pytest.fixture
def order(tmp_path: Path, buyer: User, fee: Fee) -> Order:
    """Two phones, ordered by a minor whose guardian is Mei."""
    publish_both(tmp_path)
    return place(buyer, fee, guardian=Guardian("Mei", "mei@example.com"))


def place(buyer: User, fee: Fee, *, guardian: Guardian | None) -> Order:
    required = required_of_buyer(now=NOW, language="en", right=None)
    return place_order(
        customer_id=buyer.pk,
        checkout_key=uuid.uuid4(),
        wishes=[Wish(fee.term_id, 2)],
        currency="USD",
        seen_total=Money(fee.minor * 2, "USD"),
        country="HK",
        consents=[
            Consent(each.text.pk, each.subject, each.role, buyer.name, buyer.email, each.statement)
            for each in required
        ],
        witness=Witness(None, ""),
        guardian=guardian,
        language="en",
        now=NOW,
    )


def consents_of(request: GuardianRequest) -> list[Consent]:
    return [
        Consent(each.text.pk, each.subject, each.role, "Mei Lin", request.email, each.statement)
        for each in required_of_guardian(order_reference=request.order.reference, language=request.language)
    ]


def say_yes(request: GuardianRequest) -> Order:
    return confirm(request_id=request.pk, consents=consents_of(request), witness=WITNESS, now=LATER)


def state_of(order: Order) -> str:
    return Order.objects.values_list("state", flat=True).get(pk=order.pk)


# --- confirming ---


def test_nothing_can_be_paid_before_the_guardian_has_confirmed(order: Order) -> None:
    with pytest.raises(NotPayable):
        begin_payment(order_id=order.pk, method="sandbox", return_url="", language="en", now=NOW)
    assert not order.attempts.exists()


def test_confirming_opens_the_order_for_payment_and_tells_the_buyer(order: Order, settings: Settings) -> None:
    confirmed = say_yes(order.guardian_requests.get())

    assert confirmed.state == OrderState.UNPAID
    assert confirmed.pay_until == LATER + settings.PAYMENT_WINDOW_AFTER_GUARDIAN
    request = order.guardian_requests.get()
    assert (request.answer, request.answered_at) == (GuardianAnswer.CONFIRMED, LATER)
    notice = Notice.objects.get(kind="guardian-confirmed")
    assert (notice.recipient, notice.about) == (order.customer, order.reference)


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


def test_half_a_confirmation_is_none(order: Order) -> None:
    request = order.guardian_requests.get()

    with pytest.raises(GuardianMissing):
        confirm(request_id=request.pk, consents=consents_of(request)[:1], witness=WITNESS, now=LATER)

    assert state_of(order) == OrderState.AWAITING_GUARDIAN
    assert not Acceptance.objects.filter(role=Role.GUARDIAN).exists()


def test_the_second_click_changes_nothing(order: Order) -> None:
    request = order.guardian_requests.get()

    first, second = say_yes(request), say_yes(request)

    assert first.pay_until == second.pay_until
    assert Acceptance.objects.filter(role=Role.GUARDIAN).count() == 2
    with pytest.raises(CannotAnswer, match="does not wait"):
        refuse(request_id=request.pk, now=LATER)


def test_refusing_cancels_the_order_gives_its_units_back_and_tells_the_buyer(order: Order, fee: Fee) -> None:
    request = order.guardian_requests.get()

    assert refuse(request_id=request.pk, now=LATER).state == OrderState.CANCELLED

    assert Notice.objects.get(kind="guardian-refused").recipient == order.customer
    with pytest.raises(CannotAnswer):
        say_yes(request)
    assert place(make_user(), fee, guardian=None).state == OrderState.UNPAID


def test_waiting_for_a_guardian_holds_the_units_and_ends_like_any_unpaid_order(
    order: Order, fee: Fee, settings: Settings
) -> None:
    with pytest.raises(CapReached):
        place(make_user(), fee, guardian=None)
    over = order.pay_until + settings.PAYMENT_GRACE

    assert expire_orders(now=over - timedelta(seconds=1)) == 0
    assert expire_orders(now=over) == 1

    assert state_of(order) == OrderState.EXPIRED
    with pytest.raises(CannotAnswer):
        confirm(
            request_id=order.guardian_requests.get().pk,
            consents=consents_of(order.guardian_requests.get()),
            witness=WITNESS,
            now=over,
        )


# --- asking again ---


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


def test_a_stranger_is_not_pestered(order: Order) -> None:
    again = {"order_id": order.pk, "guardian": Guardian("Mei", "mei@example.com"), "language": "en"}
    for _ in range(MOST_REQUESTS - 1):
        ask_again(**again, now=NOW)  # type: ignore[arg-type]

    with pytest.raises(CannotAsk, match="asked 5 times"):
        ask_again(**again, now=NOW)  # type: ignore[arg-type]


def test_nobody_is_asked_about_an_order_that_waits_for_nobody(order: Order) -> None:
    say_yes(order.guardian_requests.get())

    with pytest.raises(CannotAsk, match="does not wait for a guardian"):
        ask_again(order_id=order.pk, guardian=Guardian("Mei", "mei@example.com"), language="en", now=LATER)


# --- the link ---


def link_in(message: EmailMultiAlternatives) -> str:
    return next(word for word in str(message.body).split() if "/guardian/" in word)


def sent(settings: Settings) -> EmailMultiAlternatives:
    """The one mail to the guardian, after the outbox was emptied."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    while drain(now=NOW):
        pass
    (letter,) = [each for each in mail.outbox if each.to == ["mei@example.com"]]
    assert isinstance(letter, EmailMultiAlternatives)
    return letter


def test_the_link_goes_to_the_guardian_alone_and_is_kept_nowhere(
    client: Client, order: Order, settings: Settings
) -> None:
    link = link_in(sent(settings))

    proof = link.partition("proof=")[2]
    assert len(proof) > 20
    assert client.get(link.removeprefix(settings.SITE_URL)).status_code == 200
    for model in (Notice, Delivery, DeliveryEvent, Message, InboxMessage, GuardianRequest):
        assert proof not in str(list(model.objects.values()))
    assert not InboxMessage.objects.filter(delivery__notice__kind="guardian-asked").exists()
    assert Delivery.objects.get(notice__kind="guardian-asked").address == "mei@example.com"


def page_of(order: Order) -> str:
    return signed(f"/guardian/{order.guardian_requests.latest('pk').pk}/")


@pytest.mark.parametrize("proof", ["", "?proof=", "?proof=abc", "?proof=%00"])
def test_without_the_proof_there_is_no_such_page(client: Client, order: Order, proof: str) -> None:
    path = page_of(order).partition("?")[0]

    assert client.get(path + proof).status_code == 404
    assert client.post(path + proof, {"refuse": "1"}).status_code == 404
    assert state_of(order) == OrderState.AWAITING_GUARDIAN


def test_the_proof_of_one_link_does_not_open_another(client: Client, order: Order) -> None:
    proof = page_of(order).partition("?")[2]
    other = ask_again(order_id=order.pk, guardian=Guardian("Mei", "mei@example.com"), language="en", now=NOW)

    assert client.get(f"/guardian/{other.pk}/?{proof}").status_code == 404


# --- the page ---


def test_the_page_shows_the_order_both_agreements_and_nothing_ticked(client: Client, order: Order) -> None:
    response = client.get(page_of(order))
    html = response.content.decode()

    assert "Lin is under 18" in html
    assert "$9.98" in html
    assert "Phones in the order of payment." in html
    assert "I am the buyer&#x27;s legal guardian, I have read the purchase (en), version 1" in html
    assert " checked" not in html
    assert 'value="Mei"' in html
    assert '<meta name="robots" content="noindex">' in html
    assert "no-store" in response.headers["Cache-Control"]
    # Programs that look for harmful mail open links: that is no answer.
    assert state_of(order) == OrderState.AWAITING_GUARDIAN


def boxes(client: Client, page: str) -> dict[str, str]:
    return {control.box.html_name: "on" for control in client.get(page).context["form"].controls()}


def test_the_guardian_confirms_on_the_page_once(client: Client, order: Order) -> None:
    page = page_of(order)
    data = {**boxes(client, page), "name": "Mei Lin"}

    assert "You confirmed order" in client.post(page, data).content.decode()
    assert "You confirmed order" in client.post(page, data).content.decode()
    assert "You confirmed order" in client.get(page).content.decode()

    assert state_of(order) == OrderState.UNPAID
    assert Acceptance.objects.filter(role=Role.GUARDIAN, person_name="Mei Lin").count() == 2


def test_an_unticked_box_or_a_missing_name_is_told(client: Client, order: Order) -> None:
    page = page_of(order)

    response = client.post(page, {"name": ""})

    assert response.status_code == 422
    html = response.content.decode()
    assert "Please enter your name." in html
    assert "Please confirm the prepayment (en)." in html
    assert state_of(order) == OrderState.AWAITING_GUARDIAN


def test_the_guardian_refuses_on_the_page(client: Client, order: Order) -> None:
    page = page_of(order)

    assert "It is cancelled" in client.post(page, {"refuse": "1"}).content.decode()
    assert "It is cancelled" in client.get(page).content.decode()

    assert state_of(order) == OrderState.CANCELLED


def test_a_link_out_of_date_says_so(client: Client, order: Order) -> None:
    page = page_of(order)
    cancel_order(order_id=order.pk, now=NOW)

    response = client.get(page)

    assert response.status_code == 410
    assert "This link is out of date" in response.content.decode()
    assert client.post(page, {"refuse": "1"}).status_code == 410


def test_the_page_speaks_the_language_of_the_mail(client: Client, order: Order) -> None:
    GuardianRequest.objects.create(
        order=order, name="Mei", email="mei@example.com", language="zh-hans", asked_at=NOW
    )

    html = client.get(page_of(order), headers={"accept-language": "en"}).content.decode()

    assert '<html lang="zh-hans">' in html


# --- the buyer's side ---


def test_the_buyer_sees_what_the_order_waits_for_and_can_have_the_mail_sent_again(
    client: Client, order: Order, buyer: User
) -> None:
    log_in(client, buyer)
    html = client.get(order.get_absolute_url()).content.decode()
    assert "We wrote to mei@example.com." in html
    assert client.get(f"/orders/{order.reference}/pay/").headers["Location"] == order.get_absolute_url()
    assert "Waiting for your guardian" in client.get("/orders/").content.decode()

    response = client.post(
        f"/orders/{order.reference}/guardian/", {"name": "Wai", "email": "wai@example.com"}, follow=True
    )

    assert "A new mail is on its way to wai@example.com" in response.content.decode()
    assert order.guardian_requests.count() == 2


@pytest.mark.parametrize("email", ["", "nobody", "buyer@example.com"])
def test_an_address_that_cannot_be_the_guardians_is_refused(
    client: Client, order: Order, buyer: User, email: str
) -> None:
    log_in(client, buyer)

    response = client.post(
        f"/orders/{order.reference}/guardian/", {"name": "Wai", "email": email}, follow=True
    )

    assert "Please enter" in response.content.decode()
    assert order.guardian_requests.count() == 1


def test_somebody_elses_order_is_none(client: Client, order: Order) -> None:
    log_in(client, make_user())

    response = client.post(
        f"/orders/{order.reference}/guardian/", {"name": "Wai", "email": "wai@example.com"}
    )

    assert response.status_code == 404


def test_the_open_order_page_is_loaded_anew_when_the_guardian_has_confirmed(
    client: Client, order: Order, buyer: User
) -> None:
    log_in(client, buyer)
    live = f"/orders/{order.reference}/live/"
    assert client.get(live, {"state": "guardian"}).status_code == 200

    say_yes(order.guardian_requests.get())

    assert client.get(live, {"state": "guardian"}).headers["HX-Refresh"] == "true"
    assert f"/orders/{order.reference}/pay/" in client.get(order.get_absolute_url()).content.decode()


# --- races ---


@pytest.mark.postgres
def test_confirming_and_refusing_at_once_ends_in_exactly_one_of_them(order: Order) -> None:
    request = order.guardian_requests.get()

    outcomes = race(lambda: say_yes(request), lambda: refuse(request_id=request.pk, now=LATER))

    assert [type(failure) for failure in failures(outcomes)] == [CannotAnswer]
    request.refresh_from_db()
    accepted = Acceptance.objects.filter(role=Role.GUARDIAN).count()
    assert (state_of(order), request.answer, accepted) in (
        (OrderState.UNPAID, GuardianAnswer.CONFIRMED, 2),
        (OrderState.CANCELLED, GuardianAnswer.REFUSED, 0),
    )


@pytest.mark.postgres
def test_confirming_while_the_buyer_cancels_leaves_no_paid_way_into_a_cancelled_order(order: Order) -> None:
    request = order.guardian_requests.get()

    race(lambda: say_yes(request), lambda: cancel_order(order_id=order.pk, now=LATER))

    assert state_of(order) == OrderState.CANCELLED
    with transaction.atomic(), pytest.raises(NotPayable):
        begin_payment(order_id=order.pk, method="sandbox", return_url="", language="en", now=LATER)
