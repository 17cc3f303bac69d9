"""Addresses under /messages/."""

from django.urls import path

from notices import views

app_name = "notices"
urlpatterns = [
    path("", views.inbox, name="inbox"),
    path("read/", views.read, name="read"),
    path("badge/", views.badge, name="badge"),
    path("preferences/", views.preferences, name="preferences"),
    path("off/<str:token>/", views.switch_off, name="switch-off"),
    path("<int:message_id>/open/", views.open_message, name="open"),
]
