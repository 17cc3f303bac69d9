"""Settings, all from the environment (see `.env.example`); what is not set is safe for production."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import django_stubs_ext
import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.utils.translation import gettext_lazy as _

# Forms, admins and views name their model in their type, which Django's classes take only after this.
django_stubs_ext.monkeypatch()

env = environ.Env()

BASE_DIR = Path(__file__).resolve().parent.parent
if (BASE_DIR / ".env").exists():
    env.read_env(BASE_DIR / ".env")

# --- what kind of installation this is ---------------------------------------------------------------

DEBUG = env.bool("DEBUG", default=False)
# The embedded demo: its mail is read in the browser, the sandbox gateway is offered, logins are shown.
DEMO = env.bool("DEMO", default=False)
# Everything the installation writes outside its database.
VAR_DIR = Path(env.str("VAR_DIR", default=str(BASE_DIR / "var"))).resolve()
VAR_DIR.mkdir(parents=True, exist_ok=True)

SECRET_KEY = env.str("SECRET_KEY", default="")
if not SECRET_KEY:
    if not (DEBUG or DEMO):
        raise ImproperlyConfigured("SECRET_KEY is not set. Put a long random string into the environment.")
    SECRET_KEY = "only-for-debugging-and-the-demo-never-for-customers"  # noqa: S105

SITE_URL = env.str("SITE_URL", default="http://127.0.0.1:8000").rstrip("/")
SITE_HOST = urlsplit(SITE_URL).hostname or "127.0.0.1"
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[SITE_HOST])
CSRF_TRUSTED_ORIGINS = [SITE_URL]
HTTPS = SITE_URL.startswith("https://")

# --- the shop ----------------------------------------------------------------------------------------

# Devices go only to lines captured at least this long ago, so that a webhook that comes late does not
# cost its customer the place (published on the order page).
ALLOCATION_HOLD_BACK = timedelta(seconds=env.int("ALLOCATION_HOLD_BACK_SECONDS", default=600))
# How long an unpaid order keeps its units, and how long after that a capture may still be reported.
PAYMENT_WINDOW = timedelta(minutes=env.int("PAYMENT_WINDOW_MINUTES", default=30))
PAYMENT_GRACE = timedelta(minutes=env.int("PAYMENT_GRACE_MINUTES", default=15))
BASKET_LIFETIME = timedelta(hours=env.int("BASKET_LIFETIME_HOURS", default=24))
# Pre-sale is offered for terms of at least this many days.
PRESALE_MINIMUM_DAYS: int = env.int("PRESALE_MINIMUM_DAYS", default=30)
# An estimate that moves by fewer days than this is not worth a message.
ESTIMATE_MATERIAL_DAYS: int = env.int("ESTIMATE_MATERIAL_DAYS", default=2)
# Silence is the commonest complaint: a customer who waits hears from us at least this often.
ESTIMATE_UPDATE_EVERY = timedelta(days=env.int("ESTIMATE_UPDATE_DAYS", default=7))
# How long before its end a service period is spoken of (5.1).
EXPIRY_NOTICE = timedelta(days=env.int("EXPIRY_NOTICE_DAYS", default=7))
# How long ahead a change of fees is announced (3.2).
FEE_NOTICE = timedelta(days=env.int("FEE_NOTICE_DAYS", default=7))
SHOP_CURRENCIES = ("USD", "HKD", "CNY", "EUR", "JPY")
CONTRACT_TIME_ZONE = "Asia/Hong_Kong"
# Who sells, as printed on invoices and credit notes, and whose years they are numbered by.
SELLER_NAME = env.str("SELLER_NAME", default="VMOS Cloud")
SELLER_ADDRESS = env.str("SELLER_ADDRESS", default="1 Sample Road\nHong Kong" if DEMO else "", multiline=True)
SELLER_TAX_ID = env.str("SELLER_TAX_ID", default="")
SELLER_TIME_ZONE = ZoneInfo(env.str("SELLER_TIME_ZONE", default=CONTRACT_TIME_ZONE))

# --- the agreements ----------------------------------------------------------------------------------

# How long after its publication a revision may be asked about (9.1), in contract days.
QUESTION_PERIOD_DAYS: int = env.int("QUESTION_PERIOD_DAYS", default=3)
# How long a guardian may take to confirm an order; its units are held so long.
GUARDIAN_WINDOW = timedelta(hours=env.int("GUARDIAN_WINDOW_HOURS", default=72))
# The buyer is hardly in front of the screen when his guardian confirms: he has longer to pay than others.
PAYMENT_WINDOW_AFTER_GUARDIAN = timedelta(hours=env.int("PAYMENT_WINDOW_AFTER_GUARDIAN_HOURS", default=24))
# Within so many days a customer's case has its first answer (II, "friendly consultation").
CASE_ANSWER_DAYS: int = env.int("CASE_ANSWER_DAYS", default=5)
# Keys of the statutory rights that apply (`agreements/rights/`), the first one that knows a country wins.
STATUTORY_RIGHTS: list[str] = env.list("STATUTORY_RIGHTS", default=["eu", "uk"] if DEMO else [])
# Where the agreements are signed (9.2): shown as the location of the platform.
PLATFORM_LOCATION = env.str("PLATFORM_LOCATION", default="")

# --- payment gateways --------------------------------------------------------------------------------

# How long the headers and bodies of webhooks are kept, which name buyers: as long as PayPal lets them dispute.
WEBHOOK_RETENTION = timedelta(days=env.int("WEBHOOK_RETENTION_DAYS", default=180))

# Which gateway processes a method, in the order in which buyers see the methods: alipay=stripe in every currency,
# alipay:CNY=alipay in one. What a gateway lacks takes its methods off the list. `orders.checks` reads it over.
PAYMENT_METHODS: list[str] = env.list(
    "PAYMENT_METHODS",
    default=[
        "card=stripe",
        "paypal=paypal",
        "alipay=stripe",
        "wechat=stripe",
        "bitcoin=nowpayments",
        "ethereum=nowpayments",
        "sandbox=sandbox",
    ],
)
# A gateway speaks https. The emulators that ship with the shop do not: only the demo lets them in.
ALLOW_EMULATORS = env.bool("ALLOW_EMULATORS", default=DEMO)
SANDBOX_GATEWAY_URL = env.str("SANDBOX_GATEWAY_URL", default="").rstrip("/")
SANDBOX_GATEWAY_KEY = env.str("SANDBOX_GATEWAY_KEY", default="")
SANDBOX_WEBHOOK_SECRET = env.str("SANDBOX_WEBHOOK_SECRET", default="")
# What the emulators of Alipay and WeChat Pay sign with: the private half of ALIPAY_PUBLIC_KEY and WECHAT_PUBLIC_KEY.
EMULATOR_PRIVATE_KEY = env.str("EMULATOR_PRIVATE_KEY", default="", multiline=True)
STRIPE_URL = env.str("STRIPE_URL", default="https://api.stripe.com").rstrip("/")
STRIPE_SECRET_KEY = env.str("STRIPE_SECRET_KEY", default="")
STRIPE_WEBHOOK_SECRET = env.str("STRIPE_WEBHOOK_SECRET", default="")
PAYPAL_URL = env.str("PAYPAL_URL", default="https://api-m.paypal.com").rstrip("/")
PAYPAL_CLIENT_ID = env.str("PAYPAL_CLIENT_ID", default="")
PAYPAL_CLIENT_SECRET = env.str("PAYPAL_CLIENT_SECRET", default="")
PAYPAL_WEBHOOK_ID = env.str("PAYPAL_WEBHOOK_ID", default="")
ALIPAY_URL = env.str("ALIPAY_URL", default="https://openapi.alipay.com/gateway.do")
ALIPAY_APP_ID = env.str("ALIPAY_APP_ID", default="")
ALIPAY_SELLER_ID = env.str("ALIPAY_SELLER_ID", default="")
ALIPAY_PRIVATE_KEY = env.str("ALIPAY_PRIVATE_KEY", default="", multiline=True)
ALIPAY_PUBLIC_KEY = env.str("ALIPAY_PUBLIC_KEY", default="", multiline=True)
WECHAT_URL = env.str("WECHAT_URL", default="https://api.mch.weixin.qq.com").rstrip("/")
WECHAT_MERCHANT_ID = env.str("WECHAT_MERCHANT_ID", default="")
WECHAT_APP_ID = env.str("WECHAT_APP_ID", default="")
WECHAT_PRIVATE_KEY = env.str("WECHAT_PRIVATE_KEY", default="", multiline=True)
WECHAT_CERTIFICATE_SERIAL = env.str("WECHAT_CERTIFICATE_SERIAL", default="")
WECHAT_API_V3_KEY = env.str("WECHAT_API_V3_KEY", default="")
WECHAT_PUBLIC_KEY = env.str("WECHAT_PUBLIC_KEY", default="", multiline=True)
WECHAT_PUBLIC_KEY_ID = env.str("WECHAT_PUBLIC_KEY_ID", default="")
NOWPAYMENTS_URL = env.str("NOWPAYMENTS_URL", default="https://api.nowpayments.io").rstrip("/")
NOWPAYMENTS_API_KEY = env.str("NOWPAYMENTS_API_KEY", default="")
NOWPAYMENTS_IPN_SECRET = env.str("NOWPAYMENTS_IPN_SECRET", default="")
NOWPAYMENTS_EMAIL = env.str("NOWPAYMENTS_EMAIL", default="")
NOWPAYMENTS_PASSWORD = env.str("NOWPAYMENTS_PASSWORD", default="")
BTCPAY_URL = env.str("BTCPAY_URL", default="").rstrip("/")
BTCPAY_API_KEY = env.str("BTCPAY_API_KEY", default="")
BTCPAY_STORE_ID = env.str("BTCPAY_STORE_ID", default="")
BTCPAY_WEBHOOK_SECRET = env.str("BTCPAY_WEBHOOK_SECRET", default="")

# --- Django ------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "anymail",
    "csp",
    "django_htmx",
    "evidence",
    "accounts",
    "notices",
    "agreements",
    "inventory",
    "orders",
]
if DEMO:
    INSTALLED_APPS.append("vmos_presale.demo")

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "vmos_presale.csp.PolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "accounts.middleware.TimeZoneMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "vmos_presale.urls"
WSGI_APPLICATION = "vmos_presale.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "notices.context.unread",
                "notices.context.announced",
                "agreements.context.revisions",
                "orders.context.shop",
            ],
        },
    }
]

# --- database ----------------------------------------------------------------------------------------

DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{VAR_DIR}/db.sqlite3")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Writers queue for the lock instead of failing half way (BEGIN IMMEDIATE); readers are not blocked (WAL).
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 60
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# SQLite keeps the queue's index without its extra columns; that is all the check says.
SILENCED_SYSTEM_CHECKS = ["models.W040"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="")
if REDIS_URL:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# --- Celery ------------------------------------------------------------------------------------------

CELERY_BROKER_URL = env.str("BROKER_URL", default="filesystem://")
if CELERY_BROKER_URL == "filesystem://":
    _broker = VAR_DIR / "broker"
    for _name in ("messages", "control"):
        (_broker / _name).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(_broker / "messages"),
        "data_folder_out": str(_broker / "messages"),
        "control_folder": str(_broker / "control"),
        "store_processed": False,
        "polling_interval": 0.1,
    }
    # Remote control talks by a file that two workers starting at once spoil for one another.
    CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# What waits for other people's servers has workers of its own, so that no sweep waits with it.
CELERY_TASK_ROUTES = {
    "notices.*": {"queue": "outside"},
    "orders.process_webhooks": {"queue": "outside"},
    "orders.poll_payments": {"queue": "outside"},
    "orders.send_returns": {"queue": "outside"},
    "orders.reconcile": {"queue": "outside"},
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

# --- people ------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_REDIRECT_URL = "orders:orders"
LOGIN_URL = "account_login"
ACCOUNT_ADAPTER = "accounts.adapter.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_CONFIRM_EMAIL_ON_GET = False
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_LOGOUT_REDIRECT_URL = "orders:shop"

# --- mail --------------------------------------------------------------------------------------------

DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="VMOS Cloud <no-reply@example.com>")
# Where customers write to: shown on the site, and the Reply-To of every mail.
SUPPORT_EMAIL = env.str("SUPPORT_EMAIL", default="")
if DEMO:
    EMAIL_BACKEND = "vmos_presale.demo.mailbox.MailboxBackend"
    MAILBOX_DIR = VAR_DIR / "mail"
else:
    vars().update(env.email_url("EMAIL_URL", default="smtp://localhost:25"))
    # An Anymail backend (anymail.backends.…) sends by a provider's API, with its keys in ANYMAIL as JSON.
    EMAIL_BACKEND = env.str("EMAIL_BACKEND", default=vars()["EMAIL_BACKEND"])
    if EMAIL_BACKEND == "django.core.mail.backends.smtp.EmailBackend":
        EMAIL_BACKEND = "notices.channels.smtp.EmailBackend"  # which keeps the server's answer
    ANYMAIL = env.json("ANYMAIL", default={})
EMAIL_TIMEOUT = 15
# To so many customers one member of staff may write alone; to more, another one has to approve it.
BROADCAST_ALONE: int = env.int("BROADCAST_ALONE", default=100)
# What nobody knows the end of (the worker died, the provider was silent) is sent once more after so many minutes, if no
# report of it has come: it may then arrive twice.
NOTICE_REPEAT_MINUTES = env.float("NOTICE_REPEAT_MINUTES", default=60.0)
# How often an open page asks whether there are new messages.
INBOX_POLL_SECONDS: int = env.int("INBOX_POLL_SECONDS", default=60)
# How many mails may leave in a second, all workers together.
EMAIL_PER_SECOND = env.float("EMAIL_PER_SECOND", default=50.0)

# --- push, the platform's app, WeChat, text messages -------------------------------------------------
# What a channel lacks takes it off the list of what customers can set up.

# The key by which browsers know who sends, PEM or as 43 characters, and where push services complain.
PUSH_VAPID_PRIVATE_KEY = env.str("PUSH_VAPID_PRIVATE_KEY", default="", multiline=True)
PUSH_VAPID_SUBJECT = env.str("PUSH_VAPID_SUBJECT", default=f"mailto:{SUPPORT_EMAIL}" if SUPPORT_EMAIL else "")
# Hosts of push services; a dot in front: whatever is below. An endpoint comes from the browser, so nothing else is
# ever spoken to.
PUSH_HOSTS: list[str] = env.list(
    "PUSH_HOSTS",
    default=[
        "fcm.googleapis.com",
        "updates.push.services.mozilla.com",
        ".notify.windows.com",
        ".push.apple.com",
    ],
)
PUSH_PER_SECOND = env.float("PUSH_PER_SECOND", default=100.0)
# Where the server of the platform's mobile app takes messages for its devices, and what both sides sign with.
APP_PUSH_URL = env.str("APP_PUSH_URL", default="")
APP_PUSH_SECRET = env.str("APP_PUSH_SECRET", default="")
# The app opens this address, with a token, to bind its device to a customer.
APP_BIND_URL = env.str("APP_BIND_URL", default="")
APP_PER_SECOND = env.float("APP_PER_SECOND", default=100.0)
WECHAT_OA_URL = env.str("WECHAT_OA_URL", default="https://api.weixin.qq.com").rstrip("/")
WECHAT_OA_CONNECT_URL = env.str("WECHAT_OA_CONNECT_URL", default="https://open.weixin.qq.com").rstrip("/")
WECHAT_OA_APP_ID = env.str("WECHAT_OA_APP_ID", default="")
WECHAT_OA_SECRET = env.str("WECHAT_OA_SECRET", default="")
WECHAT_OA_TEMPLATE_ID = env.str("WECHAT_OA_TEMPLATE_ID", default="")
# What the fields of that template are called.
WECHAT_OA_FIELDS: dict[str, str] = env.dict(
    "WECHAT_OA_FIELDS", default={"kind": "thing1", "text": "thing2", "about": "character_string3"}
)
# Of its message server: the token, and the key with which it encrypts.
WECHAT_OA_TOKEN = env.str("WECHAT_OA_TOKEN", default="")
WECHAT_OA_AES_KEY = env.str("WECHAT_OA_AES_KEY", default="")
WECHAT_OA_PER_SECOND = env.float("WECHAT_OA_PER_SECOND", default=50.0)
# twilio or alibaba, or a server that speaks like one.
SMS_PROVIDER = env.str("SMS_PROVIDER", default="")
SMS_URL = env.str(
    "SMS_URL",
    default={"twilio": "https://api.twilio.com", "alibaba": "https://dysmsapi.aliyuncs.com"}.get(
        SMS_PROVIDER, ""
    ),
).rstrip("/")
# Account and its secret: SID and auth token, or the two halves of an access key.
SMS_ACCOUNT = env.str("SMS_ACCOUNT", default="")
SMS_SECRET = env.str("SMS_SECRET", default="")
# A number or a messaging service; with Alibaba the approved signature.
SMS_SENDER = env.str("SMS_SENDER", default="")
# Alibaba sends approved templates only: one with the variable "text", one with the variable "code".
SMS_TEMPLATE = env.str("SMS_TEMPLATE", default="")
SMS_CODE_TEMPLATE = env.str("SMS_CODE_TEMPLATE", default="")
# Part of the address for Alibaba's reports, which are not signed.
SMS_REPORT_TOKEN = env.str("SMS_REPORT_TOKEN", default="")
# A longer text is cut.
SMS_MOST_SEGMENTS: int = env.int("SMS_MOST_SEGMENTS", default=3)
SMS_PER_SECOND = env.float("SMS_PER_SECOND", default=10.0)
# The phone of the demo, which all these may lead to instead; never in production. Its key opens what is a tester's.
PHONE_URL = env.str("PHONE_URL", default="").rstrip("/")
PHONE_KEY = env.str("PHONE_KEY", default="")

# --- languages and times -----------------------------------------------------------------------------

LANGUAGE_CODE = "en"
LANGUAGES = [
    ("en", _("English")),
    ("zh-hans", _("Simplified Chinese")),
    ("zh-hant", _("Traditional Chinese")),
]
LOCALE_PATHS = [BASE_DIR / "locale"]
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
USE_TZ = True
TIME_ZONE = "UTC"

# --- static files ------------------------------------------------------------------------------------

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = VAR_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": env.str(
            "STATICFILES_BACKEND", default="whitenoise.storage.CompressedManifestStaticFilesStorage"
        )
    },
}

# --- security ----------------------------------------------------------------------------------------

SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_PROXY", default=False) else None
)
# allauth limits attempts by address: behind a proxy, that of the visitor and not the proxy's.
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if env.bool("BEHIND_PROXY", default=False) else 0
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^health$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        # `vmos_presale.csp` adds the pages of the gateways.
        "form-action": [SELF],
    }
}

# --- admin -------------------------------------------------------------------------------------------

UNFOLD = {
    "SITE_TITLE": "VMOS Cloud pre-sale",
    "SITE_HEADER": "VMOS Cloud pre-sale",
    "SITE_URL": "/",
    "SITE_SYMBOL": "smartphone",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": True,
    "SHOW_LANGUAGES": True,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda _request: static("favicon.svg")}
    ],
    "STYLES": [lambda _request: static("css/admin.css")],
    "DASHBOARD_CALLBACK": "vmos_presale.dashboard.overview",
    "SIDEBAR": {
        "show_search": True,
        "navigation": "vmos_presale.navigation.navigation",
    },
}

# --- logs --------------------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {
        # One line per poll and tick says nothing.
        "celery.beat": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        # The embedded broker's address has no host, and needs none.
        "kombu.connection": {"level": "ERROR"},
    },
}
