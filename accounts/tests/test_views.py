import pytest
from django.conf import settings
from django.core import mail
from django.test import Client

from accounts.models import User

pytestmark = pytest.mark.django_db


@pytest.fixture
def customer(client: Client) -> User:
    customer = User.objects.create_user("buyer@example.com", "a long pass phrase")
    client.force_login(customer, backend="django.contrib.auth.backends.ModelBackend")
    return customer


def test_profile_asks_for_a_login(client: Client) -> None:
    assert client.get("/account/").headers["Location"] == "/accounts/login/?next=/account/"


def test_profile_changes_name_language_and_zone_and_nothing_else(client: Client, customer: User) -> None:
    answer = client.post(
        "/account/",
        {
            "name": "Lin",
            "language": "zh-hans",
            "time_zone": "Asia/Shanghai",
            "email": "other@example.com",
            "is_staff": "on",
        },
    )
    assert answer.cookies[settings.LANGUAGE_COOKIE_NAME].value == "zh-hans"
    customer.refresh_from_db()
    assert (customer.name, customer.language, customer.time_zone) == ("Lin", "zh-hans", "Asia/Shanghai")
    assert (customer.email, customer.is_staff) == ("buyer@example.com", False)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd"])
def test_unknown_zone_is_refused(client: Client, customer: User, zone: str) -> None:
    answer = client.post("/account/", {"name": "", "language": "en", "time_zone": zone})
    assert "time_zone" in answer.context["form"].errors
    customer.refresh_from_db()
    assert customer.time_zone == ""


def test_zone_of_the_account_that_is_no_longer_usual_can_be_kept(client: Client, customer: User) -> None:
    User.objects.filter(pk=customer.pk).update(time_zone="UTC")
    client.post("/account/", {"name": "Lin", "language": "en", "time_zone": "UTC"})
    customer.refresh_from_db()
    assert (customer.name, customer.time_zone) == ("Lin", "UTC")


def test_sign_up_sends_a_link_and_the_basket_is_kept_until_it_is_opened(client: Client) -> None:
    session = client.session
    session["basket"] = {"units": {"7": 2}, "touched_at": 0.0}
    session.save()
    answer = client.post(
        "/accounts/signup/?next=/checkout/",
        {"email": "New@Example.com", "password1": "correct horse battery", "next": "/checkout/"},
        follow=True,
    )
    assert "Check your mail" in answer.content.decode()
    [message] = mail.outbox
    assert message.to == ["new@example.com"]
    link = next(word for word in str(message.body).split() if "/confirm-email/" in word)
    page = client.get(link)
    assert "Is <strong>new@example.com</strong> your address?" in page.content.decode()
    answer = client.post(link)
    assert answer.headers["Location"] == "/checkout/"
    assert client.session["basket"]["units"] == {"7": 2}


@pytest.mark.parametrize("address", ["login", "signup", "password/reset", "confirm-email"])
def test_pages_of_the_account_look_like_the_shop(client: Client, address: str) -> None:
    content = client.get(f"/accounts/{address}/").content.decode()
    assert "css/site.css" in content
    assert '<html lang="en">' in content


@pytest.mark.parametrize("address", ["email", "password/change", "2fa", "logout"])
@pytest.mark.usefixtures("customer")
def test_pages_of_a_logged_in_account_look_like_the_shop(client: Client, address: str) -> None:
    answer = client.get(f"/accounts/{address}/", follow=True)
    assert answer.status_code == 200
    assert "css/site.css" in answer.content.decode()


def test_language_switch_of_the_header_is_kept_for_what_is_sent(client: Client, customer: User) -> None:
    answer = client.post("/account/language/", {"language": "zh-hans", "next": "/orders/"})

    assert answer.headers["Location"] == "/orders/"
    assert answer.cookies[settings.LANGUAGE_COOKIE_NAME].value == "zh-hans"
    customer.refresh_from_db()
    assert customer.language == "zh-hans"


def test_language_nobody_speaks_changes_nothing(client: Client, customer: User) -> None:
    client.post("/account/language/", {"language": "tlh"})

    customer.refresh_from_db()
    assert customer.language == "en"


def test_visitor_switches_the_language_of_the_pages_only(client: Client) -> None:
    answer = client.post("/account/language/", {"language": "zh-hans", "next": "https://evil.example/"})

    assert answer.headers["Location"] == "/"
    assert answer.cookies[settings.LANGUAGE_COOKIE_NAME].value == "zh-hans"
    assert client.get("/account/language/").status_code == 405
