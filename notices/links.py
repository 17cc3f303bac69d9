"""Links that prove that whoever follows them had the message they came in.

The proof is made when the message goes out and is kept nowhere: neither the outbox nor the evidence of what
was sent lets anybody who reads them act in the recipient's place.
"""

from django.core.signing import BadSignature, Signer

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


def _signer() -> Signer:
    return Signer(salt="notices.links")
