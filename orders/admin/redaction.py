"""What staff see of a webhook: what happened to which payment, and nothing of the buyer (names, addresses, digits of
cards) and nothing that opens a door (signatures, tokens).

Shown is what is known to be harmless, by its name and its form; whatever else a provider may say is not.
"""

import json
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

HIDDEN = "…"
# Numbers, words without a space, references and times: no address, and no full name.
HARMLESS = re.compile(r"[A-Za-z0-9_.:+\-]*( [0-9:.]+)?")
HEADERS = re.compile(r"content-type|.+-(algo|id|serial|time|timestamp)")
# Which event it is, of what and when.
EVENT = (
    "api_version created create_time event event_type event_version gmt_close gmt_create gmt_payment gmt_refund id "
    "isRedelivery livemode notify_id notify_time notify_type object original_type resource_type resource_version "
    "timestamp type update_time version"
)
# Which payment it is about, by our name for it and by the provider's.
PAYMENT = (
    "charge client_reference_id custom_id deliveryId invoiceId invoice_id order_id orderId originalDeliveryId "
    "out_biz_no out_trade_no parent_payment_id passback_params payment payment_id payment_intent paymentMethodId "
    "purchase_id reference reference_id storeId trade_no webhookId"
)
# What became of it, and over how much.
OUTCOME = (
    "actually_paid afterExpiration amount amount_captured amount_refunded amount_subtotal amount_total captured "
    "currency currency_code disputed final_capture intent manuallyMarked mode outcome_amount outcome_currency "
    "overPaid paid partiallyPaid pay_amount pay_currency payment_status price_amount price_currency reason refund_fee "
    "refunded status total_amount trade_status value"
)
NAMES = frozenset(f"{EVENT} {PAYMENT} {OUTCOME}".split())


def body_shown(body: bytes) -> str:
    """The body of a webhook, JSON or a form, without what nobody needs to see."""
    try:
        text = body.decode()
        read = json.loads(text) if text.lstrip().startswith(("{", "[")) else dict(parse_qsl(text))
        return json.dumps(_shown(read, name=""), indent=2, ensure_ascii=False) if read else HIDDEN
    except (ValueError, RecursionError):
        return HIDDEN


def headers_shown(headers: Mapping[str, str]) -> str:
    """The headers of a webhook, line by line; of signatures and addresses only that they were there."""
    return "\n".join(
        f"{name}: {value if HEADERS.fullmatch(name) else HIDDEN}" for name, value in sorted(headers.items())
    )


def _shown(value: object, *, name: str) -> object:
    match value:
        case dict():
            return {
                key if HARMLESS.fullmatch(key) else HIDDEN: _shown(inner, name=key)
                for key, inner in value.items()
            }
        case list():
            return [_shown(inner, name=name) for inner in value]
        case None | bool():
            return value
        case _:
            return value if name in NAMES and HARMLESS.fullmatch(str(value)) else HIDDEN
