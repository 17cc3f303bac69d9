"""NOWPayments: bitcoin and ether, sent to an address that our own page shows.

What it lacks is made up for here:

- Creating a payment has no idempotency key. A payment is looked for by its order id before it is created; should
  there be two all the same, coins to either address count, for `fetch` asks about all payments of a reference.
- A second deposit to an address is a payment of its own, the child of the first, which names it: so is one in a
  wrong coin. All deposits of a payment are counted together, at the quote of the first; a wrong coin is never counted.
- Listing payments takes a token, which is given for the e-mail address and the password of the account. The list can
  be narrowed by nothing but the time: where a payment is known, only those of its hour are looked through.
- It cannot cancel a payment, and it cannot give money back so that a lost answer does no harm: `close` and
  `give_back` are declined, and staff do it by hand.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inventory.money import Money
from orders.gateways.asking import Answer, Asking, Number, read_json
from orders.gateways.coins import BITCOIN, ETHER, Coin, payment_uri, worth_each, written
from orders.gateways.protocol import (
    BadSignature,
    Booking,
    Charge,
    CoinProgress,
    CredentialsRefused,
    Declined,
    Event,
    Instructions,
    MoneyMoved,
    Opened,
    Return,
    Snapshot,
    Stray,
    Unreachable,
    WebhookAnswer,
)

NAME = "NOWPayments"
WEBHOOK_PATH = "/webhooks/nowpayments/"
WEBHOOK_BYTES = 1_000_000

# A payment takes coins for seven days; what is older is not looked for among the others.
LISTED_FOR = timedelta(days=10)
# The creation of a payment, repeated, may have made another one: so long before or after, whosever clock is right.
REPEATED_WITHIN = timedelta(hours=1)
PAGE_LENGTH = 500
# Tokens live for five minutes.
TOKEN_LIFE = timedelta(minutes=4)

PAYMENT_ID = re.compile(r"[0-9]{1,20}")
REFERENCE = re.compile(r"[A-Za-z0-9-]{1,32}")
CURRENCY = re.compile(r"[A-Za-z0-9]{1,20}")
API_KEY = re.compile(r"[!-~]{1,200}")
TOKEN = re.compile(r"[!-~]{1,4000}")
SIGNATURE = re.compile(r"[0-9a-fA-F]{128}")

# By what a charge calls them; whoever does not choose pays in bitcoin.
METHODS = {"": "btc", "bitcoin": "btc", "ethereum": "eth"}
COINS = {"btc": BITCOIN, "eth": ETHER}

# The coins are on their way, on the chain or to the account.
UNDER_WAY = ("confirming", "confirmed", "sending")
# The coins have come, enough of them or not; some may have been sent back since.
ARRIVED = ("finished", "partially_paid", "refunded")
# What a payment is for us as long as nothing of it counts as captured.
STATES = {
    "waiting": "pending",
    "partially_paid": "pending",
    "finished": "pending",
    "failed": "declined",
    "refunded": "declined",
    "expired": "expired",
} | dict.fromkeys(UNDER_WAY, "pending")
# The state of several payments with one reference is that of the furthest.
FURTHEST = ("captured", "confirming", "pending", "expired", "declined")

# One for each (address, account): NOWPayments counts how often one is asked for.
_tokens: dict[tuple[str, str], tuple[str, datetime]] = {}


@dataclass(frozen=True, slots=True)
class _Payment:
    """One deposit, or the address that waits for it. `parent` is the payment whose address it came to again."""

    payment_id: str
    parent: str
    reference: str
    status: str
    address: str
    price: Money
    currency: str
    due: Decimal
    paid: Decimal
    extra_ids: tuple[str, ...]
    created_at: datetime | None
    updated_at: datetime | None

    def coin(self) -> Coin | None:
        return COINS.get(self.currency)


class NowpaymentsGateway:
    """Settings: NOWPAYMENTS_URL, _API_KEY, _IPN_SECRET, _EMAIL and _PASSWORD, each with NOWPAYMENTS before it.

    While the secret is being changed, it is several with spaces between them. http needs ALLOW_EMULATORS.
    """

    slug: str = "nowpayments"
    label: str | Promise = _("NOWPayments")
    methods: frozenset[str] = frozenset({"bitcoin", "ethereum"})
    currencies: frozenset[str] = frozenset(settings.SHOP_CURRENCIES)
    webhook_answer: WebhookAnswer = WebhookAnswer()
    kept_headers: tuple[str, ...] = ("x-nowpayments-",)
    # After seven days it no longer says what comes to an address.
    late_for: timedelta = timedelta(days=7)

    def missing(self) -> list[str]:
        missing = [
            f"NOWPAYMENTS_{name}"
            for name in ("URL", "API_KEY", "IPN_SECRET", "EMAIL", "PASSWORD")
            if not _setting(name).strip()
        ]
        if _setting("API_KEY").strip() and not API_KEY.fullmatch(_setting("API_KEY")):
            missing.append("NOWPAYMENTS_API_KEY")
        if _setting("URL") and not (_setting("URL").startswith("https://") or settings.ALLOW_EMULATORS):
            missing.append("ALLOW_EMULATORS")
        return missing

    def pay_origins(self) -> tuple[str, ...]:
        return ()

    def refundable_for(self, method: str) -> timedelta | None:
        """It gives nothing back: every refund goes the manual way from the first moment."""
        return timedelta(0)

    def open(self, charge: Charge) -> Opened:
        currency = METHODS.get(charge.method)
        if currency is None:
            raise Declined(gettext("NOWPayments is not set up for this way to pay."))
        asking = self._asking()
        oldest = _now() - LISTED_FOR
        since = max(charge.begun_at - REPEATED_WITHIN, oldest) if charge.begun_at else oldest
        listed = _list(asking, since=since)
        # The oldest comes first, and stays it.
        found = [row for row in listed if _is_of(row, charge.reference) and not _parent_of(row)]
        payment = _read_payment(asking, found[0]) if found else self._create(asking, charge, currency)
        if payment.reference != charge.reference or payment.parent:
            raise asking.no_sense("another payment than was asked for")
        coin = payment.coin()
        if payment.price != charge.amount or payment.currency != currency or coin is None:
            raise Declined(gettext("NOWPayments has this payment with another amount or coin."))
        if not coin.is_address(payment.address):
            raise asking.no_sense("an address that cannot be paid to")
        return Opened(
            provider_id=payment.payment_id,
            instructions=Instructions(
                qr=payment_uri(coin, payment.address, payment.due),
                coin=coin.code,
                coin_amount=written(payment.due),
                address=payment.address,
            ),
        )

    def fetch(self, *, reference: str, provider_id: str, returns: Sequence[str] = ()) -> Snapshot | None:
        if provider_id and not PAYMENT_ID.fullmatch(provider_id):
            return None
        asking = self._asking()
        known = _family(asking, ids=[provider_id] if provider_id else [])
        begun_at = next((each.created_at for each in known if each.payment_id == provider_id), None)
        rows = (
            _list(asking, since=begun_at - REPEATED_WITHIN, until=begun_at + REPEATED_WITHIN)
            if begun_at
            else _list(asking, since=_now() - LISTED_FOR)
        )
        listed = [
            _id_of(asking, row)
            for row in rows
            if _is_of(row, reference) or (provider_id and _parent_of(row) == provider_id)
        ]
        family = _family(asking, ids=listed, known=known)
        for payment in family:
            if not payment.parent and reference and payment.reference != reference:
                raise asking.no_sense("another payment than was asked for")
        roots = [payment for payment in family if not payment.parent]
        if not roots:
            return None
        snapshots = [_snapshot(asking, root, family) for root in roots]
        best = min(snapshots, key=lambda snapshot: FURTHEST.index(snapshot.state))
        is_there = any(root.payment_id == provider_id for root in roots)
        return Snapshot(
            provider_id=provider_id if is_there else best.provider_id,
            state=best.state,
            captures=tuple(moved for snapshot in snapshots for moved in snapshot.captures),
            refunds=tuple(moved for snapshot in snapshots for moved in snapshot.refunds),
            strays=tuple(stray for snapshot in snapshots for stray in snapshot.strays),
            progress=best.progress or next((each.progress for each in snapshots if each.progress), None),
            problem=" ".join(each.problem for each in snapshots if each.problem),
        )

    def close(self, *, provider_id: str) -> None:
        raise Declined(
            gettext("NOWPayments cannot cancel a payment: its address takes coins until it has expired.")
        )

    def give_back(self, refund: Return) -> None:
        raise Declined(
            gettext("NOWPayments gives no money back by itself. Refund by hand: send the buyer his coins.")
        )

    def bookings(self, *, day: date) -> Iterator[Booking]:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        asking = self._asking()
        rows = _list(asking, since=start - LISTED_FOR, until=start + timedelta(days=1))
        told: set[str] = set()
        for row in rows:
            if row.get("payment_status") not in ARRIVED or not _is_priced_by_us(row):
                continue
            root_id = _parent_of(row) or _id_of(asking, row)
            if root_id in told:
                continue
            told.add(root_id)
            # Each question has its own time: this is a job of the night, and the list may be long.
            asking = self._asking()
            children = [_id_of(asking, other) for other in rows if _parent_of(other) == root_id]
            family = _family(asking, ids=[root_id, *children])
            for root in family:
                if root.payment_id == root_id:
                    snapshot = _snapshot(asking, root, family)
                    for kind, movements in (("capture", snapshot.captures), ("refund", snapshot.refunds)):
                        for moved in movements:
                            if moved.at.date() == day:
                                yield Booking(
                                    kind, moved.transaction_id, moved.amount, moved.at, root.reference
                                )

    def read_webhook(self, *, headers: Mapping[str, str], body: bytes) -> Event:
        signature = headers.get("x-nowpayments-sig", "")
        if not SIGNATURE.fullmatch(signature):
            raise BadSignature("The headers are not those of a notification.")
        if len(body) > WEBHOOK_BYTES:
            raise BadSignature("The body is too long.")
        try:
            content = read_json(body)
            good = [
                _signature(secret, _canonical(content, lists=lists))
                for secret in _setting("IPN_SECRET").split()
                for lists in (True, False)
            ]
        except (ValueError, RecursionError):
            # ValueError: also a letter that is half of one, and has no place in UTF-8.
            raise BadSignature("The body is not JSON.") from None
        # White space around the object is not signed, and none comes from NOWPayments.
        if body != body.strip() or not any(hmac.compare_digest(each, signature.lower()) for each in good):
            raise BadSignature("No signature is good.")
        match content:
            case {
                "payment_id": str(payment_id),
                "payment_status": str(status),
                "order_id": str() | None as reference,
                **more,
            } if (
                PAYMENT_ID.fullmatch(payment_id)
                and not isinstance(reference, Number)
                and (not reference or REFERENCE.fullmatch(reference))
            ):
                told = f"{payment_id}:{status}:{more.get('actually_paid')}"
                return Event(hashlib.sha256(told.encode()).hexdigest(), attempt_reference=reference or "")
        raise BadSignature("The body is not that of a payment.")

    def _create(self, asking: Asking, charge: Charge, currency: str) -> _Payment:
        body = json.dumps(
            {
                "price_currency": charge.amount.currency.lower(),
                "pay_currency": currency,
                "order_id": charge.reference,
                "order_description": charge.description,
                "ipn_callback_url": settings.SITE_URL + WEBHOOK_PATH,
            }
        )
        # The price is a number there, and must not become a float on the way.
        body = f'{body[:-1]}, "price_amount": {charge.amount.written()}}}'
        answer = asking.ask("POST", "/v1/payment", body=body)
        if answer.status not in (200, 201):
            raise asking.refusal(answer)
        return _read_payment(asking, answer.content)

    def _asking(self) -> Asking:
        if missing := self.missing():
            raise Unreachable(f"{NAME} is not configured: {', '.join(missing)}.")
        return Asking(NAME, _setting("URL"), {"x-api-key": _setting("API_KEY")})


def _list(asking: Asking, *, since: datetime, until: datetime | None = None) -> list[Mapping[object, object]]:
    """All payments of the account that were created since then, the oldest first."""
    rows: list[Mapping[object, object]] = []
    dates = [("dateFrom", _written_time(since))] + ([("dateTo", _written_time(until))] if until else [])
    page = 0
    while True:
        query = [
            ("limit", str(PAGE_LENGTH)),
            ("page", str(page)),
            ("sortBy", "created_at"),
            ("orderBy", "asc"),
            *dates,
        ]
        answer = _ask_for_list(asking, query)
        match answer:
            case Answer(200, {"data": [*found], "pagesCount": str(pages)}) if PAYMENT_ID.fullmatch(pages):
                for row in found:
                    if not isinstance(row, dict):
                        raise asking.no_sense("something that is not a list of payments")
                    rows.append(row)
            case Answer(200):
                raise asking.no_sense("something that is not a list of payments")
            case _:
                raise asking.refusal(answer)
        page += 1
        if page >= int(pages):
            return rows


def _ask_for_list(asking: Asking, query: Sequence[tuple[str, str]]) -> Answer:
    """A page of the list, with a token that is asked for anew when it is no longer good."""
    account = (_setting("URL"), _setting("EMAIL"))
    token, good_until = _tokens.get(account, ("", _now()))
    if good_until > _now():
        try:
            return asking.ask(
                "GET", "/v1/payment/", query=query, headers={"Authorization": f"Bearer {token}"}
            )
        except CredentialsRefused:
            _tokens.pop(account, None)
    login = json.dumps({"email": _setting("EMAIL"), "password": _setting("PASSWORD")})
    answer = asking.ask("POST", "/v1/auth", body=login)
    match answer:
        case Answer(200 | 201, {"token": str(token)}) if TOKEN.fullmatch(token):
            _tokens[account] = (token, _now() + TOKEN_LIFE)
        case Answer(200 | 201):
            raise asking.no_sense("no token")
        case _:
            raise CredentialsRefused(
                gettext("%(provider)s refuses our credentials.") % {"provider": asking.provider}
            )
    return asking.ask("GET", "/v1/payment/", query=query, headers={"Authorization": f"Bearer {token}"})


def _family(asking: Asking, *, ids: Iterable[str], known: Iterable[_Payment] = ()) -> list[_Payment]:
    """The known payments and these, and those that they name as theirs; unknown ones are left out."""
    family = {payment.payment_id: payment for payment in known}
    waiting = list(dict.fromkeys(ids))
    for payment_id in waiting:
        if payment_id in family:
            continue
        answer = asking.ask("GET", f"/v1/payment/{payment_id}")
        if answer.status == 404:
            continue
        if answer.status != 200:
            raise asking.refusal(answer)
        payment = _read_payment(asking, answer.content)
        if payment.payment_id != payment_id:
            raise asking.no_sense("another payment than was asked for")
        family[payment_id] = payment
        # Whoever joins a list that is being walked through is walked through himself.
        waiting.extend(extra for extra in dict.fromkeys(payment.extra_ids) if extra not in waiting)
    return list(family.values())


def _snapshot(asking: Asking, root: _Payment, family: Sequence[_Payment]) -> Snapshot:
    """What became of one address: of the payment that opened it, and of what came to it later."""
    coin = root.coin()
    if coin is None:
        raise asking.no_sense("a payment in a coin that was not asked for")
    children = [payment for payment in family if payment.parent == root.payment_id]
    deposits = [
        root,
        *sorted((each for each in children if each.currency == root.currency), key=_as_they_came),
    ]
    arrived = [deposit for deposit in deposits if deposit.status in ARRIVED and deposit.paid]
    received = sum((deposit.paid for deposit in deposits if _is_seen(deposit)), Decimal(0))
    has_come = sum((deposit.paid for deposit in arrived), Decimal(0))
    is_paid = has_come >= root.due or (root.status == "finished" and bool(has_come))
    if root.status == "finished" and not has_come:
        raise asking.no_sense("a payment that is finished without coins")
    captures, refunds = [], []
    if is_paid:
        parts = worth_each((deposit.paid for deposit in arrived), price=root.price, due=root.due)
        for deposit, amount in zip(arrived, parts, strict=True):
            if deposit.updated_at is None:
                raise asking.no_sense("a payment without a time")
            if amount:
                captures.append(MoneyMoved(deposit.payment_id, amount, deposit.updated_at))
                if deposit.status == "refunded":
                    refunds.append(MoneyMoved(f"{deposit.payment_id}-refund", amount, deposit.updated_at))
    is_moving = any(deposit.status in UNDER_WAY for deposit in deposits)
    missing = Decimal(0) if is_paid else max(root.due - received, Decimal(0))
    return Snapshot(
        provider_id=root.payment_id,
        # A part that is on its way confirms nothing: it must neither hold an order nor give it a place.
        state="captured" if captures else "confirming" if is_moving and not missing else STATES[root.status],
        captures=tuple(captures),
        refunds=tuple(refunds),
        progress=CoinProgress(
            coin.code,
            due=written(root.due),
            received=written(received),
            missing=written(missing) if missing else "",
            qr=payment_uri(coin, root.address, missing) if missing else "",
        )
        if received
        else None,
        strays=tuple(
            Stray(
                child.payment_id,
                gettext("%(coins)s came in a wrong coin and do not count (payment %(payment)s).")
                % {
                    "coins": f"{written(child.paid)} {child.currency.upper()}",
                    "payment": child.payment_id,
                },
            )
            for child in children
            if child.currency != root.currency and _is_seen(child)
        ),
        problem=" ".join(_problems(root, children, has_come=has_come, is_paid=is_paid)),
    )


def _problems(
    root: _Payment, children: Iterable[_Payment], *, has_come: Decimal, is_paid: bool
) -> Iterator[str]:
    """What a person should know, in the words of the active language."""
    if has_come and not is_paid:
        yield gettext("Only %(received)s of %(due)s %(coin)s have come.") % {
            "received": written(has_come),
            "due": written(root.due),
            "coin": root.currency.upper(),
        }
    for payment in (root, *children):
        if payment.status == "refunded":
            yield gettext(
                "NOWPayments sent the coins of payment %(payment)s back; how many, it does not say."
            ) % {"payment": payment.payment_id}


def _is_seen(payment: _Payment) -> bool:
    return payment.status in UNDER_WAY + ARRIVED


def _as_they_came(payment: _Payment) -> tuple[datetime, str]:
    """Deposits in an order that stays, so that what one adds to the others is always the same."""
    return payment.created_at or datetime.max.replace(tzinfo=UTC), payment.payment_id


def _is_of(row: Mapping[object, object], reference: str) -> bool:
    return bool(reference) and row.get("order_id") == reference


def _is_priced_by_us(row: Mapping[object, object]) -> bool:
    """Whether the shop may have opened it: the account may be used for other things, priced in other coins."""
    currency = row.get("price_currency")
    return isinstance(currency, str) and currency.upper() in settings.SHOP_CURRENCIES


def _parent_of(row: Mapping[object, object]) -> str:
    parent = row.get("parent_payment_id")
    return str(parent) if isinstance(parent, str) and PAYMENT_ID.fullmatch(parent) else ""


def _id_of(asking: Asking, row: Mapping[object, object]) -> str:
    payment_id = row.get("payment_id")
    if not isinstance(payment_id, str) or not PAYMENT_ID.fullmatch(payment_id):
        raise asking.no_sense("a payment without a number")
    return str(payment_id)


def _read_payment(asking: Asking, content: object) -> _Payment:
    match content:
        case {
            "payment_id": str(payment_id),
            "payment_status": str(status),
            "pay_address": str(address),
            "price_amount": str(price_amount),
            "price_currency": str(price_currency),
            "pay_amount": str(pay_amount),
            "pay_currency": str(pay_currency),
            **more,
        } if PAYMENT_ID.fullmatch(payment_id) and status in STATES and CURRENCY.fullmatch(pay_currency):
            reference, paid = more.get("order_id"), more.get("actually_paid")
            coin = COINS.get(pay_currency, ETHER)
            extra_ids = more.get("payment_extra_ids")
            payment = _Payment(
                payment_id=str(payment_id),
                parent=_parent_of(more),
                reference=reference if isinstance(reference, str) else "",
                status=status,
                address=address,
                price=_read_price(asking, price_amount, price_currency.upper()),
                currency=pay_currency,
                due=_read_coins(asking, coin, pay_amount),
                paid=_read_coins(asking, coin, paid) if isinstance(paid, str) else Decimal(0),
                extra_ids=tuple(
                    str(extra)
                    for extra in (extra_ids if isinstance(extra_ids, list) else ())
                    if isinstance(extra, str) and PAYMENT_ID.fullmatch(extra)
                ),
                created_at=_read_time(asking, more.get("created_at")),
                updated_at=_read_time(asking, more.get("updated_at")),
            )
            if payment.due or payment.parent:
                return payment
    raise asking.no_sense("something that is not a payment")


def _read_price(asking: Asking, amount: str, currency: str) -> Money:
    try:
        return Money.parse(amount, currency)
    except ValueError:
        raise asking.no_sense("a price that cannot be read") from None


def _read_coins(asking: Asking, coin: Coin, amount: str) -> Decimal:
    try:
        return coin.read(amount)
    except ValueError:
        raise asking.no_sense("an amount of coins that cannot be read") from None


def _read_time(asking: Asking, written_time: object) -> datetime | None:
    """None where there is none: lists leave it out."""
    if not isinstance(written_time, str):
        return None
    try:
        at = datetime.fromisoformat(written_time)
    except ValueError:
        raise asking.no_sense("a time that cannot be read") from None
    if at.tzinfo is None:
        raise asking.no_sense("a time without a zone")
    return at.astimezone(UTC)


def _written_time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000Z"


def _canonical(content: object, *, lists: bool) -> str:
    """What is signed: compact JSON with the keys of all objects sorted, numbers as they came, letters as they are.

    Their own example in JavaScript sorts a list as if it were an object ({"0": …}), those in PHP and Python
    leave it a list; which of them it is that they run is not said.
    """
    if isinstance(content, Number):
        return content
    if isinstance(content, list):
        if lists:
            return f"[{','.join(_canonical(each, lists=lists) for each in content)}]"
        content = {str(place): each for place, each in enumerate(content)}
    if isinstance(content, dict):
        parts = (
            f"{_canonical(key, lists=lists)}:{_canonical(content[key], lists=lists)}"
            for key in sorted(content, key=_as_javascript_sorts)
        )
        return f"{{{','.join(parts)}}}"
    return json.dumps(content, ensure_ascii=False)


def _as_javascript_sorts(key: str) -> tuple[bool, int, bytes]:
    """Keys that are small whole numbers come first in any object of JavaScript, the others by UTF-16."""
    if len(key) < 10 and key.isascii() and key.isdigit() and str(int(key)) == key:
        return False, int(key), b""
    return True, 0, key.encode("utf-16-be")


def _signature(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha512).hexdigest()


def _setting(name: str) -> str:
    value: str = getattr(settings, f"NOWPAYMENTS_{name}")
    return value


def _now() -> datetime:
    return datetime.now(UTC)
