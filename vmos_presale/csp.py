"""The strict content security policy: what the gateways add to it, and its one exception."""

from csp.constants import UNSAFE_EVAL, UNSAFE_INLINE
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest, HttpResponseBase

from orders.gateways import pay_origins


class PolicyMiddleware(CSPMiddleware):
    """Sends the policy of the settings, relaxed under /admin/ and only there.

    The admin theme is built on Alpine.js, which evaluates expressions and sets style attributes. Everywhere else
    forms may lead to where buyers pay: browsers hold the redirect that follows a form to the policy as well.
    """

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        if request.path_info.startswith("/admin/"):
            parts.update = {"script-src": [UNSAFE_EVAL], "style-src": [UNSAFE_INLINE]}
        else:
            parts.update = {"form-action": pay_origins()}
        return parts
