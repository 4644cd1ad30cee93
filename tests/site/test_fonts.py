"""The faces of text and headings: small, licensed, with every letter of the pages; signs may be missing."""

import re
import unicodedata
from base64 import b64decode
from html import unescape
from io import BytesIO
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont

from sitekit import textfont

LIMIT = 60_000  # bytes in all; WOFF2 is compressed
LEFT_TO_THE_SYSTEM = set("ᵀ")
FIRST_CHINESE = 0x2E80


@pytest.fixture(scope="module")
def faces() -> dict[str, bytes]:
    return {name: b64decode(textfont.make(name)) for name in textfont.FACES}


def test_faces_are_light(faces: dict[str, bytes]) -> None:
    assert all(face[:4] == b"wOF2" for face in faces.values())
    assert sum(map(len, faces.values())) < LIMIT


def test_faces_keep_copyright_and_licence_under_names_of_their_own(faces: dict[str, bytes]) -> None:
    for face in faces.values():
        names = {record.nameID: str(record) for record in TTFont(BytesIO(face))["name"].names}
        assert "Adobe" in names[0] or "Source Serif" in names[0]
        assert "SIL Open Font License" in names[13]
        assert "Source" not in names[1] + names[4] + names[6]


def test_figures_are_of_one_width(faces: dict[str, bytes]) -> None:
    """In tables they stand below each other."""
    for name in ("text", "bold"):
        font = TTFont(BytesIO(faces[name]))
        glyphs = font.getBestCmap()
        assert len({font["hmtx"][glyphs[ord(digit)]][0] for digit in "0123456789"}) == 1


def test_the_text_face_has_every_letter_of_the_pages(site: Path) -> None:
    font = TTFont(site / "assets" / "text.woff2").getBestCmap()
    for file in site.rglob("*.html"):
        body = file.read_text(encoding="utf-8").partition("<body")[2]
        text = re.sub(r"<(math|pre|code|script|svg)\b.*?</\1>|<[^>]+>", "", body, flags=re.DOTALL)
        letters = {c for c in unescape(text) if ord(c) < FIRST_CHINESE and unicodedata.category(c)[0] in "LN"}
        assert letters - LEFT_TO_THE_SYSTEM <= set(map(chr, font)), file.relative_to(site)
