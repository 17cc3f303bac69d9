"""Where customers are reached: they add a contact point, prove that it is theirs, try it, and remove it.

A phone is proved by a code. A browser, the app and WeChat prove themselves when they are bound, and a postal address
is the customer's own word.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import phonenumbers
from django.db import transaction
from django.db.models import Exists, Max, OuterRef, QuerySet
from django.urls import reverse
from django.utils.translation import gettext as _
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from accounts.models import User
from evidence.pdf import unprintable
from notices import codes
from notices.cancelling import give_up, replace
from notices.channels.push import are_keys, may_be_endpoint
from notices.kinds import CONTACT_CODE, CONTACT_TEST, Kind
from notices.models import ContactPoint, DeliveryEvent, DeliveryStep, Notice
from notices.outbox import Draft, tell
from notices.security import tell_of

EMAIL, PHONE, PUSH, APP, WECHAT, LETTER = "email", "sms", "push", "app", "wechat", "letter"
# Anybody with an account can have messages sent to any number: they cost money, and may be somebody else's nuisance.
CODES_PER_HOUR = 5
TESTS_PER_HOUR = 10
MOST_WRONG_CODES = 5
# Of one customer at one channel.
MOST_AT_ONCE = 10
# So long he is shown what was given up.
SHOWN_FOR = timedelta(days=90)

MOBILE = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)


class NotAnAddress(Exception):
    """The channel cannot write there. The message is for the customer."""


class TooMany(Exception):
    """He has asked for too much in too short a time. The message is for the customer."""


class WrongCode(Exception):
    """The code does not prove the contact point. The message is for the customer."""


class Used(Exception):
    """A device was bound by this permission already."""


class Unknown(Exception):
    """He has no such contact point, or not any more."""


@dataclass(frozen=True, slots=True)
class PostalAddress:
    """As it is written on a letter. `country` is its code of ISO 3166-1."""

    name: str
    lines: Sequence[str]
    country: str

    @property
    def in_one_line(self) -> str:
        return ", ".join((self.name, *self.lines, self.country))


def e164(written: str) -> str:
    """A mobile number as it is written all over the world, without anything between. Raises NotAnAddress."""
    try:
        number = phonenumbers.parse(written)
    except phonenumbers.NumberParseException:
        raise NotAnAddress(
            _("Write the number with + and the code of the country, like +852 5123 4567.")
        ) from None
    if not phonenumbers.is_valid_number(number):
        raise NotAnAddress(_("There is no such number. Please check its digits."))
    match phonenumbers.number_type(number):
        case PhoneNumberType.FIXED_LINE:
            raise NotAnAddress(_("This is a fixed line. Text messages need the number of a mobile phone."))
        case kind if kind not in MOBILE:
            raise NotAnAddress(
                _("This number takes no text messages. Please give the one of a mobile phone.")
            )
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def readable(number: str) -> str:
    """A number as people write it: "+852 5123 4567"."""
    return phonenumbers.format_number(phonenumbers.parse(number), PhoneNumberFormat.INTERNATIONAL)


def add_phone(*, customer_id: int, number: str, now: datetime) -> ContactPoint:
    """Add a number as in E.164, or find it, and send the code that proves it unless it is proved.

    Raises NotAnAddress or TooMany.
    """
    address = e164(number)
    with transaction.atomic(durable=True):
        _lock(customer_id)
        point = _in_use(customer_id, PHONE, address) or _add(
            customer_id, PHONE, address, details={}, label="", now=now
        )
        if point.verified_at is None:
            _send_code(point, now=now)
    return point


def send_code(*, customer_id: int, contact_point_id: int, now: datetime) -> None:
    """Send another code to a number that is not proved yet; the one before is worth nothing any more.

    Raises Unknown or TooMany.
    """
    with transaction.atomic(durable=True):
        _lock(customer_id)
        point = _own(customer_id, contact_point_id)
        if point.channel != PHONE or point.verified_at:
            raise Unknown
        _send_code(point, now=now)


def prove(*, customer_id: int, contact_point_id: int, code: str, now: datetime, address: str = "") -> None:
    """Take `code` as the proof of a number. `address` is the internet address it came from.

    Raises Unknown or WrongCode. A wrong code is counted, also then.
    """
    problem = ""
    with transaction.atomic(durable=True):
        _lock(customer_id)
        point = _own(customer_id, contact_point_id)
        if point.verified_at:
            return
        if not codes.is_valid(point, now):
            problem = _("The code is too old. Have a new one sent.")
        elif point.wrong_codes >= MOST_WRONG_CODES:
            problem = _("There were too many wrong codes. Have a new one sent.")
        elif not codes.is_right(point, "".join(code.split())):
            ContactPoint.objects.filter(pk=point.pk).update(wrong_codes=point.wrong_codes + 1)
            problem = _("This is not the code. Please compare it with the newest message.")
        else:
            ContactPoint.objects.filter(pk=point.pk).update(verified_at=now)
            _tell_of(point, "contact-point-added", address)
    if problem:
        raise WrongCode(problem)


def add_browser(
    *, customer_id: int, endpoint: str, keys: Mapping[str, str], label: str, now: datetime, address: str = ""
) -> ContactPoint:
    """Add a browser's subscription. Whoever used that browser before is not told anything there any more.

    Raises NotAnAddress or TooMany.
    """
    details = {name: keys.get(name, "") for name in ("p256dh", "auth")}
    if not may_be_endpoint(endpoint) or not are_keys(details):
        raise NotAnAddress(_("We cannot send to this browser's push service."))
    with transaction.atomic(durable=True):
        _lock(customer_id)
        return _take(customer_id, PUSH, endpoint, details=details, label=label, now=now, told_from=address)


def replace_browser(
    *, customer_id: int, old_endpoint: str, endpoint: str, keys: Mapping[str, str], label: str, now: datetime
) -> None:
    """A browser has changed its subscription by itself: the new one takes the place of the old one.

    If there was no such old one, nothing happens. Raises NotAnAddress.
    """
    details = {name: keys.get(name, "") for name in ("p256dh", "auth")}
    if not may_be_endpoint(endpoint) or not are_keys(details):
        raise NotAnAddress(_("We cannot send to this browser's push service."))
    with transaction.atomic(durable=True):
        _lock(customer_id)
        old = _in_use(customer_id, PUSH, old_endpoint)
        if old and old.address != endpoint:
            replace(
                [old.pk],
                by=lambda: _take(
                    customer_id, PUSH, endpoint, details=details, label=old.label or label, now=now
                ),
                reason="The browser has changed its subscription.",
                now=now,
            )


def bind(
    *,
    customer_id: int,
    channel: str,
    identity: str,
    label: str,
    allowed_at: datetime,
    now: datetime,
    address: str = "",
) -> ContactPoint:
    """Add a device of the app, or a WeChat openid, as the customer has allowed at `allowed_at`.

    One is allowed, not two: whoever sees the code over his shoulder comes too late. Raises Used or TooMany.
    """
    with transaction.atomic(durable=True):
        _lock(customer_id)
        since = ContactPoint.objects.filter(
            customer=customer_id, channel=channel, created_at__gte=allowed_at
        ).exclude(address=identity)
        if since.exists():
            raise Used
        return _take(customer_id, channel, identity, details={}, label=label, now=now, told_from=address)


def unbind(*, channel: str, identity: str, reason: str, now: datetime) -> None:
    """Somebody uses the app or follows the account no more, whoever's contact point it was."""
    with transaction.atomic(durable=True):
        points = ContactPoint.objects.filter(channel=channel, address=identity, removed_at=None)
        give_up(list(points.values_list("pk", flat=True)), reason=reason, now=now)


def add_postal_address(
    *, customer_id: int, postal: PostalAddress, now: datetime, address: str = ""
) -> ContactPoint:
    """Write letters to `postal` from now on; an earlier address is removed. Raises NotAnAddress."""
    if odd := unprintable("".join((postal.name, *postal.lines))):
        raise NotAnAddress(_("Our printer has no shape for: %(characters)s") % {"characters": odd})
    details = {"name": postal.name, "lines": list(postal.lines), "country": postal.country}
    with transaction.atomic(durable=True):
        _lock(customer_id)
        before = ContactPoint.objects.filter(customer=customer_id, channel=LETTER, removed_at=None)
        for point in before:
            if json.dumps(point.details) == json.dumps(details):
                return point
        point = replace(
            [old.pk for old in before],
            by=lambda: _add(
                customer_id,
                LETTER,
                postal.in_one_line[:500],
                details=details,
                label="",
                now=now,
                verified_at=now,
            ),
            reason="The customer has given another address.",
            now=now,
        )
        _tell_of(point, "contact-point-added", address)
    return point


def remove(*, customer_id: int, contact_point_id: int, now: datetime, address: str = "") -> None:
    """Write to a contact point no more. Twice is the same as once. `address` is the internet address that wants it so.

    Raises Unknown.
    """
    with transaction.atomic(durable=True):
        _lock(customer_id)
        try:
            point = ContactPoint.objects.get(customer=customer_id, pk=contact_point_id)
        except ContactPoint.DoesNotExist:
            raise Unknown from None
        if point.removed_at:
            return
        give_up([point.pk], reason="The customer has removed it.", now=now)
        if point.verified_at:
            _tell_of(point, "contact-point-removed", address)


def send_test(*, customer_id: int, contact_point_id: int, now: datetime) -> None:
    """Have a test message sent to a proved contact point. Raises Unknown or TooMany."""
    with transaction.atomic(durable=True):
        _lock(customer_id)
        point = _own(customer_id, contact_point_id)
        if not point.verified_at:
            raise Unknown
        _refuse_too_many_tests(customer_id, now=now)
        _tell(point, CONTACT_TEST, facts={}, thread="", now=now)


def send_test_mail(*, customer_id: int, now: datetime) -> None:
    """Have a test message sent to the email address of the account. Raises TooMany."""
    with transaction.atomic(durable=True):
        customer = User.objects.select_for_update(no_key=True).get(pk=customer_id)
        _refuse_too_many_tests(customer_id, now=now)
        _tell_at(customer_id, EMAIL, customer.email, CONTACT_TEST, facts={}, thread="", now=now)


def mail_came_back(customer: User) -> DeliveryEvent | None:
    """The record of the last mail to his address, if it was refused or came back; None if it went out."""
    ends = (DeliveryStep.ACCEPTED, DeliveryStep.RECEIVED, DeliveryStep.REFUSED, DeliveryStep.RETURNED)
    his = DeliveryEvent.objects.filter(
        delivery__notice__recipient=customer,
        delivery__channel=EMAIL,
        address__iexact=customer.email,
        step__in=ends,
    )
    # No sorting: the database would read everybody's from the end.
    newest = his.order_by().values("delivery__channel").annotate(newest=Max("pk")).values("newest")
    came_back = (DeliveryStep.REFUSED, DeliveryStep.RETURNED)
    return DeliveryEvent.objects.filter(pk__in=newest, step__in=came_back).first()


def given_up(customer: User, *, now: datetime) -> Mapping[str, Sequence[ContactPoint]]:
    """His contact points, by channel, that we write to no more because nothing arrives there, the last one first.

    For some months, as long as he has added nothing in their place at that channel.
    """
    told = DeliveryEvent.objects.filter(
        delivery__contact_point=OuterRef("pk"),
        step__in=(DeliveryStep.REFUSED, DeliveryStep.RETURNED),
        at=OuterRef("removed_at"),
    )
    theirs = ContactPoint.objects.filter(customer=customer)
    later = theirs.filter(channel=OuterRef("channel"), created_at__gt=OuterRef("removed_at"))
    found: dict[str, list[ContactPoint]] = {}
    for point in theirs.filter(Exists(told), ~Exists(later), removed_at__gt=now - SHOWN_FOR).order_by(
        "-removed_at", "-pk"
    ):
        found.setdefault(point.channel, []).append(point)
    return found


# --- what the verbs have in common -------------------------------------------------------------------


def _lock(customer_id: int) -> None:
    """One change of a customer's contact points at a time, so that nobody sends more than he may by asking twice."""
    User.objects.select_for_update(no_key=True).get(pk=customer_id)


def _own(customer_id: int, contact_point_id: int) -> ContactPoint:
    try:
        return ContactPoint.objects.get(pk=contact_point_id, customer=customer_id, removed_at=None)
    except ContactPoint.DoesNotExist:
        raise Unknown from None


def _in_use(customer_id: int, channel: str, address: str) -> ContactPoint | None:
    return ContactPoint.objects.filter(
        customer=customer_id, channel=channel, address=address, removed_at=None
    ).first()


def _take(
    customer_id: int,
    channel: str,
    address: str,
    *,
    details: Mapping[str, str],
    label: str,
    now: datetime,
    told_from: str | None = None,
) -> ContactPoint:
    """The contact point of a device, new or found. A device is one customer's: who had it before loses it.

    With `told_from` the customer is told that there is a new one, and from which internet address it came.
    """
    others = ContactPoint.objects.filter(channel=channel, address=address, removed_at=None)
    point = others.filter(customer=customer_id).first()
    if point and point.details != details:
        give_up([point.pk], reason="The device has other keys now.", now=now)
        point = None
    if channel != WECHAT:  # a person, who may have two accounts
        taken = others.exclude(customer=customer_id).values_list("pk", flat=True)
        give_up(list(taken), reason="Another account uses the device now.", now=now)
    if point:
        return point
    point = _add(customer_id, channel, address, details=details, label=label, now=now, verified_at=now)
    if told_from is not None:
        _tell_of(point, "contact-point-added", told_from)
    return point


def _add(
    customer_id: int,
    channel: str,
    address: str,
    *,
    details: Mapping[str, object],
    label: str,
    now: datetime,
    verified_at: datetime | None = None,
) -> ContactPoint:
    in_use = ContactPoint.objects.filter(customer=customer_id, channel=channel, removed_at=None)
    if in_use.count() >= MOST_AT_ONCE:
        raise TooMany(_("You have enough of these. Remove one that you do not use any more."))
    return ContactPoint.objects.create(
        customer_id=customer_id,
        channel=channel,
        address=address,
        details=details,
        label=label[:100],
        created_at=now,
        verified_at=verified_at,
    )


def _send_code(point: ContactPoint, *, now: datetime) -> None:
    # Asked by who has the number, for which there is an index.
    everybody = ContactPoint.objects.filter(channel=point.channel, address=point.address).values("customer")
    codes_sent = _sent_lately(CONTACT_CODE, now=now)
    if (
        codes_sent.filter(recipient=point.customer_id).count() >= CODES_PER_HOUR
        or codes_sent.filter(recipient__in=everybody, to_address=point.address).count() >= CODES_PER_HOUR
    ):
        raise TooMany(_("We have sent enough codes for now. Please come back in an hour."))
    point.asked_at = now
    ContactPoint.objects.filter(pk=point.pk).update(asked_at=now, wrong_codes=0)
    _tell(
        point,
        CONTACT_CODE,
        facts={"code": codes.PLACEHOLDER},
        thread=f"{CONTACT_CODE.slug}:{point.pk}",
        now=now,
    )


def _refuse_too_many_tests(customer_id: int, *, now: datetime) -> None:
    if _sent_lately(CONTACT_TEST, now=now).filter(recipient=customer_id).count() >= TESTS_PER_HOUR:
        raise TooMany(_("You have tried often enough for now. Please come back in an hour."))


def _sent_lately(kind: Kind, *, now: datetime) -> QuerySet[Notice]:
    return Notice.objects.filter(kind=kind.slug, created_at__gt=now - timedelta(hours=1))


def _tell(point: ContactPoint, kind: Kind, *, facts: Mapping[str, str], thread: str, now: datetime) -> None:
    """Tell it to this contact point and nowhere else."""
    _tell_at(point.customer_id, point.channel, point.address, kind, facts=facts, thread=thread, now=now)


def _tell_at(
    customer_id: int,
    channel: str,
    address: str,
    kind: Kind,
    *,
    facts: Mapping[str, str],
    thread: str,
    now: datetime,
) -> None:
    tell(
        [
            Draft(
                recipient_id=customer_id,
                kind=kind,
                about="",
                url=reverse("notices:contacts"),
                facts=facts,
                dedupe_key=f"{kind.slug}:{channel}:{customer_id}:{address[:40]}:{now.isoformat()}",
                thread=thread,
                to_channel=channel,
                to_address=address,
            )
        ],
        now=now,
    )


def _tell_of(point: ContactPoint, event: str, address: str) -> None:
    """Tell the customer by all ways that one came or went: somebody else may have got into his account."""
    known_by = point.address if point.channel in (PHONE, LETTER) else point.label
    tell_of(event, customer_id=point.customer_id, detail=known_by, address=address)
