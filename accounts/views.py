"""The customer's own settings."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from accounts.forms import ProfileForm
from accounts.models import User


class CustomerRequest(HttpRequest):
    """A request that `login_required` has let through."""

    user: User


@login_required
@require_http_methods(["GET", "POST"])
def profile(request: CustomerRequest) -> HttpResponse:
    form = ProfileForm(request.POST or None, instance=request.user)
    if not form.is_valid():
        return render(request, "accounts/profile.html", {"form": form})
    form.save()
    with translation.override(form.cleaned_data["language"]):
        messages.success(request, _("Your settings are saved."))
    response = redirect("accounts:profile")
    # The same cookie as the language switch in the header: the pages follow the account at once.
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        form.cleaned_data["language"],
        max_age=settings.LANGUAGE_COOKIE_AGE,
        samesite="Lax",
        secure=settings.LANGUAGE_COOKIE_SECURE,
    )
    return response
