"""What the demo decides before it starts anything."""

import os
import socket
from pathlib import Path

import pytest

from tools.demo import (
    Address,
    CannotRun,
    addresses,
    demo_environment,
    kept_secrets,
    one_at_a_time,
    remove_torn_messages,
)
from tools.processes import free_port

SHOP, GATEWAY, PHONE = (Address("127.0.0.1", port) for port in (8000, 8001, 8002))


def test_a_taken_port_is_named_with_the_command_that_works_instead() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, free, another = taken.getsockname()[1], free_port(), free_port()
        ports = {"GATEWAY_PORT": str(free), "PHONE_PORT": str(another)}
        with pytest.raises(CannotRun) as refusal:
            addresses({"PORT": str(port), **ports})
    first, *_, command = str(refusal.value).splitlines()
    assert first == f"Port {port} is in use by another program. Type instead:"
    words = command.split()
    assert words[1:] == [f"GATEWAY_PORT={free}", f"PHONE_PORT={another}", "make", "run"]
    # The proposal is true: with it, nothing is in the way.
    proposed = int(words[0].removeprefix("PORT="))
    assert addresses({"PORT": str(proposed), **ports}) == (
        Address("127.0.0.1", proposed),
        Address("127.0.0.1", free),
        Address("127.0.0.1", another),
    )


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PORT": "http"}, "PORT=http is not a port: give a number from 1 to 65535."),
        ({"GATEWAY_PORT": "65536"}, "GATEWAY_PORT=65536 is not a port: give a number from 1 to 65535."),
        ({"PORT": "8001"}, "PORT and GATEWAY_PORT are the same: shop, gateway and phone need one each."),
        ({"HOST": "192.0.2.1"}, "Cannot listen on 192.0.2.1: Cannot assign requested address."),
    ],
)
def test_an_impossible_address_is_explained(environment: dict[str, str], words: str) -> None:
    with pytest.raises(CannotRun) as refusal:
        addresses(environment)
    assert str(refusal.value) == words


def test_secrets_are_made_once_and_are_for_the_owner_only(tmp_path: Path) -> None:
    made = kept_secrets(tmp_path)
    assert kept_secrets(tmp_path) == made
    assert sorted(made) == [
        "ALIPAY_APP_ID",
        "ALIPAY_PRIVATE_KEY",
        "ALIPAY_PUBLIC_KEY",
        "ALIPAY_SELLER_ID",
        "APP_PUSH_SECRET",
        "BTCPAY_API_KEY",
        "BTCPAY_STORE_ID",
        "BTCPAY_WEBHOOK_SECRET",
        "EMULATOR_PRIVATE_KEY",
        "NOWPAYMENTS_API_KEY",
        "NOWPAYMENTS_EMAIL",
        "NOWPAYMENTS_IPN_SECRET",
        "NOWPAYMENTS_PASSWORD",
        "PAYPAL_CLIENT_ID",
        "PAYPAL_CLIENT_SECRET",
        "PAYPAL_WEBHOOK_ID",
        "PHONE_KEY",
        "PUSH_VAPID_PRIVATE_KEY",
        "SANDBOX_GATEWAY_KEY",
        "SANDBOX_WEBHOOK_SECRET",
        "SECRET_KEY",
        "SMS_ACCOUNT",
        "SMS_SECRET",
        "STRIPE_SECRET_KEY",
        "STRIPE_WEBHOOK_SECRET",
        "WECHAT_API_V3_KEY",
        "WECHAT_APP_ID",
        "WECHAT_CERTIFICATE_SERIAL",
        "WECHAT_MERCHANT_ID",
        "WECHAT_OA_AES_KEY",
        "WECHAT_OA_APP_ID",
        "WECHAT_OA_SECRET",
        "WECHAT_OA_TEMPLATE_ID",
        "WECHAT_OA_TOKEN",
        "WECHAT_PRIVATE_KEY",
        "WECHAT_PUBLIC_KEY",
        "WECHAT_PUBLIC_KEY_ID",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["demo-secrets.json"]
    assert (tmp_path / "demo-secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_demo_of_an_earlier_release_keeps_its_secrets_and_gets_the_new_ones(tmp_path: Path) -> None:
    (tmp_path / "demo-secrets.json").write_text('{"SECRET_KEY": "old"}')
    made = kept_secrets(tmp_path)
    assert (made["SECRET_KEY"], len(made)) == ("old", 37)
    assert kept_secrets(tmp_path) == made


def test_the_demo_never_touches_another_database(tmp_path: Path) -> None:
    shell = {
        "DATABASE_URL": "postgres://live/shop",
        "BROKER_URL": "redis://live",
        "REDIS_URL": "redis://live",
    }
    environment = demo_environment(shell, var=tmp_path, shop=SHOP, gateway=GATEWAY, phone=PHONE)
    assert {name: environment[name] for name in shell} == {
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
        "BROKER_URL": "filesystem://",
        "REDIS_URL": "",
    }


def test_a_browser_is_sent_to_an_address_that_exists(tmp_path: Path) -> None:
    everywhere = Address("0.0.0.0", 8000)
    environment = demo_environment({}, var=tmp_path, shop=everywhere, gateway=GATEWAY, phone=PHONE)
    assert environment["SITE_URL"] == "http://127.0.0.1:8000"
    environment = demo_environment(
        {"SITE_URL": "http://shop.lan"}, var=tmp_path, shop=everywhere, gateway=GATEWAY, phone=PHONE
    )
    assert environment["ALLOWED_HOSTS"] == "127.0.0.1,localhost,shop.lan"


def test_every_provider_is_reached_where_a_browser_reaches_the_sandbox(tmp_path: Path) -> None:
    environment = demo_environment(
        {"SANDBOX_GATEWAY_URL": "http://shop.lan:8001/"},
        var=tmp_path,
        shop=SHOP,
        gateway=GATEWAY,
        phone=PHONE,
    )
    below = {"STRIPE": "stripe", "PAYPAL": "paypal", "NOWPAYMENTS": "nowpayments", "BTCPAY": "btcpay"}
    below |= {"ALIPAY": "alipay/gateway.do", "WECHAT": "wechat"}
    for provider, path in below.items():
        assert environment[f"{provider}_URL"] == f"http://shop.lan:8001/{path}"


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    refused = pytest.raises(CannotRun, match=rf"is running already \(process {os.getpid()}\)")
    with one_at_a_time(tmp_path), refused, one_at_a_time(tmp_path):
        pytest.fail("two demos in one folder")
    with one_at_a_time(tmp_path):
        pass


def test_empty_messages_are_deleted_and_whole_ones_are_kept(tmp_path: Path) -> None:
    messages = tmp_path / "broker" / "messages"
    messages.mkdir(parents=True)
    (messages / "torn.msg").touch()
    (messages / "whole.msg").write_text("{}")
    (tmp_path / "empty").touch()
    remove_torn_messages(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["empty", "whole.msg"]
