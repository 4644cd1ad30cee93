"""Figures speak the language of their page."""

import inspect
import re
from collections.abc import Callable
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from figures.style import Say, english
from figures.weight_assignment.self_attention import multi_head, structured
from figures.weight_assignment.soft import blstm_attention
from sitekit.kinds import figures
from sitekit.language import CHINESE, ENGLISH, Language
from sitekit.store import drawing

# fmt: off
NAMES = {
    "AAConv", "APNB", "DNL", "EMA", "GC", "GCNet", "GENet", "GloRe", "Hamburger", "MGD", "NL", "PSANet",
    "RAM", "REINFORCE", "SAGAN", "TAM", "general", "local", "PSNR", "dB", "MB", "ms", "px", "ln",
}
# fmt: on
"""The same in all languages: architectures, scores and variants called so, units, functions."""

DATA = {*multi_head.WORDS, *structured.WORDS, *blstm_attention.WORDS}

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


def latin_words(path: str) -> set[str]:
    """Return the words of a Chinese figure that are not Chinese; a letter alone is a symbol."""
    return set(re.findall("[A-Za-z]{2,}", " ".join(labels(path, CHINESE))))


def labels(path: str, language: Language) -> list[str]:
    """Return what is written in a figure of the built site; a formula has parts and is left out."""
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]+)</text>", drawing(path, language))]
