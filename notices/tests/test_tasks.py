"""The job that beat starts every second."""

import pytest
from django.core import mail
from django.db import transaction

from notices.models import Delivery, InboxMessage
from notices.outbox import drain, tell
from notices.tasks import drain as job
from notices.tests.samples import NOW, customer, draft

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("VIII")]


@pytest.mark.clause("3.3")
def test_one_run_sends_all_that_is_due_and_the_next_finds_nothing() -> None:
    with transaction.atomic():
        tell([draft(customer(f"{number}@example.com"), key=str(number)) for number in range(25)], now=NOW)
    for _ in range(2):
        job()
        assert sorted(message.to[0] for message in mail.outbox) == sorted(
            f"{n}@example.com" for n in range(25)
        )
        assert InboxMessage.objects.count() == 25
        assert Delivery.objects.filter(state="sent", attempts=1).count() == 50


def test_nothing_is_sent_in_the_middle_of_a_transaction() -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        drain(now=NOW)
    assert mail.outbox == []
