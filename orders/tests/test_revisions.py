"""A revision of an agreement: who is told of it, and when going on with the service accepts it."""

import uuid
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
import time_machine
from django.db import transaction
from django.test import Client

from accounts.models import User
from agreements.acceptance import Consent, Witness, record_acceptances, required_of_buyer
from agreements.drafts import begin_draft, publish_draft
from agreements.models import Acceptance, Document, Draft, Manner, Version
from agreements.publishing import publish_shipped_texts
from agreements.tests.editions import PREPAYMENT_BODY, publish_both, write_edition
from inventory.money import Money
from notices.models import Announcement, Notice
from notices.outbox import tell
from orders import revisions
from orders.allocation import allocate_devices
from orders.checkout import Wish, place_order
from orders.models import Order
from orders.revisions import announce_revisions, concerned
from orders.tests.shopping import log_in
from tests.builders import NOW, make_devices, make_fee, make_line, make_order, make_plan, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("9.1")]


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish_both(tmp_path)
    return tmp_path


def revise(folder: Path, *, number: int = 2) -> Version:
    body = PREPAYMENT_BODY.replace("No refunds.", f"No refunds, as of version {number}.")
    write_edition(folder, number=number, on=date(2026, 11, 23), bodies={"en": body, "zh-hans": body})
    publish_shipped_texts(now=NOW, folder=folder)
    return Version.objects.get(document=Document.PREPAYMENT, number=number)


def accept(customer: User, *, order: str) -> None:
    required = required_of_buyer(now=NOW, language="en", right=None)
    with transaction.atomic():
        record_acceptances(
            customer_id=customer.pk,
            order_reference=order,
            required=required,
            consents=[
                Consent(each.text.pk, each.subject, each.role, "", customer.email, each.statement)
                for each in required
            ],
            witness=Witness(None, ""),
            now=NOW,
        )


def ordered(customer: User) -> Order:
    """An order that is not paid yet, under version 1."""
    order = make_order([(make_fee(make_plan()), 1)], customer=customer, placed_at=NOW)
    accept(customer, order=order.reference)
    return order


def deemed(customer: User) -> list[tuple[str, int, str]]:
    found = Acceptance.objects.filter(customer=customer, manner=Manner.DEEMED).order_by("chain_number")
    return [(each.text.version.document, each.text.version.number, each.control) for each in found]


# --- who is told ---


def test_it_concerns_who_may_still_pay_who_waits_and_who_is_served(folder: Path) -> None:
    fee = make_fee(make_plan())
    unpaid = make_order([(fee, 1)]).customer
    waiting = make_line(fee, paid_at=NOW - timedelta(hours=1)).order.customer
    served_fee = make_fee(make_plan("V06"))
    served = make_line(served_fee, paid_at=NOW - timedelta(days=3)).order.customer
    make_devices(served_fee.term.plan, 1)
    allocate_devices(plan_id=served_fee.term.plan_id, now=NOW)
    expired = make_order([(fee, 1)])
    Order.objects.filter(pk=expired.pk).update(state="expired")
    make_user()

    assert set(concerned(now=NOW)) == {unpaid, waiting, served}
    # The period is over, and with it the contract.
    assert set(concerned(now=NOW + timedelta(days=400))) == {unpaid, waiting}


def test_each_is_told_once_with_what_changes_and_until_when_to_ask(folder: Path) -> None:
    customer = ordered(make_user()).customer
    version = revise(folder)

    assert announce_revisions(now=NOW) == 1
    assert announce_revisions(now=NOW + timedelta(hours=1)) == 0

    notice = Notice.objects.get(kind="agreement-revised")
    assert (notice.recipient, notice.url) == (customer, "/agreements/prepayment/2/")
    assert notice.facts == {
        "title": "prepayment (en)",
        "number": 2,
        "summary": "Version 2.",
        "effective_on": "2026-11-23",
        "questions_until": "2026-11-26",
        "retroactive_effect": "",
    }
    version.refresh_from_db()
    assert version.announced_at == NOW


def test_a_first_version_is_announced_to_nobody(folder: Path) -> None:
    ordered(make_user())

    assert announce_revisions(now=NOW) == 0
    assert not Notice.objects.filter(kind="agreement-revised").exists()


def test_who_orders_while_a_revision_is_scheduled_is_told_of_it_as_well(folder: Path) -> None:
    body = PREPAYMENT_BODY + "\nMore.\n"
    write_edition(
        folder,
        number=2,
        on=date(2026, 11, 20),
        effective_on=date(2026, 12, 1),
        bodies={"en": body, "zh-hans": body},
    )
    publish_shipped_texts(now=NOW, folder=folder)
    announce_revisions(now=NOW - timedelta(days=1))
    customer, fee = make_user(), make_fee(make_plan())
    required = required_of_buyer(now=NOW, language="en", right=None)
    assert required[0].text.version.number == 1

    place_order(
        customer_id=customer.pk,
        checkout_key=uuid.uuid4(),
        wishes=[Wish(fee.term_id, 1)],
        currency="USD",
        seen_total=Money(fee.minor, "USD"),
        country="HK",
        consents=[
            Consent(each.text.pk, each.subject, each.role, "", customer.email, each.statement)
            for each in required
        ],
        witness=Witness(None, ""),
        guardian=None,
        language="en",
        now=NOW,
    )

    notice = Notice.objects.get(kind="agreement-revised")
    assert (notice.recipient, notice.facts["effective_on"]) == (customer, "2026-12-01")
    assert announce_revisions(now=NOW) == 0


def test_a_run_that_died_is_taken_up_and_nobody_is_told_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        ordered(make_user())
    revise(folder)
    monkeypatch.setattr(revisions, "CHUNK", 2)
    calls = iter((True, False))

    def tell_once(*arguments: object, **words: object) -> None:
        if not next(calls):
            raise ConnectionError
        tell(*arguments, **words)  # type: ignore[arg-type]

    with monkeypatch.context() as dying:
        dying.setattr(revisions, "tell", tell_once)
        with pytest.raises(ConnectionError):
            announce_revisions(now=NOW)
    assert Notice.objects.filter(kind="agreement-revised").count() == 2
    assert not Version.objects.filter(announced_at__isnull=False).exists()

    announce_revisions(now=NOW)
    assert Notice.objects.filter(kind="agreement-revised").count() == 5


# --- continued use ---


def test_first_use_after_the_announcement_is_recorded_once_and_apart(client: Client, folder: Path) -> None:
    order = ordered(make_user())
    log_in(client, order.customer)
    revise(folder)
    announce_revisions(now=NOW)

    client.get("/phones/")
    client.get(order.get_absolute_url())

    assert deemed(order.customer) == [("prepayment", 2, "page GET /phones/")]
    row = Acceptance.objects.get(manner=Manner.DEEMED)
    assert (row.order_reference, row.accepted_at, row.person_email) == ("", NOW, order.customer.email)
    assert row.statement == (
        "Used the service after version 2 of the prepayment (en) was published, which is deemed acceptance (9.1)."
    )
    # What was agreed expressly is as it was.
    assert Acceptance.objects.filter(manner=Manner.EXPRESS, text__version__number=1).count() == 3


def test_reading_asking_and_complaining_is_no_use(client: Client, folder: Path) -> None:
    order = ordered(make_user())
    log_in(client, order.customer)
    revise(folder)
    announce_revisions(now=NOW)

    for path in (
        "/",
        "/agreements/",
        "/agreements/prepayment/2/",
        "/agreements/prepayment/changes/",
        "/messages/",
    ):
        assert client.get(path).status_code == 200
    client.post("/agreements/prepayment/2/questions/", {"body": "Why?"})

    assert deemed(order.customer) == []


def test_nobody_accepts_what_he_was_not_told_of(client: Client, folder: Path) -> None:
    order = ordered(make_user())
    log_in(client, order.customer)
    revise(folder)

    client.get("/phones/")

    assert deemed(order.customer) == []


def test_who_never_accepted_the_document_is_deemed_to_nothing(client: Client, folder: Path) -> None:
    customer = make_user()
    log_in(client, customer)
    revise(folder)
    announce_revisions(now=NOW)

    client.get("/phones/")

    assert deemed(customer) == []


def test_who_accepted_the_new_version_expressly_is_not_deemed_to_it(client: Client, folder: Path) -> None:
    revise(folder)
    order = ordered(make_user())
    log_in(client, order.customer)
    announce_revisions(now=NOW)

    client.get("/phones/")

    assert deemed(order.customer) == []


def test_two_revisions_in_a_row_are_both_recorded(client: Client, folder: Path) -> None:
    order = ordered(make_user())
    log_in(client, order.customer)
    for number in (2, 3):
        revise(folder, number=number)
    announce_revisions(now=NOW)

    client.get("/phones/")

    assert [number for _document, number, _control in deemed(order.customer)] == [2, 3]


def test_a_second_revision_is_recorded_within_the_same_session(client: Client, folder: Path) -> None:
    order = ordered(make_user())
    log_in(client, order.customer)
    for number in (2, 3):
        revise(folder, number=number)
        announce_revisions(now=NOW)
        client.get("/phones/")

    assert [number for _document, number, _control in deemed(order.customer)] == [2, 3]


def test_the_order_page_says_what_a_retroactive_version_changes_for_it(client: Client, folder: Path) -> None:
    order = ordered(make_user())
    log_in(client, order.customer)
    draft = begin_draft(document=Document.PREPAYMENT, created_by_id=order.customer_id, now=NOW)
    Draft.objects.filter(pk=draft.pk).update(is_retroactive=True)
    for text in draft.texts.all():
        text.body += "\nMore.\n"
        text.summary, text.retroactive_effect = "More.", "You wait a day less."
        text.save()
    publish_draft(draft_id=draft.pk, published_by_id=order.customer_id, now=NOW)
    announce_revisions(now=NOW)

    first, second = (client.get(order.get_absolute_url()).content.decode() for _ in range(2))

    for html in (first, second):
        assert "It applies to this order as well (9.1)" in html
        assert "You wait a day less." in html
        assert 'href="/agreements/prepayment/changes/?from=1&amp;to=2"' in html
    assert "you have accepted it, on Nov. 23, 2026" in second
    facts = Notice.objects.get(kind="agreement-revised").facts
    assert facts["retroactive_effect"] == "You wait a day less."


def test_the_order_page_says_that_another_version_does_not_touch_it(client: Client, folder: Path) -> None:
    order = ordered(make_user())
    log_in(client, order.customer)
    revise(folder)

    html = client.get(order.get_absolute_url()).content.decode()

    assert "This order keeps the version that was accepted with it." in html


def test_every_page_announces_a_revision_while_it_can_be_asked_about(
    client: Client, folder: Path, clock: time_machine.Traveller
) -> None:
    assert "has been published" not in client.get("/").content.decode()
    revise(folder)

    html = client.get("/").content.decode()
    assert '<a href="/agreements/prepayment/2/">version 2 has been published</a>' in html

    clock.move_to(NOW + timedelta(days=5))
    assert "has been published" not in client.get("/").content.decode()


def test_a_revision_is_announced_on_the_site_once(folder: Path) -> None:
    version = revise(folder)
    announce_revisions(now=NOW)
    announce_revisions(now=NOW)
    [announced] = Announcement.objects.all()
    assert (announced.kind, announced.url) == ("agreement-revised", version.get_absolute_url())
    assert set(announced.texts) == {"en", "zh-hans", "zh-hant"}
