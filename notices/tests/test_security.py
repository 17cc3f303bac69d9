"""What happens to an account reaches its owner, and who was its owner before."""

import hashlib

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.test import Client
from django.urls import reverse

from accounts.models import KnownBrowser, User
from notices.models import Notice

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("VIII")]


@pytest.fixture
def ada() -> User:
    user = User.objects.create_user("ada@example.com", "a good old password")
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    return user


@pytest.fixture
def logged_in(client: Client, ada: User) -> Client:
    client.post(reverse("account_login"), {"login": ada.email, "password": "a good old password"})
    return client


def told() -> list[tuple[str, str, str]]:
    return [
        (notice.facts["event"], notice.facts["detail"], notice.to_address)
        for notice in Notice.objects.filter(kind="security").order_by("id")
    ]


def test_a_changed_password_is_told_with_where_it_came_from(logged_in: Client, ada: User) -> None:
    logged_in.post(
        reverse("account_change_password"),
        {
            "oldpassword": "a good old password",
            "password1": "a better new one",
            "password2": "a better new one",
        },
    )
    notice = Notice.objects.get(kind="security")
    assert (notice.recipient, notice.url) == (ada, "/account/")
    assert {name: notice.facts[name] for name in ("event", "detail", "address")} == {
        "event": "password-changed",
        "detail": "",
        "address": "127.0.0.1",
    }


def test_a_changed_email_address_is_told_to_the_old_one_too(logged_in: Client, ada: User) -> None:
    new = EmailAddress.objects.create(user=ada, email="eve@example.com", verified=True)
    logged_in.post(reverse("account_email"), {"action_primary": "", "email": new.email})
    assert told() == [
        ("email-changed", "eve@example.com", ""),
        ("email-changed", "eve@example.com", "ada@example.com"),
    ]


def test_an_address_that_is_added_is_told(logged_in: Client) -> None:
    logged_in.post(reverse("account_email"), {"action_add": "", "email": "eve@example.com"})
    assert told() == [("email-added", "eve@example.com", "")]


def test_a_second_factor_is_told_when_it_comes_and_when_it_goes(logged_in: Client) -> None:
    logged_in.post(reverse("account_reauthenticate"), {"password": "a good old password"})
    secret = logged_in.get(reverse("mfa_activate_totp")).context["form"].secret
    code = format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time()))))
    logged_in.post(reverse("mfa_activate_totp"), {"code": code})
    assert told()[0] == ("second-factor-added", "", "")
    assert told()[1:] == [("recovery-codes-made", "", "")]

    logged_in.post(reverse("mfa_generate_recovery_codes"))
    assert told()[2:] == [("recovery-codes-made", "", "")]

    logged_in.post(reverse("mfa_deactivate_totp"))
    assert told()[3:] == [("second-factor-removed", "", "")]


@pytest.mark.parametrize("was_proved", [True, False])
def test_an_address_that_is_removed_is_told_and_hears_of_it_if_it_was_his(
    logged_in: Client, ada: User, was_proved: bool
) -> None:
    EmailAddress.objects.create(user=ada, email="second@example.com", verified=was_proved)
    logged_in.post(reverse("account_email"), {"action_remove": "", "email": "second@example.com"})
    assert told() == [
        ("email-removed", "second@example.com", ""),
        *([("email-removed", "second@example.com", "second@example.com")] if was_proved else []),
    ]


def log_in(browser: Client, user: User, user_agent: str = "") -> None:
    browser.post(
        reverse("account_login"),
        {"login": user.email, "password": "a good old password"},
        headers={"User-Agent": user_agent},
    )
    browser.post(reverse("account_logout"))


FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def test_a_login_with_another_browser_is_told_once(ada: User) -> None:
    hers, another = Client(), Client()
    for _ in range(2):
        log_in(hers, ada)
    assert told() == []
    for _ in range(2):
        log_in(another, ada, FIREFOX)
    assert told() == [("new-browser", "Firefox, Linux", "")]
    assert Notice.objects.get(kind="security").facts["address"] == "127.0.0.1"
    log_in(hers, ada)
    assert len(told()) == 1


def test_a_browser_that_one_person_uses_is_new_to_another(ada: User) -> None:
    bo = User.objects.create_user("bo@example.com", "a good old password")
    EmailAddress.objects.create(user=bo, email=bo.email, verified=True, primary=True)
    hers, his = Client(), Client()
    log_in(hers, ada)
    log_in(his, bo)
    log_in(hers, bo)
    assert [notice.recipient for notice in Notice.objects.filter(kind="security")] == [bo]


def test_what_recognises_a_browser_is_kept_as_a_hash_and_no_script_reads_it(ada: User) -> None:
    hers = Client()
    log_in(hers, ada)
    cookie = hers.cookies["browser"]
    assert (bool(cookie["httponly"]), cookie["samesite"]) == (True, "Lax")
    [known] = KnownBrowser.objects.all()
    assert known.token_sha256 == hashlib.sha256(cookie.value.encode()).hexdigest()
