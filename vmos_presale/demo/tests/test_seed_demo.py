"""The demo's shop is one that the shop itself could have become."""

import sqlite3
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from allauth.account.models import EmailAddress
from django.apps import apps
from django.contrib.auth import authenticate
from django.core import mail
from django.core.cache import cache
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models import Count, Max, Sum
from django.test import TestCase

from accounts.models import User
from agreements.acceptance import required_of_buyer
from agreements.models import Acceptance, Role, StatutoryRight
from evidence.verification import verify_evidence
from inventory.models import Device, DeviceState, Fee, FeeSchedule, Plan, SupplyBatch
from notices.models import InboxMessage, Notice
from orders.models import (
    Allocation,
    AttemptState,
    EntryKind,
    Estimate,
    LedgerEntry,
    LineState,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    ReviewItem,
)
from orders.offers import stocks
from vmos_presale.demo.catalogue import APPROVER, CUSTOMER, CUSTOMERS_DOMAIN, MODELS, PASSWORD, STAFF, Model
from vmos_presale.demo.history import play
from vmos_presale.demo.management.commands.seed_demo import Command
from vmos_presale.demo.seeding import seed

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)  # noon in Hong Kong


def sizes() -> dict[str, int]:
    return {model._meta.label: model._default_manager.count() for model in apps.get_models()}


class SeededShop(TestCase):
    """One seeding for all of its tests."""

    books: Path
    mails: list[mail.EmailMessage]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.books = Path(cls.enterClassContext(tempfile.TemporaryDirectory())) / "books.sqlite3"
        # What the test before has left: this runs before what clears it for each test.
        cache.clear()
        mail.outbox.clear()
        assert seed(now=NOW, books=cls.books)
        cls.mails = list(mail.outbox)

    def test_second_run_changes_nothing(self) -> None:
        before = sizes()

        assert not seed(now=NOW + timedelta(days=2), books=self.books)

        assert sizes() == before

    def test_queues_and_stock_are_as_the_catalogue_says(self) -> None:
        plans = list(Plan.objects.order_by("rank"))
        stock = stocks(plans)

        assert [(stock[plan.pk].waiting, stock[plan.pk].free) for plan in plans] == [
            (1200, 0),
            (0, 46),
            (64, 0),
            (18, 0),
            (95, 0),
            (0, 6),
        ]
        for plan in plans:
            assert stock[plan.pk].waiting + stock[plan.pk].held <= stock[plan.pk].free + plan.presale_cap

    @pytest.mark.clause("1.1")
    @pytest.mark.clause("3.3")
    def test_every_unit_went_to_whoever_had_paid_first(self) -> None:
        for plan in Plan.objects.all():
            units = Allocation.objects.filter(line__plan=plan).order_by("line__paid_at", "line_id", "unit")
            moments = list(units.values_list("starts_at", flat=True))
            assert moments == sorted(moments)
            head = OrderLine.objects.waiting(plan_id=plan.pk).first()
            if head:
                last = units.aggregate(last=Max("line__paid_at"))["last"]
                assert last <= head.paid_at

    def test_units_of_a_line_are_its_allocations(self) -> None:
        lines = OrderLine.objects.annotate(given=Count("allocations"), top=Max("allocations__unit"))
        for allocated, given, top in lines.values_list("allocated", "given", "top"):
            assert allocated == given == (top or 0)
        assert (
            OrderLine.objects.aggregate(units=Sum("allocated"))["units"] == Allocation.objects.count() == 2188
        )

    def test_state_of_every_device_follows_from_its_allocations(self) -> None:
        live = set(Allocation.objects.filter(ended_at=None).values_list("device_id", flat=True))
        ever = set(Allocation.objects.values_list("device_id", flat=True))
        for device in Device.objects.all():
            expected = DeviceState.FREE
            if device.pk in ever:
                expected = DeviceState.ALLOCATED if device.pk in live else DeviceState.RETIRED
            assert device.state == expected
        assert not Allocation.objects.filter(ended_at=None, ends_at__lte=NOW).exists()
        assert not Allocation.objects.exclude(ended_at=None).filter(ended_at__gt=NOW).exists()

    def test_devices_are_those_of_the_received_batches(self) -> None:
        for batch in SupplyBatch.objects.annotate(devices=Count("receipts__received_devices")):
            assert batch.devices == batch.received_units

    def test_every_paid_order_is_covered_and_the_one_paid_twice_is_up_for_review(self) -> None:
        twice = []
        for order in Order.objects.annotate(captured=Sum("ledger__minor")):
            if order.state != OrderState.PAID:
                assert order.captured is None
            elif order.captured != order.total_minor:
                assert order.captured == 2 * order.total_minor
                twice.append(order.pk)
        assert twice == list(ReviewItem.objects.values_list("order_id", flat=True))
        assert len(twice) == 1

    def test_unpaid_orders_hold_no_money_and_no_place(self) -> None:
        lines = OrderLine.objects.exclude(order__state=OrderState.PAID)
        assert {line.state for line in lines} == {LineState.UNPAID}
        assert Counter(
            Order.objects.exclude(state=OrderState.PAID).values_list("state", flat=True)
        ).keys() == {
            OrderState.UNPAID,
            OrderState.EXPIRED,
            OrderState.CANCELLED,
        }
        assert not Order.objects.filter(state=OrderState.UNPAID, pay_until__lte=NOW).exists()

    @pytest.mark.clause("preamble")
    def test_every_order_has_the_acceptances_that_were_required_of_its_buyer(self) -> None:
        rights = {right.key: right for right in StatutoryRight.objects.all()}
        keys = {
            (language, right): sorted(
                (each.text.pk, each.subject, each.role)
                for each in required_of_buyer(now=NOW, language=language, right=rights.get(right))
            )
            for language in ("en", "zh-hans", "zh-hant")
            for right in ("", "eu")
        }
        given: dict[str, list[tuple[int, str, str]]] = {}
        for acceptance in Acceptance.objects.select_related("text"):
            assert acceptance.text_sha256 == acceptance.text.sha256
            given.setdefault(acceptance.order_reference, []).append(
                (acceptance.text_id, acceptance.subject, acceptance.role)
            )
        minors = 0
        for order in Order.objects.select_related("customer", "right"):
            accepted = given.pop(order.reference)
            guardians = [each for each in accepted if each[2] == Role.GUARDIAN]
            minors += bool(guardians)
            assert len(guardians) == 2 * order.guardian_requests.count()
            key = order.customer.language, order.right.key if order.right else ""
            assert sorted(set(accepted) - set(guardians)) == keys[key]
        assert verify_evidence(now=NOW).is_clean
        assert not given
        assert minors == 18

    @pytest.mark.clause("3.3")
    def test_everybody_who_waits_has_an_estimate(self) -> None:
        assert not OrderLine.objects.filter(state=LineState.WAITING, estimates=None).exists()
        for estimate in Estimate.objects.select_related("line"):
            assert estimate.line.paid_at is not None
            assert estimate.made_at > estimate.line.paid_at

    def test_customer_has_a_phone_a_place_in_a_queue_and_an_unpaid_order(self) -> None:
        lines = OrderLine.objects.filter(order__customer__email=CUSTOMER).order_by("order__placed_at")

        assert [(line.state, line.quantity) for line in lines] == [
            (LineState.WAITING, 2),
            (LineState.ALLOCATED, 1),
            (LineState.UNPAID, 1),
        ]
        assert Allocation.objects.get(line=lines[1]).ends_at == NOW + timedelta(days=70, minutes=12)
        assert list(lines[0].estimates.order_by("number").values_list("basis", flat=True)) == [
            "rate",
            "supply",
        ]

    def test_customer_alone_was_written_to(self) -> None:
        assert {recipient for message in self.mails for recipient in message.to} == {CUSTOMER}
        assert set(InboxMessage.objects.values_list("recipient__email", flat=True)) == {CUSTOMER}
        assert InboxMessage.objects.count() == 10
        assert not Notice.objects.filter(is_expanded=False).exists()

    def test_three_people_can_sign_in_and_nobody_of_the_mass(self) -> None:
        for email in (CUSTOMER, STAFF, APPROVER):
            assert authenticate(None, username=email, password=PASSWORD) == User.objects.get(email=email)
            assert EmailAddress.objects.get(email=email).verified
        assert set(User.objects.filter(is_staff=True).values_list("email", flat=True)) == {STAFF, APPROVER}
        mass = User.objects.filter(email__endswith=f"@{CUSTOMERS_DOMAIN}")
        assert mass.count() == 1500
        assert not any(user.has_usable_password() for user in mass)

    @pytest.mark.clause("3.2")
    def test_fees_are_in_force_and_next_months_are_announced(self) -> None:
        v08 = [
            str(Fee.objects.in_force(currency=currency, at=NOW)[fee.term_id].money)
            for currency in ("USD", "HKD", "CNY", "EUR", "JPY")
            for fee in Fee.objects.filter(term__plan__rank=1, term__days=30, schedule__currency="USD")
        ]
        coming = FeeSchedule.objects.filter(effective_at__gt=NOW)

        assert v08 == ["4.99 USD", "38.90 HKD", "35.90 CNY", "4.60 EUR", "750 JPY"]
        assert set(coming.values_list("effective_at", flat=True)) == {datetime(2026, 11, 30, 16, tzinfo=UTC)}
        assert coming.count() == 5

    def test_sandbox_gateway_knows_the_payments(self) -> None:
        with sqlite3.connect(self.books) as books:
            payments = set(books.execute("SELECT id, reference, minor, currency, status FROM payment"))
            captures = set(books.execute("SELECT id, payment, minor, currency FROM capture"))
        books.close()

        assert payments == set(
            PaymentAttempt.objects.filter(
                state__in=(AttemptState.CAPTURED, AttemptState.DECLINED, AttemptState.EXPIRED)
            ).values_list("provider_id", "reference", "amount_minor", "currency", "state")
        )
        assert captures == set(
            LedgerEntry.objects.filter(kind=EntryKind.CAPTURE).values_list(
                "transaction_id", "attempt__provider_id", "minor", "currency"
            )
        )


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.slug)
def test_history_is_the_same_every_time(model: Model) -> None:
    assert play(model, now=NOW, random=Random(1)) == play(model, now=NOW, random=Random(1))


@pytest.mark.django_db
def test_command_refuses_an_installation_that_is_no_demo() -> None:
    with pytest.raises(CommandError, match="DEMO is not set"):
        call_command(Command())

    assert not User.objects.exists()
