"""Users in the admin: one mailbox is one account, and staff do not make themselves superusers."""

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import reverse

from accounts.models import User
from tests.builders import make_user

ADD = reverse("admin:accounts_user_add")


def change_page(user: User) -> str:
    return reverse("admin:accounts_user_change", args=[user.pk])


def form_of(user: User, **changes: object) -> dict[str, object]:
    return {
        "email": user.email,
        "name": user.name,
        "language": user.language,
        "time_zone": user.time_zone,
        "is_active": "on",
        **changes,
    }


@pytest.fixture
def superuser_desk(client: Client) -> Client:
    client.force_login(make_user("root@example.com", is_staff=True))
    return client


@pytest.fixture
def clerk() -> User:
    """A member of staff who may view and change users."""
    clerk = make_user("clerk@example.com")
    User.objects.filter(pk=clerk.pk).update(is_staff=True)
    clerk.user_permissions.add(*Permission.objects.filter(codename__in=("view_user", "change_user")))
    return clerk


@pytest.mark.django_db
def test_an_email_address_is_kept_in_lower_case_however_staff_write_it(superuser_desk: Client) -> None:
    answer = superuser_desk.post(
        ADD,
        {
            "email": "New.Person@Example.COM",
            "name": "New Person",
            "language": "zh-hans",
            "time_zone": "Asia/Hong_Kong",
            "usable_password": "true",
            "password1": "a long pass phrase",
            "password2": "a long pass phrase",
        },
    )
    assert answer.status_code == 302, answer.context["errors"]
    user = User.objects.get(email="new.person@example.com")
    assert (user.name, user.language, user.time_zone) == ("New Person", "zh-hans", "Asia/Hong_Kong")
    assert user.check_password("a long pass phrase")
    superuser_desk.post(change_page(user), form_of(user, email="OTHER@example.com", is_staff="on"))
    user.refresh_from_db()
    assert (user.email, user.is_staff) == ("other@example.com", True)


@pytest.mark.django_db
def test_an_address_that_differs_only_in_case_is_taken(superuser_desk: Client) -> None:
    user = make_user("one@example.com")
    other = make_user("two@example.com")
    answer = superuser_desk.post(change_page(other), form_of(other, email="One@Example.com"))
    assert list(answer.context["adminform"].form.errors) == ["email"]
    assert User.objects.filter(email=user.email).count() == 1


@pytest.mark.django_db
def test_a_clerk_looks_after_customers_but_gives_no_rights(client: Client, clerk: User) -> None:
    customer = make_user("customer@example.com")
    group = Group.objects.create(name="Everything")
    client.force_login(clerk)
    answer = client.post(
        change_page(customer),
        form_of(customer, name="Renamed", is_staff="on", is_superuser="on", groups=[group.pk]),
    )
    assert answer.status_code == 302
    customer.refresh_from_db()
    assert (customer.name, customer.is_staff, customer.is_superuser) == ("Renamed", False, False)
    assert not customer.groups.exists()


@pytest.mark.django_db
def test_a_clerk_cannot_change_staff_or_their_passwords(client: Client, clerk: User) -> None:
    root = make_user("root@example.com", is_staff=True)
    client.force_login(clerk)
    assert client.post(change_page(root), form_of(root, email="mine@example.com")).status_code == 403
    password_page = reverse("admin:auth_user_password_change", args=[root.pk])
    passwords = {"password1": "another pass phrase", "password2": "another pass phrase"}
    assert client.post(password_page, passwords).status_code == 403
    root.refresh_from_db()
    assert (root.email, root.check_password("a long pass phrase")) == ("root@example.com", True)


@pytest.mark.django_db
def test_a_password_is_changed_by_a_superuser(superuser_desk: Client) -> None:
    user = make_user()
    password_page = reverse("admin:auth_user_password_change", args=[user.pk])
    assert superuser_desk.get(password_page).status_code == 200
    superuser_desk.post(
        password_page,
        {"usable_password": "true", "password1": "another pass phrase", "password2": "another pass phrase"},
    )
    user.refresh_from_db()
    assert user.check_password("another pass phrase")
