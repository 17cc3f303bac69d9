"""The ways to pay as staff see them: in which currency each is on offer, by which gateway, or why it is not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.utils.functional import Promise

from orders.gateways import GATEWAYS, LABELS, Method, gateway_named, methods_in, problems
from orders.models import ReviewItem, ReviewKind


@dataclass(frozen=True, slots=True)
class GatewayStanding:
    """One gateway. `lacks` are names of settings, never what is in them; `is_used`: some rule names it.

    `refusal` is the newest item for review that says it does not know us, until somebody has resolved it.
    """

    label: str | Promise
    lacks: Sequence[str]
    currencies: Sequence[str]
    is_used: bool
    refusal: ReviewItem | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One method in one currency. Without `gateway` there is no rule for it."""

    currency: str
    gateway: GatewayStanding | None

    @property
    def is_taken(self) -> bool:
        """Whether the gateway takes the currency."""
        return self.gateway is not None and self.currency in self.gateway.currencies

    @property
    def is_on_offer(self) -> bool:
        """As `gateways.methods_on_offer` decides it."""
        return self.gateway is not None and self.is_taken and not self.gateway.lacks


@dataclass(frozen=True, slots=True)
class Row:
    label: str | Promise
    cells: Sequence[Cell]

    @property
    def is_on_offer(self) -> bool:
        return any(cell.is_on_offer for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Overview:
    """`problems` are those of PAYMENT_METHODS: while there is one, nothing is on offer, and there are no rows."""

    problems: Sequence[str]
    rows: Sequence[Row]
    gateways: Sequence[GatewayStanding]

    @property
    def on_offer(self) -> int:
        """How many methods are on offer in one currency at least."""
        return sum(row.is_on_offer for row in self.rows)

    @property
    def unpayable(self) -> Sequence[str]:
        """The currencies in which nothing is on offer."""
        payable = {cell.currency for row in self.rows for cell in row.cells if cell.is_on_offer}
        return [currency for currency in settings.SHOP_CURRENCIES if currency not in payable]

    @property
    def is_urgent(self) -> bool:
        """Whether somebody has to do something, so that buyers can pay."""
        return bool(self.unpayable) or any(each.is_used and each.refusal for each in self.gateways)


def overview() -> Overview:
    """Every method, those that buyers see first in their order, and every gateway."""
    wrong = problems()
    by_currency = {currency: [] if wrong else methods_in(currency) for currency in settings.SHOP_CURRENCIES}
    used = {method.gateway for methods in by_currency.values() for method in methods}
    standings = dict(_standings(used))
    return Overview(
        problems=wrong,
        rows=[] if wrong else list(_rows(by_currency, standings)),
        gateways=list(standings.values()),
    )


def _standings(used: set[str]) -> Iterator[tuple[str, GatewayStanding]]:
    refusals = _refusals()
    for slug in GATEWAYS:
        gateway = gateway_named(slug)
        takes = [currency for currency in settings.SHOP_CURRENCIES if currency in gateway.currencies]
        yield (
            slug,
            GatewayStanding(gateway.label, gateway.missing(), takes, slug in used, refusals.get(slug)),
        )


def _refusals() -> Mapping[str, ReviewItem]:
    """By gateway, which is the first word of the item's key."""
    items = ReviewItem.objects.filter(kind=ReviewKind.GATEWAY_REFUSES_US, resolved_at=None).order_by("pk")
    return {item.dedupe_key.removeprefix(f"{item.kind}:").partition(":")[0]: item for item in items}


def _rows(
    by_currency: Mapping[str, Sequence[Method]], standings: Mapping[str, GatewayStanding]
) -> Iterator[Row]:
    chosen = {
        (method.slug, currency): standings[method.gateway]
        for currency, methods in by_currency.items()
        for method in methods
    }
    for slug in dict.fromkeys([*(slug for slug, _currency in chosen), *LABELS]):
        yield Row(LABELS[slug], [Cell(currency, chosen.get((slug, currency))) for currency in by_currency])
