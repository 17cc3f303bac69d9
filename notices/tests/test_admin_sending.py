"""The desks of notices: the outbox at a glance, and what staff do about it."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from notices.channels import CHANNELS
from notices.channels.protocol import Refused, Unavailable
from notices.dashboard import standings
from notices.kinds import SECURITY
from notices.models import Announcement, Broadcast, ChannelPace, Delivery, LetterBatch, Message, Wording
from notices.outbox import drain, tell
from notices.tests.samples import NOW, Outside, customer, draft, told
from notices.tests.test_letters import letter, writes_to

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]


@pytest.fixture
def staff() -> User:
    return User.objects.create_superuser("staff@example.com")


@pytest.fixture
def desk(client: Client, staff: User) -> Client:
    client.force_login(staff)
    return client


def mail() -> Delivery:
    delivery: Delivery = Delivery.objects.get(channel="email")
    return delivery


# --- the outbox ----------------------------------------------------------------------------------------


def test_the_outbox_says_of_each_channel_what_waits_and_what_became_of_the_last_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CHANNELS, "email", Outside(Unavailable("busy"), Refused("no such mailbox")))
    for number in range(3):
        told(customer(f"c{number}@example.com"), key=f"key-{number}")
    drain(now=NOW)
    [by_mail] = [
        standing for standing in standings(now=NOW + timedelta(minutes=1)) if standing.slug == "email"
    ]
    assert (by_mail.waiting, by_mail.dead, by_mail.sent_lately, by_mail.failed_lately) == (1, 1, 1, 2)
    assert (by_mail.failure_rate, by_mail.is_broken) == (67, False)
    assert [standing.slug for standing in standings(now=NOW)] == list(CHANNELS)


def test_staff_pause_a_channel_and_let_it_go_on(desk: Client, staff: User) -> None:
    outbox = reverse("admin:notices_channelpace_changelist")
    assert "running" in desk.get(outbox).text
    asked = reverse("admin:notices_channelpace_pause", args=["email"])
    assert "Pause the channel Email?" in desk.get(asked).text
    assert ChannelPace.objects.count() == 0

    desk.post(asked)
    assert ChannelPace.objects.get().paused_by == staff
    assert "paused" in desk.get(outbox).text
    desk.post(reverse("admin:notices_channelpace_resume", args=["email"]))
    assert ChannelPace.objects.get().paused_at is None


def test_the_outbox_counts_no_further_than_anybody_reads(
    desk: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHANNELS, "email", Outside())
    monkeypatch.setattr("notices.dashboard.MOST", 2)
    ChannelPace.objects.create(channel="email", paused_at=NOW)
    for number in range(4):
        told(customer(f"{number}@example.com"), key=str(number), now=NOW + timedelta(minutes=number))
    security = told(customer("5@example.com"), kind=SECURITY, key="urgent", now=NOW + timedelta(minutes=2))
    drain(now=NOW + timedelta(minutes=5))
    security.deliveries.filter(channel="email").update(due_at=NOW - timedelta(minutes=1))
    [email] = [each for each in standings(now=NOW + timedelta(minutes=5)) if each.slug == "email"]
    assert (email.waiting, email.shown["waiting"], email.due_since) == (3, "2+", NOW - timedelta(minutes=1))
    assert "2+" in desk.get(reverse("admin:notices_channelpace_changelist")).text


@pytest.mark.postgres
def test_the_outbox_at_a_glance_reads_no_table_from_end_to_end() -> None:
    ada = customer()
    with transaction.atomic():
        tell((draft(ada, key=str(number)) for number in range(20_000)), now=NOW)
    message = Message.objects.create(sha256="0" * 64, language="en", subject="s", body="b")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO notices_delivery (notice_id, channel, address, priority, due_at, state, attempts, "
            "provider_reference, problem, message_id, sent_at) SELECT id, 'email', 'a', 5, %s, CASE WHEN id %% 50 = 0 "
            "THEN 'dead' WHEN id %% 49 = 0 THEN 'queued' ELSE 'sent' END, 1, '', '', %s, "
            "CASE WHEN id %% 50 > 0 AND id %% 49 > 0 THEN %s::timestamptz END FROM notices_notice",
            [NOW, message.pk, NOW],
        )
        cursor.execute(
            "INSERT INTO notices_deliveryevent (delivery_id, attempt, step, at, address, message_id, "
            "provider_reference, detail) SELECT id, 1, 'accepted', %s::timestamptz - id * interval '10 seconds', 'a', "
            "%s, '', '' FROM notices_delivery",
            [NOW, message.pk],
        )
        cursor.execute("ANALYZE")
        with CaptureQueriesContext(connection) as asked:
            assert len(standings(now=NOW)) == len(CHANNELS)
        for query in asked.captured_queries:
            if "notices_delivery" in query["sql"]:
                cursor.execute(f"EXPLAIN {query['sql']}")
                plan = "\n".join(row[0] for row in cursor.fetchall())
                assert "Seq Scan on notices_delivery" not in plan, plan


def test_who_may_only_look_cannot_pause(client: Client) -> None:
    looker = customer("looker@example.com")
    User.objects.filter(pk=looker.pk).update(is_staff=True)
    client.force_login(looker)
    client.post(reverse("admin:notices_channelpace_pause", args=["email"]))
    assert ChannelPace.objects.count() == 0


def test_staff_send_again_what_was_refused(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHANNELS, "email", Outside(Refused("550 unknown")))
    told(customer())
    drain(now=NOW)
    address = reverse("admin:notices_delivery_send_again", args=[mail().pk])
    assert "550 unknown" in desk.get(address).text
    desk.post(address)
    assert mail().state == "queued"
    assert "staff@example.com" in mail().events.get(step="resent").detail


def test_staff_cancel_what_waits_or_send_many_again(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHANNELS, "email", Outside(Unavailable("busy")))
    told(customer())
    drain(now=NOW)
    desk.post(reverse("admin:notices_delivery_cancel", args=[mail().pk]))
    assert mail().state == "cancelled"
    Delivery.objects.filter(pk=mail().pk).update(state="dead")
    desk.post(
        reverse("admin:notices_delivery_changelist"),
        {"action": "send_all_again", "_selected_action": [mail().pk]},
    )
    assert mail().state == "queued"


def test_staff_download_what_a_customer_was_told(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHANNELS, "email", Outside())
    notice = told(customer())
    drain(now=NOW)
    table = desk.get(reverse("admin:notices_notice_export_log", args=[notice.pk]))
    assert "ada@example.com" in table.getvalue().decode("utf-8-sig")


# --- announcements and words ---------------------------------------------------------------------------

WORDS = {
    f"{part}_{language}": f"{part} in {language}"
    for part in ("title", "body")
    for language in ("en", "zh-hans", "zh-hant")
}


def test_an_announcement_is_looked_at_and_approved_by_another_before_it_is_published(
    desk: Client, staff: User
) -> None:
    address = reverse("admin:notices_announcement_add")
    data = {"kind": "service-changed", "banner_days": "3", **WORDS}
    preview = desk.post(address, data)
    assert "body in zh-hant" in preview.text
    assert not Announcement.objects.exists()
    seen = preview.context["form"].data["seen"]

    # What was changed after the preview is shown again first.
    desk.post(address, {**data, "title_en": "another title", "seen": seen})
    assert not Broadcast.objects.exists()
    desk.post(address, {**data, "seen": seen})
    [submitted] = Broadcast.objects.all()
    approval = reverse("admin:notices_broadcast_approve", args=[submitted.pk])
    assert "Somebody else has to approve it." in desk.post(approval).text
    assert not Announcement.objects.exists()

    page = desk.get(reverse("admin:notices_broadcast_change", args=[submitted.pk])).text
    assert 'lang="zh-hant"><strong>title in zh-hant</strong>\n\nbody in zh-hant</div>' in page

    second = User.objects.create_superuser("second@example.com")
    desk.force_login(second)
    assert "body in zh-hant" in desk.get(approval).text
    desk.post(approval)
    [announced] = Announcement.objects.all()
    assert (announced.published_by, announced.approved_by) == (staff, second)
    assert announced.texts["zh-hans"]["title"] == "title in zh-hans"
    assert announced.banner_until == announced.published_at + timedelta(days=3)
    desk.post(reverse("admin:notices_announcement_take_down", args=[announced.pk]))
    announced.refresh_from_db()
    assert announced.withdrawn_at


def test_no_kind_is_chosen_beforehand(desk: Client) -> None:
    address = reverse("admin:notices_announcement_add")
    assert '<option value="" selected>' in desk.get(address).text
    assert "This field is required." in desk.post(address, {"banner_days": "0", **WORDS}).text


def test_what_staff_have_written_is_text_on_its_page(desk: Client) -> None:
    address = reverse("admin:notices_announcement_add")
    data = {"kind": "news", "banner_days": "0", **WORDS, "body_en": "<b>x</b>"}
    preview = desk.post(address, data)
    page = desk.post(address, {**data, "seen": preview.context["form"].data["seen"]}, follow=True).text
    assert "&lt;b&gt;x&lt;/b&gt;</div>" in page


def test_an_announcement_lacks_no_language(desk: Client) -> None:
    address = reverse("admin:notices_announcement_add")
    refused = desk.post(address, {"kind": "news", "banner_days": "0", **WORDS, "body_zh-hant": ""})
    assert "This field is required." in refused.text


def test_other_words_are_looked_at_with_samples_and_then_used(desk: Client) -> None:
    address = reverse("admin:notices_wording_add")
    data = {
        "kind": "payment-received",
        "language": "en",
        "form": "full",
        "subject": "Thanks",
        "body": "{{ total|money }}!",
    }
    preview = desk.post(address, data)
    assert "$149.70!" in preview.text
    assert not Wording.objects.exists()
    assert "is not let in" in desk.post(address, {**data, "body": "{% load static %}"}).text
    desk.post(address, {**data, "seen": preview.context["form"].data["seen"]})
    assert Wording.objects.get().body == "{{ total|money }}!"


# --- letters -------------------------------------------------------------------------------------------


def test_staff_print_what_is_due_download_it_and_say_when_it_was_posted(
    desk: Client, staff: User, settings: Settings
) -> None:
    settings.SELLER_ADDRESS = "1 Harbour Road"
    ada = customer()
    writes_to(ada)
    delivery = letter(ada)
    address = reverse("admin:notices_letterbatch_print_letters")
    assert "1 letters are due." in desk.get(address).text
    desk.post(address)
    [batch] = LetterBatch.objects.all()
    assert batch.printed_by == staff

    downloads = [desk.get(reverse("admin:notices_letterbatch_download", args=[batch.pk])) for _ in range(2)]
    assert downloads[0].content == downloads[1].content == bytes(batch.pdf)
    today = timezone.localdate(timezone=timezone.get_fixed_timezone(8 * 60))
    desk.post(
        reverse("admin:notices_letterbatch_say_posted", args=[batch.pk]),
        {"posted_on": today.isoformat(), "receipt": "RR1"},
    )
    delivery.refresh_from_db()
    assert (delivery.state, delivery.provider_reference) == ("sent", "RR1")
    sheet = batch.letters.get()
    desk.post(reverse("admin:notices_letter_say_returned", args=[sheet.pk]), {"reason": "moved"})
    assert delivery.events.filter(step="returned", detail="moved").exists()
