"""Addresses under /demo/, in the demo only."""

from django.urls import path

from vmos_presale.demo import views

app_name = "demo"
urlpatterns = [
    path("phone/browser/", views.phone_browser, name="phone-browser"),
    path("mail/", views.mail, name="mail"),
    path("mail/<slug:name>/", views.mail_message, name="mail-message"),
]
