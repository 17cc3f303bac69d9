"""What `manage.py check` says about the settings of payments."""

from django.core.checks import CheckMessage, Error, register

from orders.gateways import problems


@register()
def payment_methods(**_options: object) -> list[CheckMessage]:
    """One error for each rule of PAYMENT_METHODS that cannot be followed: with one of them, nothing can be paid."""
    return [Error(problem, id="orders.E001") for problem in problems()]
