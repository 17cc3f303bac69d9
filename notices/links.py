"""Links that prove that whoever follows them had the message they came in.

The proof is made when the message goes out and is kept nowhere: neither the outbox nor the evidence of what
was sent lets anybody who reads them act in the recipient's place.
"""

from django.core.signing import BadSignature, Signer
from django.urls import reverse

PARAMETER = "proof"


def signed(path: str) -> str:
    """The path with its proof."""
    return f"{path}?{PARAMETER}={_signer().signature(path)}"


def is_signed(path: str, proof: str) -> bool:
    """Whether `proof` came with a link to `path`, under this or an earlier secret key that still counts."""
    signer = _signer()
    try:
        return signer.unsign(f"{path}{signer.sep}{proof}") == path
    except BadSignature:
        return False


def switch_off(*, customer_id: int, kind: str, channel: str) -> str:
    """The path by which the reader of a mail has no more of its kind, without logging in (RFC 8058)."""
    token = _signer_of_wishes().sign_object([customer_id, kind, channel])
    return reverse("notices:switch-off", args=[token])


def read_off(token: str) -> tuple[int, str, str]:
    """What a path of `switch_off` names: customer, kind and channel. Raises BadSignature."""
    customer_id, kind, channel = _signer_of_wishes().unsign_object(token)
    return customer_id, kind, channel


def _signer() -> Signer:
    return Signer(salt="notices.links")


def _signer_of_wishes() -> Signer:
    return Signer(salt="notices.links.off")
