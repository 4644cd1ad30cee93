"""Custom fences for pymdownx.superfences: ```` ```card ```` with a slug as body becomes a card.

The body is one slug unless said otherwise. An error of a part stops the build (see sitekit.errors).
"""

from collections.abc import Callable
from typing import Any

from sitekit import citations
from sitekit.errors import BuildError, fail
from sitekit.language import Language
from sitekit.parts import bibtex as _bibtex
from sitekit.parts import card as _card
from sitekit.parts import comparison as _comparison
from sitekit.parts import cost as _cost
from sitekit.parts import drawing as _drawing
from sitekit.parts import evidence as _evidence
from sitekit.parts import growth as _growth
from sitekit.parts import matrix as _matrix
from sitekit.parts import members as _members
from sitekit.parts import neighbours as _neighbours
from sitekit.parts import onnx as _onnx
from sitekit.parts import proofs as _proofs
from sitekit.parts.source import mechanism
from sitekit.store import results

Part = Callable[[str, Language], str]
Fence = Callable[..., str]

PARTS: dict[str, Part] = {}  # by the name of the fence


def _fence(part: Part) -> Fence:
    """Turn a part, a function of the body and the language, into a formatter of superfences."""
    PARTS[part.__name__] = part

    def formatter(source: str, name: str, css_class: str, options: Any, md: Any, **extra: Any) -> str:
        try:
            return part(source, md.sitekit_language)
        except BuildError:
            raise
        except Exception as error:  # superfences would swallow it and show the source of the block
            fail(f"{name} failed: {type(error).__name__}: {error}", source.strip())

    formatter.__doc__ = part.__doc__
    return formatter


@_fence
def card(source: str, language: Language) -> str:
    """Both axes, paper, shapes, cost, names and code."""
    row = mechanism(source)
    return _card.card(row, results(row), language)


@_fence
def figure(source: str, language: Language) -> str:
    """The body is a slug, or the path below figures/ of a figure without a mechanism; the caption follows."""
    return _drawing.figure(source, language)


@_fence
def diagram(source: str, language: Language) -> str:
    """The dataflow of the running code."""
    return _drawing.diagram(mechanism(source), language)


@_fence
def cost(source: str, language: Language) -> str:
    """Formulas, counts at several sizes, and what becomes of the module in ONNX Runtime."""
    row = mechanism(source)
    return _cost.cost(results(row), language, _onnx.note(row, language))


@_fence
def onnx(source: str, language: Language) -> str:
    """What becomes of all modules in ONNX Runtime; no body."""
    return _onnx.onnx(language)


@_fence
def growth(source: str, language: Language) -> str:
    """The body is the path below figures/ of what benchmarks/growth.py has measured."""
    return _growth.growth(source, language)


@_fence
def proofs(source: str, language: Language) -> str:
    """First line the slug, then lines `test_name: statement`."""
    return _proofs.proofs(source, language)


@_fence
def evidence(source: str, language: Language) -> str:
    """What modules were held against, with counts; no body."""
    return _evidence.meanings(language)


@_fence
def bibtex(source: str, language: Language) -> str:
    """The body is a key of docs/references.bib."""
    return _bibtex.bibtex(source)


@_fence
def matrix(source: str, language: Language) -> str:
    """Both axes with all mechanisms; no body."""
    return _matrix.matrix(language)


@_fence
def members(source: str, language: Language) -> str:
    """The body is a value of an axis (`soft`, `channel_spatial`) or `foundations`."""
    return _members.members(source, language)


@_fence
def comparison(source: str, language: Language) -> str:
    """All mechanisms; no body."""
    return _comparison.comparison(language)


@_fence
def bibliography(source: str, language: Language) -> str:
    """All entries of docs/references.bib; no body."""
    return citations.bibliography_html(language)


@_fence
def neighbours(source: str, language: Language) -> str:
    """Links to related mechanisms and those of the same axis values."""
    return _neighbours.neighbours(mechanism(source), language)
