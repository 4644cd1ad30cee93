"""Figures speak the language of their page, and one grammar: legible, named, their colours explained."""

import base64
import inspect
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from figures.attention_domain.spatial import non_local
from figures.style import WEIGHT_MAP, Say, english
from figures.weight_assignment.self_attention import (
    differential,
    multi_head,
    state_space_duality,
    structured,
)
from figures.weight_assignment.soft import blstm_attention
from sitekit.kinds import figures
from sitekit.language import CHINESE, ENGLISH, LANGUAGES, Language
from sitekit.store import drawing
from sitekit.svg import size

# fmt: off
NAMES = {
    "AAConv", "APNB", "DNL", "EMA", "GC", "GCNet", "GENet", "GloRe", "Hamburger", "MGD", "NL", "PSANet",
    "RAM", "REINFORCE", "SAGAN", "TAM", "general", "local", "PSNR", "dB", "MB", "ms", "px", "ln",
    "ALiBi", "Shaw", "Transformer", "XL", "NTK", "YaRN", "Llama", "LayerNorm", "RMSNorm", "ReLU", "SwiGLU",
    "pre", "norm", "softmax", "Kimi",
}
# fmt: on
"""The same in all languages: architectures, scores and variants called so, units, functions."""

SHARED_PAGE = {"AC"}  # sequences A and C
DATA = {
    *multi_head.WORDS,
    *structured.WORDS,
    *blstm_attention.WORDS,
    *differential.WORDS,
    *state_space_duality.WORDS,
    *SHARED_PAGE,
}

each_figure = pytest.mark.parametrize("path", list(figures()))


@each_figure
def test_it_can_be_drawn_in_any_language(path: str) -> None:
    figure: Callable[..., Figure] = import_module(f"figures.{path.replace('/', '.')}").figure
    parameters = inspect.signature(figure).parameters.values()
    assert [(p.name, p.annotation, p.default) for p in parameters] == [("say", Say, english)]


@each_figure
def test_a_chinese_figure_has_chinese_words(site: Path, path: str) -> None:
    assert latin_words(path) <= NAMES | DATA


def test_every_name_is_drawn(site: Path) -> None:
    assert set().union(*map(latin_words, figures())) >= NAMES


@each_figure
def test_an_english_figure_has_no_chinese_words(site: Path, path: str) -> None:
    assert not re.findall("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]", " ".join(labels(path, ENGLISH)))


PHONE = 328  # pixels for a figure on a phone of 360
SMALLEST = 11  # pixels of text there; an index may be smaller


@each_figure
def test_text_is_legible_on_a_phone(site: Path, path: str) -> None:
    for language in LANGUAGES.values():
        svg = drawing(path, language)
        width, _ = size(svg)
        found = re.findall(r"<text.*?</text>", svg, re.DOTALL)
        lines = [max(map(float, re.findall(r"font-size: ([\d.]+)px", line))) for line in found]
        assert min(lines) * PHONE / width >= SMALLEST


@each_figure
def test_each_picture_has_a_name(site: Path, path: str) -> None:
    svg = drawing(path, ENGLISH)
    words = list(places(svg))
    assert [p.box for p in pictures(svg) if p.shape < STRIP and not named(p.box, words)] == []


@each_figure
def test_colours_are_explained(site: Path, path: str) -> None:
    found = list(pictures(drawing(path, ENGLISH)))
    for name in (WEIGHT_MAP, non_local.SIGNED):
        maps = [p for p in found if p.colours(name)]
        assert not maps or [p for p in maps if p.shape >= STRIP and (p.pixels == p.pixels[:1]).all()]


Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""

STRIP = 6  # times as long as wide: a colour bar, or a row of digits along a matrix


@dataclass
class Picture:
    """A picture of a figure: where it stands, and its pixels, (H, W, 3) or (H, W) if grey."""

    box: Box
    pixels: np.ndarray

    @property
    def shape(self) -> float:
        """How many times as long as wide it is."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top) / min(right - left, bottom - top)

    def colours(self, name: str) -> bool:
        """Whether its colours are those of a colour map; a photograph packed as JPEG is near enough."""
        if self.pixels.ndim == 2:
            return False
        some = self.pixels.reshape(-1, 3)[::7].astype(float)
        table = colormaps[name](np.arange(256), bytes=True)[:, :3].astype(float)
        return bool(np.linalg.norm(some[:, None] - table, axis=2).min(axis=1).mean() < 6)


def pictures(svg: str) -> Iterator[Picture]:
    """Yield the pictures of a figure."""
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}image"):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", element.get("transform", ""))]
        x, y, width, height = (float(element.get(name, 0)) for name in ("x", "y", "width", "height"))
        across, down, left, top = (numbers[i] for i in ((0, 3, 4, 5) if len(numbers) == 6 else (0, 1, 2, 3)))
        if len(numbers) == 4:  # scale(1 -1) translate(0 -height)
            left, top = across * left, down * top
        edges = sorted((top + down * y, top + down * (y + height)))
        image = Image.open(io.BytesIO(base64.b64decode(element.get("href", "").partition(",")[2])))
        pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
        yield Picture((left + across * x, edges[0], left + across * (x + width), edges[1]), pixels)


def places(svg: str) -> Iterator[tuple[float, float]]:
    """Yield where each text of a figure stands; a formula where it begins."""
    yield from ((float(x), float(y)) for x, y in re.findall(r'<text[^>]* x="(\S+)" y="(\S+)"', svg))
    yield from (
        (float(x), float(y)) for x, y in re.findall(r"<text[^>]*translate\(([-\d.]+) ([-\d.]+)\)", svg)
    )
    yield from ((float(x), float(y)) for x, y in re.findall(r'translate\((\S+) (\S+)\)[^>]*"><text>', svg))


def named(box: Box, words: list[tuple[float, float]]) -> bool:
    """Whether there is text right above or below a picture, or one for its column and one for its row."""
    left, top, right, bottom = box
    column = [y for x, y in words if left <= x <= right and not top <= y <= bottom]
    row = [x for x, y in words if top <= y <= bottom and x < left]
    return any(top - 22 < y < bottom + 14 for y in column) or bool(column and row)


def latin_words(path: str) -> set[str]:
    """Return the words of a Chinese figure that are not Chinese; a letter alone is a symbol."""
    return set(re.findall("[A-Za-z]{2,}", " ".join(labels(path, CHINESE))))


def labels(path: str, language: Language) -> list[str]:
    """Return what is written in a figure of the built site; a formula has parts and is left out."""
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]+)</text>", drawing(path, language))]
