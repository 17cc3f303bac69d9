"""The list of countries: all of them, by name, in the order in which a reader looks."""

import pytest

from accounts.countries import countries, country_name


@pytest.mark.parametrize("language", ["en", "zh-hans", "zh-hant"])
def test_list_has_the_249_countries_of_the_standard(language: str) -> None:
    codes = [code for code, _name in countries(language)]
    assert (len(codes), len(set(codes))) == (249, 249)
    assert {"HK", "MO", "TW", "CN", "GB", "DE", "AX"} <= set(codes)
    assert not {"EU", "EZ", "UN", "QO", "XK", "ZZ", "UK"} & set(codes)


def test_names_are_in_the_order_of_the_language() -> None:
    english = [name for _code, name in countries("en")]
    assert english[:4] == ["Afghanistan", "Åland Islands", "Albania", "Algeria"]
    # By pinyin: Āfùhàn after Āěrbāníyà.
    chinese = [name for _code, name in countries("zh-hans")]
    assert chinese[:3] == ["阿尔巴尼亚", "阿尔及利亚", "阿富汗"]


def test_name_of_what_is_no_country_is_its_code() -> None:
    assert (country_name("DE", "zh-hans"), country_name("QX", "en")) == ("德国", "QX")
