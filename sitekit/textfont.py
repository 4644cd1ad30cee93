"""The faces of text and headings: WOFF2 subsets of Source Sans 3 and Source Serif 4, from the fontpkg wheels.

Both are under the SIL Open Font License 1.1, which allows this; the notices stay in their name tables. Their
design axes are set at build, so that a face is a few kilobytes. Chinese comes from the reader's system, with
the quotation marks, dashes and dots that Chinese writes wider.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fontTools.varLib.instancer import instantiateVariableFont  # type: ignore[import-untyped]

from sitekit.webfont import cut, packed

LATIN = (
    (0x20, 0x7E),  # Latin letters, digits, punctuation
    (0xA0, 0xB6),  # signs, superscripts; the middle dot is Chinese, too
    (0xB8, 0xFF),  # accents, times
    (0x141, 0x142),  # Ł
    (0x2010, 0x2013),  # hyphens, the en dash
    (0x2022, 0x2022),  # bullet
    (0x2190, 0x2193),  # arrows
    (0x2212, 0x2212),  # minus
    (0x221A, 0x221E),  # root, infinity
    (0x2248, 0x2265),  # approximately, not equal, at most, at least
)
GREEK = (
    (0x391, 0x3C9),
    (0x2070, 0x207B),  # exponents
    (0x2202, 0x2207),  # partial, nabla
)
SANS = "fontpkg-source-sans-3", "fontpkg_source_sans_3/files/SourceSans3[wght].ttf"
ITALIC = "fontpkg-source-sans-3", "fontpkg_source_sans_3/files/SourceSans3-Italic[wght].ttf"
SERIF = "fontpkg-source-serif-4", "fontpkg_source_serif_4/files/SourceSerif4[opsz,wght].ttf"


@dataclass(frozen=True)
class Face:
    """One file.

    Attributes:
        source: package, and path inside it.
        family: its name from then on.
        axes: where it stands on the axes of its design.
        characters: ranges of what it holds.
    """

    source: tuple[str, str]
    family: str
    axes: Mapping[str, int]
    characters: tuple[tuple[int, int], ...] = field(default=LATIN)


FACES = {
    "text": Face(SANS, "Attention Atlas Text", {"wght": 400}, LATIN + GREEK),
    "bold": Face(SANS, "Attention Atlas Text", {"wght": 600}),
    "italic": Face(ITALIC, "Attention Atlas Text", {"wght": 400}),
    "heading": Face(SERIF, "Attention Atlas Heading", {"wght": 600, "opsz": 32}),
}
"""By the name of the file; styles/type.css says where each is used."""


def make(name: str) -> str:
    """Return the WOFF2 file of a face in base64."""
    face = FACES[name]
    font = cut(
        *face.source, face.characters, ["kern", "liga"], "A subset at one place of the axes of its design."
    )
    return packed(instantiateVariableFont(font, face.axes), face.family)
