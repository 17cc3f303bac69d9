"""In which of the site's languages an emulator's page is shown."""

from werkzeug.wrappers import Request

LANGUAGES = {"en": "en", "zh-CN": "zh-hans", "zh": "zh-hans", "zh-HK": "zh-hant", "zh-TW": "zh-hant"}


def language_of(request: Request) -> str:
    return LANGUAGES[request.accept_languages.best_match(LANGUAGES, "en") or "en"]
