"""The provider behind `gateways.alipay`: of Alipay's open platform what the shop uses, its cashier and its notices.

    GET|POST /gateway.do    a form signed by the application, whose `method` is one of
        alipay.trade.page.pay, alipay.trade.wap.pay       for browsers: they lead to the cashier, where the trade begins
        alipay.trade.precreate                            a code, whose first scan begins the trade
        alipay.trade.query, .close, .refund, .fastpay.refund.query, alipay.data.dataservice.bill.downloadurl.query
    GET      /                              the buyer's phone, with the codes that it might scan
    GET      /qr/{token}                    what a code holds: it leads to the cashier
    GET|POST /cashier/{number}              where the buyer decides, and the tester what becomes of it
    GET      /downloadBillFile.resource     the bill of a day of Beijing, for 30 s after it was asked for

Answers are signed over the letters of what they say; notices over their fields. As at Alipay a trade is closed when it
was not paid in time, or when all of it has been refunded; a refund has no number but the one it was asked for with;
and nobody can list refunds.
"""

import base64
import binascii
import csv
import enum
import io
import json
import re
import secrets
import socket
import sqlite3
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from emulators.deliveries import BACKOFF, Deliveries
from emulators.server import JSON, POLICY, Emulator, page
from inventory.money import Money

MERCHANT = "VMOS Cloud"
BUYER = "2088000000000099"
BEIJING = ZoneInfo("Asia/Shanghai")
LANGUAGES = {"en": "en", "zh-CN": "zh-hans", "zh": "zh-hans", "zh-HK": "zh-hant", "zh-TW": "zh-hant"}
PRODUCTS = {"alipay.trade.page.pay": "FAST_INSTANT_TRADE_PAY", "alipay.trade.wap.pay": "QUICK_WAP_WAY"}
# How far the time of a request may be from Beijing's.
REQUEST_AGE = timedelta(minutes=10)
BILL_LINK = timedelta(seconds=30)
# In the forenoon of the day after, by Beijing's clock.
BILL_AFTER = timedelta(days=1, hours=9)

OUT_TRADE_NO = re.compile(r"[A-Za-z0-9_]{1,64}")
AMOUNT = re.compile(r"[0-9]{1,9}\.[0-9]{2}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9._\-]+(:[0-9]{1,5})?([/?][!-~]*)?")
COLUMNS = [
    "支付宝交易号",
    "商户订单号",
    "业务类型",
    "商品名称",
    "创建时间",
    "完成时间",
    "门店编号",
    "门店名称",
    "操作员",
    "终端号",
    "对方账户",
    "订单金额（元）",
    "商家实收（元）",
    "支付宝红包（元）",
    "集分宝（元）",
    "支付宝优惠（元）",
    "商家优惠（元）",
    "券核销金额（元）",
    "券名称",
    "商家红包消费金额（元）",
    "卡消费金额（元）",
    "退款批次号/请求号",
    "服务费（元）",
    "分润（元）",
    "备注",
]


class Outcome(enum.StrEnum):
    """What the buyer can decide at the cashier, and the tester beside him."""

    PAY = "pay"
    REFUSE_CARD = "refuse-card"
    PAY_UNTOLD = "pay-untold"
    PAY_TOLD_TWICE = "pay-told-twice"
    TIME_OUT = "time-out"
    FINISH = "finish"
    DELAY_REFUNDS = "delay-refunds"
    COMPLETE_REFUNDS = "complete-refunds"
    FAIL_REFUNDS = "fail-refunds"
    EMPTY_ACCOUNT = "empty-account"
    FILL_ACCOUNT = "fill-account"
    REFUND_HERE = "refund-here"
    REFUND_HALF_HERE = "refund-half-here"

    def fits(self, trade: sqlite3.Row) -> bool:
        """Whether it can be chosen for a trade as it is; what does not fit any more changes nothing."""
        if self in (Outcome.DELAY_REFUNDS, Outcome.EMPTY_ACCOUNT):
            return bool(trade["status"] == "TRADE_SUCCESS" and trade["refunds"] == "prompt")
        if self in (Outcome.COMPLETE_REFUNDS, Outcome.FAIL_REFUNDS):
            return bool(trade["refunds"] == "delayed")
        if self is Outcome.FILL_ACCOUNT:
            return bool(trade["refunds"] == "refused")
        if self in (Outcome.FINISH, Outcome.REFUND_HERE, Outcome.REFUND_HALF_HERE):
            return bool(trade["status"] == "TRADE_SUCCESS")
        return bool(trade["status"] == "WAIT_BUYER_PAY")


LABELS: dict[Outcome, str | Promise] = {
    Outcome.REFUSE_CARD: _("Pay with a card that is refused (another one may do)"),
    Outcome.PAY_UNTOLD: _("Pay, but lose the notice to the shop"),
    Outcome.PAY_TOLD_TWICE: _("Pay and send the notice twice"),
    Outcome.TIME_OUT: _("Let the time to pay be over"),
    Outcome.FINISH: _("Finish the payment: no refunds any more"),
    Outcome.DELAY_REFUNDS: _("Let refunds wait from now on"),
    Outcome.COMPLETE_REFUNDS: _("Complete the refunds that wait"),
    Outcome.FAIL_REFUNDS: _("Let the refunds that wait fail"),
    Outcome.EMPTY_ACCOUNT: _("Let the seller's account be too empty for refunds"),
    Outcome.FILL_ACCOUNT: _("Fill the seller's account again"),
    Outcome.REFUND_HERE: _("Refund what is left, outside the shop"),
    Outcome.REFUND_HALF_HERE: _("Refund half of what is left, outside the shop"),
}
PAYING = (Outcome.PAY, Outcome.PAY_UNTOLD, Outcome.PAY_TOLD_TWICE)

SCHEMA = """
CREATE TABLE IF NOT EXISTS trade (
    number INTEGER PRIMARY KEY,
    trade_no TEXT NOT NULL UNIQUE,
    out_trade_no TEXT NOT NULL UNIQUE,
    product TEXT NOT NULL,
    minor INTEGER NOT NULL CHECK (minor > 0),
    subject TEXT NOT NULL,
    passback_params TEXT NOT NULL,
    return_url TEXT NOT NULL,
    notify_url TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('WAIT_BUYER_PAY', 'TRADE_CLOSED', 'TRADE_SUCCESS', 'TRADE_FINISHED')),
    refunds TEXT NOT NULL DEFAULT 'prompt' CHECK (refunds IN ('prompt', 'delayed', 'refused')),
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    paid_at TEXT,
    closed_at TEXT
);
CREATE INDEX IF NOT EXISTS trade_open ON trade (expires_at) WHERE status = 'WAIT_BUYER_PAY';
CREATE TABLE IF NOT EXISTS refund (
    number INTEGER PRIMARY KEY,
    trade_no TEXT NOT NULL REFERENCES trade (trade_no),
    out_request_no TEXT NOT NULL,
    minor INTEGER NOT NULL CHECK (minor > 0),
    at TEXT,  -- NULL while it waits
    UNIQUE (trade_no, out_request_no)
);
-- What was asked for, as a trade that is not there yet.
CREATE TABLE IF NOT EXISTS code (token TEXT PRIMARY KEY, out_trade_no TEXT NOT NULL UNIQUE, trade TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS bill_link (file_id TEXT PRIMARY KEY, day TEXT NOT NULL, expires_at TEXT NOT NULL);
"""


class _No(Exception):
    """An answer other than 10000. What comes before the signature is checked is not signed."""

    def __init__(
        self,
        sub_code: str,
        sub_msg: str,
        *,
        code: str = "40004",
        msg: str = "Business Failed",
        signed: bool = True,
    ) -> None:
        super().__init__(sub_code)
        self.content = {"code": code, "msg": msg, "sub_code": sub_code, "sub_msg": sub_msg}
        self.is_signed = signed


def _invalid(sub_code: str, sub_msg: str, *, signed: bool = True) -> _No:
    """A request that is not worth looking at what it asks."""
    return _No(sub_code, sub_msg, code="40002", msg="Invalid Arguments", signed=signed)


class Alipay(Emulator):
    """`app_public_key` is the shop's and `private_key` Alipay's, both in PEM. `key` opens /_books and /_faults."""

    schema = SCHEMA

    def __init__(
        self,
        *,
        key: str,
        app_id: str,
        seller_id: str,
        app_public_key: str,
        private_key: str,
        books: str,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        """Raises ValueError when a key is none."""
        shop, ours = (
            load_pem_public_key(app_public_key.encode()),
            load_pem_private_key(private_key.encode(), None),
        )
        if not isinstance(shop, rsa.RSAPublicKey) or not isinstance(ours, rsa.RSAPrivateKey):
            raise ValueError("Alipay's keys are RSA keys.")
        self._app_id, self._seller_id = app_id, seller_id
        self._shop, self._ours = shop, ours
        # Made when it is needed: making one takes a while.
        self._wrong: rsa.RSAPrivateKey | None = None
        self._methods: dict[str, Callable[[sqlite3.Connection, JSON], JSON]] = {
            "alipay.trade.precreate": self.precreate,
            "alipay.trade.query": self.query,
            "alipay.trade.close": self.close,
            "alipay.trade.refund": self.refund,
            "alipay.trade.fastpay.refund.query": self.query_refund,
            "alipay.data.dataservice.bill.downloadurl.query": self.query_bill,
        }
        super().__init__(key=key, books=books, backoff=backoff)
        self.deliveries = _Notices(
            self.books, self.faults, sign=self.sign, backoff=backoff, sign_fields=self._sign_fields
        )

    def routes(self) -> list[Rule]:
        return [
            Rule("/gateway.do", methods=["GET", "POST"], endpoint=self.gateway),
            Rule("/", methods=["GET"], endpoint=self.show_phone),
            Rule("/qr/<token>", methods=["GET"], endpoint=self.scan),
            Rule("/cashier/<trade_no>", methods=["GET"], endpoint=self.show_page),
            Rule("/cashier/<trade_no>", methods=["POST"], endpoint=self.decide),
            Rule("/downloadBillFile.resource", methods=["GET"], endpoint=self.download_bill),
        ]

    def sign(self, _webhook_id: str, _body: str, _is_right: bool, /) -> Mapping[str, str]:
        """Nothing: what proves a notice is in its body."""
        return {}

    def everything(self) -> JSON:
        with self.books.transaction() as db:
            self._pass_time(db)
            trades = [dict(row) for row in db.execute("SELECT * FROM trade ORDER BY number")]
            refunds = [dict(row) for row in db.execute("SELECT * FROM refund ORDER BY number")]
            codes = [dict(row) for row in db.execute("SELECT * FROM code ORDER BY rowid")]
        return {"trades": trades, "refunds": refunds, "codes": codes}

    # --- the gateway ---------------------------------------------------------------------------------

    def gateway(self, request: Request) -> Response:
        fields = {**request.args.to_dict(), **request.form.to_dict()}
        method = fields.get("method", "")
        if method in PRODUCTS:
            return self._arrive(request, fields)
        if self.faults.happens("errors"):
            return Response("", 500)
        try:
            response = self._answer(fields, method)
        finally:
            self._stopping.wait(self.faults.now().delay_seconds)
        if self.faults.happens("lost_answers"):
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return response

    def _answer(self, fields: Mapping[str, str], method: str) -> Response:
        is_signed = True
        name = method.replace(".", "_") + "_response"
        try:
            asked = self._check(fields)
            if method not in self._methods:
                raise _invalid("isv.invalid-method", "不存在的方法名")
            with self.books.transaction() as db:
                self._pass_time(db)
                told = self._methods[method](db, {**asked, "notify_url": fields.get("notify_url", "")})
                content: JSON = {"code": "10000", "msg": "Success", **told}
        except _No as no:
            content, is_signed = no.content, no.is_signed
            name = name if method in self._methods else "error_response"
        # As Alipay writes it: what is signed are these letters.
        said = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
        sign = f',"sign":"{self._signature(said)}"' if is_signed else ""
        return Response(f'{{"{name}":{said}{sign}}}', content_type="text/html;charset=utf-8")

    def _check(self, fields: Mapping[str, str]) -> JSON:
        """What is asked, if it is the application that asks. Raises _No."""
        if fields.get("app_id") != self._app_id:
            raise _invalid("isv.invalid-app-id", "无效的AppID参数", signed=False)
        if fields.get("sign_type") != "RSA2" or fields.get("charset", "").lower() != "utf-8":
            raise _invalid("isv.invalid-signature-type", "无效的签名类型")
        signed = "&".join(
            f"{name}={value}" for name, value in sorted(fields.items()) if name != "sign" and value
        )
        try:
            signature = base64.b64decode(fields.get("sign", ""), validate=True)
            self._shop.verify(signature, signed.encode(), padding.PKCS1v15(), SHA256())
        except (InvalidSignature, binascii.Error):
            raise _invalid("isv.invalid-signature", "无效签名") from None
        at = _time(fields.get("timestamp"))
        # Of an address that a browser is led to, the time may be long past.
        is_late = fields.get("method") not in PRODUCTS and at and abs(_now() - at) > REQUEST_AGE
        if not at or is_late:
            raise _invalid("isv.invalid-timestamp", "无效的时间戳参数")
        try:
            asked = json.loads(fields.get("biz_content", ""))
        except (ValueError, RecursionError):
            asked = None
        if fields.get("version") != "1.0" or not isinstance(asked, dict):
            raise _invalid("isv.invalid-parameter", "参数无效")
        return asked

    def precreate(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        """The code of a trade that begins when somebody scans it. Asked for again it is the same."""
        wanted = _wanted(asked, product="alipay.trade.precreate", notify_url=str(asked["notify_url"]))
        trade = db.execute("SELECT * FROM trade WHERE out_trade_no = ?", (wanted["out_trade_no"],)).fetchone()
        known = db.execute("SELECT * FROM code WHERE out_trade_no = ?", (wanted["out_trade_no"],)).fetchone()
        if trade and trade["status"] in ("TRADE_SUCCESS", "TRADE_FINISHED"):
            raise _No("ACQ.TRADE_HAS_SUCCESS", "交易已被支付")
        if trade and trade["status"] == "TRADE_CLOSED":
            raise _No("ACQ.TRADE_HAS_CLOSE", "交易已经关闭")
        before = [trade["minor"]] if trade else []
        before += [json.loads(known["trade"])["minor"]] if known else []
        if any(minor != wanted["minor"] for minor in before):
            raise _No("ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改")
        if str(wanted["expires_at"]) <= _stored(_now()):
            raise _No("ACQ.INVALID_PARAMETER", "订单已超时")
        token = known["token"] if known else f"bax{secrets.token_hex(10)}"
        db.execute(
            "INSERT OR REPLACE INTO code VALUES (?, ?, ?)",
            (token, wanted["out_trade_no"], json.dumps(wanted)),
        )
        return {"out_trade_no": wanted["out_trade_no"], "qr_code": f"{self.public_url}/qr/{token}"}

    def query(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        trade = _trade_of(db, asked)
        amount = (
            _written(trade["minor"]) if trade["status"] in ("TRADE_SUCCESS", "TRADE_FINISHED") else "0.00"
        )
        return {
            "buyer_logon_id": "lin***@example.com",
            "buyer_pay_amount": amount,
            "buyer_user_id": BUYER,
            "invoice_amount": amount,
            "out_trade_no": trade["out_trade_no"],
            "point_amount": "0.00",
            "receipt_amount": amount,
            **({"send_pay_date": _beijing(trade["paid_at"])} if trade["paid_at"] else {}),
            "total_amount": _written(trade["minor"]),
            "trade_no": trade["trade_no"],
            "trade_status": trade["status"],
        }

    def close(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        trade = _trade_of(db, asked)
        if trade["status"] != "WAIT_BUYER_PAY":
            raise _No("ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
        self._close(db, trade)
        return {"out_trade_no": trade["out_trade_no"], "trade_no": trade["trade_no"]}

    def refund(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        trade = _trade_of(db, asked)
        written, request_no = asked.get("refund_amount"), asked.get("out_request_no", trade["out_trade_no"])
        if not isinstance(written, str) or not AMOUNT.fullmatch(written) or not isinstance(request_no, str):
            raise _No("ACQ.INVALID_PARAMETER", "参数无效")
        minor = Money.parse(written, "CNY").minor
        known = _refund_of(db, trade, request_no)
        if known and known["minor"] != minor:
            raise _No("ACQ.DISCORDANT_REPEAT_REQUEST", "请求信息不一致")
        changed = False
        if not known:
            if trade["status"] != "TRADE_SUCCESS":
                raise _No("ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
            if trade["refunds"] == "refused":
                raise _No("ACQ.SELLER_BALANCE_NOT_ENOUGH", "商户的支付宝账户中无足够的资金进行撤销")
            if minor == 0 or minor > trade["minor"] - _refunded(db, trade):
                raise _No("ACQ.REASON_TRADE_REFUND_FEE_ERR", "退款金额无效")
            changed = trade["refunds"] == "prompt"
            db.execute(
                "INSERT INTO refund (trade_no, out_request_no, minor) VALUES (?, ?, ?)",
                (trade["trade_no"], request_no, minor),
            )
            if changed:
                self._complete(db, trade)
        return {
            "buyer_logon_id": "lin***@example.com",
            "buyer_user_id": BUYER,
            "fund_change": "Y" if changed else "N",
            "out_trade_no": trade["out_trade_no"],
            "refund_fee": _written(_refunded(db, trade)),
            "trade_no": trade["trade_no"],
        }

    def query_refund(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        trade = _trade_of(db, asked)
        refund = _refund_of(db, trade, str(asked.get("out_request_no", "")))
        if not refund or not refund["at"]:
            return {}
        options = asked.get("query_options")
        wants_time = isinstance(options, list) and "gmt_refund_pay" in options
        return {
            "out_request_no": refund["out_request_no"],
            "out_trade_no": trade["out_trade_no"],
            "refund_amount": _written(refund["minor"]),
            "refund_status": "REFUND_SUCCESS",
            "total_amount": _written(trade["minor"]),
            "trade_no": trade["trade_no"],
            **({"gmt_refund_pay": _beijing(refund["at"])} if wants_time else {}),
        }

    def query_bill(self, db: sqlite3.Connection, asked: JSON) -> JSON:
        try:
            day = date.fromisoformat(str(asked.get("bill_date")))
        except ValueError:
            day = None
        if asked.get("bill_type") != "trade" or not day or day >= _now().astimezone(BEIJING).date():
            raise _No("isv.invalid_arguments", "入参不合法")
        is_made = _now() >= _midnight(day) + BILL_AFTER
        if not is_made or not _bill_rows(db, day):
            raise _No("isp.bill_not_exist", "账单不存在")
        file_id = secrets.token_hex(16)
        db.execute("INSERT INTO bill_link VALUES (?, ?, ?)", (file_id, f"{day}", _stored(_now() + BILL_LINK)))
        query = urlencode(
            {
                "bizType": "trade",
                "userId": self._seller_id,
                "fileType": "csv.zip",
                "bizDates": f"{day:%Y%m%d}",
                "downloadFileName": f"{self._seller_id}_{day:%Y%m%d}.csv.zip",
                "fileId": file_id,
            }
        )
        return {"bill_download_url": f"{self.public_url}/downloadBillFile.resource?{query}"}

    def download_bill(self, request: Request) -> Response:
        with self.books.transaction() as db:
            link = db.execute(
                "SELECT * FROM bill_link WHERE file_id = ? AND expires_at > ?",
                (request.args.get("fileId", ""), _stored(_now())),
            ).fetchone()
            if not link:
                return Response("", 404)
            day = date.fromisoformat(link["day"])
            archive = _bill(day, _bill_rows(db, day), account=self._seller_id)
        return Response(archive, content_type="application/octet-stream")

    # --- the cashier ---------------------------------------------------------------------------------

    def _arrive(self, request: Request, fields: Mapping[str, str]) -> Response:
        """The buyer comes: his trade begins, or goes on, if the address is good."""
        try:
            asked = _page_request(self._check(fields), fields)
            with self.books.transaction() as db:
                self._pass_time(db)
                trade_no = _begun(db, asked)
        except _No as no:
            return self._refused(request, no)
        return redirect(f"{self.public_url}/cashier/{trade_no}", 302)

    def scan(self, request: Request, token: str) -> Response:
        """The buyer scans a code: his trade begins, or goes on."""
        try:
            with self.books.transaction() as db:
                self._pass_time(db)
                code = db.execute("SELECT * FROM code WHERE token = ?", (token,)).fetchone()
                trade_no = _begun(db, json.loads(code["trade"])) if code else ""
        except _No as no:
            return self._refused(request, no)
        return redirect(f"{self.public_url}/cashier/{trade_no}", 302) if code else self._unknown(request)

    def show_phone(self, request: Request) -> Response:
        with self.books.transaction() as db:
            self._pass_time(db)
            rows = db.execute(
                """
                SELECT code.out_trade_no, token, code.trade, status FROM code
                LEFT JOIN trade ON trade.out_trade_no = code.out_trade_no
                ORDER BY code.rowid DESC LIMIT 50
                """
            ).fetchall()
        codes = [
            {
                **dict(row),
                "page": f"{self.public_url}/qr/{row['token']}",
                "amount": Money(json.loads(row["trade"])["minor"], "CNY"),
            }
            for row in rows
        ]
        language = _language(request)
        with override(language):
            return page("emulators/alipay/phone.html", {"codes": codes, "language": language})

    def _refused(self, request: Request, no: _No) -> Response:
        language = _language(request)
        with override(language):
            return page("emulators/alipay/refused.html", {"reason": no.content, "language": language}, 400)

    def _unknown(self, request: Request) -> Response:
        language = _language(request)
        with override(language):
            return page("emulators/alipay/unknown.html", {"language": language}, 404)

    def show_page(self, request: Request, trade_no: str) -> Response:
        with self.books.transaction() as db:
            self._pass_time(db)
            trade = db.execute("SELECT * FROM trade WHERE trade_no = ?", (trade_no,)).fetchone()
            refunded = _refunded(db, trade) if trade else 0
        if not trade:
            return self._unknown(request)
        language = _language(request)
        with override(language):
            response = page(
                "emulators/alipay/pay.html",
                {
                    "merchant": MERCHANT,
                    "trade": trade,
                    "language": language,
                    "amount": Money(trade["minor"], "CNY").localised(),
                    "refunded": Money(refunded, "CNY").localised() if refunded else "",
                    "expires_at": _beijing(trade["expires_at"]).removesuffix(":00"),
                    "is_refused": "refused" in request.args,
                    "back": self._way_back(trade) if trade["return_url"] else "",
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

    def decide(self, request: Request, trade_no: str) -> Response:
        try:
            outcome = Outcome(request.form.get("outcome", ""))
        except ValueError:
            raise BadRequest from None
        with self.books.transaction() as db:
            self._pass_time(db)
            trade = db.execute("SELECT * FROM trade WHERE trade_no = ?", (trade_no,)).fetchone()
            if not trade:
                raise BadRequest
            if outcome.fits(trade):
                self._apply(db, trade, outcome)
            trade = db.execute("SELECT * FROM trade WHERE trade_no = ?", (trade_no,)).fetchone()
        if outcome in PAYING and trade["return_url"]:
            return redirect(self._way_back(trade), 303)
        refused = "?refused" if outcome is Outcome.REFUSE_CARD else ""
        return redirect(f"{self.public_url}/cashier/{trade_no}{refused}", 303)

    def _apply(self, db: sqlite3.Connection, trade: sqlite3.Row, outcome: Outcome) -> None:
        trade_no = trade["trade_no"]
        if outcome in PAYING:
            db.execute(
                "UPDATE trade SET status = 'TRADE_SUCCESS', paid_at = ? WHERE trade_no = ?",
                (_stored(_now()), trade_no),
            )
            copies = {Outcome.PAY_UNTOLD: 0, Outcome.PAY_TOLD_TWICE: 2}.get(outcome, 1)
            self._tell(db, trade_no, copies=copies)
        elif outcome is Outcome.TIME_OUT:
            self._close(db, trade)
        elif outcome is Outcome.FINISH:
            db.execute("UPDATE trade SET status = 'TRADE_FINISHED' WHERE trade_no = ?", (trade_no,))
            self._tell(db, trade_no)
        elif outcome in (Outcome.REFUND_HERE, Outcome.REFUND_HALF_HERE):
            left, number = trade["minor"] - _refunded(db, trade), trade["out_trade_no"]
            if outcome is Outcome.REFUND_HALF_HERE:
                # Of a part the desk makes up a number, which nobody tells the shop.
                left, number = left // 2, f"{secrets.randbelow(10**20):020}"
            db.execute(
                "INSERT OR IGNORE INTO refund (trade_no, out_request_no, minor) VALUES (?, ?, ?)",
                (trade_no, number, left),
            )
            self._complete(db, trade)
        elif outcome is not Outcome.REFUSE_CARD:
            if outcome is Outcome.COMPLETE_REFUNDS:
                self._complete(db, trade)
            elif outcome is Outcome.FAIL_REFUNDS:
                # As if it had never been asked for: it may be asked for again by the same number.
                db.execute("DELETE FROM refund WHERE trade_no = ? AND at IS NULL", (trade_no,))
            how = {Outcome.DELAY_REFUNDS: "delayed", Outcome.EMPTY_ACCOUNT: "refused"}.get(outcome, "prompt")
            db.execute("UPDATE trade SET refunds = ? WHERE trade_no = ?", (how, trade_no))

    def _way_back(self, trade: sqlite3.Row) -> str:
        """To the shop, with what Alipay tells it in the address, signed."""
        fields = {
            "app_id": self._app_id,
            "charset": "utf-8",
            "method": f"{trade['product']}.return",
            "out_trade_no": trade["out_trade_no"],
            "seller_id": self._seller_id,
            "timestamp": _beijing(_stored(_now())),
            "total_amount": _written(trade["minor"]),
            "trade_no": trade["trade_no"],
            "version": "1.0",
        }
        query = urlencode({**fields, "sign": self._sign_fields(fields, True), "sign_type": "RSA2"})
        return f"{trade['return_url']}{'&' if '?' in trade['return_url'] else '?'}{query}"

    # --- what happens to a trade ---------------------------------------------------------------------

    def _pass_time(self, db: sqlite3.Connection) -> None:
        """Let time have passed: nothing else notices it, so this comes before every look at a trade."""
        due = db.execute(
            "SELECT * FROM trade WHERE status = 'WAIT_BUYER_PAY' AND expires_at <= ?", (_stored(_now()),)
        ).fetchall()
        for trade in due:
            self._close(db, trade)

    def _close(self, db: sqlite3.Connection, trade: sqlite3.Row) -> None:
        db.execute(
            "UPDATE trade SET status = 'TRADE_CLOSED', closed_at = ? WHERE trade_no = ?",
            (_stored(_now()), trade["trade_no"]),
        )
        self._tell(db, trade["trade_no"])

    def _complete(self, db: sqlite3.Connection, trade: sqlite3.Row) -> None:
        """Let the refunds that wait be made; when nothing is left, the trade is closed."""
        waiting = db.execute(
            "SELECT * FROM refund WHERE trade_no = ? AND at IS NULL ORDER BY number", (trade["trade_no"],)
        ).fetchall()
        for refund in waiting:
            db.execute("UPDATE refund SET at = ? WHERE number = ?", (_stored(_now()), refund["number"]))
            if _refunded(db, trade, waiting=False) == trade["minor"]:
                db.execute(
                    "UPDATE trade SET status = 'TRADE_CLOSED', closed_at = ? WHERE trade_no = ?",
                    (_stored(_now()), trade["trade_no"]),
                )
            self._tell(db, trade["trade_no"], refund=refund["number"])

    def _tell(
        self, db: sqlite3.Connection, trade_no: str, *, refund: int | None = None, copies: int = 1
    ) -> None:
        trade = db.execute("SELECT * FROM trade WHERE trade_no = ?", (trade_no,)).fetchone()
        if not trade["notify_url"]:
            return
        paid = {"gmt_payment": _beijing(trade["paid_at"])} if trade["paid_at"] else {}
        closed = {"gmt_close": _beijing(trade["closed_at"])} if trade["closed_at"] else {}
        amount = _written(trade["minor"])
        refunded: dict[str, str] = {}
        if refund is not None:
            row = db.execute("SELECT * FROM refund WHERE number = ?", (refund,)).fetchone()
            refunded = {
                "gmt_refund": _beijing(row["at"]) + ".000",
                "out_biz_no": row["out_request_no"],
                "refund_fee": _written(_refunded(db, trade, waiting=False)),
            }
        fields = {
            "app_id": self._app_id,
            "auth_app_id": self._app_id,
            "buyer_id": BUYER,
            "charset": "utf-8",
            "fund_bill_list": json.dumps(
                [{"amount": amount, "fundChannel": "ALIPAYACCOUNT"}], separators=(",", ":")
            ),
            "gmt_create": _beijing(trade["created_at"]),
            **paid,
            **closed,
            **refunded,
            "notify_type": "trade_status_sync",
            "out_trade_no": trade["out_trade_no"],
            **({"passback_params": trade["passback_params"]} if trade["passback_params"] else {}),
            "seller_id": self._seller_id,
            "subject": trade["subject"],
            "total_amount": amount,
            "trade_no": trade["trade_no"],
            "trade_status": trade["status"],
            "version": "1.0",
        }
        self.deliveries.announce(db, url=trade["notify_url"], body=json.dumps(fields), copies=copies)

    # --- signatures ----------------------------------------------------------------------------------

    def _signature(self, said: str, *, key: rsa.RSAPrivateKey | None = None) -> str:
        signature = (key or self._ours).sign(said.encode(), padding.PKCS1v15(), SHA256())
        return base64.b64encode(signature).decode()

    def _sign_fields(self, fields: Mapping[str, str], is_right: bool) -> str:
        if not is_right and not self._wrong:
            self._wrong = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        said = "&".join(f"{name}={value}" for name, value in sorted(fields.items()) if value)
        return self._signature(said, key=None if is_right else self._wrong)


class _Notices(Deliveries):
    """Notices are forms that say when they were sent, and are taken until the answer is `success`, to the letter."""

    def __init__(
        self,
        *arguments: object,
        sign_fields: Callable[[Mapping[str, str], bool], str],
        **options: object,
    ) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._sign_fields = sign_fields

    def prepared(
        self, webhook_id: str, body: str, is_right: bool, /
    ) -> tuple[str | bytes, Mapping[str, str]]:
        fields = {
            **json.loads(body),
            "notify_id": webhook_id.removeprefix("msg_"),
            "notify_time": _beijing(_stored(_now())),
        }
        form = urlencode({**fields, "sign": self._sign_fields(fields, is_right), "sign_type": "RSA2"})
        return form, {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}

    def is_accepted(self, response: httpx.Response) -> bool:
        return response.status_code == 200 and response.content == b"success"


def _page_request(asked: JSON, fields: Mapping[str, str]) -> dict[str, object]:
    """The columns of a trade that the buyer's address decides. Raises _No."""
    wanted = _wanted(asked, product=fields["method"], notify_url=fields.get("notify_url", ""))
    return_url = fields.get("return_url", "")
    if asked.get("product_code") != PRODUCTS[fields["method"]] or not _is_address(return_url):
        raise _No("ACQ.INVALID_PARAMETER", "参数无效")
    passed_back = str(asked.get("passback_params", ""))
    return {**wanted, "return_url": return_url, "passback_params": passed_back}


def _wanted(asked: JSON, *, product: str, notify_url: str) -> dict[str, object]:
    """The columns of a trade that is asked for, with no way back. Raises _No."""
    match asked:
        case {
            "subject": str(subject),
            "out_trade_no": str(out_trade_no),
            "total_amount": str(amount),
            "time_expire": str(expires),
        } if OUT_TRADE_NO.fullmatch(out_trade_no) and AMOUNT.fullmatch(amount):
            minor, expires_at = Money.parse(amount, "CNY").minor, _time(expires)
        case _:
            raise _No("ACQ.INVALID_PARAMETER", "参数无效")
    if (
        not minor
        or not expires_at
        or not 1 <= len(subject) <= 256
        or re.search(r"[/=&]", subject)
        or not _is_address(notify_url)
    ):
        raise _No("ACQ.INVALID_PARAMETER", "参数无效")
    return {
        "out_trade_no": out_trade_no,
        "product": product,
        "minor": minor,
        "subject": subject,
        "passback_params": "",
        "return_url": "",
        "notify_url": notify_url,
        "expires_at": _stored(expires_at),
    }


def _is_address(written: str) -> bool:
    return len(written) <= 256 and bool(WEB_ADDRESS.fullmatch(written))


def _begun(db: sqlite3.Connection, wanted: Mapping[str, object]) -> str:
    """The number of a trade, which begins now if it is not there. It is one, by whichever way its buyer comes."""
    trade = db.execute("SELECT * FROM trade WHERE out_trade_no = ?", (wanted["out_trade_no"],)).fetchone()
    if trade and trade["minor"] != wanted["minor"]:
        raise _No("ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改")
    if not trade and str(wanted["expires_at"]) <= _stored(_now()):
        raise _No("ACQ.INVALID_PARAMETER", "订单已超时")
    if trade and wanted["return_url"] and not trade["return_url"]:
        db.execute(
            "UPDATE trade SET return_url = ? WHERE number = ?", (wanted["return_url"], trade["number"])
        )
    return str(trade["trade_no"]) if trade else _new_trade(db, wanted)


def _new_trade(db: sqlite3.Connection, asked: Mapping[str, object]) -> str:
    now = _now()
    trade_no = f"{now.astimezone(BEIJING):%Y%m%d}220014{secrets.randbelow(10**14):014}"
    db.execute(
        """
        INSERT INTO trade (trade_no, out_trade_no, product, minor, subject, passback_params, return_url, notify_url,
                           status, created_at, expires_at)
        VALUES (:trade_no, :out_trade_no, :product, :minor, :subject, :passback_params, :return_url, :notify_url,
                'WAIT_BUYER_PAY', :created_at, :expires_at)
        """,
        {**asked, "trade_no": trade_no, "created_at": _stored(now)},
    )
    return trade_no


def _trade_of(db: sqlite3.Connection, asked: JSON) -> sqlite3.Row:
    trade: sqlite3.Row | None = db.execute(
        "SELECT * FROM trade WHERE trade_no = ? OR (? IS NULL AND out_trade_no = ?)",
        (asked.get("trade_no"), asked.get("trade_no"), asked.get("out_trade_no")),
    ).fetchone()
    if not trade:
        raise _No("ACQ.TRADE_NOT_EXIST", "交易不存在")
    return trade


def _refund_of(db: sqlite3.Connection, trade: sqlite3.Row, request_no: str) -> sqlite3.Row | None:
    refund: sqlite3.Row | None = db.execute(
        "SELECT * FROM refund WHERE trade_no = ? AND out_request_no = ?", (trade["trade_no"], request_no)
    ).fetchone()
    return refund


def _refunded(db: sqlite3.Connection, trade: sqlite3.Row, *, waiting: bool = True) -> int:
    (minor,) = db.execute(
        "SELECT coalesce(sum(minor), 0) FROM refund WHERE trade_no = ? AND (? OR at IS NOT NULL)",
        (trade["trade_no"], waiting),
    ).fetchone()
    return int(minor)


def _bill_rows(db: sqlite3.Connection, day: date) -> list[dict[str, str]]:
    span = {"since": _stored(_midnight(day)), "until": _stored(_midnight(day + timedelta(days=1)))}
    moved = db.execute(
        """
        SELECT '交易' AS kind, trade_no, out_trade_no, subject, created_at, paid_at AS at, minor, '' AS request_no
        FROM trade WHERE paid_at >= :since AND paid_at < :until
        UNION ALL
        SELECT '退款', trade.trade_no, out_trade_no, subject, created_at, at, -refund.minor, out_request_no
        FROM refund JOIN trade ON trade.trade_no = refund.trade_no WHERE at >= :since AND at < :until
        ORDER BY at
        """,
        span,
    ).fetchall()
    rows = []
    for row in moved:
        amount = f"{'-' if row['minor'] < 0 else ''}{_written(abs(row['minor']))}"
        rows.append(
            {
                **dict.fromkeys((column for column in COLUMNS if "（元）" in column), "0.00"),
                "支付宝交易号": f"{row['trade_no']}\t",
                "商户订单号": f"{row['out_trade_no']}\t",
                "业务类型": row["kind"],
                "商品名称": row["subject"],
                "创建时间": _beijing(row["created_at"]),
                "完成时间": _beijing(row["at"]),
                "对方账户": "lin***@example.com",
                "订单金额（元）": amount,
                "商家实收（元）": amount,
                "退款批次号/请求号": f"{row['request_no']}\t" if row["request_no"] else "",
            }
        )
    return rows


def _bill(day: date, rows: Sequence[Mapping[str, str]], *, account: str) -> bytes:
    """A bill in GBK, packed with its summary, under names in GBK."""
    text = io.StringIO(newline="")
    text.write(f"#支付宝业务明细查询\r\n#账号：[{account}0156]\r\n")
    text.write(
        f"#起始日期：[{day:%Y年%m月%d日} 00:00:00]\r\n#------------------业务明细列表------------------\r\n"
    )
    table = csv.DictWriter(text, COLUMNS, restval="")
    table.writeheader()
    table.writerows(rows)
    text.write(f"#------------------业务明细列表结束------------------\r\n#合计：{len(rows)}笔\r\n")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for name, content in (("业务明细", text.getvalue()), ("业务明细(汇总)", "#支付宝业务汇总查询\r\n")):
            files.writestr(_gbk_name(f"{account}0156_{day:%Y%m%d}_{name}.csv"), content.encode("gbk"))
    return archive.getvalue()


class _GbkName(zipfile.ZipInfo):
    """An entry whose name is written in GBK, without saying so."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 (the library's)
        return self.filename.encode("gbk"), self.flag_bits & ~0x800


def _gbk_name(name: str) -> zipfile.ZipInfo:
    entry = _GbkName(name, (2026, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _language(request: Request) -> str:
    return LANGUAGES[request.accept_languages.best_match(LANGUAGES, "en") or "en"]


def _written(minor: int) -> str:
    return Money(minor, "CNY").written()


def _time(written: object) -> datetime | None:
    """A time of Beijing."""
    if not isinstance(written, str) or not TIME.fullmatch(written):
        return None
    try:
        return datetime.fromisoformat(written).replace(tzinfo=BEIJING)
    except ValueError:
        return None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=BEIJING)


def _beijing(stored: str) -> str:
    return datetime.fromisoformat(stored).astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")


def _stored(at: datetime) -> str:
    """Of one length, so that the order of the strings is that of the times."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _now() -> datetime:
    return datetime.now(UTC)
