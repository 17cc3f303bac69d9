"""The sidebar of the admin, by what staff come to do. Everybody sees what he may open."""

from collections.abc import Iterator
from typing import NamedTuple, TypedDict

from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class Item(TypedDict):
    title: str | Promise
    icon: str
    link: str
    active: bool


class Section(TypedDict):
    title: str | Promise
    separator: bool
    items: list[Item]


class Page(NamedTuple):
    """A page of one table, mostly its list: `app_model`, its name in the sidebar, and a Material symbol.

    Who may view the table may open the page.
    """

    model: str
    title: str | Promise
    icon: str
    view: str = "changelist"


SECTIONS: tuple[tuple[str | Promise, tuple[Page, ...]], ...] = (
    (
        _("Queue & orders"),
        (
            Page("orders_orderline", _("Queue"), "format_list_numbered"),
            Page("orders_order", _("Orders"), "receipt_long"),
            Page("orders_allocation", _("Allocations"), "smartphone"),
            Page("orders_estimate", _("Estimates"), "event_upcoming"),
            Page("orders_forecast", _("Forecasts"), "online_prediction"),
            Page("orders_queueevent", _("Fairness ledger"), "menu_book"),
            Page("orders_publishedhead", _("Published heads"), "verified"),
            Page("orders_case", _("Cases"), "forum"),
        ),
    ),
    (
        _("Money"),
        (
            Page("orders_reviewitem", _("For review"), "rule"),
            Page("orders_refund", _("Refunds"), "undo"),
            Page("orders_shortfall", _("Unable to supply"), "production_quantity_limits"),
            Page("orders_payout", _("Payouts by hand"), "payments"),
            Page("orders_moneyreturn", _("Returned money"), "currency_exchange"),
            Page("orders_paymentattempt", _("Payment methods"), "tune", view="methods"),
            Page("orders_paymentattempt", _("Payment attempts"), "credit_card"),
            Page("orders_ledgerentry", _("Ledger"), "account_balance"),
            Page("orders_document", _("Documents"), "request_quote"),
            Page("orders_webhookevent", _("Webhooks"), "webhook"),
        ),
    ),
    (
        _("Supply"),
        (
            Page("inventory_plan", _("Plans"), "category"),
            Page("inventory_feeschedule", _("Fee schedules"), "sell"),
            Page("inventory_supplybatch", _("Supply batches"), "local_shipping"),
            Page("inventory_device", _("Devices"), "devices"),
            Page("inventory_quarantine", _("Quarantine"), "health_and_safety"),
            Page("inventory_supplyreceipt", _("Supply receipts"), "inventory"),
        ),
    ),
    (
        _("Agreements"),
        (
            Page("agreements_draft", _("Drafts"), "edit_document"),
            Page("agreements_version", _("Versions"), "history_edu"),
            Page("agreements_text", _("Texts"), "article"),
            Page("agreements_acceptance", _("Acceptances"), "handshake"),
            Page("orders_guardianrequest", _("Guardians"), "family_restroom"),
            Page("agreements_question", _("Questions"), "contact_support"),
            Page("agreements_statutoryright", _("Statutory rights"), "balance"),
        ),
    ),
    (
        _("Notices"),
        (
            Page("notices_notice", _("Notices"), "campaign"),
            Page("notices_channelpace", _("Outbox"), "speed"),
            Page("notices_delivery", _("Deliveries"), "outgoing_mail"),
            Page("notices_letterbatch", _("Letters"), "local_post_office"),
            Page("notices_announcement", _("Announcements"), "brand_awareness"),
            Page("notices_broadcast", _("Messages to many"), "forward_to_inbox"),
            Page("notices_wording", _("Wordings"), "edit_note"),
            Page("notices_message", _("Message texts"), "mail"),
            Page("notices_inboxmessage", _("Inbox messages"), "inbox"),
            Page("notices_contactpoint", _("Contact points"), "contacts"),
        ),
    ),
    (
        _("People"),
        (
            Page("accounts_user", _("Users"), "person"),
            Page("auth_group", _("Groups"), "group"),
            Page("account_emailaddress", _("Email addresses"), "alternate_email"),
            Page("mfa_authenticator", _("Second factors"), "key"),
            Page("admin_logentry", _("What staff did"), "history"),
        ),
    ),
)


def navigation(request: HttpRequest) -> list[Section]:
    """The sections with what the member of staff may view; empty ones are left out."""
    sections = [
        Section(title=title, separator=True, items=list(_items(request, pages))) for title, pages in SECTIONS
    ]
    # The theme would mark every page whose address the visited one begins with.
    items = [item for section in sections for item in section["items"]]
    if open_now := [item for item in items if request.path.startswith(item["link"])]:
        max(open_now, key=lambda item: len(item["link"]))["active"] = True
    index = reverse("admin:index")
    start = Item(title=_("Overview"), icon="dashboard", link=index, active=request.path == index)
    return [
        Section(title="", separator=False, items=[start]),
        *(section for section in sections if section["items"]),
    ]


def _items(request: HttpRequest, pages: tuple[Page, ...]) -> Iterator[Item]:
    for page in pages:
        app, model = page.model.split("_")
        if request.user.has_perm(f"{app}.view_{model}") or request.user.has_perm(f"{app}.change_{model}"):
            link = reverse(f"admin:{page.model}_{page.view}")
            yield Item(title=page.title, icon=page.icon, link=link, active=False)
