"""Links that prove that whoever follows them had the message."""

import pytest
from pytest_django import Settings

from notices.links import is_signed, signed

PATH = "/guardian/7/"


def proof_of(link: str) -> str:
    return link.partition("?proof=")[2]


def test_a_link_leads_to_its_path_and_proves_it() -> None:
    link = signed(PATH)
    assert link.startswith("/guardian/7/?proof=")
    assert is_signed(PATH, proof_of(link))
    assert len(proof_of(link)) == 43  # 256 bits


@pytest.mark.parametrize("path", ["/guardian/8/", "/guardian/7", "/guardian/07/", "/"])
def test_the_proof_of_one_path_is_none_of_another(path: str) -> None:
    assert not is_signed(path, proof_of(signed(PATH)))


@pytest.mark.parametrize("proof", ["", "abc", ":", f"x:{PATH}", "\0", "\ufffd", "é", "A" * 10_000])
def test_what_was_made_up_is_no_proof(proof: str) -> None:
    assert not is_signed(PATH, proof)


def test_a_proof_is_right_to_the_last_character_and_no_longer() -> None:
    proof = proof_of(signed(PATH))
    other = "A" if proof[0] != "A" else "B"
    for wrong in (proof[:-1], proof + "A", other + proof[1:], f":{proof}", f"x:{proof}", proof.swapcase()):
        assert not is_signed(PATH, wrong)


def test_a_link_survives_a_change_of_the_secret_key_while_the_old_one_counts(settings: Settings) -> None:
    proof = proof_of(signed(PATH))
    old = settings.SECRET_KEY
    settings.SECRET_KEY = "new" * 20
    settings.SECRET_KEY_FALLBACKS = [old]
    assert is_signed(PATH, proof)
    assert proof_of(signed(PATH)) != proof
    settings.SECRET_KEY_FALLBACKS = []
    assert not is_signed(PATH, proof)
