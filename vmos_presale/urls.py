"""Every address of the site."""

from allauth.account.decorators import secure_admin_login
from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from accounts.views import language
from notices.channels import tracking
from notices.views_contacts import push_worker
from vmos_presale.health import health

admin.autodiscover()
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns = [
    path("health", health),
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("account/", include("accounts.urls")),
    path("agreements/", include("agreements.urls")),
    # The name is Django's: the admin's own language switch leads here too.
    path("account/language/", language, name="set_language"),
    path("messages/callbacks/email/", include(list(tracking.addresses()))),
    path("messages/", include("notices.urls")),
    # At the root: a service worker acts on no page above it.
    path("push-worker.js", push_worker, name="push-worker"),
    path("", include("orders.urls")),
]
if settings.DEMO:
    urlpatterns.insert(0, path("demo/", include("vmos_presale.demo.urls")))
