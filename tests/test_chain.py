"""The chains of hashes: what is taken out, put in or altered behind the triggers' back is found."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from accounts.models import User
from agreements.acceptance import Consent, Witness, record_acceptances, required_of_buyer
from agreements.models import Acceptance, Text
from agreements.tests.editions import publish_both
from evidence import chain
from evidence.models import ChainHead
from evidence.triggers import install_triggers
from evidence.verification import verify_evidence
from notices.rendering import Text as Written
from notices.rendering import keep
from orders.models import ReviewItem, ReviewKind
from orders.verification import report_broken_evidence
from tests.builders import NOW, make_user
from tests.racing import race

CHAIN = "agreements.acceptance"


@pytest.fixture
def published(tmp_path: Path, transactional_db: None) -> None:
    publish_both(tmp_path)


def accept(customer: User, order: str) -> list[Acceptance]:
    """The buyer's three acceptances for one order."""
    required = required_of_buyer(now=NOW, language="en", right=None)
    with transaction.atomic():
        return record_acceptances(
            customer_id=customer.pk,
            order_reference=order,
            required=required,
            consents=[
                Consent(each.text.pk, each.subject, each.role, "Lin", customer.email, each.statement)
                for each in required
            ],
            witness=Witness("2001:db8::1", "Firefox", "Place the order"),
            now=NOW,
        )


@contextmanager
def behind_the_triggers() -> Iterator[None]:
    """As somebody who owns the database would go about it."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ALTER TABLE agreements_acceptance DISABLE TRIGGER USER")
            yield
            cursor.execute("ALTER TABLE agreements_acceptance ENABLE TRIGGER USER")
        else:
            cursor.execute("DROP TRIGGER agreements_acceptance_no_update")
            cursor.execute("DROP TRIGGER agreements_acceptance_no_delete")
            yield
            install_triggers(using="default")


def execute(sql: str, *parameters: str | int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def broken() -> list[str]:
    return [sentence for found in verify_evidence(now=NOW).findings.values() for sentence in found]


@pytest.mark.clause("9.5")
@pytest.mark.usefixtures("published")
def test_rows_follow_one_another_and_nothing_is_wrong_with_them() -> None:
    first, second = accept(make_user(), "VM-1"), accept(make_user(), "VM-2")

    assert [row.chain_number for row in (*first, *second)] == [1, 2, 3, 4, 5, 6]
    assert first[0].previous_sha256 == chain.NOTHING_BEFORE
    assert [row.previous_sha256 for row in (*first[1:], *second)] == [
        row.chain_sha256 for row in (*first, *second[:-1])
    ]
    assert ChainHead.objects.get(pk=CHAIN).chain_sha256 == second[-1].chain_sha256
    assert broken() == []


@pytest.mark.clause("9.5")
@pytest.mark.usefixtures("published")
def test_an_altered_row_is_found() -> None:
    row = accept(make_user(), "VM-1")[1]

    with behind_the_triggers():
        execute("UPDATE agreements_acceptance SET ip_address = '192.0.2.66' WHERE id = %s", row.pk)

    assert broken() == [f"agreements.Acceptance number 2 (id {row.pk}) was altered."]


@pytest.mark.clause("9.5")
@pytest.mark.usefixtures("published")
def test_a_removed_row_is_found() -> None:
    row = accept(make_user(), "VM-1")[1]

    with behind_the_triggers():
        execute("DELETE FROM agreements_acceptance WHERE id = %s", row.pk)

    assert broken() == ["agreements.Acceptance: 1 missing before number 3."]


@pytest.mark.clause("9.5")
@pytest.mark.usefixtures("published")
def test_rows_removed_from_the_end_are_found() -> None:
    accept(make_user(), "VM-1")

    with behind_the_triggers():
        execute("DELETE FROM agreements_acceptance WHERE chain_number >= 2")

    assert broken() == ["agreements.Acceptance: the chain ends at number 1, its head says 3."]


@pytest.mark.clause("9.5")
@pytest.mark.usefixtures("published")
def test_an_altered_row_that_was_sealed_anew_does_not_fit_the_next() -> None:
    row = accept(make_user(), "VM-1")[1]
    row.person_email = "somebody.else@example.com"

    with behind_the_triggers():
        execute(
            "UPDATE agreements_acceptance SET person_email = %s, chain_sha256 = %s WHERE id = %s",
            row.person_email,
            chain.seal_of(row),
            row.pk,
        )

    assert broken() == ["agreements.Acceptance number 3 does not follow number 2."]


@pytest.mark.clause("9.5")
@pytest.mark.usefixtures("published")
def test_an_altered_text_is_found() -> None:
    text = Text.objects.order_by("pk").first()
    assert text
    name = "agreements_text_no_update"
    execute(f"DROP TRIGGER {name}" + (" ON agreements_text" if connection.vendor == "postgresql" else ""))
    execute("UPDATE agreements_text SET body = body || '!' WHERE id = %s", text.pk)

    assert broken() == [
        f"The text of {text.version} in {text.language} was altered: its sha256 is {text.sha256}.",
        f"The trigger {name} is missing: run migrate, and find out who dropped it.",
    ]
    install_triggers(using="default")


@pytest.mark.clause("VIII")
@pytest.mark.usefixtures("published")
def test_an_altered_message_is_found() -> None:
    message = keep(Written("en", "Paid", "Your payment has arrived."))
    name = "notices_message_no_update"
    execute(f"DROP TRIGGER {name}" + (" ON notices_message" if connection.vendor == "postgresql" else ""))
    execute("UPDATE notices_message SET body = 'Nothing has arrived.' WHERE id = %s", message.pk)
    install_triggers(using="default")

    assert broken() == [f"Message text {message.pk} was altered: its sha256 is {message.sha256}."]


@pytest.mark.usefixtures("published")
def test_a_chain_that_was_sealed_anew_from_the_beginning_contradicts_an_earlier_seal() -> None:
    """Who owns the database can rewrite it all, but not the seals that others have kept."""
    rows = accept(make_user(), "VM-1")
    seal = f"{CHAIN}:3:{rows[-1].chain_sha256}"
    call_command("verify_evidence", seal=[seal], stdout=StringIO())

    with behind_the_triggers():
        execute("DELETE FROM agreements_acceptance")
    ChainHead.objects.all().delete()
    accept(make_user(), "VM-9")

    assert [sentence for sentence in broken() if "Acceptance" in sentence] == []
    with pytest.raises(CommandError, match="1 found") as refused:
        call_command("verify_evidence", seal=[seal], stdout=StringIO(), stderr=StringIO())
    assert refused.value.returncode == 1


@pytest.mark.usefixtures("published")
def test_the_command_prints_what_it_looked_at_and_the_seals() -> None:
    rows = accept(make_user(), "VM-1")
    out = StringIO()

    call_command("verify_evidence", stdout=out)

    assert out.getvalue().splitlines() == [
        "acceptances: nothing wrong",
        "agreement texts: nothing wrong",
        "chains: nothing wrong",
        "fairness ledger: nothing wrong",
        "guardians: nothing wrong",
        "invoices: nothing wrong",
        "message texts: nothing wrong",
        "numbers of documents: nothing wrong",
        "orders without consent: nothing wrong",
        "positions: nothing wrong",
        "promised updates: nothing wrong",
        "quarantine: nothing wrong",
        "stock: nothing wrong",
        "triggers: nothing wrong",
        "webhooks: nothing wrong",
        f"seal {CHAIN}:3:{rows[-1].chain_sha256}",
    ]


@pytest.mark.django_db
@pytest.mark.parametrize("written", ["acceptance", "agreements.acceptance:x:y", "orders.order:1:ab"])
def test_a_seal_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(CommandError, match="is no seal"):
        call_command("verify_evidence", seal=[written], stdout=StringIO(), stderr=StringIO())


@pytest.mark.usefixtures("published")
def test_what_was_tampered_with_comes_before_staff_once() -> None:
    accept(make_user(), "VM-1")
    with behind_the_triggers():
        execute("DELETE FROM agreements_acceptance WHERE chain_number = 3")

    assert (report_broken_evidence(now=NOW), report_broken_evidence(now=NOW)) == (1, 1)

    item = ReviewItem.objects.get(kind=ReviewKind.EVIDENCE_BROKEN)
    assert item.detail == "agreements.Acceptance: the chain ends at number 2, its head says 3."


@pytest.mark.postgres
@pytest.mark.usefixtures("published")
def test_eight_at_once_make_one_chain() -> None:
    customers = [make_user() for _ in range(8)]

    race(*(lambda customer=customer: accept(customer, f"VM-{customer.pk}") for customer in customers))

    numbers = Acceptance.objects.order_by("chain_number").values_list("chain_number", flat=True)
    assert list(numbers) == list(range(1, 25))
    assert broken() == []


@pytest.mark.postgres
@pytest.mark.usefixtures("published")
def test_control_without_the_lock_of_the_head_they_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    accept(make_user(), "VM-0")
    customers = [make_user() for _ in range(8)]
    monkeypatch.setattr(chain, "_locked_head", lambda model: ChainHead.objects.get(pk=CHAIN))

    outcomes = race(
        *(lambda customer=customer: accept(customer, f"VM-{customer.pk}") for customer in customers)
    )

    assert any(isinstance(outcome, Exception) for outcome in outcomes)


@pytest.mark.django_db(transaction=True)
def test_a_chain_grows_in_a_transaction_only() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        chain.append([Acceptance(customer=make_user())])
