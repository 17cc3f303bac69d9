"""Accepting the agreements: what a checkout must obtain, and the record of what was accepted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from agreements.models import Acceptance, Document, Manner, Role, StatutoryRight, Subject, Text
from agreements.rights import in_language
from agreements.texts import texts_in_force
from evidence import chain

USER_AGENT_LENGTH = 400
CONTROL_LENGTH = 200


class CannotAccept(Exception):
    """The agreements were not accepted as they must be. `str()` is a message for the buyer."""

    message: str | Promise = ""

    def __str__(self) -> str:
        return str(self.message)


class ConsentMissing(CannotAccept):
    """Something that must be accepted was not. `missing` says what."""

    message = _("Please accept both agreements and confirm the rule on refunds before you order.")

    def __init__(self, missing: "Sequence[RequiredConsent]") -> None:
        super().__init__()
        self.missing = tuple(missing)


class GuardianMissing(ConsentMissing):
    """A guardian has not confirmed everything, or has not said who he is."""

    message = _("Please confirm both agreements, and tell us your name.")


class TextSuperseded(CannotAccept):
    """What was shown is not what is in force, in the language of the order, word for word."""

    message = _(
        "The agreements have changed, or are now shown in another language, since you opened this page. "
        "Please read and accept them again."
    )


@dataclass(frozen=True)
class Consent:
    """What a person ticked. `statement` holds the exact words that stood beside the control."""

    text_id: int
    subject: Subject
    role: Role
    person_name: str
    person_email: str
    statement: str


@dataclass(frozen=True)
class Witness:
    """Where a consent came from, as far as the server can tell. `button` is what the pressed one said."""

    ip_address: str | None
    user_agent: str
    button: str = ""


@dataclass(frozen=True)
class RequiredConsent:
    """A control of a page: `statement` is to stand beside it as it is."""

    text: Text
    subject: Subject
    role: Role
    statement: str

    @property
    def key(self) -> str:
        """A name for the control: "prepayment-agreement-buyer". Unique within one page."""
        return f"{self.text.version.document}-{self.subject.value}-{self.role.value}"


def required_of_buyer(*, now: datetime, language: str, right: StatutoryRight | None) -> list[RequiredConsent]:
    """All that a checkout in `language` must obtain of the buyer at `now`, in the order in which to ask for it.

    `right` is what the law of his country gives him. Raises NothingInForce when a document has no version
    that applies.
    """
    texts = texts_in_force(language=language, now=now)
    prepayment = texts[Document.PREPAYMENT]
    with translation.override(language):
        accept = gettext("I have read and accept the %(title)s, version %(number)d.")
        no_refund = gettext(
            "I understand that during the pre-sale period there are no refunds, unless the law requires one "
            "or the platform cannot supply (clause 3.3)."
        )
    required = [_agreement(text, Role.BUYER, accept) for text in texts.values()]
    required.append(RequiredConsent(prepayment, Subject.NO_REFUND, Role.BUYER, no_refund))
    if right and right.waiver:
        waiver = in_language(right.waiver, language)
        required.append(RequiredConsent(prepayment, Subject.EARLY_START, Role.BUYER, waiver))
    return required


def required_of_guardian(*, order_reference: str, language: str) -> list[RequiredConsent]:
    """What the guardian of an order's buyer must confirm: the very texts that the buyer has accepted."""
    accepted = Acceptance.objects.filter(
        order_reference=order_reference, role=Role.BUYER, subject=Subject.AGREEMENT
    )
    texts = [
        acceptance.text for acceptance in accepted.select_related("text__version").order_by("chain_number")
    ]
    return guardian_consents(texts, language=language)


def guardian_consents(texts: Sequence[Text], *, language: str) -> list[RequiredConsent]:
    """The controls by which a guardian confirms `texts`, worded in `language`."""
    with translation.override(language):
        confirm = gettext(
            "I am the buyer's legal guardian, I have read the %(title)s, version %(number)d, and I confirm it."
        )
    return [_agreement(text, Role.GUARDIAN, confirm) for text in texts]


def record_acceptances(
    *,
    customer_id: int,
    order_reference: str,
    required: Sequence[RequiredConsent],
    consents: Sequence[Consent],
    witness: Witness,
    now: datetime,
) -> list[Acceptance]:
    """Put on record that everything `required` was accepted.

    Runs in the transaction of its caller, at its end: it locks the chain of acceptances. Raises
    TextSuperseded when a consent was given to another text, or to other words, than are required;
    ConsentMissing or GuardianMissing when something was not accepted. Consents to what is not required are
    left out.
    """
    in_force = {requirement.text.pk for requirement in required}
    if any(consent.text_id not in in_force for consent in consents):
        raise TextSuperseded
    given = {(consent.text_id, consent.subject, consent.role): consent for consent in consents}
    missing: list[RequiredConsent] = []
    accepted: list[Acceptance] = []
    for requirement in required:
        consent = given.get((requirement.text.pk, requirement.subject, requirement.role))
        if consent is None or not _names_a_person(consent):
            missing.append(requirement)
        elif consent.statement != requirement.statement:
            raise TextSuperseded
        else:
            accepted.append(
                Acceptance(
                    customer_id=customer_id,
                    order_reference=order_reference,
                    manner=Manner.EXPRESS,
                    text=requirement.text,
                    text_sha256=requirement.text.sha256,
                    subject=consent.subject,
                    role=consent.role,
                    person_name=consent.person_name.strip(),
                    person_email=consent.person_email.strip(),
                    statement=consent.statement,
                    control=f"checkbox {requirement.key}, button {witness.button!r}"[:CONTROL_LENGTH],
                    accepted_at=now,
                    ip_address=witness.ip_address,
                    user_agent=witness.user_agent[:USER_AGENT_LENGTH],
                )
            )
    if missing:
        only_guardian = all(requirement.role == Role.GUARDIAN for requirement in missing)
        raise GuardianMissing(missing) if only_guardian else ConsentMissing(missing)
    return chain.append(accepted)


def _agreement(text: Text, role: Role, statement: str) -> RequiredConsent:
    wording = statement % {"title": text.title, "number": text.version.number}
    return RequiredConsent(text, Subject.AGREEMENT, role, wording)


def _names_a_person(consent: Consent) -> bool:
    """A buyer is known by his account; a guardian is a stranger and has to say who he is."""
    return bool(consent.person_email.strip()) and (
        consent.role == Role.BUYER or bool(consent.person_name.strip())
    )
