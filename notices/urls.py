"""Addresses under /messages/."""

from django.urls import path, re_path

from notices import views
from notices.feeds import AnnouncementFeed

app_name = "notices"
urlpatterns = [
    path("", views.inbox, name="inbox"),
    path("read/", views.read, name="read"),
    path("badge/", views.badge, name="badge"),
    path("announcements/", views.announcements, name="announcements"),
    path("announcements/<int:announcement_id>/", views.announcement, name="announcement"),
    path("announcements/close/", views.close_announcement, name="close-announcement"),
    path("announcements/<str:language>.atom", AnnouncementFeed(), name="feed"),
    path("log/", views.log, name="log"),
    re_path(r"^log\.(?P<form>csv|json)$", views.export_log, name="export-log"),
    path("preferences/", views.preferences, name="preferences"),
    path("off/<str:token>/", views.switch_off, name="switch-off"),
    path("<int:message_id>/open/", views.open_message, name="open"),
]
