"""Addresses under /demo/, in the demo only."""

from django.urls import path

from vmos_presale.demo import views

app_name = "demo"
urlpatterns = [
    path("mail/", views.mail, name="mail"),
    path("mail/<slug:name>/", views.mail_message, name="mail-message"),
]
