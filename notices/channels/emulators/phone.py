"""The customer's phone: one page with all that arrived, by whichever way."""

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path

from django.utils.translation import override
from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from emulators.server import JSON, Emulator, page
from notices.channels.emulators.carrier import Carrier
from notices.channels.emulators.languages import language_of
from notices.channels.emulators.wechat import WechatAccount

STYLE = Path(__file__).with_name("phone.css").read_bytes()


class Phone(Emulator):
    """`carriers` maps how a message comes (push, app, wechat, sms) to who brings it; `shop` is where links lead."""

    schema = ""

    def __init__(self, *, key: str, books: str, shop: str, carriers: Mapping[str, Carrier]) -> None:
        self._carriers = carriers
        self._shop = shop
        super().__init__(key=key, books=books)

    def routes(self) -> list[Rule]:
        return [
            Rule("/", methods=["GET"], endpoint=self.show),
            Rule("/phone.css", methods=["GET"], endpoint=self.style),
        ]

    def sign(self, _webhook_id: str, _body: str, _is_right: bool, /) -> Mapping[str, str]:
        raise NotImplementedError("A phone reports nothing.")

    def everything(self) -> JSON:
        return {}

    def show(self, request: Request) -> Response:
        found = [
            {
                "way": way,
                "at": message.at,
                "title": message.title,
                "lines": message.text.splitlines(),
                "recipient": message.recipient,
                "url": f"{self._shop}{message.url}" if message.url.startswith("/") else message.url,
                "segments": message.details.get("segments"),
            }
            for way, carrier in self._carriers.items()
            for message in carrier.arrived()
        ]
        found.sort(key=itemgetter("at"), reverse=True)
        language = language_of(request)
        follows = any(each.follows() for each in self._carriers.values() if isinstance(each, WechatAccount))
        with override(language):
            return page(
                "emulators/phone/phone.html",
                {
                    "language": language,
                    "messages": found[:60],
                    "ways": list(self._carriers),
                    "follows": follows,
                    "shop": self._shop,
                    "home": self.public_url,
                },
            )

    def style(self, _request: Request) -> Response:
        return Response(STYLE, content_type="text/css; charset=utf-8")
