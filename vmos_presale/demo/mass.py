"""The mass of the demo: people, catalogue, orders, payments, phones, inserted as they would have come to be."""

import hashlib
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX

from accounts.models import User
from agreements.acceptance import RequiredConsent, guardian_consents, required_of_buyer
from agreements.models import Acceptance, Manner, Subject, Version
from agreements.rights import right_of, withdrawal_ends
from evidence import chain
from evidence.contract_time import contract_midnight
from inventory.models import (
    BatchState,
    Device,
    DeviceState,
    Fee,
    FeeSchedule,
    OversellDecision,
    Plan,
    SupplyBatch,
    SupplyReceipt,
    Term,
)
from orders.documents import issue_invoice
from orders.models import (
    Allocation,
    AttemptState,
    Basis,
    Cause,
    EntryKind,
    Estimate,
    Forecast,
    GuardianAnswer,
    GuardianRequest,
    LedgerEntry,
    LineState,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    ReviewItem,
    ReviewKind,
)
from orders.models.order import REFERENCE_ALPHABET
from vmos_presale.demo.catalogue import (
    APPROVER,
    BROWSERS,
    COUNTRY_OF,
    CUSTOMER,
    CUSTOMERS,
    CUSTOMERS_DOMAIN,
    FAMILY_NAMES,
    GIVEN_NAMES,
    HABITS,
    MODELS,
    PASSWORD,
    QUEUED,
    RATES,
    SOON,
    STAFF,
    fee_in,
)
from vmos_presale.demo.history import REPORTED_AFTER, Gotten, History, Sale, contract_day, office_hour, play

# How many of a hundred orders were never paid, and of a thousand buyers are under 18.
UNPAID_SHARE, MINOR_SHARE = 6, 8
UNPAID_NOW = 7


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The plans with what their lines point at. Fees are by (currency, term)."""

    plans: Mapping[str, Plan]
    terms: Mapping[tuple[str, int], Term]
    fees: Mapping[tuple[str, int], Fee]


@dataclass(slots=True)
class Draft:
    """An order of the mass with its one line, before it has a number."""

    slug: str
    sale: Sale
    state: OrderState
    buyer: "Buyer"


@dataclass(frozen=True, slots=True)
class Buyer:
    user: User
    currency: str
    is_minor: bool


def fill(*, now: datetime, random: Random) -> None:
    """Fill an empty shop, in the transaction of the caller. Agreements must be in force."""
    _make_people(random)
    catalogue = _make_catalogue(now=now)
    histories = {model.slug: play(model, now=now, random=random) for model in MODELS}
    drafts = list(_drafts(histories, now=now, random=random))
    lines = _make_orders(drafts, catalogue, random)
    _make_acceptances(lines, random)
    _make_payments(lines, now=now, random=random)
    devices = {slug: _receive(history, catalogue.plans[slug], now=now) for slug, history in histories.items()}
    _expect(histories, catalogue)
    _allocate(lines, devices, now=now)
    _estimate(lines)


def _make_people(random: Random) -> None:
    for email, name, is_staff in (
        (CUSTOMER, "Lin Mei", False),
        (STAFF, "Sam Chan", True),
        (APPROVER, "Ada Novak", True),
    ):
        user = User.objects.create_user(email, PASSWORD, name=name, is_staff=is_staff, is_superuser=is_staff)
        EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    people = []
    for number in range(1, CUSTOMERS + 1):
        given, family = random.choice(GIVEN_NAMES), random.choice(FAMILY_NAMES)
        language, time_zone, _currency, _share = _habits(random)
        people.append(
            User(
                email=f"{given}.{family}.{number:04}@{CUSTOMERS_DOMAIN}".lower(),
                name=f"{given} {family}",
                language=language,
                time_zone=time_zone,
                # Nobody signs in as one of them.
                password=f"{UNUSABLE_PASSWORD_PREFIX}{number}",
            )
        )
    User.objects.bulk_create(people)
    EmailAddress.objects.bulk_create(
        EmailAddress(user=user, email=user.email, verified=True, primary=True) for user in people
    )


def _habits(random: Random) -> tuple[str, str, str, int]:
    (habits,) = random.choices(HABITS, [share for *_rest, share in HABITS])
    return habits


def _make_catalogue(*, now: datetime) -> Catalogue:
    plans = {
        model.slug: Plan.objects.create(
            name=model.name,
            slug=model.slug,
            android=model.android,
            cpu_cores=model.cpu_cores,
            ram_gb=model.ram_gb,
            storage_gb=model.storage_gb,
            region=model.region,
            presale_cap=model.presale_cap,
            rank=rank,
        )
        for rank, model in enumerate(MODELS, start=1)
    }
    staff = User.objects.get(email=STAFF)
    for plan in plans.values():
        OversellDecision.objects.create(
            plan=plan,
            units=plan.presale_cap,
            reason="The supplier reserves capacity for us and confirms batches four weeks ahead.",
            decided_by=staff,
            decided_at=office_hour(now, -400),
        )
    terms = {
        (model.slug, days): Term.objects.create(plan=plans[model.slug], days=days)
        for model in MODELS
        for days in model.usd
    }
    since = office_hour(now, -400)
    next_month = _first_of_next_month(now)
    fees: dict[tuple[str, int], Fee] = {}
    for currency in RATES:
        schedule = FeeSchedule.objects.create(
            currency=currency, announced_at=since - timedelta(days=14), effective_at=since
        )
        in_force = [
            Fee(schedule=schedule, term=terms[model.slug, days], minor=fee_in(currency, cents))
            for model in MODELS
            for days, cents in model.usd.items()
        ]
        for fee in Fee.objects.bulk_create(in_force):
            fees[currency, fee.term_id] = fee
        announced = FeeSchedule.objects.create(
            currency=currency, announced_at=office_hour(now, -1), effective_at=next_month
        )
        Fee.objects.bulk_create(
            Fee(schedule=announced, term=terms[model.slug, days], minor=fee_in(currency, cents))
            for model in MODELS
            for days, cents in (model.next_month or {}).items()
        )
    return Catalogue(plans, terms, fees)


def _first_of_next_month(now: datetime) -> datetime:
    in_it = contract_day(now, 0).replace(day=1) + timedelta(days=32)
    return contract_midnight(in_it.replace(day=1))


def _drafts(histories: Mapping[str, History], *, now: datetime, random: Random) -> Iterator[Draft]:
    """Every order of the mass in the order of its placing: the paid ones, and some that were not."""
    sales = [(slug, sale, OrderState.PAID) for slug, history in histories.items() for sale in history.sales]
    for slug, sale, _state in random.sample(sales, len(sales) * UNPAID_SHARE // 100):
        placed_at = sale.placed_at - timedelta(minutes=random.randint(40, 600))
        lost = Sale(placed_at, placed_at, random.randint(1, 3), days=sale.days, is_presale=sale.is_presale)
        sales.append((slug, lost, random.choices((OrderState.EXPIRED, OrderState.CANCELLED), (3, 1))[0]))
    for _number in range(UNPAID_NOW):
        placed_at = now - timedelta(seconds=random.randint(60, 900))
        open_sale = Sale(placed_at, placed_at, random.randint(1, 2), days=30, is_presale=True)
        sales.append((random.choice((QUEUED, SOON)), open_sale, OrderState.UNPAID))
    buyers = _buyers(random)
    for number, (slug, sale, state) in enumerate(sorted(sales, key=lambda each: each[1].placed_at)):
        yield Draft(slug, sale, state, buyers[number] if number < len(buyers) else random.choice(buyers))


def _buyers(random: Random) -> list[Buyer]:
    currencies = {(language, time_zone): currency for language, time_zone, currency, _share in HABITS}
    users = list(User.objects.filter(email__endswith=f"@{CUSTOMERS_DOMAIN}").order_by("pk"))
    return [
        Buyer(user, currencies[user.language, user.time_zone], random.randrange(1000) < MINOR_SHARE)
        for user in users
    ]


@dataclass(frozen=True, slots=True)
class Placed:
    """An order of the mass, in the database."""

    draft: Draft
    order: Order
    line: OrderLine


def _make_orders(drafts: Sequence[Draft], catalogue: Catalogue, random: Random) -> list[Placed]:
    placed: list[Placed] = []
    rights = {country: right_of(country) for country in COUNTRY_OF.values()}
    for draft in drafts:
        sale, plan = draft.sale, catalogue.plans[draft.slug]
        term = catalogue.terms[draft.slug, sale.days]
        fee = catalogue.fees[draft.buyer.currency, term.pk]
        paid_at = sale.paid_at if draft.state == OrderState.PAID else None
        country = COUNTRY_OF[draft.buyer.user.time_zone]
        right = rights[country]
        order = Order(
            reference="VM-" + "".join(random.choices(REFERENCE_ALPHABET, k=8)),
            customer=draft.buyer.user,
            checkout_key=uuid.UUID(int=random.getrandbits(128), version=4),
            state=draft.state,
            country=country,
            right=right,
            withdraw_until=withdrawal_ends(right, ordered_at=sale.placed_at) if right else None,
            currency=draft.buyer.currency,
            total_minor=fee.minor * sale.quantity,
            placed_at=sale.placed_at,
            pay_until=sale.placed_at + settings.PAYMENT_WINDOW,
            paid_at=paid_at,
        )
        line = OrderLine(
            order=order,
            plan=plan,
            term=term,
            fee=fee,
            unit_minor=fee.minor,
            quantity=sale.quantity,
            is_presale=sale.is_presale,
            bonus_days=plan.presale_bonus_days if sale.is_presale else 0,
            state=_line_state(draft),
            paid_at=paid_at,
            allocated=len(sale.gotten),
        )
        placed.append(Placed(draft, order, line))
    Order.objects.bulk_create(each.order for each in placed)
    for each in placed:
        each.line.order = each.order
    OrderLine.objects.bulk_create(each.line for each in placed)
    return placed


def _line_state(draft: Draft) -> LineState:
    if draft.state != OrderState.PAID:
        return LineState.UNPAID
    return LineState.WAITING if draft.sale.waiting else LineState.ALLOCATED


def _make_acceptances(placed: Sequence[Placed], random: Random) -> None:
    """Every order with the consents that were required of its buyer when it was placed, guardians' included."""
    changes = sorted(Version.objects.values_list("effective_at", flat=True))
    known: dict[tuple[int, str, str], list[RequiredConsent]] = {}
    requests: list[GuardianRequest] = []
    acceptances: list[Acceptance] = []
    for each in placed:
        order, at, user = each.order, each.order.placed_at, each.draft.buyer.user
        edition = (bisect_right(changes, at), user.language, order.country)
        if edition not in known:
            known[edition] = required_of_buyer(now=at, language=user.language, right=order.right)
        address, browser = f"198.51.100.{random.randint(1, 254)}", random.choice(BROWSERS)
        acceptances += [
            _acceptance(order, required, (user.name, user.email), address=address, browser=browser)
            for required in known[edition]
        ]
        if each.draft.buyer.is_minor:
            guardian = (f"{random.choice(GIVEN_NAMES)} {user.name}", f"parent.{user.email}")
            requests.append(
                GuardianRequest(
                    order=order,
                    name=guardian[0],
                    email=guardian[1],
                    language=user.language,
                    asked_at=at,
                    answer=GuardianAnswer.CONFIRMED,
                    answered_at=at,
                )
            )
            texts = [required.text for required in known[edition] if required.subject == Subject.AGREEMENT]
            for required in guardian_consents(texts, language=user.language):
                acceptances.append(_acceptance(order, required, guardian, address=address, browser=browser))
    GuardianRequest.objects.bulk_create(requests)
    chain.append(acceptances)


def _acceptance(
    order: Order, required: RequiredConsent, person: tuple[str, str], *, address: str, browser: str
) -> Acceptance:
    return Acceptance(
        customer_id=order.customer_id,
        order_reference=order.reference,
        manner=Manner.EXPRESS,
        text=required.text,
        text_sha256=required.text.sha256,
        subject=required.subject,
        role=required.role,
        person_name=person[0],
        person_email=person[1],
        statement=required.statement,
        control=f"checkbox {required.key}",
        accepted_at=order.placed_at,
        ip_address=address,
        user_agent=browser,
    )


def _make_payments(placed: Sequence[Placed], *, now: datetime, random: Random) -> None:
    """A capture and an invoice for every paid order, a failed attempt for half of the lost ones, and one customer
    who paid twice.
    """
    attempts: list[PaymentAttempt] = []
    entries: list[LedgerEntry] = []
    paid = [each for each in placed if each.order.state == OrderState.PAID]
    for each in placed:
        if each.order.state == OrderState.PAID:
            attempt = new_attempt(each.order, 1, AttemptState.CAPTURED, random)
            entries.append(new_capture(attempt, at=each.draft.sale.paid_at, random=random))
        elif each.order.state == OrderState.EXPIRED and random.random() < 0.5:
            attempt = new_attempt(
                each.order, 1, random.choice((AttemptState.DECLINED, AttemptState.EXPIRED)), random
            )
        else:
            continue
        attempts.append(attempt)
    PaymentAttempt.objects.bulk_create(attempts)
    LedgerEntry.objects.bulk_create(entries)
    for each in sorted(paid, key=lambda each: each.draft.sale.paid_at):
        issue_invoice(each.order, now=each.draft.sale.paid_at + REPORTED_AFTER)
    twice = paid[-40].order
    attempt = new_attempt(twice, 2, AttemptState.CAPTURED, random)
    attempt.save(force_insert=True)
    again = new_capture(attempt, at=twice.placed_at + timedelta(minutes=28), random=random)
    again.save(force_insert=True)
    ReviewItem.objects.create(
        kind=ReviewKind.DUPLICATE,
        dedupe_key=f"{ReviewKind.DUPLICATE}:sandbox:{again.transaction_id}",
        order=twice,
        detail=f"Order {twice.reference}, capture {again.transaction_id}: {twice.total} came for a paid order.",
        opened_at=again.recorded_at,
    )


def new_attempt(order: Order, number: int, state: AttemptState, random: Random) -> PaymentAttempt:
    return PaymentAttempt(
        order=order,
        reference=f"{order.reference}-{number}",
        method="sandbox",
        gateway="sandbox",
        state=state,
        amount_minor=order.total_minor,
        currency=order.currency,
        provider_id=f"pay_{random.getrandbits(96):024x}",
        problem="Declined by the buyer's bank." if state == AttemptState.DECLINED else "",
        created_at=order.placed_at + timedelta(seconds=20),
        expires_at=order.pay_until,
    )


def new_capture(attempt: PaymentAttempt, *, at: datetime, random: Random) -> LedgerEntry:
    return LedgerEntry(
        order=attempt.order,
        attempt=attempt,
        gateway=attempt.gateway,
        kind=EntryKind.CAPTURE,
        transaction_id=f"cap_{random.getrandbits(96):024x}",
        minor=attempt.amount_minor,
        currency=attempt.currency,
        occurred_at=at,
        recorded_at=at + REPORTED_AFTER,
    )


def _receive(history: History, plan: Plan, *, now: datetime) -> list[Device]:
    """The past batches of a plan with their receipts; return its devices in the order of receipt."""
    staff = User.objects.get(email=STAFF)
    states = dict(_device_states(history, plan, now=now))
    devices: list[Device] = []
    for arrival in history.arrivals:
        batch = SupplyBatch.objects.create(
            plan=plan,
            reference=arrival.reference,
            quantity=arrival.batch.quantity,
            expected_on=contract_day(arrival.received_at, 0),
            first_expected_on=arrival.expected_on,
            state=BatchState.RECEIVED,
            received_units=arrival.batch.quantity,
            received_at=arrival.received_at,
            announced_at=arrival.announced_at,
        )
        numbers = range(len(devices), len(devices) + batch.quantity)
        codes = [f"AC{plan.region}{plan.rank:02}{number + 1:06}" for number in numbers]
        file = "code,plan\n" + "".join(f"{code},{plan.slug}\n" for code in codes)
        receipt = SupplyReceipt.objects.create(
            batch=batch,
            file_name=f"{batch.reference.lower()}.csv",
            file_sha256=hashlib.sha256(file.encode()).hexdigest(),
            devices=len(codes),
            received_at=arrival.received_at,
            received_by=staff,
        )
        devices += Device.objects.bulk_create(
            Device(plan=plan, code=code, receipt=receipt, state=states.get(number, DeviceState.FREE))
            for number, code in zip(numbers, codes, strict=True)
        )
    return devices


def _expect(histories: Mapping[str, History], catalogue: Catalogue) -> None:
    """Batches on their way; those of the customer's plan are announced as the customer waits."""
    SupplyBatch.objects.bulk_create(
        SupplyBatch(
            plan=catalogue.plans[slug],
            reference=coming.reference,
            quantity=coming.quantity,
            expected_on=coming.now_expected_on,
            first_expected_on=coming.first_expected_on,
            announced_at=coming.announced_at,
        )
        for slug, history in histories.items()
        if slug != QUEUED
        for coming in history.coming
    )


def _device_states(history: History, plan: Plan, *, now: datetime) -> Iterator[tuple[int, DeviceState]]:
    """By device number. A device whose service period is over is not lent again in the demo."""
    for sale in history.sales:
        for gotten in sale.gotten:
            is_over = _ends_at(sale, gotten, plan) <= now
            yield gotten.device, DeviceState.RETIRED if is_over else DeviceState.ALLOCATED


def _ends_at(sale: Sale, gotten: Gotten, plan: Plan) -> datetime:
    return gotten.at + timedelta(days=sale.days + (plan.presale_bonus_days if sale.is_presale else 0))


def _allocate(placed: Sequence[Placed], devices: Mapping[str, Sequence[Device]], *, now: datetime) -> None:
    allocations: list[Allocation] = []
    for each in placed:
        for gotten in each.draft.sale.gotten:
            ends_at = _ends_at(each.draft.sale, gotten, each.line.plan)
            allocations.append(
                Allocation(
                    line=each.line,
                    unit=gotten.unit,
                    device=devices[each.draft.slug][gotten.device],
                    starts_at=gotten.at,
                    ends_at=ends_at,
                    ended_at=ends_at if ends_at <= now else None,
                )
            )
    allocations.sort(key=lambda allocation: allocation.starts_at)
    Allocation.objects.bulk_create(allocations)


def _estimate(placed: Sequence[Placed]) -> None:
    """What every buyer was told when the payment had come."""
    estimates, forecasts = [], []
    for each in placed:
        sale = each.draft.sale
        if sale.outlook is None:
            continue
        promised = sale.promised
        forecasts.append(
            Forecast(
                plan=each.line.plan,
                made_at=sale.paid_at + REPORTED_AFTER,
                inputs=sale.outlook.as_json(),
            )
        )
        estimates.append(
            Estimate(
                line=each.line,
                number=1,
                made_at=sale.paid_at + REPORTED_AFTER,
                earliest=promised.earliest if promised else None,
                likely=promised.likely if promised else None,
                latest=promised.latest if promised else None,
                next_update_by=contract_day(sale.paid_at + settings.ESTIMATE_UPDATE_EVERY, 0),
                basis=promised.basis if promised else Basis.UNKNOWN,
                cause=Cause.PAYMENT,
                units_ahead=sale.units_ahead,
                forecast=forecasts[-1],
            )
        )
    Forecast.objects.bulk_create(forecasts, batch_size=1000)
    Estimate.objects.bulk_create(estimates, batch_size=1000)
