"""Cuts the fonts of this folder out of the packages that README.md names."""

import sys
from collections.abc import Iterable
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

HERE = Path(__file__).parent

LATIN = {
    *range(0x20, 0x7F),
    *range(0xA0, 0xAD),
    *range(0xAE, 0x250),  # Latin-1 without the invisible hyphen, Extended-A and B
    *range(0x300, 0x530),  # accents, Greek, Cyrillic
    *range(0x1E00, 0x1F00),  # Vietnamese
    *range(0x2010, 0x2028),  # dashes, quotes, bullets; nothing invisible
    *range(0x2030, 0x205F),
    *range(0x2070, 0x20C1),  # small digits, currencies
    *range(0x2100, 0x2300),  # №, ™, arrows, mathematics
}
# What Chinese has beside characters: its punctuation, full-width forms, enclosed digits.
CHINESE_SIGNS = {
    *range(0x2010, 0x2028),
    *range(0x2030, 0x205F),
    *range(0x2460, 0x2500),
    *range(0x25A0, 0x2600),
    *range(0x3001, 0x3030),
    *range(0xFF01, 0xFF5F),
    *range(0xFFE0, 0xFFE7),
}
# Not in Big5's first level, but in the street names, given names and letters of Hong Kong.
HONG_KONG = (
    "嘅咗啲嚟喺冇佢哋噉咁嗰啱瞓啩喎嘢埗邨栢凃綫衞裏峯啓鰂滘蔴鱲㙟㗎羣牀粧舖汚鷄麪廐鎅冧氹氼嚿攰痾孭掹攞曱甴嘥噃啫嗱乸餸焗榚"
    "糉堃喆垚犇骉曌珺琋瑋燁煒鋆鈺鎧驊龢"
)


def decoded(encoding: str, lead: Iterable[int]) -> set[int]:
    """All that two bytes can say in `encoding`, of which the first is one of `lead`."""
    pairs = (bytes([first, second]) for first in lead for second in range(0x40, 0xFF))
    return {ord(said) for pair in pairs if len(said := pair.decode(encoding, "ignore")) == 1}


CUTS: dict[str, tuple[str, set[int]]] = {
    "NotoSans-Regular.ttf": ("noto-sans/400Regular/NotoSans_400Regular.ttf", LATIN),
    "NotoSans-Bold.ttf": ("noto-sans/700Bold/NotoSans_700Bold.ttf", LATIN),
    "NotoSansMono-Regular.ttf": (
        "noto-sans-mono/400Regular/NotoSansMono_400Regular.ttf",
        set(range(0x20, 0x7F)),
    ),
    "NotoSansSC-Regular.ttf": (
        "noto-sans-sc/400Regular/NotoSansSC_400Regular.ttf",
        CHINESE_SIGNS | decoded("gb2312", range(0xA1, 0xF8)),
    ),
    "NotoSansHK-Regular.ttf": (
        "noto-sans-hk/400Regular/NotoSansHK_400Regular.ttf",
        CHINESE_SIGNS | decoded("big5", range(0xA1, 0xC7)) | set(map(ord, HONG_KONG)),
    ),
}


def cut(source: Path, target: Path, wanted: set[int]) -> None:
    options = subset.Options()
    options.hinting = False
    options.layout_features = ["kern", "mark", "mkmk"]
    options.drop_tables += ["BASE", "STAT", "vhea", "vmtx"]
    font: TTFont = subset.load_font(str(source), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=wanted)
    subsetter.subset(font)
    subset.save_font(font, str(target), options)


if __name__ == "__main__":
    for name, (source, wanted) in CUTS.items():
        cut(Path(sys.argv[1]) / source, HERE / name, wanted)
