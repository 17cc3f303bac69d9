"""BTCPay Server: bitcoin to our own wallet, by an invoice on a server of ours (Greenfield API).

An invoice is judged by the coins that have come to it rather than by its status: what is confirmed and covers the
price is captured, also when it came after the invoice had expired or been cancelled.

A refund is a pull payment: a claim to so much money, which the buyer takes up by naming an address, and which staff
approve and pay from the wallet. Its page is what the buyer needs: `Snapshot.claims`. A claim bears our reference in its name and is looked for before it is made, for there is no idempotency key.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inventory.money import Money
from orders.gateways.asking import Asking, Number, Query, read_json
from orders.gateways.coins import BITCOIN, payment_uri, worth, worth_each, written
from orders.gateways.origins import origin_of
from orders.gateways.protocol import (
    BadSignature,
    Booking,
    Charge,
    Claim,
    CoinProgress,
    Declined,
    Event,
    Instructions,
    MoneyMoved,
    Opened,
    RefusedReturn,
    Return,
    Snapshot,
    Unreachable,
    WebhookAnswer,
)

NAME = "BTCPay Server"
WEBHOOK_BYTES = 1_000_000
# How far a webhook's time may be from ours. One that is sent again bears the time of its first sending, and is sent
# again for about an hour.
WEBHOOK_AGE = timedelta(seconds=300)
REDELIVERY_AGE = timedelta(hours=2)

# How long after its expiry an invoice still notices coins.
MONITORED_FOR = timedelta(days=7)
# One confirmation.
SPEED, CONFIRMATIONS = "MediumSpeed", 1
ON_CHAIN = "BTC-CHAIN"
PAGE_LENGTH = 100

INVOICE_ID = re.compile(r"[A-Za-z0-9]{1,50}")
STORE_ID = re.compile(r"[A-Za-z0-9]{1,60}")
PAYMENT_ID = re.compile(r"[!-~]{1,100}")
CLAIM_ID = re.compile(r"[A-Za-z0-9_-]{1,90}")
DELIVERY_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
REFERENCE = re.compile(r"[A-Za-z0-9-]{1,32}")
API_KEY = re.compile(r"[!-~]{1,200}")
URL = re.compile(r"[!-~]{1,500}")
SECONDS = re.compile(r"[0-9]{1,11}")
SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")
# Its own pages name a refund by its invoice; ours is named by our reference as well.
CLAIM_NAME = re.compile(r"Refund ([A-Za-z0-9]{1,50})(?: ([A-Za-z0-9-]{1,32}))?")

# What an invoice is for us as long as its coins do not cover its price. Settled: marked so by hand.
STATES = {
    "New": "pending",
    "Processing": "pending",
    "Settled": "pending",
    "Expired": "expired",
    "Invalid": "declined",
}
FURTHEST = ("captured", "confirming", "pending", "expired", "cancelled", "declined")


@dataclass(frozen=True, slots=True)
class _Invoice:
    invoice_id: str
    reference: str
    price: Money
    status: str
    additional_status: str
    checkout_link: str
    created: datetime


@dataclass(frozen=True, slots=True)
class _Deposit:
    payment_id: str
    coins: Decimal
    is_settled: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What is to be sent where, and what has been. `quote` is the price in coins without fees for more transactions."""

    address: str
    due: Decimal
    quote: Decimal
    deposits: tuple[_Deposit, ...]


@dataclass(frozen=True, slots=True)
class _Payout:
    payout_id: str
    amount: str
    currency: str
    state: str
    at: datetime


@dataclass(frozen=True, slots=True)
class _Claim:
    """A pull payment that gives back money of one invoice."""

    claim_id: str
    invoice_id: str
    reference: str
    amount: str
    currency: str
    is_archived: bool
    view_link: str


class BtcpayGateway:
    """Settings: BTCPAY_URL, BTCPAY_API_KEY, BTCPAY_STORE_ID and BTCPAY_WEBHOOK_SECRET.

    The key may create, view and modify invoices and create and manage pull payments, in this store only. The store
    has a webhook for all events of invoices, to /webhooks/btcpay/ of this site, with the secret; while it is being
    changed, it is several with spaces between them. http needs ALLOW_EMULATORS.
    """

    slug: str = "btcpay"
    label: str | Promise = _("BTCPay Server")
    methods: frozenset[str] = frozenset({"bitcoin"})
    currencies: frozenset[str] = frozenset(settings.SHOP_CURRENCIES)
    webhook_answer: WebhookAnswer = WebhookAnswer()
    kept_headers: tuple[str, ...] = ("btcpay-",)
    late_for: timedelta = MONITORED_FOR

    def missing(self) -> list[str]:
        missing = []
        if not settings.BTCPAY_URL:
            missing.append("BTCPAY_URL")
        if not API_KEY.fullmatch(settings.BTCPAY_API_KEY):
            missing.append("BTCPAY_API_KEY")
        if not STORE_ID.fullmatch(settings.BTCPAY_STORE_ID):
            missing.append("BTCPAY_STORE_ID")
        if not settings.BTCPAY_WEBHOOK_SECRET.strip():
            missing.append("BTCPAY_WEBHOOK_SECRET")
        if settings.BTCPAY_URL and not (
            settings.BTCPAY_URL.startswith("https://") or settings.ALLOW_EMULATORS
        ):
            missing.append("ALLOW_EMULATORS")
        return missing

    def pay_origins(self) -> tuple[str, ...]:
        return (origin_of(settings.BTCPAY_URL),)

    def refundable_for(self, method: str) -> timedelta | None:
        return None

    def open(self, charge: Charge) -> Opened:
        if charge.method not in ("", "bitcoin"):
            raise Declined(gettext("BTCPay Server is not set up for this way to pay."))
        asking = self._asking()
        found = _find(asking, charge.reference)
        invoice = found[0] if found else self._create(asking, charge)
        if invoice.reference != charge.reference:
            raise asking.no_sense("another invoice than was asked for")
        if invoice.price != charge.amount:
            raise Declined(gettext("BTCPay Server has this payment with another amount."))
        prompt = _prompt(asking, invoice)
        return Opened(
            provider_id=invoice.invoice_id,
            pay_url=invoice.checkout_link,
            instructions=Instructions(
                qr=payment_uri(BITCOIN, prompt.address, prompt.due),
                coin=BITCOIN.code,
                coin_amount=written(prompt.due),
                address=prompt.address,
            ),
        )

    def fetch(self, *, reference: str, provider_id: str, returns: Sequence[str] = ()) -> Snapshot | None:
        if provider_id and not INVOICE_ID.fullmatch(provider_id):
            return None
        asking = self._asking()
        # Should there be two invoices with one reference, coins to either count.
        invoices = _find(asking, reference) if reference else []
        if provider_id and all(invoice.invoice_id != provider_id for invoice in invoices):
            known = _invoice(asking, provider_id)
            if known and reference and known.reference != reference:
                raise asking.no_sense("another invoice than was asked for")
            invoices = [known, *invoices] if known else invoices
        if not invoices:
            return None
        snapshots = [_snapshot(asking, invoice) for invoice in invoices]
        best = min(snapshots, key=lambda snapshot: FURTHEST.index(snapshot.state))
        is_there = any(invoice.invoice_id == provider_id for invoice in invoices)
        return Snapshot(
            provider_id=provider_id if is_there else best.provider_id,
            state=best.state,
            captures=tuple(moved for each in snapshots for moved in each.captures),
            refunds=tuple(moved for each in snapshots for moved in each.refunds),
            refused_returns=tuple(refused for each in snapshots for refused in each.refused_returns),
            claims=tuple(claim for each in snapshots for claim in each.claims),
            progress=best.progress or next((each.progress for each in snapshots if each.progress), None),
            problem=" ".join(each.problem for each in snapshots if each.problem),
        )

    def close(self, *, provider_id: str) -> None:
        invoice_id = _known(provider_id)
        asking = self._asking()
        invoice = _invoice(asking, invoice_id)
        if invoice is None:
            raise _no_such_payment()
        if invoice.status in ("Invalid", "Expired"):
            return
        prompt = _prompt(asking, invoice)
        if invoice.status != "New" or _is_covered(prompt, prompt.deposits):
            raise Declined(gettext("The coins for this payment are there or on their way."))
        answer = asking.ask(
            "POST", _path(f"invoices/{invoice_id}/status"), body=json.dumps({"status": "Invalid"})
        )
        if answer.status != 200:
            raise asking.refusal(answer)

    def give_back(self, refund: Return) -> None:
        """Make the claim; it is money only when the buyer has taken it up.

        The sum of the claims is checked here: BTCPay Server would promise more than was paid. Two requests at
        one moment could still do it; whoever gives back money does so one by one for each order.
        """
        invoice_id = _known(refund.provider_id)
        asking = self._asking()
        invoice = _invoice(asking, invoice_id)
        if invoice is None:
            raise _no_such_payment()
        prompt = _prompt(asking, invoice)
        claims = _claims(asking, invoice_id)
        for claim in claims:
            if claim.reference == refund.reference:
                if claim.is_archived or _worth_of(asking, claim, invoice, prompt) != refund.amount:
                    raise Declined(
                        gettext("BTCPay Server has this refund with another amount, or withdrew it.")
                    )
                return
        left = Money(sum(moved.amount.minor for moved in _captures(invoice, prompt)), invoice.price.currency)
        for claim in claims:
            left -= self._claimed(asking, claim, invoice, prompt)
        if refund.amount.currency != left.currency or left < refund.amount:
            raise Declined(
                gettext("Only %(amount)s of this payment can be given back.") % {"amount": left.localised()}
            )
        name = f"Refund {invoice_id} {refund.reference}"
        answer = asking.ask(
            "POST",
            _path(f"invoices/{invoice_id}/refund"),
            body=json.dumps(
                {
                    "name": name,
                    "payoutMethodId": ON_CHAIN,
                    "refundVariant": "Custom",
                    "customAmount": refund.amount.written(),
                    "customCurrency": refund.amount.currency,
                }
            ),
        )
        if answer.status not in (200, 201):
            raise asking.refusal(answer)
        made = _read_claim(asking, answer.content)
        if made is None or (made.invoice_id, made.reference) != (invoice_id, refund.reference):
            raise asking.no_sense("another refund than was asked for")

    def bookings(self, *, day: date) -> Iterator[Booking]:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        end = start + timedelta(days=1)
        claims = _claims(self._asking())
        # Coins may come until the invoice is no longer watched, and be given back at any time after that.
        earliest = start - MONITORED_FOR - timedelta(days=2)
        skipped, invoices = 0, dict[str, _Invoice]()
        while True:
            asking = self._asking()
            query = [
                ("startDate", str(int(earliest.timestamp()))),
                ("endDate", str(int(end.timestamp()))),
                ("skip", str(skipped)),
                ("take", str(PAGE_LENGTH)),
            ]
            found = _list(asking, query)
            invoices |= {invoice.invoice_id: invoice for invoice in found}
            skipped += len(found)
            if len(found) < PAGE_LENGTH:
                break
        for invoice in invoices.values():
            if (invoice.status, invoice.additional_status) in (("New", "None"), ("Expired", "None")):
                continue
            for moved in _captures(invoice, _prompt(self._asking(), invoice)):
                if moved.at.date() == day:
                    yield Booking("capture", moved.transaction_id, moved.amount, moved.at, invoice.reference)
        for claim in claims:
            asking = self._asking()
            payouts = [each for each in _payouts(asking, claim) if each.at.date() == day]
            if payouts and (refunded := invoices.get(claim.invoice_id) or _invoice(asking, claim.invoice_id)):
                for moved in _refunds(asking, claim, payouts, refunded, _prompt(asking, refunded)):
                    yield Booking("refund", moved.transaction_id, moved.amount, moved.at, refunded.reference)

    def read_webhook(self, *, headers: Mapping[str, str], body: bytes) -> Event:
        signature = SIGNATURE.fullmatch(headers.get("btcpay-sig", ""))
        if not signature:
            raise BadSignature("The headers are not those of a webhook.")
        if len(body) > WEBHOOK_BYTES:
            raise BadSignature("The body is too long.")
        if not any(
            hmac.compare_digest(
                hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(), signature[1].lower()
            )
            for secret in settings.BTCPAY_WEBHOOK_SECRET.split()
        ):
            raise BadSignature("No signature is good.")
        try:
            content = read_json(body)
        except ValueError:
            raise BadSignature("The body is not JSON.") from None
        match content:
            case {
                "deliveryId": str(delivery_id),
                "timestamp": str(timestamp),
                "storeId": str(store_id),
                "invoiceId": str(),
                **more,
            } if store_id == settings.BTCPAY_STORE_ID and SECONDS.fullmatch(timestamp):
                _check_age(int(timestamp), is_redelivery=more.get("isRedelivery") is True)
                key = more.get("originalDeliveryId") or delivery_id
                match more.get("metadata"):
                    case {"orderId": str(order_id)} if REFERENCE.fullmatch(order_id) and not isinstance(
                        order_id, Number
                    ):
                        reference = order_id
                    case _:
                        # An invoice that somebody made by hand.
                        reference = ""
                if isinstance(key, str) and DELIVERY_ID.fullmatch(key):
                    return Event(dedupe_key=key, attempt_reference=reference)
        raise BadSignature("The body is not that of an event of our store.")

    def _create(self, asking: Asking, charge: Charge) -> _Invoice:
        minutes = (charge.expires_at - _now()) // timedelta(minutes=1)
        answer = asking.ask(
            "POST",
            _path("invoices"),
            body=json.dumps(
                {
                    "amount": charge.amount.written(),
                    "currency": charge.amount.currency,
                    "metadata": {"orderId": charge.reference, "itemDesc": charge.description},
                    "checkout": {
                        "speedPolicy": SPEED,
                        "paymentMethods": [ON_CHAIN],
                        "expirationMinutes": max(minutes, 1),
                        "monitoringMinutes": MONITORED_FOR // timedelta(minutes=1),
                        "paymentTolerance": 0,
                        "redirectURL": charge.return_url,
                    },
                }
            ),
        )
        if answer.status not in (200, 201):
            raise asking.refusal(answer)
        return _read_invoice(asking, answer.content)

    def _claimed(self, asking: Asking, claim: _Claim, invoice: _Invoice, prompt: _Prompt) -> Money:
        """What a claim takes of the payment: an archived one no more than has been paid out of it."""
        if not claim.is_archived:
            return _worth_of(asking, claim, invoice, prompt)
        payouts = _payouts(asking, claim)
        paid = _refunds(asking, claim, payouts, invoice, prompt)
        return Money(sum(moved.amount.minor for moved in paid), invoice.price.currency)

    def _asking(self) -> Asking:
        if missing := self.missing():
            raise Unreachable(f"{NAME} is not configured: {', '.join(missing)}.")
        return Asking(NAME, settings.BTCPAY_URL, {"Authorization": f"token {settings.BTCPAY_API_KEY}"})


def _path(of_store: str) -> str:
    return f"/api/v1/stores/{settings.BTCPAY_STORE_ID}/{of_store}"


def _known(provider_id: str) -> str:
    """An id that may stand in an address. Raises Declined for one that the server cannot have given."""
    if not INVOICE_ID.fullmatch(provider_id):
        raise _no_such_payment()
    return provider_id


def _no_such_payment() -> Declined:
    return Declined(gettext("BTCPay Server has no such payment."))


def _check_age(timestamp: int, *, is_redelivery: bool) -> None:
    age = _now() - datetime.fromtimestamp(timestamp, UTC)
    if not -WEBHOOK_AGE <= age <= (REDELIVERY_AGE if is_redelivery else WEBHOOK_AGE):
        raise BadSignature("The time is not now.")


def _find(asking: Asking, reference: str) -> list[_Invoice]:
    """The invoices with our reference, the oldest first."""
    found = _list(asking, [("orderId", reference), ("take", str(PAGE_LENGTH))])
    if any(invoice.reference != reference for invoice in found):
        raise asking.no_sense("other invoices than were asked for")
    return sorted(found, key=lambda invoice: (invoice.created, invoice.invoice_id))


def _list(asking: Asking, query: Query) -> list[_Invoice]:
    answer = asking.ask("GET", _path("invoices"), query=query)
    if answer.status != 200:
        raise asking.refusal(answer)
    if not isinstance(answer.content, list):
        raise asking.no_sense("something that is not a list of invoices")
    return [_read_invoice(asking, row) for row in answer.content if _is_priced_by_us(row)]


def _is_priced_by_us(row: object) -> bool:
    """Whether the shop may have made it: the store may be used for other things, priced in other currencies."""
    match row:
        case {"currency": str(currency)}:
            return currency in settings.SHOP_CURRENCIES
    return True


def _invoice(asking: Asking, invoice_id: str) -> _Invoice | None:
    answer = asking.ask("GET", _path(f"invoices/{invoice_id}"))
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise asking.refusal(answer)
    invoice = _read_invoice(asking, answer.content)
    if invoice.invoice_id != invoice_id:
        raise asking.no_sense("another invoice than was asked for")
    return invoice


def _prompt(asking: Asking, invoice: _Invoice) -> _Prompt:
    answer = asking.ask("GET", _path(f"invoices/{invoice.invoice_id}/payment-methods"))
    if answer.status != 200:
        raise asking.refusal(answer)
    if isinstance(answer.content, list):
        for method in answer.content:
            match method:
                case {
                    "paymentMethodId": "BTC-CHAIN",
                    "currency": "BTC",
                    "destination": str(address),
                    "amount": str(due),
                    "payments": [*payments],
                } if BITCOIN.is_address(address):
                    deposits, fees = [], Decimal(0)
                    for payment in payments:
                        deposit, fee = _read_deposit(asking, payment)
                        if deposit:
                            deposits.append(deposit)
                            fees += fee
                    coins = _read_coins(asking, due)
                    if coins > fees:
                        return _Prompt(
                            address=address, due=coins, quote=coins - fees, deposits=tuple(deposits)
                        )
    raise asking.no_sense("no way to pay in bitcoin")


def _snapshot(asking: Asking, invoice: _Invoice) -> Snapshot:
    prompt = _prompt(asking, invoice)
    captures = _captures(invoice, prompt)
    received = sum((deposit.coins for deposit in prompt.deposits), Decimal(0))
    missing = max(prompt.quote - received, Decimal(0))
    is_settled = bool(prompt.deposits) and all(deposit.is_settled for deposit in prompt.deposits)
    if captures:
        state = "captured"
    elif _is_covered(prompt, prompt.deposits):
        state = "confirming"
    elif (invoice.status, invoice.additional_status) == ("Invalid", "Marked"):
        state = "cancelled"
    else:
        state = STATES[invoice.status]
    refunds, refused, claims, problems = [], [], [], []
    # Nothing can be given back of an invoice that nothing came to.
    for claim in _claims(asking, invoice.invoice_id) if captures else ():
        payouts = _payouts(asking, claim)
        paid = _refunds(asking, claim, payouts, invoice, prompt)
        refunds += paid
        if claim.is_archived and not paid and claim.reference:
            refused.append(
                RefusedReturn(claim.reference, gettext("The claim was withdrawn in BTCPay Server."))
            )
        elif not claim.is_archived and not payouts and claim.reference:
            claims.append(Claim(claim.reference, claim.view_link))
        elif not claim.is_archived and not payouts:
            problems.append(
                gettext("A refund that was made in BTCPay Server waits for the buyer to claim it.")
            )
    if received and not captures and not _is_covered(prompt, prompt.deposits):
        problems.append(
            gettext("Only %(received)s of %(due)s %(coin)s have come.")
            % {"received": written(received), "due": written(prompt.quote), "coin": BITCOIN.code}
        )
    if (invoice.status, invoice.additional_status) == ("Settled", "Marked"):
        problems.append(gettext("The invoice was marked as settled by hand in BTCPay Server."))
    return Snapshot(
        provider_id=invoice.invoice_id,
        state=state,
        captures=tuple(captures),
        refunds=tuple(refunds),
        refused_returns=tuple(refused),
        claims=tuple(claims),
        progress=CoinProgress(
            BITCOIN.code,
            due=written(prompt.quote),
            received=written(received),
            confirmations=CONFIRMATIONS if is_settled else 0,
            needed=CONFIRMATIONS,
            missing=written(missing) if missing else "",
            qr=payment_uri(BITCOIN, prompt.address, missing) if missing else "",
        )
        if received
        else None,
        problem=" ".join(problems),
    )


def _is_covered(prompt: _Prompt, deposits: tuple[_Deposit, ...] | list[_Deposit]) -> bool:
    return sum((deposit.coins for deposit in deposits), Decimal(0)) >= prompt.quote


def _captures(invoice: _Invoice, prompt: _Prompt) -> list[MoneyMoved]:
    """What has come and is confirmed, if it covers the price; in the order in which it came."""
    settled = sorted(
        (deposit for deposit in prompt.deposits if deposit.is_settled),
        key=lambda deposit: (deposit.at, deposit.payment_id),
    )
    # What a person marked as settled is taken for what has come, and no more.
    is_marked = (invoice.status, invoice.additional_status) == ("Settled", "Marked")
    if not settled or not (_is_covered(prompt, settled) or is_marked):
        return []
    parts = worth_each((deposit.coins for deposit in settled), price=invoice.price, due=prompt.quote)
    return [
        MoneyMoved(deposit.payment_id, amount, deposit.at)
        for deposit, amount in zip(settled, parts, strict=True)
        if amount
    ]


def _claims(asking: Asking, invoice_id: str = "") -> list[_Claim]:
    """The refunds of one invoice, or of all; the store may have claims of other kinds too."""
    answer = asking.ask("GET", _path("pull-payments"), query=[("includeArchived", "true")])
    if answer.status != 200:
        raise asking.refusal(answer)
    if not isinstance(answer.content, list):
        raise asking.no_sense("something that is not a list of refunds")
    claims = (_read_claim(asking, row) for row in answer.content)
    return [claim for claim in claims if claim and invoice_id in ("", claim.invoice_id)]


def _payouts(asking: Asking, claim: _Claim) -> list[_Payout]:
    """What the buyer has taken up of a claim, paid or not."""
    answer = asking.ask("GET", f"/api/v1/pull-payments/{claim.claim_id}/payouts")
    if answer.status != 200:
        raise asking.refusal(answer)
    if not isinstance(answer.content, list):
        raise asking.no_sense("something that is not a list of payouts")
    return [_read_payout(asking, row) for row in answer.content]


def _refunds(
    asking: Asking, claim: _Claim, payouts: list[_Payout], invoice: _Invoice, prompt: _Prompt
) -> list[MoneyMoved]:
    return [
        MoneyMoved(
            payout.payout_id,
            _in_money(asking, payout.amount, payout.currency, invoice, prompt),
            payout.at,
            reference=claim.reference,
        )
        for payout in payouts
        if payout.state == "Completed"
    ]


def _worth_of(asking: Asking, claim: _Claim, invoice: _Invoice, prompt: _Prompt) -> Money:
    return _in_money(asking, claim.amount, claim.currency, invoice, prompt)


def _in_money(asking: Asking, amount: str, currency: str, invoice: _Invoice, prompt: _Prompt) -> Money:
    """An amount of a refund; staff may have promised coins, which are money at the invoice's quote."""
    if currency == BITCOIN.code:
        return worth(_read_coins(asking, amount), price=invoice.price, due=prompt.quote)
    return _read_money(asking, amount, currency)


def _read_invoice(asking: Asking, content: object) -> _Invoice:
    match content:
        case {
            "id": str(invoice_id),
            "storeId": store_id,
            "amount": str(amount),
            "currency": str(currency),
            "status": str(status),
            "additionalStatus": str(additional_status),
            "checkoutLink": str(checkout_link),
            "createdTime": created,
            "metadata": {**metadata},
        } if (
            INVOICE_ID.fullmatch(invoice_id)
            and store_id == settings.BTCPAY_STORE_ID
            and status in STATES
            and _is_ours(checkout_link)
        ):
            reference = metadata.get("orderId")
            return _Invoice(
                invoice_id=invoice_id,
                reference=reference if isinstance(reference, str) else "",
                price=_read_money(asking, amount, currency),
                status=status,
                additional_status=additional_status,
                checkout_link=checkout_link,
                created=_read_time(asking, created),
            )
    raise asking.no_sense("something that is not an invoice")


def _is_ours(url: str) -> bool:
    """Whether a buyer may be sent there: to our server and nowhere else."""
    return bool(URL.fullmatch(url)) and url.startswith(f"{settings.BTCPAY_URL}/")


def _read_deposit(asking: Asking, content: object) -> tuple[_Deposit | None, Decimal]:
    """A deposit and the fee that is taken off it; no deposit where the coins were spent elsewhere."""
    match content:
        case {"status": "Invalid"}:
            return None, Decimal(0)
        case {
            "id": str(payment_id),
            "receivedDate": at,
            "value": str(value),
            "fee": str(fee),
            "status": "Processing" | "Settled" as status,
        } if PAYMENT_ID.fullmatch(payment_id):
            gross, taken = _read_coins(asking, value), _read_coins(asking, fee)
            return _Deposit(
                payment_id=payment_id,
                coins=max(gross - taken, Decimal(0)),
                is_settled=status == "Settled",
                at=_read_time(asking, at),
            ), taken
    raise asking.no_sense("a deposit that cannot be read")


def _read_claim(asking: Asking, content: object) -> _Claim | None:
    """None for a pull payment that is no refund of an invoice."""
    match content:
        case {
            "id": str(claim_id),
            "name": str() | None as name,
            "amount": str(amount),
            "currency": str(currency),
            "archived": bool(is_archived),
            "viewLink": str(view_link),
        } if CLAIM_ID.fullmatch(claim_id):
            named = CLAIM_NAME.fullmatch(name or "")
            if not named:
                return None
            return _Claim(
                claim_id=claim_id,
                invoice_id=named[1],
                reference=named[2] or "",
                amount=amount,
                currency=currency,
                is_archived=is_archived,
                view_link=view_link if _is_ours(view_link) else "",
            )
    raise asking.no_sense("a refund that cannot be read")


def _read_payout(asking: Asking, content: object) -> _Payout:
    match content:
        case {
            "id": str(payout_id),
            "originalAmount": str(amount),
            "originalCurrency": str(currency),
            "state": str(state),
            "date": at,
        } if CLAIM_ID.fullmatch(payout_id):
            return _Payout(payout_id, amount, currency, state, _read_time(asking, at))
    raise asking.no_sense("a payout that cannot be read")


def _read_money(asking: Asking, amount: str, currency: str) -> Money:
    # It writes decimals as it computes them: "49.9", "49.90000000".
    whole, _point, fraction = amount.partition(".")
    fraction = fraction.rstrip("0")
    try:
        return Money.parse(f"{whole}.{fraction}" if fraction else whole, currency)
    except ValueError:
        raise asking.no_sense("an amount that cannot be read") from None


def _read_coins(asking: Asking, amount: str) -> Decimal:
    try:
        return BITCOIN.read(amount)
    except ValueError:
        raise asking.no_sense("an amount of coins that cannot be read") from None


def _read_time(asking: Asking, seconds: object) -> datetime:
    if not isinstance(seconds, Number) or not SECONDS.fullmatch(seconds):
        raise asking.no_sense("a time that cannot be read")
    return datetime.fromtimestamp(int(seconds), UTC)


def _now() -> datetime:
    return datetime.now(UTC)
