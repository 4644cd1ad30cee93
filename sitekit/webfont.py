"""What the fonts of the site have in common: cut to what is needed, under a name of their own, as WOFF2."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from importlib.metadata import distribution
from io import BytesIO

from fontTools.subset import Options, Subsetter  # type: ignore[import-untyped]
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

KEPT_NAMES = [0, 1, 2, 3, 4, 5, 6, 7, 10, 13, 14]  # copyright and licence among them


def cut(
    package: str, file: str, characters: Iterable[tuple[int, int]], features: Sequence[str], note: str
) -> TTFont:
    """Return the font in a file of a package, with these ranges of characters and features of layout alone.

    Args:
        package: the one that ships the font.
        file: path inside it.
        characters: first and last of each range.
        features: OpenType features to keep.
        note: on what was changed, for the description in its name table.
    """
    font = TTFont(str(distribution(package).locate_file(file)), recalcTimestamp=False)
    options = Options()
    options.hinting = False
    options.layout_features = features
    options.name_IDs = KEPT_NAMES
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=[code for first, last in characters for code in range(first, last + 1)])
    subsetter.subset(font)
    font["name"].setName(note, 10, 3, 1, 0x409)
    return font


def packed(font: TTFont, family: str) -> str:
    """Return the WOFF2 file in base64, under the name of `family`, as licences ask of a changed font."""
    for number, text in {1: family, 3: f"{family} 1", 4: family, 6: family.replace(" ", "")}.items():
        font["name"].setName(text, number, 3, 1, 0x409)
    font.flavor = "woff2"
    woff2 = BytesIO()
    font.save(woff2)
    return b64encode(woff2.getvalue()).decode()
