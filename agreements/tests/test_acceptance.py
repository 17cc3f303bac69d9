"""What a checkout must obtain, and the record of it."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from django.utils import translation

from accounts.models import User
from agreements.acceptance import (
    CannotAccept,
    Consent,
    ConsentMissing,
    GuardianMissing,
    RequiredConsent,
    TextSuperseded,
    Witness,
    record_acceptances,
    required_consents,
)
from agreements.models import Acceptance, Role, Text
from agreements.publishing import publish_shipped_texts
from agreements.tests.editions import NOW, write_edition

WITNESS = Witness(ip_address="2001:db8::7", user_agent="Mozilla/5.0")
NO_REFUND = (
    "I understand that during the pre-sale period there are no refunds, unless the law requires one "
    "or the platform cannot supply (clause 3.3)."
)
GUARDIAN = ("Mei", "mei@example.com")


def consents_to(required: Iterable[RequiredConsent], buyer: User) -> list[Consent]:
    """Everything that is asked for, ticked."""
    return [
        Consent(
            text_id=each.text.pk,
            subject=each.subject,
            role=each.role,
            person_name=buyer.name if each.role == Role.BUYER else GUARDIAN[0],
            person_email=buyer.email if each.role == Role.BUYER else GUARDIAN[1],
            statement=each.statement,
        )
        for each in required
    ]


def record(
    buyer: User,
    consents: list[Consent],
    *,
    is_minor: bool = False,
    language: str = "en",
    witness: Witness = WITNESS,
) -> list[Acceptance]:
    return record_acceptances(
        customer_id=buyer.pk,
        order_reference="O-4T7K9X2B",
        consents=consents,
        witness=witness,
        is_minor=is_minor,
        language=language,
        now=NOW,
    )


def ticked(buyer: User, *, is_minor: bool = False, language: str = "en") -> list[Consent]:
    return consents_to(required_consents(now=NOW, language=language, is_minor=is_minor), buyer)


# --- what is asked for ---


@pytest.mark.clause("preamble")
@pytest.mark.clause("1.2")
@pytest.mark.clause("3.3")
def test_adult_accepts_both_agreements_and_the_rule_on_refunds(published: Path) -> None:
    required = required_consents(now=NOW, language="en", is_minor=False)

    assert [(each.key, each.statement) for each in required] == [
        ("prepayment-agreement-buyer", "I have read and accept the prepayment (en), version 1."),
        ("purchase-agreement-buyer", "I have read and accept the purchase (en), version 1."),
        (
            "prepayment-no-refund-buyer",
            NO_REFUND,
        ),
    ]


@pytest.mark.clause("preamble")
def test_guardian_of_a_minor_confirms_both_agreements_too(published: Path) -> None:
    adult = required_consents(now=NOW, language="en", is_minor=False)
    minor = required_consents(now=NOW, language="en", is_minor=True)

    assert minor[: len(adult)] == adult
    assert [(each.key, each.statement) for each in minor[len(adult) :]] == [
        (
            "prepayment-agreement-guardian",
            "I am the buyer's legal guardian, I have read the prepayment (en), version 1, and I confirm it.",
        ),
        (
            "purchase-agreement-guardian",
            "I am the buyer's legal guardian, I have read the purchase (en), version 1, and I confirm it.",
        ),
    ]


def test_texts_asked_for_are_those_of_the_language_shown(published: Path) -> None:
    required = required_consents(now=NOW, language="zh-hans", is_minor=True)

    assert {each.text.language for each in required} == {"zh-hans"}


def test_statements_do_not_depend_on_the_language_that_happens_to_be_active(published: Path) -> None:
    expected = required_consents(now=NOW, language="en", is_minor=True)

    with translation.override("zh-hans"):
        assert required_consents(now=NOW, language="en", is_minor=True) == expected


# --- what is recorded ---


@pytest.mark.clause("preamble")
@pytest.mark.clause("9.5")
def test_acceptance_records_who_agreed_to_which_words_and_when(published: Path, customer: User) -> None:
    consents = ticked(customer)

    accepted = record(customer, consents)

    assert accepted == list(Acceptance.objects.order_by("pk"))
    assert len(accepted) == 3
    for acceptance, consent in zip(accepted, consents, strict=True):
        assert acceptance.customer_id == customer.pk
        assert acceptance.order_reference == "O-4T7K9X2B"
        assert acceptance.text_id == consent.text_id
        assert acceptance.text_sha256 == Text.objects.get(pk=consent.text_id).sha256
        assert (acceptance.subject, acceptance.role) == (consent.subject, consent.role)
        assert (acceptance.person_name, acceptance.person_email) == ("Lin", "buyer@example.com")
        assert acceptance.statement == consent.statement
        assert acceptance.accepted_at == NOW
        assert (acceptance.ip_address, acceptance.user_agent) == ("2001:db8::7", "Mozilla/5.0")


@pytest.mark.clause("preamble")
def test_guardian_is_recorded_by_name_and_address(published: Path, customer: User) -> None:
    record(customer, ticked(customer, is_minor=True), is_minor=True)

    guardians = Acceptance.objects.filter(role=Role.GUARDIAN).order_by("pk")
    assert [(each.person_name, each.person_email) for each in guardians] == [GUARDIAN, GUARDIAN]
    assert Acceptance.objects.filter(role=Role.BUYER).count() == 3


def test_overlong_browser_name_is_cut(published: Path, customer: User) -> None:
    accepted = record(customer, ticked(customer), witness=Witness(ip_address=None, user_agent="x" * 5000))

    assert {each.user_agent for each in accepted} == {"x" * 400}
    assert {each.ip_address for each in accepted} == {None}


def test_consent_that_is_not_required_is_left_out(published: Path, customer: User) -> None:
    record(customer, ticked(customer, is_minor=True), is_minor=False)

    assert Acceptance.objects.count() == 3
    assert not Acceptance.objects.filter(role=Role.GUARDIAN).exists()


# --- what is refused ---


@pytest.mark.clause("preamble")
@pytest.mark.clause("3.3")
@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_nothing_is_stored_when_one_consent_is_missing(
    published: Path, customer: User, left_out: int
) -> None:
    consents = ticked(customer)
    missing = consents.pop(left_out)

    with pytest.raises(ConsentMissing, match="Please accept both agreements") as refusal:
        record(customer, consents)

    assert [(each.text.pk, each.subject) for each in refusal.value.missing] == [
        (missing.text_id, missing.subject)
    ]
    assert not Acceptance.objects.exists()


@pytest.mark.clause("preamble")
def test_minor_cannot_accept_alone(published: Path, customer: User) -> None:
    with pytest.raises(GuardianMissing, match="your legal guardian must confirm"):
        record(customer, ticked(customer), is_minor=True)

    assert not Acceptance.objects.exists()


@pytest.mark.parametrize(("name", "email"), [("  ", "mei@example.com"), ("Mei", "")])
def test_guardian_without_name_or_address_is_nobody(
    published: Path, customer: User, name: str, email: str
) -> None:
    consents = [
        replace(each, person_name=name, person_email=email) if each.role == Role.GUARDIAN else each
        for each in ticked(customer, is_minor=True)
    ]

    with pytest.raises(GuardianMissing):
        record(customer, consents, is_minor=True)

    assert not Acceptance.objects.exists()


@pytest.mark.clause("9.1")
def test_text_that_was_superseded_while_the_page_was_open_is_refused(published: Path, customer: User) -> None:
    consents = ticked(customer)
    write_edition(published, number=2, on=date(2026, 11, 23))
    publish_shipped_texts(now=NOW, folder=published)

    with pytest.raises(TextSuperseded, match="The agreements have changed"):
        record(customer, consents)

    assert not Acceptance.objects.exists()


@pytest.mark.clause("preamble")
def test_text_shown_in_another_language_is_refused(published: Path, customer: User) -> None:
    with pytest.raises(TextSuperseded):
        record(customer, ticked(customer, language="zh-hans"), language="en")

    assert not Acceptance.objects.exists()


def test_other_words_beside_the_control_are_refused(published: Path, customer: User) -> None:
    consents = ticked(customer)
    consents[2] = replace(consents[2], statement="I may have a refund at any time.")

    with pytest.raises(TextSuperseded):
        record(customer, consents)

    assert not Acceptance.objects.exists()


@pytest.mark.parametrize("refusal", [ConsentMissing([]), GuardianMissing([]), TextSuperseded()])
def test_every_refusal_is_one_that_a_form_can_catch_and_show(refusal: CannotAccept) -> None:
    assert str(refusal).endswith(".")
    with translation.override("zh-hans"):
        assert str(refusal)
