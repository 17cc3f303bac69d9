"""Addresses under /messages/."""

from django.urls import path, re_path

from notices import views, views_callbacks, views_contacts
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
    path("contacts/", views_contacts.contact_points, name="contacts"),
    path("contacts/phone/", views_contacts.add_phone, name="add-phone"),
    path("contacts/browser/", views_contacts.browser, name="browser"),
    path("contacts/postal-address/", views_contacts.add_postal_address, name="add-postal-address"),
    path("contacts/wechat/back/", views_contacts.wechat_bound, name="wechat-bound"),
    path("contacts/wechat/<str:token>/", views_contacts.bind_wechat, name="bind-wechat"),
    path("contacts/<int:point_id>/code/", views_contacts.prove, name="prove"),
    path("contacts/<int:point_id>/send-code/", views_contacts.send_code, name="send-code"),
    path("contacts/email/test/", views_contacts.send_test_mail, name="send-test-mail"),
    path("contacts/<int:point_id>/test/", views_contacts.send_test, name="send-test"),
    path("contacts/<int:point_id>/remove/", views_contacts.remove, name="remove-contact"),
    path("callbacks/sms/<str:token>/", views_callbacks.sms_reports, name="sms-reports"),
    path("callbacks/wechat/", views_callbacks.wechat_events, name="wechat-events"),
    path("callbacks/app/", views_callbacks.app_devices, name="app-devices"),
    path("<int:message_id>/open/", views.open_message, name="open"),
]
