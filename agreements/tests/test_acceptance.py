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
    required_of_buyer,
    required_of_guardian,
)
from agreements.models import Acceptance, Manner, Role, StatutoryRight, Text
from agreements.publishing import publish_shipped_texts
from agreements.tests.editions import NOW, write_edition

WITNESS = Witness(ip_address="2001:db8::7", user_agent="Mozilla/5.0", button="Place the order")
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


ORDER = "O-4T7K9X2B"


def asked_of_buyer(language: str = "en", right: StatutoryRight | None = None) -> list[RequiredConsent]:
    return required_of_buyer(now=NOW, language=language, right=right)


def record(
    buyer: User,
    consents: list[Consent],
    *,
    required: list[RequiredConsent] | None = None,
    witness: Witness = WITNESS,
) -> list[Acceptance]:
    return record_acceptances(
        customer_id=buyer.pk,
        order_reference=ORDER,
        required=asked_of_buyer() if required is None else required,
        consents=consents,
        witness=witness,
        now=NOW,
    )


def ticked(buyer: User, *, language: str = "en") -> list[Consent]:
    return consents_to(asked_of_buyer(language), buyer)


@pytest.fixture
def asked_of_guardian(published: Path, customer: User) -> list[RequiredConsent]:
    """What the guardian of a buyer must confirm who has accepted his part."""
    record(customer, ticked(customer))
    return required_of_guardian(order_reference=ORDER, language="en")


@pytest.fixture
def right(db: None) -> StatutoryRight:
    made: StatutoryRight = StatutoryRight.objects.create(
        key="eu",
        edition=1,
        countries=["DE"],
        law="Directive 1",
        withdrawal_days=14,
        title={"en": "Withdrawal"},
        explanation={"en": "You may withdraw."},
        waiver={"en": "Begin at once.", "zh-hans": "立即开始。"},
        published_at=NOW,
    )
    return made


# --- what is asked for ---


@pytest.mark.clause("preamble")
@pytest.mark.clause("1.2")
@pytest.mark.clause("3.3")
def test_buyer_accepts_both_agreements_and_the_rule_on_refunds(published: Path) -> None:
    required = asked_of_buyer()

    assert [(each.key, each.statement) for each in required] == [
        ("prepayment-agreement-buyer", "I have read and accept the prepayment (en), version 1."),
        ("purchase-agreement-buyer", "I have read and accept the purchase (en), version 1."),
        (
            "prepayment-no-refund-buyer",
            NO_REFUND,
        ),
    ]


@pytest.mark.clause("preamble")
def test_guardian_of_a_minor_confirms_both_agreements_too(asked_of_guardian: list[RequiredConsent]) -> None:
    assert [(each.key, each.statement) for each in asked_of_guardian] == [
        (
            "prepayment-agreement-guardian",
            "I am the buyer's legal guardian, I have read the prepayment (en), version 1, and I confirm it.",
        ),
        (
            "purchase-agreement-guardian",
            "I am the buyer's legal guardian, I have read the purchase (en), version 1, and I confirm it.",
        ),
    ]


@pytest.mark.clause("preamble")
def test_guardian_confirms_what_the_buyer_accepted_also_when_there_is_something_newer(
    published: Path, customer: User, asked_of_guardian: list[RequiredConsent]
) -> None:
    write_edition(published, number=2, on=date(2026, 11, 23))
    publish_shipped_texts(now=NOW, folder=published)

    assert required_of_guardian(order_reference=ORDER, language="en") == asked_of_guardian
    assert asked_of_buyer()[0].text.version.number == 2


@pytest.mark.clause("3.3")
def test_where_the_law_asks_for_it_early_service_is_asked_for_expressly(
    published: Path, right: StatutoryRight
) -> None:
    assert [each.key for each in asked_of_buyer(right=right)] == [
        *(each.key for each in asked_of_buyer()),
        "prepayment-early-start-buyer",
    ]
    assert asked_of_buyer(right=right)[-1].statement == "Begin at once."
    assert asked_of_buyer("zh-hans", right)[-1].statement == "立即开始。"
    # A language in which nobody wrote it gets the shop's own.
    assert asked_of_buyer("zh-hant", right)[-1].statement == "Begin at once."


def test_texts_asked_for_are_those_of_the_language_shown(published: Path) -> None:
    required = asked_of_buyer("zh-hans")

    assert {each.text.language for each in required} == {"zh-hans"}


def test_statements_do_not_depend_on_the_language_that_happens_to_be_active(published: Path) -> None:
    expected = asked_of_buyer()

    with translation.override("zh-hans"):
        assert asked_of_buyer() == expected


# --- what is recorded ---


@pytest.mark.clause("preamble")
@pytest.mark.clause("9.5")
def test_acceptance_records_who_agreed_to_which_words_and_when(published: Path, customer: User) -> None:
    consents = ticked(customer)

    accepted = record(customer, consents)

    assert accepted == list(Acceptance.objects.order_by("chain_number"))
    assert len(accepted) == 3
    for acceptance, consent in zip(accepted, consents, strict=True):
        assert acceptance.customer_id == customer.pk
        assert acceptance.order_reference == "O-4T7K9X2B"
        assert acceptance.text_id == consent.text_id
        assert acceptance.text_sha256 == Text.objects.get(pk=consent.text_id).sha256
        assert (acceptance.subject, acceptance.role) == (consent.subject, consent.role)
        assert (acceptance.person_name, acceptance.person_email) == ("Lin", "buyer@example.com")
        assert acceptance.statement == consent.statement
        assert acceptance.manner == Manner.EXPRESS
        assert acceptance.accepted_at == NOW
        assert (acceptance.ip_address, acceptance.user_agent) == ("2001:db8::7", "Mozilla/5.0")
    assert accepted[0].control == "checkbox prepayment-agreement-buyer, button 'Place the order'"


@pytest.mark.clause("preamble")
def test_guardian_is_recorded_by_name_and_address(
    customer: User, asked_of_guardian: list[RequiredConsent]
) -> None:
    record(customer, consents_to(asked_of_guardian, customer), required=asked_of_guardian)

    guardians = Acceptance.objects.filter(role=Role.GUARDIAN).order_by("chain_number")
    assert [(each.person_name, each.person_email) for each in guardians] == [GUARDIAN, GUARDIAN]
    assert Acceptance.objects.filter(role=Role.BUYER).count() == 3


@pytest.mark.clause("3.3")
def test_request_for_early_service_is_on_record_with_its_words(
    published: Path, customer: User, right: StatutoryRight
) -> None:
    required = asked_of_buyer(right=right)

    record(customer, consents_to(required, customer), required=required)

    assert Acceptance.objects.get(subject="early-start").statement == "Begin at once."


def test_overlong_browser_name_is_cut(published: Path, customer: User) -> None:
    accepted = record(customer, ticked(customer), witness=Witness(ip_address=None, user_agent="x" * 5000))

    assert {each.user_agent for each in accepted} == {"x" * 400}
    assert {each.ip_address for each in accepted} == {None}


def test_consent_that_is_not_required_is_left_out(
    published: Path, customer: User, right: StatutoryRight
) -> None:
    record(customer, consents_to(asked_of_buyer(right=right), customer))

    assert Acceptance.objects.count() == 3
    assert not Acceptance.objects.filter(subject="early-start").exists()


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
@pytest.mark.parametrize(("name", "email"), [("  ", "mei@example.com"), ("Mei", "")])
def test_guardian_without_name_or_address_is_nobody(
    customer: User, asked_of_guardian: list[RequiredConsent], name: str, email: str
) -> None:
    consents = [
        replace(each, person_name=name, person_email=email)
        for each in consents_to(asked_of_guardian, customer)
    ]

    with pytest.raises(GuardianMissing):
        record(customer, consents, required=asked_of_guardian)

    assert not Acceptance.objects.filter(role=Role.GUARDIAN).exists()


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
        record(customer, ticked(customer, language="zh-hans"))

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
