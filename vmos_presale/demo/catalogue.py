"""What the demo sells, and how its supply went so far. All of it is made up.

Model names, Android versions and two of the prices (V08 at 4.99 USD, Samsung Galaxy A53 at 13.99 USD for 30 days)
are in the manner of the platform's public examples. Fees in other currencies are the dollar fee at a fixed rate,
rounded: see `RATES`. Days count from the day of seeding, negative ones are past.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from inventory.models import Region
from inventory.money import exponent_of


@dataclass(frozen=True, slots=True)
class PastBatch:
    """Devices expected on day `expected`, received `late` days after it."""

    expected: int
    late: int
    quantity: int


@dataclass(frozen=True, slots=True)
class ComingBatch:
    """Devices first expected on day `first_expected`, since day `moved` on day `expected`."""

    announced: int
    first_expected: int
    quantity: int
    expected: int
    moved: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A plan. `waiting` and `free` are the units of today, `usd` and `next_month` cents by days of the term."""

    name: str
    slug: str
    android: int
    cpu_cores: int
    ram_gb: int
    storage_gb: int
    region: Region
    presale_cap: int
    usd: Mapping[int, int]
    past: tuple[PastBatch, ...]
    coming: tuple[ComingBatch, ...] = ()
    waiting: int = 0
    free: int = 0
    next_month: Mapping[int, int] | None = None


V08_USD = {7: 179, 30: 499, 90: 1399, 180: 2699, 365: 4999}

# The demo customer waits for the first and uses the second.
QUEUED = "v08-android-13-hong-kong"
IN_STOCK = "v08-android-10-singapore"
SOON = "samsung-galaxy-a53-android-14-hong-kong"

MODELS = (
    Model(
        "V08", QUEUED, 13, 4, 4, 32, Region.HONG_KONG,
        presale_cap=1800,
        usd=V08_USD,
        past=(
            PastBatch(-112, 0, 180),
            PastBatch(-90, 2, 160),
            PastBatch(-69, 5, 200),
            PastBatch(-48, 0, 150),
            PastBatch(-38, 9, 220),
            PastBatch(-14, 3, 190),
        ),
        coming=(
            ComingBatch(announced=-30, first_expected=4, quantity=500, expected=6, moved=-2),
            ComingBatch(announced=-7, first_expected=27, quantity=600, expected=27),
        ),
        waiting=1198,
    ),
    Model(
        "V08", IN_STOCK, 10, 4, 4, 32, Region.SINGAPORE,
        presale_cap=200,
        usd=V08_USD,
        past=(PastBatch(-104, 0, 120), PastBatch(-62, 1, 100), PastBatch(-33, 0, 150)),
        free=47,
    ),
    Model(
        "V06", "v06-android-13-united-states", 13, 6, 6, 48, Region.UNITED_STATES,
        presale_cap=300,
        usd={7: 269, 30: 799, 90: 2249, 180: 4299, 365: 7999},
        past=(PastBatch(-110, 4, 50), PastBatch(-95, 0, 40), PastBatch(-78, 7, 60)),
        waiting=64,
        next_month={7: 249, 30: 749, 90: 2099, 180: 3999, 365: 7499},
    ),
    Model(
        "Samsung Galaxy A53", SOON, 14, 8, 8, 64, Region.HONG_KONG,
        presale_cap=250,
        usd={7: 449, 30: 1399, 90: 3899, 180: 7499, 365: 13999},
        past=(
            PastBatch(-108, 0, 30),
            PastBatch(-92, 1, 40),
            PastBatch(-73, 0, 35),
            PastBatch(-52, 3, 40),
            PastBatch(-31, 0, 35),
            PastBatch(-13, 2, 30),
        ),
        coming=(ComingBatch(announced=-12, first_expected=1, quantity=60, expected=1),),
        waiting=18,
    ),
    Model(
        "Samsung S23 Ultra", "samsung-s23-ultra-android-13-singapore", 13, 8, 12, 128, Region.SINGAPORE,
        presale_cap=300,
        usd={7: 699, 30: 2199, 90: 6199, 180: 11899, 365: 21999},
        past=(
            PastBatch(-105, 12, 60),
            PastBatch(-94, 21, 50),
            PastBatch(-66, 9, 70),
            PastBatch(-64, 30, 55),
            PastBatch(-35, 17, 60),
        ),
        coming=(ComingBatch(announced=-45, first_expected=-12, quantity=80, expected=3, moved=-15),),
        waiting=95,
    ),
    Model(
        "Pixel 8", "pixel-8-android-14-germany", 14, 8, 12, 128, Region.GERMANY,
        presale_cap=120,
        usd={7: 649, 30: 1999, 90: 5649, 180: 10899, 365: 19999},
        past=(PastBatch(-97, 3, 40), PastBatch(-58, 0, 35), PastBatch(-28, 6, 40)),
        free=6,
        next_month={7: 679, 30: 2099, 90: 5899, 180: 11399, 365: 20999},
    ),
)  # fmt: skip

# Units of a currency for one dollar, and the step (in minor units) to which a fee is rounded.
RATES = {
    "USD": (Decimal(1), 1),
    "HKD": (Decimal("7.8"), 10),
    "CNY": (Decimal("7.2"), 10),
    "EUR": (Decimal("0.92"), 5),
    "JPY": (Decimal(150), 10),
}


def fee_in(currency: str, cents: int) -> int:
    """The minor units of `currency` that the demo asks for `cents` US cents."""
    rate, step = RATES[currency]
    minor = Decimal(cents).scaleb(exponent_of(currency) - 2) * rate
    return int((minor / step).quantize(Decimal(1), ROUND_HALF_UP)) * step


# Who can sign in.
CUSTOMER, STAFF, APPROVER = "customer@example.com", "staff@example.com", "approver@example.com"
PASSWORD = "presale-demo"  # noqa: S105 (shown to whoever starts the demo)

CUSTOMERS = 1500
CUSTOMERS_DOMAIN = "people.example.com"
GIVEN_NAMES = (
    "Wei", "Mei", "Jun", "Lan", "Hao", "Yan", "Min", "Ling", "Tao", "Xin", "Anna", "Ben", "Carla", "David", "Elena",
    "Finn", "Grace", "Hiro", "Ivan", "Julia", "Kenji", "Lucas", "Maria", "Noah", "Olivia", "Pablo", "Rosa", "Sofia",
)  # fmt: skip
FAMILY_NAMES = (
    "Chen", "Wang", "Li", "Zhang", "Liu", "Yang", "Huang", "Wu", "Zhou", "Lam", "Ho", "Chan", "Tan", "Lim", "Smith",
    "Garcia", "Novak", "Mueller", "Rossi", "Sato", "Suzuki", "Tanaka", "Silva", "Kim", "Park", "Ivanova", "Jensen",
)  # fmt: skip
# Language, time zone and currency of the customers, and how many in 100 have them.
HABITS = (
    ("zh-hans", "Asia/Shanghai", "CNY", 30),
    ("zh-hant", "Asia/Hong_Kong", "HKD", 20),
    ("en", "Asia/Singapore", "USD", 15),
    ("en", "America/New_York", "USD", 15),
    ("en", "Europe/Berlin", "EUR", 12),
    ("en", "Asia/Tokyo", "JPY", 8),
)
# Where those live who have a time zone of the above.
COUNTRY_OF = {
    "Asia/Shanghai": "CN",
    "Asia/Hong_Kong": "HK",
    "Asia/Singapore": "SG",
    "America/New_York": "US",
    "Europe/Berlin": "DE",
    "Asia/Tokyo": "JP",
}
BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
)
