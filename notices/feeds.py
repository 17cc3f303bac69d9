"""Announcements as Atom, one feed for each language."""

from datetime import datetime

from django.conf import settings
from django.contrib.syndication.views import Feed
from django.http import Http404, HttpRequest
from django.urls import reverse
from django.utils import translation
from django.utils.feedgenerator import Atom1Feed, SyndicationFeed
from django.utils.html import linebreaks
from django.utils.translation import gettext as _

from notices.announcements import on_the_site
from notices.models import Announcement

LENGTH = 50


class AnnouncementFeed(Feed[Announcement, str]):
    """The newest announcements in the language that the address names."""

    feed_type = Atom1Feed
    author_name = settings.SELLER_NAME

    def get_object(self, request: HttpRequest, *args: object, **kwargs: object) -> str:
        language = str(kwargs["language"])
        if language not in dict(settings.LANGUAGES):
            raise Http404
        return language

    def get_feed(self, obj: str, request: HttpRequest) -> SyndicationFeed:
        # One instance answers everybody: the language is the thread's, not an attribute.
        with translation.override(obj):
            return super().get_feed(obj, request)

    def title(self) -> str:
        return _("Announcements of VMOS Cloud")

    def link(self, language: str) -> str:
        return reverse("notices:announcements")

    def feed_guid(self, language: str) -> str:
        return f"{settings.SITE_URL}{self.feed_url(language)}"

    def feed_url(self, language: str) -> str:
        return reverse("notices:feed", args=[language])

    def items(self, language: str) -> list[Announcement]:
        found = list(on_the_site()[:LENGTH])
        for announcement in found:
            announcement.texts = announcement.texts[language]
        return found

    def item_title(self, item: Announcement) -> str:
        return str(item.texts["title"])

    def item_description(self, item: Announcement) -> str:
        """HTML, as readers of feeds expect it: what staff have typed is text in paragraphs, whatever it looks like."""
        return linebreaks(item.texts["body"], autoescape=True)

    def item_link(self, item: Announcement) -> str:
        return item.get_absolute_url()

    def item_guid(self, item: Announcement) -> str:
        return f"{settings.SITE_URL}{item.get_absolute_url()}"

    def item_pubdate(self, item: Announcement) -> datetime:
        return item.published_at

    def item_updateddate(self, item: Announcement) -> datetime:
        return item.published_at
