"""WeChat, as far as an Official Account needs it, with one person who may follow.

    POST /cgi-bin/stable_token
    POST /cgi-bin/message/template/send
    GET  /connect/oauth2/authorize      in WeChat, leads back at once (snsapi_base)
    GET  /sns/oauth2/access_token
    POST /unfollow, /follow             what the person does in the app

What happened is told to the account's message server, encrypted by `pycryptodomex`.
"""

import base64
import hashlib
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode, urlsplit

from Cryptodome.Cipher import AES
from Cryptodome.Util.Padding import pad
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from emulators.deliveries import BACKOFF
from emulators.server import JSON, answer
from notices.channels.emulators.carrier import Carrier

PERSON = "oDemo-0000000000000000000000"
# Which rules hold for the fields of a template, by the letters that their names begin with.
RULES = {"thing": 20, "character_string": 32}
FIELD = re.compile(r"([a-z_]+)[0-9]+")
TOKEN_SECONDS = 7200


class WechatAccount(Carrier):
    """`message_server` is the shop's address for what happened; `token` and `aes_key` are of it."""

    extra = """
    CREATE TABLE IF NOT EXISTS token (value TEXT PRIMARY KEY, is_good INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS token_call (id INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS code (value TEXT PRIMARY KEY, openid TEXT NOT NULL, is_used INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS left_us (openid TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS refusal (id INTEGER PRIMARY KEY, errcode INTEGER NOT NULL);
    """

    def __init__(
        self,
        *,
        key: str,
        app_id: str,
        secret: str,
        template_id: str,
        token: str,
        aes_key: str,
        message_server: str,
        books: str,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        self._app_id, self._secret, self._template_id = app_id, secret, template_id
        self._token, self._aes_key = token, base64.b64decode(f"{aes_key}=")
        self._message_server = message_server
        super().__init__(key=key, books=books, backoff=backoff)

    def routes(self) -> list[Rule]:
        return [
            Rule("/cgi-bin/stable_token", methods=["POST"], endpoint=self.stable_token),
            Rule("/cgi-bin/message/template/send", methods=["POST"], endpoint=self.send),
            Rule("/connect/oauth2/authorize", methods=["GET"], endpoint=self.authorize),
            Rule("/sns/oauth2/access_token", methods=["GET"], endpoint=self.openid),
            Rule("/unfollow", methods=["POST"], endpoint=self.unfollow),
            Rule("/follow", methods=["POST"], endpoint=self.follow),
            Rule("/_tokens", methods=["DELETE"], endpoint=self.guarded(self.take_tokens_back)),
            Rule("/_refusals", methods=["POST"], endpoint=self.guarded(self.refuse_next)),
        ]

    def sign(self, _webhook_id: str, _body: str, _is_right: bool, /) -> Mapping[str, str]:
        """What is told is signed in its address."""
        return {"Content-Type": "text/xml"}

    def everything(self) -> JSON:
        with self.books.transaction() as db:
            (calls,) = db.execute("SELECT count(*) FROM token_call").fetchone()
        return {**super().everything(), "token_calls": calls}

    # --- the API -------------------------------------------------------------------------------------

    def stable_token(self, request: Request) -> Response:
        asked = _read(request)
        if asked.get("grant_type") != "client_credential" or asked.get("appid") != self._app_id:
            return _error(40013, "invalid appid")
        if asked.get("secret") != self._secret:
            return _error(40125, "invalid appsecret")
        with self.books.transaction() as db:
            db.execute("INSERT INTO token_call DEFAULT VALUES")
            row = db.execute("SELECT value FROM token WHERE is_good").fetchone()
            token = row["value"] if row else secrets.token_urlsafe(48)
            db.execute("INSERT OR IGNORE INTO token VALUES (?, 1)", (token,))
        return answer({"access_token": token, "expires_in": TOKEN_SECONDS})

    def send(self, request: Request) -> Response:
        if self.goes_wrong():
            return _error(-1, "system error")
        asked = _read(request)
        with self.books.transaction() as db:
            given = request.args.get("access_token", "")
            if not db.execute("SELECT 1 FROM token WHERE value = ? AND is_good", (given,)).fetchone():
                return _error(40001, "invalid credential, access_token is invalid or not latest")
            if row := db.execute("SELECT * FROM refusal ORDER BY id").fetchone():
                db.execute("DELETE FROM refusal WHERE id = ?", (row["id"],))
                return _error(row["errcode"], "refused, as was asked for")
            openid, number = str(asked.get("touser")), str(asked.get("client_msg_id", ""))
            if not db.execute("SELECT 1 FROM code WHERE openid = ? AND is_used", (openid,)).fetchone():
                return _error(40003, "invalid openid")
            if db.execute("SELECT 1 FROM left_us WHERE openid = ?", (openid,)).fetchone():
                return _error(43004, "require subscribe")
            if asked.get("template_id") != self._template_id:
                return _error(40037, "invalid template_id")
            fields = _fields(asked.get("data"))
            if problem := _problem(fields):
                return _error(47003, f"argument invalid! {problem}")
            old = db.execute("SELECT id FROM message WHERE reference = ?", (number,)).fetchone()
            if not old:
                title, *rest = fields.values()
                self.keep(
                    db,
                    recipient=openid,
                    title=title,
                    text="\n".join(rest),
                    url=str(asked.get("url", "")),
                    reference=number,
                    details={"fields": fields},
                )
            message_id = (
                old["id"] if old else db.execute("SELECT max(id) AS id FROM message").fetchone()["id"]
            ) + 3_000_000_000
            if not old:
                self._tell(db, openid, "TEMPLATESENDJOBFINISH", MsgID=str(message_id), Status="success")
        return answer({"errcode": 0, "errmsg": "ok", "msgid": message_id})

    def authorize(self, request: Request) -> Response:
        asked = request.args
        back_to = asked.get("redirect_uri", "")
        if (
            asked.get("appid") != self._app_id
            or asked.get("response_type") != "code"
            or asked.get("scope") != "snsapi_base"
            or not re.fullmatch(r"[A-Za-z0-9]{1,128}", asked.get("state", ""))
            or urlsplit(back_to).netloc != urlsplit(self._message_server).netloc
        ):
            raise BadRequest
        code = secrets.token_urlsafe(24)
        with self.books.transaction() as db:
            db.execute("INSERT INTO code VALUES (?, ?, 0)", (code, PERSON))
        return redirect(f"{back_to}?{urlencode({'code': code, 'state': asked['state']})}")

    def openid(self, request: Request) -> Response:
        asked = request.args
        if asked.get("appid") != self._app_id or asked.get("secret") != self._secret:
            return _error(40125, "invalid appsecret")
        with self.books.transaction() as db:
            row = db.execute("SELECT * FROM code WHERE value = ?", (asked.get("code"),)).fetchone()
            if not row:
                return _error(40029, "invalid code")
            if row["is_used"]:
                return _error(40163, "code been used")
            db.execute("UPDATE code SET is_used = 1 WHERE value = ?", (row["value"],))
        return answer(
            {
                "access_token": secrets.token_urlsafe(32),
                "expires_in": TOKEN_SECONDS,
                "refresh_token": secrets.token_urlsafe(32),
                "openid": row["openid"],
                "scope": "snsapi_base",
            }
        )

    # --- the person, and the tester ------------------------------------------------------------------

    def unfollow(self, _request: Request) -> Response:
        with self.books.transaction() as db:
            db.execute("INSERT OR IGNORE INTO left_us VALUES (?)", (PERSON,))
            self._tell(db, PERSON, "unsubscribe", EventKey="")
        return self._to_the_phone()

    def follow(self, _request: Request) -> Response:
        with self.books.transaction() as db:
            db.execute("DELETE FROM left_us WHERE openid = ?", (PERSON,))
            self._tell(db, PERSON, "subscribe", EventKey="")
        return self._to_the_phone()

    def follows(self) -> bool:
        with self.books.transaction() as db:
            return not db.execute("SELECT 1 FROM left_us WHERE openid = ?", (PERSON,)).fetchone()

    def take_tokens_back(self, _request: Request) -> Response:
        with self.books.transaction() as db:
            db.execute("UPDATE token SET is_good = 0")
        return Response(status=204)

    def refuse_next(self, request: Request) -> Response:
        with self.books.transaction() as db:
            db.execute("INSERT INTO refusal (errcode) VALUES (?)", (_read(request)["errcode"],))
        return Response(status=204)

    def _to_the_phone(self) -> Response:
        return redirect(f"{self.public_url.removesuffix('/wechat')}/", 303)

    def _tell(self, db: sqlite3.Connection, openid: str, event: str, **more: str) -> None:
        said = {
            "ToUserName": "gh_demo",
            "FromUserName": openid,
            "CreateTime": str(int(time.time())),
            "MsgType": "event",
            "Event": event,
            **more,
        }
        body = "".join(f"<{name}><![CDATA[{value}]]></{name}>" for name, value in said.items())
        message = f"<xml>{body}</xml>".encode()
        plain = secrets.token_bytes(16) + len(message).to_bytes(4) + message + self._app_id.encode()
        cipher = AES.new(self._aes_key, AES.MODE_CBC, iv=self._aes_key[:16])
        encrypted = base64.b64encode(cipher.encrypt(pad(plain, 32))).decode()
        timestamp, nonce = str(int(time.time())), secrets.token_hex(5)
        query = {
            "signature": _signature(self._token, timestamp, nonce),
            "timestamp": timestamp,
            "nonce": nonce,
            "openid": openid,
            "encrypt_type": "aes",
            "msg_signature": _signature(self._token, timestamp, nonce, encrypted),
        }
        sealed = f"<xml><ToUserName><![CDATA[gh_demo]]></ToUserName><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"
        self.deliveries.announce(db, url=f"{self._message_server}?{urlencode(query)}", body=sealed)


def _signature(*parts: str) -> str:
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()  # noqa: S324 (WeChat's choice)


def _fields(data: object) -> dict[str, str]:
    if not isinstance(data, dict):
        return {}
    return {name: each.get("value", "") for name, each in data.items() if isinstance(each, dict)}


def _problem(fields: Mapping[str, str]) -> str:
    """What WeChat says of fields that break its rules: in truth it says so, or cuts them off without a word."""
    if not fields:
        return "data is empty"
    for name, value in fields.items():
        found = FIELD.fullmatch(name)
        rule = RULES.get(found[1]) if found else None
        if not rule or not 0 < len(value) <= rule or "\n" in value:
            return f"data.{name}.value invalid"
        if name.startswith("character_string") and not value.isascii():
            return f"data.{name}.value invalid"
    return ""


def _error(code: int, message: str) -> Response:
    return answer({"errcode": code, "errmsg": message})


def _read(request: Request) -> JSON:
    try:
        content = json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise BadRequest from None
    if not isinstance(content, dict):
        raise BadRequest
    return content
