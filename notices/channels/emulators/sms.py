"""Two providers of text messages: one speaks like Twilio, one like Alibaba's Dysms."""

import base64
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

import smsutil
from werkzeug.routing import Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from emulators.deliveries import BACKOFF
from emulators.server import answer
from notices.channels.emulators.carrier import Carrier, form_of

NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
# As at Twilio: numbers for which it pretends.
INVALID, NOT_MOBILE = "+15005550001", "+15005550009"
LONGEST = 1600


class TextCarrier(Carrier):
    """What both share: a text is counted in segments, and whoever has said STOP gets no more."""

    extra = "CREATE TABLE IF NOT EXISTS stopped (number TEXT PRIMARY KEY);"

    def routes(self) -> list[Rule]:
        return [Rule("/stop", methods=["POST"], endpoint=self.stop_sending), *self.calls()]

    @abstractmethod
    def calls(self) -> list[Rule]:
        """Rules of the provider's own API."""

    def stop_sending(self, request: Request) -> Response:
        """The owner of a number answers STOP."""
        with self.books.transaction() as db:
            db.execute("INSERT OR IGNORE INTO stopped VALUES (?)", (request.form["number"],))
        return redirect(f"{self.public_url.removesuffix('/sms')}/", 303)

    def has_stopped(self, db: sqlite3.Connection, number: str) -> bool:
        return bool(db.execute("SELECT 1 FROM stopped WHERE number = ?", (number,)).fetchone())

    def take(self, db: sqlite3.Connection, number: str, text: str, *, reference: str, **more: object) -> None:
        parts = smsutil.split(text)
        more |= {"segments": len(parts.parts), "encoding": parts.encoding}
        self.keep(db, recipient=number, text=text, reference=reference, details=more)


class TwilioShaped(TextCarrier):
    """`account` and `secret` are the SID and the auth token."""

    def __init__(
        self, *, key: str, account: str, secret: str, books: str, backoff: Sequence[float] = BACKOFF
    ) -> None:
        self._account, self._secret = account, secret
        super().__init__(key=key, books=books, backoff=backoff)

    def calls(self) -> list[Rule]:
        path = "/2010-04-01/Accounts/<account>/Messages.json"
        return [Rule(path, methods=["POST"], endpoint=self.send)]

    def sign(self, _webhook_id: str, body: str, is_right: bool, /) -> Mapping[str, str]:
        """The address, and each field's name and value, by name, without anything between."""
        fields = dict(parse_qsl(body, keep_blank_values=True))
        with self.books.transaction() as db:
            row = db.execute(
                "SELECT details FROM message WHERE reference = ?", (fields["MessageSid"],)
            ).fetchone()
        said = json.loads(row["details"])["callback"] + "".join(f"{n}{v}" for n, v in sorted(fields.items()))
        key = self._secret if is_right else "another"
        digest = hmac.new(key.encode(), said.encode(), hashlib.sha1).digest()
        return {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Twilio-Signature": base64.b64encode(digest).decode(),
        }

    def send(self, request: Request, account: str) -> Response:
        if self.goes_wrong():
            return _twilio_error(429, 20429, "Too Many Requests")
        given = request.authorization
        if (
            not given
            or given.type != "basic"
            or (account, given.username, given.password) != (self._account, self._account, self._secret)
        ):
            return _twilio_error(401, 20003, "Authenticate")
        asked = form_of(request)
        number, text = asked.get("To", ""), asked.get("Body", "")
        if not NUMBER.fullmatch(number) or number == INVALID:
            return _twilio_error(400, 21211, f"Invalid 'To' Phone Number: {number}")
        if number == NOT_MOBILE:
            return _twilio_error(400, 21614, "'To' number is not a valid mobile number")
        if not asked.get("From") and not asked.get("MessagingServiceSid"):
            return _twilio_error(400, 21603, "A 'From' phone number is required.")
        if not 0 < len(text) <= LONGEST:
            return _twilio_error(
                400, 21617, "The concatenated message body exceeds the 1600 character limit."
            )
        with self.books.transaction() as db:
            if self.has_stopped(db, number):
                return _twilio_error(400, 21610, "Attempt to send to unsubscribed recipient")
            sid, callback = f"SM{secrets.token_hex(16)}", asked.get("StatusCallback", "")
            self.take(db, number, text, reference=sid, callback=callback)
            if callback:
                told = {"MessageSid": sid, "MessageStatus": "delivered", "AccountSid": account, "To": number}
                self.deliveries.announce(db, url=callback, body=urlencode(told))
        self._stopping.wait(self.faults.now().delay_seconds)
        if self.faults.happens("lost_answers"):
            return Response("", 502)
        return answer({"sid": sid, "status": "queued", "to": number, "body": text}, 201)


class AlibabaShaped(TextCarrier):
    """`account` and `secret` are an access key; `templates` maps a template's code to its variable; reports go to
    `reports_url`.
    """

    def __init__(
        self,
        *,
        key: str,
        account: str,
        secret: str,
        sign_name: str,
        templates: Mapping[str, str],
        reports_url: str,
        books: str,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        self._account, self._secret, self._sign_name = account, secret, sign_name
        self._templates, self._reports_url = templates, reports_url
        super().__init__(key=key, books=books, backoff=backoff)

    def calls(self) -> list[Rule]:
        return [Rule("/", methods=["POST"], endpoint=self.send)]

    def sign(self, _webhook_id: str, _body: str, _is_right: bool, /) -> Mapping[str, str]:
        """Reports are not signed."""
        return {}

    def send(self, request: Request) -> Response:
        if self.goes_wrong():
            return self._answer("isv.BUSINESS_LIMIT_CONTROL", "触发分钟级流控Permits:1")
        if problem := self._problem(request):
            return self._answer(problem, "Specified signature is not matched with our calculation.", 400)
        asked = {name: values[-1] for name, values in parse_qs(request.query_string.decode()).items()}
        number, template = asked.get("PhoneNumbers", ""), asked.get("TemplateCode", "")
        if not re.fullmatch(r"[1-9][0-9]{6,14}", number):
            return self._answer("isv.MOBILE_NUMBER_ILLEGAL", "手机号码格式错误")
        if asked.get("SignName") != self._sign_name:
            return self._answer("isv.SMS_SIGNATURE_ILLEGAL", "该账号下找不到对应签名")
        if template not in self._templates:
            return self._answer("isv.SMS_TEMPLATE_ILLEGAL", "该账号下找不到对应模板")
        variables = json.loads(asked.get("TemplateParam", "{}"))
        if set(variables) != {self._templates[template]}:
            return self._answer("isv.TEMPLATE_MISSING_PARAMETERS", "模板变量缺失")
        (text,) = variables.values()
        if len(number) == 11 and number.startswith("1") and "://" in text:
            return self._answer("isv.PARAM_NOT_SUPPORT_URL", "变量不支持传入URL")
        with self.books.transaction() as db:
            if self.has_stopped(db, number):
                return self._answer("MOBILE_IN_BLACK", "手机号在黑名单")
            biz_id = f"{secrets.randbelow(10**18):018}^0"
            whole = f"【{self._sign_name}】{text}"
            self.take(db, number, whole, reference=biz_id, template=template, out_id=asked.get("OutId", ""))
            report = {
                "phone_number": number,
                "send_time": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
                "report_time": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
                "success": True,
                "err_code": "DELIVERED",
                "err_msg": "用户接收成功",
                "sms_size": "1",
                "biz_id": biz_id,
                "out_id": asked.get("OutId", ""),
            }
            self.deliveries.announce(db, url=self._reports_url, body=json.dumps([report]))
        return self._answer("OK", "OK", BizId=biz_id)

    def _answer(self, code: str, message: str, status: int = 200, **more: str) -> Response:
        return answer({"RequestId": secrets.token_hex(16), "Code": code, "Message": message, **more}, status)

    def _problem(self, request: Request) -> str:
        """The code of what is wrong with the signature (ACS3-HMAC-SHA256); empty if nothing is."""
        found = re.fullmatch(
            r"ACS3-HMAC-SHA256 Credential=([^,]+),SignedHeaders=([^,]+),Signature=([0-9a-f]{64})",
            request.headers.get("Authorization", ""),
        )
        if not found or found[1] != self._account:
            return "InvalidAccessKeyId.NotFound"
        names = found[2].split(";")
        needed = {"host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-version"}
        if not needed <= set(names) or request.headers.get("x-acs-action") != "SendSms":
            return "InvalidAction.NotFound"
        body = hashlib.sha256(request.get_data()).hexdigest()
        if request.headers["x-acs-content-sha256"] != body:
            return "SignatureDoesNotMatch"
        at = datetime.strptime(request.headers["x-acs-date"], "%Y-%m-%dT%H:%M:%S%z")
        if abs((datetime.now(UTC) - at).total_seconds()) > 900:
            return "InvalidTimeStamp.Expired"
        pairs = sorted(parse_qsl(request.query_string.decode(), keep_blank_values=True))
        query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
        lines = [f"{name}:{request.headers.get(name, '').strip()}" for name in names]
        canonical = "\n".join([request.method, "/", query, *lines, "", found[2], body])
        said = "ACS3-HMAC-SHA256\n" + hashlib.sha256(canonical.encode()).hexdigest()
        expected = hmac.new(self._secret.encode(), said.encode(), hashlib.sha256).hexdigest()
        return "" if hmac.compare_digest(expected, found[3]) else "SignatureDoesNotMatch"


def _twilio_error(status: int, code: int, message: str) -> Response:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    return answer({"code": code, "message": message, "more_info": more_info, "status": status}, status)
