"""The provider behind `gateways.wechat`: of WeChat Pay's API v3 what the shop uses, its pay pages and its notices.

    POST /v3/pay/transactions/native, /v3/pay/transactions/h5
    GET  /v3/pay/transactions/out-trade-no/{number}         POST …/{number}/close
    POST /v3/refund/domestic/refunds                        GET  …/{number}
    GET  /v3/bill/tradebill                                 GET  /v3/billdownload/file
    GET  /cgi-bin/mmpayweb-bin/checkmweb    where an H5 payment leads a phone to, for 5 minutes
    GET  /                                  the buyer's phone, with the codes that it might scan
    GET|POST /pay/{token}                   where the buyer decides, and the tester what becomes of it

Requests are signed by the merchant's certificate, answers and notices by WeChat Pay's key; what a notice says is
encrypted with the merchant's APIv3 key. As at WeChat Pay nothing is closed but by the merchant, a refund is only
accepted when it is asked for, and nobody can list refunds.
"""

import base64
import enum
import gzip
import hashlib
import ipaddress
import json
import re
import secrets
import socket
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from Cryptodome.Cipher import AES
from Cryptodome.Hash import SHA256
from Cryptodome.PublicKey import RSA
from Cryptodome.Signature import pkcs1_15
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from emulators.deliveries import BACKOFF
from emulators.server import JSON, POLICY, Emulator, answer, page
from inventory.money import Money

# What a call of the API answers: an object, nothing, or the bytes of a bill.
Content: TypeAlias = JSON | bytes | None
Call: TypeAlias = Callable[..., Content]

MERCHANT = "VMOS Cloud"
BUYER = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
BEIJING = ZoneInfo("Asia/Shanghai")
LANGUAGES = {"en": "en", "zh-CN": "zh-hans", "zh": "zh-hans", "zh-HK": "zh-hant", "zh-TW": "zh-hant"}
SCHEME = "WECHATPAY2-SHA256-RSA2048"
REQUEST_AGE = timedelta(minutes=5)
# How long after it was asked for the address of an H5 payment leads there.
H5_LINK = timedelta(minutes=5)
SHORTEST_TIME_TO_PAY = timedelta(minutes=1)
REFUNDABLE_FOR = timedelta(days=365)
MOST_REFUNDS = 50
BILL_LINK = timedelta(minutes=5)
# In the forenoon of the day after, by Beijing's clock, it is made; an hour later it is there.
BILL_MADE = timedelta(days=1, hours=9)
BILL_AFTER = timedelta(days=1, hours=10)
BILL_KEPT = timedelta(days=90)

OUT_TRADE_NO = re.compile(r"[A-Za-z0-9_|*-]{6,32}")
OUT_REFUND_NO = re.compile(r"[A-Za-z0-9_|*@-]{1,64}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+08:00")
WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9._\-]+(:[0-9]{1,5})?(/[!-~]*)?")
PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')
STATES = {
    "NOTPAY": "订单未支付",
    "SUCCESS": "支付成功",
    "REFUND": "订单发生过退款",
    "CLOSED": "订单已关闭",
    "PAYERROR": "支付失败",
}
COLUMNS = [
    "交易时间",
    "公众账号ID",
    "商户号",
    "特约商户号",
    "设备号",
    "微信订单号",
    "商户订单号",
    "用户标识",
    "交易类型",
    "交易状态",
    "付款银行",
    "货币种类",
    "应结订单金额",
    "代金券金额",
    "微信退款单号",
    "商户退款单号",
    "退款金额",
    "充值券退款金额",
    "退款类型",
    "退款状态",
    "商品名称",
    "商户数据包",
    "手续费",
    "费率",
    "订单金额",
    "申请退款金额",
    "费率备注",
]
SUMS = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"


class Outcome(enum.StrEnum):
    """What the buyer can decide in the app, and the tester beside him."""

    PAY = "pay"
    DECLINE = "decline"
    PAY_UNTOLD = "pay-untold"
    PAY_TOLD_TWICE = "pay-told-twice"
    TIME_OUT = "time-out"
    DELAY_REFUNDS = "delay-refunds"
    COMPLETE_REFUNDS = "complete-refunds"
    FAIL_REFUNDS = "fail-refunds"
    CLOSE_REFUNDS = "close-refunds"
    EMPTY_ACCOUNT = "empty-account"
    FILL_ACCOUNT = "fill-account"
    REFUND_HERE = "refund-here"
    REFUND_HALF_HERE = "refund-half-here"

    def fits(self, trade: sqlite3.Row) -> bool:
        """Whether it can be chosen for a payment as it is; what does not fit any more changes nothing."""
        is_paid = trade["state"] in ("SUCCESS", "REFUND")
        if self in (Outcome.DELAY_REFUNDS, Outcome.EMPTY_ACCOUNT):
            return bool(is_paid and trade["refunds"] == "prompt")
        if self in (Outcome.COMPLETE_REFUNDS, Outcome.FAIL_REFUNDS, Outcome.CLOSE_REFUNDS):
            return bool(trade["refunds"] == "delayed")
        if self is Outcome.FILL_ACCOUNT:
            return bool(trade["refunds"] == "refused")
        if self in (Outcome.REFUND_HERE, Outcome.REFUND_HALF_HERE):
            return is_paid
        return _is_open(trade)


LABELS: dict[Outcome, str | Promise] = {
    Outcome.DECLINE: _("Let the payment fail"),
    Outcome.PAY_UNTOLD: _("Pay, but lose the notice to the shop"),
    Outcome.PAY_TOLD_TWICE: _("Pay and send the notice twice"),
    Outcome.TIME_OUT: _("Let the time to pay be over"),
    Outcome.DELAY_REFUNDS: _("Let refunds wait from now on"),
    Outcome.COMPLETE_REFUNDS: _("Complete the refunds that wait, or that the bank refused"),
    Outcome.FAIL_REFUNDS: _("Let the buyer's bank refuse the refunds that wait"),
    Outcome.CLOSE_REFUNDS: _("Close the refunds that wait"),
    Outcome.EMPTY_ACCOUNT: _("Let the seller's account be too empty for refunds"),
    Outcome.FILL_ACCOUNT: _("Fill the seller's account again"),
    Outcome.REFUND_HERE: _("Refund what is left, outside the shop"),
    Outcome.REFUND_HALF_HERE: _("Refund half of what is left, outside the shop"),
}
PAYING = (Outcome.PAY, Outcome.PAY_UNTOLD, Outcome.PAY_TOLD_TWICE)

SCHEMA = """
CREATE TABLE IF NOT EXISTS trade (
    number INTEGER PRIMARY KEY,
    out_trade_no TEXT NOT NULL UNIQUE,
    token TEXT NOT NULL UNIQUE,
    trade_type TEXT NOT NULL CHECK (trade_type IN ('NATIVE', 'MWEB')),
    minor INTEGER NOT NULL CHECK (minor > 0),
    description TEXT NOT NULL,
    notify_url TEXT NOT NULL,
    return_url TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'NOTPAY' CHECK (state IN ('NOTPAY', 'SUCCESS', 'REFUND', 'CLOSED', 'PAYERROR')),
    refunds TEXT NOT NULL DEFAULT 'prompt' CHECK (refunds IN ('prompt', 'delayed', 'refused')),
    time_expire TEXT NOT NULL,  -- as it was asked for
    expires_at TEXT NOT NULL,
    linked_at TEXT NOT NULL,
    transaction_id TEXT UNIQUE,
    paid_at TEXT
);
CREATE TABLE IF NOT EXISTS refund (
    refund_id TEXT PRIMARY KEY,
    out_refund_no TEXT NOT NULL UNIQUE,
    trade INTEGER NOT NULL REFERENCES trade (number),
    minor INTEGER NOT NULL CHECK (minor > 0),
    notify_url TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'PROCESSING' CHECK (status IN ('PROCESSING', 'SUCCESS', 'ABNORMAL', 'CLOSED')),
    created_at TEXT NOT NULL,
    made_at TEXT
);
CREATE TABLE IF NOT EXISTS bill_link (token TEXT PRIMARY KEY, day TEXT NOT NULL, expires_at TEXT NOT NULL);
"""


class _No(Exception):
    """An answer that refuses. One that comes before our signature is known to be good is not signed."""

    def __init__(self, status: int, code: str, message: str, *, is_signed: bool = True) -> None:
        super().__init__(code)
        self.status = status
        self.content = {"code": code, "message": message}
        self.is_signed = is_signed


def _invalid(message: str) -> _No:
    """What is well written, and cannot be done."""
    return _No(400, "INVALID_REQUEST", message)


def _malformed(message: str = "参数错误") -> _No:
    return _No(400, "PARAM_ERROR", message)


class Wechat(Emulator):
    """`merchant_public_key` is that of the merchant's certificate, which `certificate_serial` names, and `private_key`
    is WeChat Pay's, which `public_key_id` names; both in PEM. `key` opens /_books and /_faults.
    """

    schema = SCHEMA

    def __init__(
        self,
        *,
        key: str,
        merchant_id: str,
        app_id: str,
        certificate_serial: str,
        merchant_public_key: str,
        api_v3_key: str,
        private_key: str,
        public_key_id: str,
        books: str,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        """Raises ValueError when a key is none."""
        self._merchant_id, self._app_id, self._serial = merchant_id, app_id, certificate_serial
        self._merchant = pkcs1_15.new(RSA.import_key(merchant_public_key))
        self._ours = pkcs1_15.new(RSA.import_key(private_key))
        if not self._ours.can_sign() or len(api_v3_key) != 32:
            raise ValueError("WeChat Pay signs with a private key, and an APIv3 key has 32 characters.")
        self._public_key_id = public_key_id
        self._api_v3_key = api_v3_key.encode()
        # Made when it is needed: making one takes a while.
        self._wrong: pkcs1_15.PKCS115_SigScheme | None = None
        super().__init__(key=key, books=books, backoff=backoff)

    def routes(self) -> list[Rule]:
        trade = "/v3/pay/transactions/out-trade-no/<out_trade_no>"
        refunds = "/v3/refund/domestic/refunds"
        return [
            Rule("/v3/pay/transactions/native", methods=["POST"], endpoint=self._call(self.native)),
            Rule("/v3/pay/transactions/h5", methods=["POST"], endpoint=self._call(self.h5)),
            Rule(trade, methods=["GET"], endpoint=self._call(self.query)),
            Rule(f"{trade}/close", methods=["POST"], endpoint=self._call(self.close)),
            Rule(refunds, methods=["POST"], endpoint=self._call(self.refund)),
            Rule(f"{refunds}/<out_refund_no>", methods=["GET"], endpoint=self._call(self.query_refund)),
            Rule("/v3/bill/tradebill", methods=["GET"], endpoint=self._call(self.query_bill)),
            Rule("/v3/billdownload/file", methods=["GET"], endpoint=self._call(self.download_bill)),
            Rule("/cgi-bin/mmpayweb-bin/checkmweb", methods=["GET"], endpoint=self.arrive),
            Rule("/", methods=["GET"], endpoint=self.show_phone),
            Rule("/pay/<token>", methods=["GET"], endpoint=self.show_page),
            Rule("/pay/<token>", methods=["POST"], endpoint=self.decide),
        ]

    def sign(self, _webhook_id: str, body: str, is_right: bool, /) -> Mapping[str, str]:
        if not is_right and not self._wrong:
            self._wrong = pkcs1_15.new(RSA.generate(2048))
        return self._proof(body, self._ours if is_right or not self._wrong else self._wrong)

    def everything(self) -> JSON:
        with self.books.transaction() as db:
            trades = [dict(row) for row in db.execute("SELECT * FROM trade ORDER BY number")]
            refunds = [dict(row) for row in db.execute("SELECT * FROM refund ORDER BY rowid")]
        return {"trades": trades, "refunds": refunds}

    # --- the API -------------------------------------------------------------------------------------

    def _call(self, call: Call) -> Callable[..., Response]:
        """`call` for the merchant, with the faults that are set; what it answers is signed."""

        def answering(request: Request, **arguments: str) -> Response:
            if self.faults.happens("errors"):
                return answer({"code": "SYSTEM_ERROR", "message": "系统错误"}, 500)
            status, is_signed = 200, True
            content: Content
            try:
                asked = self._check(request)
                with self.books.transaction() as db:
                    content = call(db, asked, **arguments)
            except _No as no:
                status, content, is_signed = no.status, no.content, no.is_signed
            finally:
                self._stopping.wait(self.faults.now().delay_seconds)
            if self.faults.happens("lost_answers"):
                request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            if isinstance(content, bytes):
                return Response(content, content_type="application/x-gzip")
            body = "" if content is None else json.dumps(content, ensure_ascii=False, separators=(",", ":"))
            headers = self._proof(body, self._ours) if is_signed else {}
            return Response(
                body, status if body else 204, headers, content_type="application/json; charset=utf-8"
            )

        return answering

    def _check(self, request: Request) -> JSON:
        """What is asked, if it is the merchant who asks. Raises _No."""
        scheme, _space, parameters = request.headers.get("Authorization", "").partition(" ")
        given = dict(PARAMETER.findall(parameters))
        body = request.get_data()
        # As it was written: below another address the merchant does not sign what leads here.
        path = str(request.environ["REQUEST_URI"]).removeprefix(request.root_path)
        at, nonce = given.get("timestamp", ""), given.get("nonce_str", "")
        said = f"{request.method}\n{path}\n{at}\n{nonce}\n".encode() + body + b"\n"
        if scheme != SCHEME or not re.fullmatch(r"[0-9]{10}", at) or not 16 <= len(nonce) <= 32:
            raise _No(401, "SIGN_ERROR", "Http头Authorization值格式错误", is_signed=False)
        if (given.get("mchid"), given.get("serial_no")) != (self._merchant_id, self._serial):
            raise _No(401, "SIGN_ERROR", "商户证书序列号有误", is_signed=False)
        try:
            signature = base64.b64decode(given.get("signature", ""), validate=True)
            self._merchant.verify(SHA256.new(said), signature)
        except ValueError:
            raise _No(401, "SIGN_ERROR", "错误的签名，验签失败", is_signed=False) from None
        if abs(_now() - datetime.fromtimestamp(int(at), UTC)) > REQUEST_AGE:
            raise _No(401, "SIGN_ERROR", "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟")
        if request.headers.get("Wechatpay-Serial") != self._public_key_id:
            raise _malformed("微信支付公钥ID错误")
        if "application/json" not in request.headers.get("Accept", "") or not request.user_agent.string:
            raise _malformed("Http头缺少Accept或User-Agent")
        if request.method == "GET":
            return request.args.to_dict()
        try:
            asked = json.loads(body) if request.mimetype == "application/json" else None
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            raise _malformed("请求的JSON格式错误")
        return asked

    def native(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        return {"code_url": f"weixin://wxpay/bizpayurl?pr={self._open(db, asked, 'NATIVE')}"}

    def h5(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        match asked.get("scene_info"):
            case {"payer_client_ip": str(address), "h5_info": {"type": "Wap" | "iOS" | "Android"}} if (
                _is_address(address)
            ):
                query = f"prepay_id={self._open(db, asked, 'MWEB')}&package={secrets.randbelow(10**10)}"
                return {"h5_url": f"{self.public_url}/cgi-bin/mmpayweb-bin/checkmweb?{query}"}
        raise _malformed("scene_info")

    def query(self, db: sqlite3.Connection, asked: JSON, *, out_trade_no: str) -> JSON:
        self._check_merchant(asked)
        return self._told(_trade_of(db, out_trade_no))

    def close(self, db: sqlite3.Connection, asked: JSON, *, out_trade_no: str) -> None:
        self._check_merchant(asked)
        trade = _trade_of(db, out_trade_no)
        if trade["paid_at"]:
            raise _No(400, "ORDERPAID", "该订单已支付")
        if trade["state"] != "NOTPAY":
            raise _No(400, "ORDER_CLOSED", "订单已关闭")
        db.execute("UPDATE trade SET state = 'CLOSED' WHERE number = ?", (trade["number"],))

    def refund(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        match asked:
            case {
                "out_trade_no": str(out_trade_no),
                "out_refund_no": str(number),
                "amount": {"refund": int(minor), "total": int(total), "currency": "CNY"},
                **rest,
            } if OUT_REFUND_NO.fullmatch(number) and minor > 0:
                notify_url = str(rest.get("notify_url", ""))
            case _:
                raise _malformed()
        trade = _trade_of(db, out_trade_no, unknown="RESOURCE_NOT_EXISTS")
        refund = db.execute("SELECT * FROM refund WHERE out_refund_no = ?", (number,)).fetchone()
        if refund:
            if (refund["trade"], refund["minor"], total) != (trade["number"], minor, trade["minor"]):
                raise _invalid("订单金额或退款金额与之前请求不一致，请核实后再试")
            return _told_refund(trade, refund)
        if not trade["paid_at"]:
            raise _invalid("订单未支付，不可申请退款")
        if total != trade["minor"] or minor > trade["minor"] - _refunded(db, trade):
            raise _invalid("申请退款金额大于订单剩余可退金额")
        if _now() - datetime.fromisoformat(trade["paid_at"]) > REFUNDABLE_FOR:
            raise _invalid("订单已经超过可退款的最大期限")
        (count,) = db.execute("SELECT count(*) FROM refund WHERE trade = ?", (trade["number"],)).fetchone()
        if count >= MOST_REFUNDS:
            raise _invalid("订单部分退款次数超限")
        if trade["refunds"] == "refused":
            raise _No(403, "NOT_ENOUGH", "基本账户余额不足，请充值后重新发起")
        accepted = _accept(db, trade, number, minor, notify_url=notify_url)
        # Whatever becomes of it at once: the answer says that it was accepted.
        content = _told_refund(trade, accepted)
        if trade["refunds"] == "prompt":
            self._bring(db, trade, "SUCCESS", whence=("PROCESSING",))
        return content

    def query_refund(self, db: sqlite3.Connection, _asked: JSON, *, out_refund_no: str) -> JSON:
        refund = db.execute("SELECT * FROM refund WHERE out_refund_no = ?", (out_refund_no,)).fetchone()
        if not refund:
            raise _No(404, "RESOURCE_NOT_EXISTS", "退款单不存在")
        trade = db.execute("SELECT * FROM trade WHERE number = ?", (refund["trade"],)).fetchone()
        return _told_refund(trade, refund)

    def query_bill(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        try:
            day = date.fromisoformat(str(asked.get("bill_date")))
        except ValueError:
            raise _malformed("bill_date") from None
        today = _now().astimezone(BEIJING).date()
        if not today - BILL_KEPT <= day < today or asked.get("bill_type", "ALL") != "ALL":
            raise _invalid("账单日期无效")
        if asked.get("tar_type") != "GZIP":
            raise _malformed("tar_type")
        if _now() < _midnight(day) + BILL_AFTER:
            raise _No(400, "STATEMENT_CREATING", "账单生成中")
        rows = self._bill_rows(db, day)
        if not rows:
            raise _No(400, "NO_STATEMENT_EXIST", "账单文件不存在")
        token = secrets.token_urlsafe(48)
        db.execute("INSERT INTO bill_link VALUES (?, ?, ?)", (token, f"{day}", _stored(_now() + BILL_LINK)))
        return {
            "download_url": f"{self.public_url}/v3/billdownload/file?token={token}",
            "hash_type": "SHA1",
            "hash_value": hashlib.sha1(_bill(rows), usedforsecurity=False).hexdigest(),
        }

    def download_bill(self, db: sqlite3.Connection, asked: JSON) -> bytes:
        link = db.execute(
            "SELECT * FROM bill_link WHERE token = ? AND expires_at > ?",
            (str(asked.get("token")), _stored(_now())),
        ).fetchone()
        if not link:
            raise _invalid("账单下载地址已失效")
        return gzip.compress(_bill(self._bill_rows(db, date.fromisoformat(link["day"]))))

    def _check_merchant(self, asked: JSON) -> None:
        if asked.get("mchid") != self._merchant_id:
            raise _malformed("mchid")

    def _open(self, db: sqlite3.Connection, asked: JSON, trade_type: str) -> str:
        """The token of a payment that is open, by exactly these words. Raises _No."""
        self._check_merchant(asked)
        if asked.get("appid") != self._app_id:
            raise _No(400, "APPID_MCHID_NOT_MATCH", "appid和mchid不匹配")
        facts = {**_order(asked), "trade_type": trade_type}
        trade = db.execute("SELECT * FROM trade WHERE out_trade_no = ?", (facts["out_trade_no"],)).fetchone()
        linked_at = _stored(_now())
        if not trade:
            token = secrets.token_urlsafe(9)
            db.execute(
                """
                INSERT INTO trade (out_trade_no, token, trade_type, minor, description, notify_url, time_expire,
                                   expires_at, linked_at)
                VALUES (:out_trade_no, :token, :trade_type, :minor, :description, :notify_url, :time_expire,
                        :expires_at, :linked_at)
                """,
                {**facts, "token": token, "linked_at": linked_at},
            )
            return token
        if trade["paid_at"]:
            raise _No(400, "ORDERPAID", "该订单已支付")
        if trade["state"] != "NOTPAY":
            raise _No(400, "ORDER_CLOSED", "该订单已关闭，请重新下单")
        same = all(trade[name] == value for name, value in facts.items() if name != "expires_at")
        if not same or not _is_open(trade):
            raise _invalid("商户订单号重复，请求参数与原订单不一致")
        db.execute("UPDATE trade SET linked_at = ? WHERE number = ?", (linked_at, trade["number"]))
        return str(trade["token"])

    def _told(self, trade: sqlite3.Row) -> dict[str, object]:
        """What the merchant is told of a payment, when he asks and when it is paid."""
        content: dict[str, object] = {
            "amount": {"currency": "CNY", "payer_currency": "CNY", "total": trade["minor"]},
            "appid": self._app_id,
            "attach": "",
            "mchid": self._merchant_id,
            "out_trade_no": trade["out_trade_no"],
            "payer": {},
            "promotion_detail": [],
            "trade_state": trade["state"],
            "trade_state_desc": STATES[trade["state"]],
        }
        if trade["paid_at"]:
            content |= {
                "amount": {
                    "currency": "CNY",
                    "payer_currency": "CNY",
                    "payer_total": trade["minor"],
                    "total": trade["minor"],
                },
                "bank_type": "OTHERS",
                "payer": {"openid": BUYER},
                "success_time": _beijing(trade["paid_at"]),
                "trade_type": trade["trade_type"],
                "transaction_id": trade["transaction_id"],
            }
        return content

    def _bill_rows(self, db: sqlite3.Connection, day: date) -> list[dict[str, str]]:
        made = _stored(_midnight(day) + BILL_MADE)
        moved = db.execute(
            """
            SELECT trade.*, paid_at AS at, 'SUCCESS' AS kind, NULL AS refund_id, NULL AS out_refund_no,
                   0 AS back, NULL AS made_at
            FROM trade WHERE paid_at >= :since AND paid_at < :until
            UNION ALL
            SELECT trade.*, refund.created_at, 'REFUND', refund_id, out_refund_no, refund.minor, made_at
            FROM refund JOIN trade ON trade.number = refund.trade
            WHERE refund.created_at >= :since AND refund.created_at < :until
            ORDER BY at
            """,
            {"since": _stored(_midnight(day)), "until": _stored(_midnight(day + timedelta(days=1)))},
        ).fetchall()
        rows = []
        for row in moved:
            is_refund = row["kind"] == "REFUND"
            paid, back = ("0.00", _written(row["back"])) if is_refund else (_written(row["minor"]), "0.00")
            # What becomes of it after the bill was made is never written into it.
            status = "SUCCESS" if row["made_at"] and row["made_at"] < made else "PROCESSING"
            rows.append(
                {
                    "交易时间": _beijing(row["at"])[:19].replace("T", " "),
                    "公众账号ID": self._app_id,
                    "商户号": self._merchant_id,
                    "特约商户号": "0",
                    "微信订单号": row["transaction_id"],
                    "商户订单号": row["out_trade_no"],
                    "用户标识": BUYER,
                    "交易类型": row["trade_type"],
                    "交易状态": row["kind"],
                    "付款银行": "OTHERS",
                    "货币种类": "CNY",
                    "应结订单金额": paid,
                    "代金券金额": "0.00",
                    "微信退款单号": row["refund_id"] or "0",
                    "商户退款单号": row["out_refund_no"] or "0",
                    "退款金额": back,
                    "充值券退款金额": "0.00",
                    "退款类型": "ORIGINAL" if is_refund else "",
                    "退款状态": status if is_refund else "",
                    "商品名称": row["description"],
                    "手续费": "0.00000",
                    "费率": "0.60%",
                    "订单金额": paid,
                    "申请退款金额": back,
                }
            )
        return rows

    # --- the pages -----------------------------------------------------------------------------------

    def arrive(self, request: Request) -> Response:
        """A phone comes by the address of an H5 payment, to which the shop has added the way back."""
        back = request.args.get("redirect_url", "")
        with self.books.transaction() as db:
            trade = db.execute(
                "SELECT * FROM trade WHERE token = ? AND trade_type = 'MWEB'",
                (request.args.get("prepay_id", ""),),
            ).fetchone()
            if trade and _now() - datetime.fromisoformat(trade["linked_at"]) <= H5_LINK:
                # The merchant has told WeChat Pay his hosts; here it is that of his notices.
                hosts = [urlsplit(url).hostname for url in (back, trade["notify_url"])]
                if WEB_ADDRESS.fullmatch(back) and hosts[0] == hosts[1]:
                    db.execute("UPDATE trade SET return_url = ? WHERE number = ?", (back, trade["number"]))
                return redirect(f"{self.public_url}/pay/{trade['token']}", 302)
        return self._unknown(request)

    def show_phone(self, request: Request) -> Response:
        with self.books.transaction() as db:
            rows = db.execute("SELECT * FROM trade ORDER BY number DESC LIMIT 50").fetchall()
        trades = [
            {
                **dict(row),
                "page": f"{self.public_url}/pay/{row['token']}",
                "amount": Money(row["minor"], "CNY"),
            }
            for row in rows
        ]
        language = _language(request)
        with override(language):
            return page("emulators/wechat/phone.html", {"trades": trades, "language": language})

    def show_page(self, request: Request, token: str) -> Response:
        with self.books.transaction() as db:
            trade = db.execute("SELECT * FROM trade WHERE token = ?", (token,)).fetchone()
            refunded = _refunded(db, trade) if trade else 0
        if not trade:
            return self._unknown(request)
        language = _language(request)
        with override(language):
            response = page(
                "emulators/wechat/pay.html",
                {
                    "merchant": MERCHANT,
                    "trade": trade,
                    "language": language,
                    "amount": Money(trade["minor"], "CNY").localised(),
                    "refunded": Money(refunded, "CNY").localised() if refunded else "",
                    "expires_at": _beijing(trade["expires_at"])[:16].replace("T", " "),
                    "is_open": _is_open(trade),
                    "phone": f"{self.public_url}/",
                    "more_outcomes": [
                        (outcome.value, label) for outcome, label in LABELS.items() if outcome.fits(trade)
                    ],
                },
            )
        if trade["return_url"]:
            # Browsers hold the redirect that follows a form to the policy as well.
            shop = "{0.scheme}://{0.netloc}".format(urlsplit(trade["return_url"]))
            response.headers["Content-Security-Policy"] = f"{POLICY} {shop}"
        return response

    def decide(self, request: Request, token: str) -> Response:
        try:
            outcome = Outcome(request.form.get("outcome", ""))
        except ValueError:
            raise BadRequest from None
        with self.books.transaction() as db:
            trade = db.execute("SELECT * FROM trade WHERE token = ?", (token,)).fetchone()
            if not trade:
                raise BadRequest
            if outcome.fits(trade):
                self._apply(db, trade, outcome)
        goes_back = outcome in (*PAYING, Outcome.DECLINE) and trade["return_url"]
        return redirect(trade["return_url"] if goes_back else f"{self.public_url}/pay/{token}", 303)

    def _unknown(self, request: Request) -> Response:
        language = _language(request)
        with override(language):
            return page("emulators/wechat/unknown.html", {"language": language}, 404)

    def _apply(self, db: sqlite3.Connection, trade: sqlite3.Row, outcome: Outcome) -> None:
        number = trade["number"]
        now = _now()
        if outcome in PAYING:
            transaction_id = f"4200002{now.astimezone(BEIJING):%Y%m%d}{secrets.randbelow(10**13):013}"
            db.execute(
                "UPDATE trade SET state = 'SUCCESS', transaction_id = ?, paid_at = ? WHERE number = ?",
                (transaction_id, _stored(now), number),
            )
            paid = db.execute("SELECT * FROM trade WHERE number = ?", (number,)).fetchone()
            copies = {Outcome.PAY_UNTOLD: 0, Outcome.PAY_TOLD_TWICE: 2}.get(outcome, 1)
            self._tell(db, paid["notify_url"], "TRANSACTION.SUCCESS", self._told(paid), copies=copies)
        elif outcome is Outcome.DECLINE:
            db.execute("UPDATE trade SET state = 'PAYERROR' WHERE number = ?", (number,))
        elif outcome is Outcome.TIME_OUT:
            db.execute("UPDATE trade SET expires_at = ? WHERE number = ?", (_stored(now), number))
        elif outcome in (Outcome.REFUND_HERE, Outcome.REFUND_HALF_HERE):
            left = trade["minor"] - _refunded(db, trade)
            if back := left // 2 if outcome is Outcome.REFUND_HALF_HERE else left:
                _accept(db, trade, f"{secrets.randbelow(10**20):020}", back, notify_url="")
                self._bring(db, trade, "SUCCESS", whence=("PROCESSING",))
        else:
            if outcome is Outcome.COMPLETE_REFUNDS:
                self._bring(db, trade, "SUCCESS", whence=("PROCESSING", "ABNORMAL"))
            elif outcome is Outcome.FAIL_REFUNDS:
                self._bring(db, trade, "ABNORMAL", whence=("PROCESSING",))
            elif outcome is Outcome.CLOSE_REFUNDS:
                self._bring(db, trade, "CLOSED", whence=("PROCESSING",))
            how = {
                Outcome.DELAY_REFUNDS: "delayed",
                # The bank that has refused one may be brought to take it.
                Outcome.FAIL_REFUNDS: "delayed",
                Outcome.EMPTY_ACCOUNT: "refused",
            }.get(outcome, "prompt")
            db.execute("UPDATE trade SET refunds = ? WHERE number = ?", (how, number))

    # --- what happens to a payment -------------------------------------------------------------------

    def _bring(
        self, db: sqlite3.Connection, trade: sqlite3.Row, status: str, *, whence: Sequence[str]
    ) -> None:
        """Bring the refunds that are at `whence` to `status`, and tell the shop of each."""
        for refund in db.execute(
            "SELECT * FROM refund WHERE trade = ? ORDER BY rowid", (trade["number"],)
        ).fetchall():
            if refund["status"] not in whence:
                continue
            db.execute(
                "UPDATE refund SET status = ?, made_at = ? WHERE refund_id = ?",
                (status, _stored(_now()) if status == "SUCCESS" else None, refund["refund_id"]),
            )
            moved = db.execute("SELECT * FROM refund WHERE refund_id = ?", (refund["refund_id"],)).fetchone()
            if moved["notify_url"]:
                notice = _refund_notice(self._merchant_id, trade, moved)
                self._tell(db, moved["notify_url"], f"REFUND.{status}", notice)

    def _tell(self, db: sqlite3.Connection, url: str, event: str, resource: JSON, *, copies: int = 1) -> None:
        kind = event.partition(".")[0].lower()
        nonce = secrets.token_hex(6)
        cipher = AES.new(self._api_v3_key, AES.MODE_GCM, nonce=nonce.encode())
        cipher.update(kind.encode())
        encrypted, tag = cipher.encrypt_and_digest(json.dumps(resource, ensure_ascii=False).encode())
        notice = {
            "id": secrets.token_hex(16),
            "create_time": _beijing(_stored(_now())),
            "resource_type": "encrypt-resource",
            "event_type": event,
            "summary": {"TRANSACTION.SUCCESS": "支付成功"}.get(event, "退款结果"),
            "resource": {
                "original_type": kind,
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": base64.b64encode(encrypted + tag).decode(),
                "associated_data": kind,
                "nonce": nonce,
            },
        }
        self.deliveries.announce(db, url=url, body=json.dumps(notice, ensure_ascii=False), copies=copies)

    def _proof(self, body: str, key: pkcs1_15.PKCS115_SigScheme) -> dict[str, str]:
        at, nonce = str(int(_now().timestamp())), secrets.token_hex(16)
        signature = key.sign(SHA256.new(f"{at}\n{nonce}\n{body}\n".encode()))
        return {
            "Wechatpay-Timestamp": at,
            "Wechatpay-Nonce": nonce,
            "Wechatpay-Serial": self._public_key_id,
            "Wechatpay-Signature": base64.b64encode(signature).decode(),
            "Wechatpay-Signature-Type": SCHEME,
        }


def _order(asked: JSON) -> dict[str, object]:
    """The columns of a payment that the merchant decides. Raises _No."""
    match asked:
        case {
            "description": str(description),
            "out_trade_no": str(number),
            "notify_url": str(notify_url),
            "time_expire": str(expires),
            "amount": {"total": int(minor), "currency": "CNY"},
        } if (
            1 <= len(description) <= 127
            and OUT_TRADE_NO.fullmatch(number)
            and WEB_ADDRESS.fullmatch(notify_url)
            and "?" not in notify_url
            and len(notify_url) <= 255
            and minor > 0
            and (expires_at := _time(expires))
        ):
            return {
                "out_trade_no": number,
                "minor": minor,
                "description": description,
                "notify_url": notify_url,
                "time_expire": expires,
                # Who asks for less gets this.
                "expires_at": _stored(max(expires_at, _now() + SHORTEST_TIME_TO_PAY)),
            }
    raise _malformed()


def _trade_of(db: sqlite3.Connection, out_trade_no: str, *, unknown: str = "ORDER_NOT_EXIST") -> sqlite3.Row:
    trade: sqlite3.Row | None = db.execute(
        "SELECT * FROM trade WHERE out_trade_no = ?", (out_trade_no,)
    ).fetchone()
    if not trade:
        raise _No(404, unknown, "订单不存在")
    return trade


def _accept(
    db: sqlite3.Connection, trade: sqlite3.Row, number: str, minor: int, *, notify_url: str
) -> sqlite3.Row:
    now = _now()
    refund_id = f"5030{now.astimezone(BEIJING):%Y%m%d}{secrets.randbelow(10**16):016}"
    db.execute(
        """
        INSERT INTO refund (refund_id, out_refund_no, trade, minor, notify_url, created_at)
        VALUES (?, ?, ?, ?, ?, ?)
        """,
        (refund_id, number, trade["number"], minor, notify_url, _stored(now)),
    )
    db.execute("UPDATE trade SET state = 'REFUND' WHERE number = ?", (trade["number"],))
    refund: sqlite3.Row = db.execute("SELECT * FROM refund WHERE refund_id = ?", (refund_id,)).fetchone()
    return refund


def _refunded(db: sqlite3.Connection, trade: sqlite3.Row) -> int:
    """What was given back, or is reserved for it."""
    (minor,) = db.execute(
        "SELECT coalesce(sum(minor), 0) FROM refund WHERE trade = ? AND status <> 'CLOSED'",
        (trade["number"],),
    ).fetchone()
    return int(minor)


def _told_refund(trade: sqlite3.Row, refund: sqlite3.Row) -> dict[str, object]:
    return {
        "amount": {
            "currency": "CNY",
            "payer_refund": refund["minor"],
            "payer_total": trade["minor"],
            "refund": refund["minor"],
            "settlement_refund": refund["minor"],
            "total": trade["minor"],
        },
        "channel": "ORIGINAL",
        "create_time": _beijing(refund["created_at"]),
        "funds_account": "AVAILABLE",
        "out_refund_no": refund["out_refund_no"],
        "out_trade_no": trade["out_trade_no"],
        "promotion_detail": [],
        "refund_id": refund["refund_id"],
        "status": refund["status"],
        **({"success_time": _beijing(refund["made_at"])} if refund["made_at"] else {}),
        "transaction_id": trade["transaction_id"],
        "user_received_account": "支付用户零钱",
    }


def _refund_notice(merchant_id: str, trade: sqlite3.Row, refund: sqlite3.Row) -> dict[str, object]:
    """It names neither application nor currency."""
    return {
        "mchid": merchant_id,
        "out_trade_no": trade["out_trade_no"],
        "transaction_id": trade["transaction_id"],
        "out_refund_no": refund["out_refund_no"],
        "refund_id": refund["refund_id"],
        "refund_status": refund["status"],
        **({"success_time": _beijing(refund["made_at"])} if refund["made_at"] else {}),
        "user_received_account": "支付用户零钱",
        "amount": {
            "total": trade["minor"],
            "refund": refund["minor"],
            "payer_total": trade["minor"],
            "payer_refund": refund["minor"],
        },
    }


def _bill(rows: Sequence[Mapping[str, str]]) -> bytes:
    """Before it is packed: a grave before every cell, and nothing quoted."""
    lines = [",".join(COLUMNS)]
    lines += [",".join(f"`{row.get(column, '')}" for column in COLUMNS) for row in rows]
    totals = [
        _written(sum(Money.parse(row[column], "CNY").minor for row in rows))
        for column in ("应结订单金额", "退款金额", "充值券退款金额", "订单金额", "申请退款金额")
    ]
    cells = [str(len(rows)), *totals[:3], "0.00000", *totals[3:]]
    lines += [SUMS, ",".join(f"`{cell}" for cell in cells)]
    return ("\ufeff" + "\r\n".join(lines) + "\r\n").encode()


def _is_open(trade: sqlite3.Row) -> bool:
    return bool(trade["state"] == "NOTPAY" and trade["expires_at"] > _stored(_now()))


def _is_address(written: str) -> bool:
    try:
        return bool(ipaddress.ip_address(written))
    except ValueError:
        return False


def _language(request: Request) -> str:
    return LANGUAGES[request.accept_languages.best_match(LANGUAGES, "en") or "en"]


def _written(minor: int) -> str:
    return Money(minor, "CNY").written()


def _time(written: str) -> datetime | None:
    try:
        return datetime.fromisoformat(written) if TIME.fullmatch(written) else None
    except ValueError:
        return None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=BEIJING)


def _beijing(stored: str) -> str:
    return datetime.fromisoformat(stored).astimezone(BEIJING).isoformat(timespec="seconds")


def _stored(at: datetime) -> str:
    """Of one length, so that the order of the strings is that of the times."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _now() -> datetime:
    return datetime.now(UTC)
