"""Run the whole shop on this machine: what `make run` does.

Web server, two workers, clock, the payment providers' emulators and a phone that gets messages are processes of their
own, as in production; the database is SQLite, the message broker a folder, and mail is read in the browser.
Everything is kept below VAR_DIR (default: var). HOST, PORT, GATEWAY_PORT and PHONE_PORT say where it listens; SITE_URL,
SANDBOX_GATEWAY_URL and PHONE_URL how a browser reaches it, where that differs.
"""

import base64
import contextlib
import fcntl
import http.client
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from emulators.keys import new_keys
from tools.processes import Died, NotReady, Processes, port_is_free

PROJECT = Path(__file__).resolve().parent.parent
PASSWORD = "presale-demo"  # noqa: S105 (seed_demo gives it to the demo's people)
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (recognised here, not listened on)
# In yuan Alipay and WeChat Pay are asked themselves, in the other currencies through Stripe.
METHODS = (
    "card=stripe",
    "paypal=paypal",
    "alipay=stripe",
    "alipay:CNY=alipay",
    "wechat=stripe",
    "wechat:CNY=wechat",
    "bitcoin=nowpayments",
    "ethereum=nowpayments",
    "sandbox=sandbox",
)
PREPARATIONS = (
    ("Database", ("migrate", "-v0")),
    ("Static files", ("collectstatic", "--noinput", "-v0")),
    ("Demo data", ("seed_demo",)),
)


class CannotRun(Exception):
    """Why the demo cannot start, in words for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def from_here(self) -> "Address":
        """The address by which this machine itself reaches it."""
        return Address("127.0.0.1", self.port) if self.host in EVERYWHERE else self


def addresses(environment: Mapping[str, str]) -> tuple[Address, Address, Address]:
    """Where the shop, the sandbox gateway and the phone will listen. Raises CannotRun unless all can."""
    host = environment.get("HOST", "127.0.0.1")
    ports = {}
    for name, usual in (("PORT", "8000"), ("GATEWAY_PORT", "8001"), ("PHONE_PORT", "8002")):
        written = environment.get(name, usual)
        if not written.isdecimal() or not 0 < int(written) < 65536:
            raise CannotRun(f"{name}={written} is not a port: give a number from 1 to 65535.")
        ports[name] = int(written)
    for one, other in itertools.combinations(ports, 2):
        if ports[one] == ports[other]:
            raise CannotRun(f"{one} and {other} are the same: shop, gateway and phone need one each.")
    try:
        taken = [name for name, port in ports.items() if not port_is_free(host, port)]
    except OSError as refused:
        raise CannotRun(f"Cannot listen on {host}: {refused.strerror}.") from refused
    if taken:
        named = " and ".join(f"port {ports[name]}" for name in taken)
        verb = "are" if len(taken) > 1 else "is"
        instead = (
            port for port in range(8010, 65536) if port not in ports.values() and port_is_free(host, port)
        )
        proposal = {name: next(instead) if name in taken else port for name, port in ports.items()}
        command = " ".join(f"{name}={port}" for name, port in proposal.items())
        raise CannotRun(
            f"{named.capitalize()} {verb} in use by another program. Type instead:\n\n  {command} make run"
        )
    return (
        Address(host, ports["PORT"]),
        Address(host, ports["GATEWAY_PORT"]),
        Address(host, ports["PHONE_PORT"]),
    )


@contextlib.contextmanager
def one_at_a_time(var: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises CannotRun while another demo has it: two would share one queue of jobs."""
    with (var / "demo.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise CannotRun(
                f"The demo in {var.name}/ is running already (process {lock.read().strip()}). "
                "Stop it, or start a second one beside it:\n\n"
                "  VAR_DIR=var-2 PORT=8010 GATEWAY_PORT=8011 PHONE_PORT=8012 make run"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def kept_secrets(var: Path) -> dict[str, str]:
    """The demo's secrets, each made at the first start that needs it: sessions and signed links outlive a restart."""
    path = var / "demo-secrets.json"
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    made = {
        "SECRET_KEY": secrets.token_urlsafe(50),
        "SANDBOX_GATEWAY_KEY": f"sandbox_{secrets.token_urlsafe(24)}",
        # The form that Standard Webhooks prescribes.
        "SANDBOX_WEBHOOK_SECRET": f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "STRIPE_SECRET_KEY": f"sk_test_{secrets.token_hex(16)}",
        "STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(16)}",
        "PAYPAL_CLIENT_ID": f"demo-{secrets.token_urlsafe(12)}",
        "PAYPAL_CLIENT_SECRET": secrets.token_urlsafe(24),
        "PAYPAL_WEBHOOK_ID": secrets.token_hex(8).upper(),
        "NOWPAYMENTS_API_KEY": secrets.token_urlsafe(24),
        "NOWPAYMENTS_IPN_SECRET": secrets.token_urlsafe(24),
        "NOWPAYMENTS_EMAIL": "shop@example.com",
        "NOWPAYMENTS_PASSWORD": secrets.token_urlsafe(24),
        "BTCPAY_API_KEY": secrets.token_hex(20),
        "BTCPAY_STORE_ID": secrets.token_hex(22),
        "BTCPAY_WEBHOOK_SECRET": secrets.token_urlsafe(24),
        "PHONE_KEY": secrets.token_urlsafe(24),
        # Any number of 32 bytes is a key on its curve, but for one in four thousand millions.
        "PUSH_VAPID_PRIVATE_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("="),
        "APP_PUSH_SECRET": f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "WECHAT_OA_APP_ID": f"wx{secrets.token_hex(8)}",
        "WECHAT_OA_SECRET": secrets.token_hex(16),
        "WECHAT_OA_TEMPLATE_ID": secrets.token_urlsafe(32),
        "WECHAT_OA_TOKEN": secrets.token_hex(16),
        "WECHAT_OA_AES_KEY": f"{secrets.token_hex(21)}A",
        "SMS_ACCOUNT": f"AC{secrets.token_hex(16)}",
        "SMS_SECRET": secrets.token_hex(16),
        "ALIPAY_APP_ID": f"2021{secrets.randbelow(10**12):012}",
        "ALIPAY_SELLER_ID": f"2088{secrets.randbelow(10**12):012}",
        "WECHAT_MERCHANT_ID": f"19{secrets.randbelow(10**8):08}",
        "WECHAT_APP_ID": f"wx{secrets.token_hex(8)}",
        "WECHAT_CERTIFICATE_SERIAL": secrets.token_hex(20).upper(),
        "WECHAT_API_V3_KEY": secrets.token_hex(16),
        "WECHAT_PUBLIC_KEY_ID": f"PUB_KEY_ID_{secrets.randbelow(10**22):022}",
        **({} if "EMULATOR_PRIVATE_KEY" in kept else _keys_of_signing()),
    }
    if made.keys() - kept.keys():
        kept = made | kept
        # Complete or not at all, and never readable by others, not even for a moment.
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(kept))
        unfinished.rename(path)
    return kept


def _keys_of_signing() -> dict[str, str]:
    """The shop's key and the providers', each half where it is needed. Made apart, for it takes a while."""
    (ours, _), (theirs, theirs_to_know) = new_keys(), new_keys()
    return {
        "ALIPAY_PRIVATE_KEY": ours,
        "WECHAT_PRIVATE_KEY": ours,
        "EMULATOR_PRIVATE_KEY": theirs,
        "ALIPAY_PUBLIC_KEY": theirs_to_know,
        "WECHAT_PUBLIC_KEY": theirs_to_know,
    }


def demo_environment(
    environment: Mapping[str, str], *, var: Path, shop: Address, gateway: Address, phone: Address
) -> dict[str, str]:
    """The environment of every process.

    Database, broker and cache are always the embedded ones, whatever the shell or `.env` says: the demo
    makes people with a known password, one of them staff, which no other installation must get.
    """
    site_url = environment.get("SITE_URL", f"http://{shop.from_here()}")
    phone_url = environment.get("PHONE_URL", f"http://{phone.from_here()}")
    gateway_url = environment.get("SANDBOX_GATEWAY_URL", f"http://{gateway.from_here()}").rstrip("/")
    hosts = {urlsplit(site_url).hostname or "", shop.from_here().host, "127.0.0.1", "localhost"} - {""}
    return {
        "DEBUG": "0",
        "ALLOWED_HOSTS": ",".join(sorted(hosts)),
        "PAYMENT_METHODS": ",".join(METHODS),
        "SANDBOX_GATEWAY_URL": gateway_url,
        "PAYPAL_URL": f"{gateway_url}/paypal",
        "STRIPE_URL": f"{gateway_url}/stripe",
        "ALIPAY_URL": f"{gateway_url}/alipay/gateway.do",
        "WECHAT_URL": f"{gateway_url}/wechat",
        "NOWPAYMENTS_URL": f"{gateway_url}/nowpayments",
        "BTCPAY_URL": f"{gateway_url}/btcpay",
        "PHONE_URL": phone_url,
        "PUSH_HOSTS": f"{phone_url}/push",
        "APP_PUSH_URL": f"{phone_url}/app/messages",
        "APP_BIND_URL": f"{phone_url}/app/bind",
        "WECHAT_OA_URL": f"{phone_url}/wechat",
        "WECHAT_OA_CONNECT_URL": f"{phone_url}/wechat",
        "SMS_PROVIDER": "twilio",
        "SMS_URL": f"{phone_url}/sms",
        "SMS_SENDER": "+15005550006",
        # Long enough to see a payment wait for it, short enough to wait oneself.
        "ALLOCATION_HOLD_BACK_SECONDS": "15",
        "SUPPORT_EMAIL": "support@example.com",
        **environment,
        **kept_secrets(var),
        "DEMO": "1",
        "VAR_DIR": str(var),
        "DATABASE_URL": f"sqlite:///{var}/db.sqlite3",
        "BROKER_URL": "filesystem://",
        "REDIS_URL": "",
        "SITE_URL": site_url,
        "PYTHONUNBUFFERED": "1",
    }


def remove_torn_messages(var: Path) -> None:
    """Delete the empty files that a power cut leaves in the broker's folder: reading one ends the worker.

    Nothing is lost: jobs are found again in the database.
    """
    for path in (var / "broker").rglob("*"):
        if path.is_file() and path.stat().st_size == 0:
            path.unlink()


def prepare(environment: Mapping[str, str], *, stopping: threading.Event) -> None:
    """Bring database, static files and demo data up to date. Raises CannotRun when a step fails.

    A step once begun is finished (hence its own session, which Ctrl-C does not reach): each takes seconds.
    """
    for what, command in PREPARATIONS:
        if stopping.is_set():
            return
        print(f"{what} …", end=" ", flush=True)
        began = time.monotonic()
        step = subprocess.run(
            [sys.executable, "manage.py", *command],
            check=False,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if step.returncode:
            raise CannotRun(
                f"failed.\n{step.stdout}\nmanage.py {command[0]} ended with exit code {step.returncode}."
            )
        print(f"{time.monotonic() - began:.1f} s", flush=True)


def start_all(
    processes: Processes,
    environment: Mapping[str, str],
    *,
    var: Path,
    shop: Address,
    gateway: Address,
    phone: Address,
) -> None:
    """Start the six processes."""
    python = sys.executable
    celery = (python, "-m", "celery", "--quiet", "-A", "vmos_presale")
    gunicorn = (python, "-m", "gunicorn", "vmos_presale.wsgi", "-b", str(shop), "--no-control-socket")
    where = ("--host", gateway.host, "--port", str(gateway.port))
    where_the_phone_is = ("--host", phone.host, "--port", str(phone.port))
    # Threads instead of processes, and no talk among workers where there is one: a third of the memory.
    alone = ("-P", "threads", "--without-gossip", "--without-mingle", "--without-heartbeat")
    commands = {
        "worker": (*celery, "worker", "-l", "INFO", "-n", "worker@%h", "-Q", "celery", "-c", "4", *alone),
        "sender": (*celery, "worker", "-l", "INFO", "-n", "sender@%h", "-Q", "outside", "-c", "4", *alone),
        "beat": (*celery, "beat", "-l", "INFO", "-s", str(var / "beat-schedule"), "--pidfile="),
        "gateway": (python, "manage.py", "gateway_emulators", *where),
        "phone": (python, "manage.py", "phone_emulators", *where_the_phone_is),
        "web": (*gunicorn, "-w", "1", "-k", "gthread", "--threads", "8", "--graceful-timeout", "5"),
    }
    for name, command in commands.items():
        processes.start(name, command, environment, cwd=PROJECT)


def is_healthy(shop: Address, *, host: str) -> bool:
    """Whether the shop answers /health, asked for by the name `host`. No proxy of the machine's is involved."""
    here = shop.from_here()
    connection = http.client.HTTPConnection(here.host, here.port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health", headers={"Host": host})
        return connection.getresponse().status == 200
    return False


def is_listening(address: Address) -> bool:
    """Whether somebody accepts connections there."""
    here = address.from_here()
    with contextlib.suppress(OSError), socket.create_connection((here.host, here.port), timeout=1):
        return True
    return False


def welcome(environment: Mapping[str, str], *, var: Path) -> str:
    """What the person at the terminal needs to know."""
    site = environment["SITE_URL"].rstrip("/")
    return f"""
  Ready. Open  {site}/

  Customer     customer@example.com / {PASSWORD}
  Staff        staff@example.com / {PASSWORD}   {site}/admin/
  Mailbox      {site}/demo/mail/   every mail the shop sends
  Phone        {environment["PHONE_URL"]}/   what comes by text message, push, app and WeChat
  Coins        {environment["NOWPAYMENTS_URL"]}/   where what an address waits for is sent
  Codes        {environment["SANDBOX_GATEWAY_URL"]}/alipay/ and /wechat/   where they are scanned
  Data         {var}   delete it to start afresh

  Ctrl-C stops everything.
"""


def serve(
    environment: Mapping[str, str],
    *,
    var: Path,
    shop: Address,
    gateway: Address,
    phone: Address,
    stopping: threading.Event,
) -> int:
    """Run the processes until `stopping`. The exit code is 1 if one of them ended first or had to be killed."""
    reason, code = "", 0
    with Processes() as processes:
        try:
            start_all(processes, environment, var=var, shop=shop, gateway=gateway, phone=phone)
            site = urlsplit(environment["SITE_URL"]).netloc
            processes.wait_until(
                lambda: (
                    stopping.is_set()
                    or (is_healthy(shop, host=site) and is_listening(gateway) and is_listening(phone))
                ),
                what="The shop",
                seconds=60,
            )
            if not stopping.is_set():
                print(welcome(environment, var=var), flush=True)
            while not stopping.wait(0.3):
                processes.check()
        except (Died, NotReady) as problem:
            print(f"\n{problem}", file=sys.stderr, flush=True)
            reason, code = f" {problem.args[0]}", 1
        print("\nStopping …", flush=True)
        for name in processes.stop():
            reason, code = f"{reason} {name} did not stop in time and was killed.", 1
    print(f"Stopped.{reason}", flush=True)
    return code


def main() -> int:
    """Run the demo until Ctrl-C, SIGTERM or the end of the terminal; 0 means that it stopped cleanly."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    var = (PROJECT / os.environ.get("VAR_DIR", "var")).resolve()
    var.mkdir(parents=True, exist_ok=True)
    try:
        with one_at_a_time(var):
            shop, gateway, phone = addresses(os.environ)
            environment = demo_environment(os.environ, var=var, shop=shop, gateway=gateway, phone=phone)
            remove_torn_messages(var)
            prepare(environment, stopping=stopping)
            if stopping.is_set():
                return 0
            return serve(environment, var=var, shop=shop, gateway=gateway, phone=phone, stopping=stopping)
    except CannotRun as reason:
        print(reason, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
