"""The site's addresses and the demo's, as they are where DEMO is set."""

from django.urls import include, path

urlpatterns = [
    path("demo/", include("vmos_presale.demo.urls")),
    path("", include("vmos_presale.urls")),
]
