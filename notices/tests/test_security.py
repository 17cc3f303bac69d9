"""What happens to an account reaches its owner, and who was its owner before."""

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.test import Client
from django.urls import reverse

from accounts.models import User
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

    logged_in.post(reverse("mfa_deactivate_totp"))
    assert told()[-1] == ("second-factor-removed", "", "")
