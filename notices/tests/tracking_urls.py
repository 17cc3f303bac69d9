"""The site with an Anymail backend: its webhooks have addresses then."""

from django.urls import include, path

urlpatterns = [path("messages/callbacks/email/", include("anymail.urls"))]
