"""The customer's own settings."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST
from django.views.i18n import set_language

from accounts.forms import ProfileForm
from accounts.languages import keep_language
from accounts.models import User


class CustomerRequest(HttpRequest):
    """A request that `login_required` has let through."""

    user: User


@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """Switch the language of the pages, and of what a customer who is logged in will be sent."""
    response = set_language(request)
    if request.user.is_authenticated:
        keep_language(user_id=request.user.pk, language=request.POST.get("language", ""))
    return response


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
