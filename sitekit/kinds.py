"""The kinds of results: who makes each, for what, and what makes it stale. Needs no torch.

A maker is a module with `make(name)`, or `make(name, say)` if what it makes has words: it is then called for
each language, in one process, so that both are drawn of one training. All of its code counts into the key.
"""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from sitekit import fenced, paths
from sitekit.closure import digest
from sitekit.language import LANGUAGES
from sitekit.notebooks.cells import code_cells, notebooks
from snippets.catalogue import CATALOGUE


@dataclass(frozen=True)
class Kind:
    """One kind of result.

    Attributes:
        maker: the module that makes it.
        names: of all there are; a name is a slug or the path of a file.
        files: what the result of a name depends on beside its maker, code with all it imports, and data.
        packages: those whose version counts.
        facts: whatever else counts.
        words: whether it is made for each language.
    """

    maker: str
    names: Callable[[], Iterable[str]]
    files: Callable[[str], Iterable[str]]
    packages: Sequence[str]
    facts: Callable[[str], object] = lambda name: ""
    words: bool = False

    def make(self, name: str) -> Any:
        """Make the result of a name, plain values for JSON; by language if it has words."""
        maker = importlib.import_module(self.maker)
        if self.words:
            return {language.code: maker.make(name, language.say) for language in LANGUAGES.values()}
        return maker.make(name)

    def key(self, name: str) -> str:
        """Return a hash of all that the result depends on."""
        maker = self.maker.replace(".", "/")
        code = [f"{maker}.py", f"{maker}/__init__.py", *self.files(name)]
        parts = [name, self.facts(name), digest(paths.ROOT / file for file in code), sys.version_info[:2]]
        parts += [_version(package) for package in self.packages]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def figures() -> Iterator[str]:
    """Yield the path below figures/ of each figure: of a mechanism, or of an overview."""
    return filter(draws, _files())


def explorations() -> Iterator[str]:
    """Yield the path below figures/ of each figure that a reader can move."""
    return filter(explores, _files())


def draws(path: str) -> bool:
    """Whether figures/<path>.py has a figure."""
    return _defines(path, "figure")


def explores(path: str) -> bool:
    """Whether figures/<path>.py has something that a reader can move."""
    return _defines(path, "explore")


def _files() -> Iterator[str]:
    folder = paths.ROOT / "figures"
    for file in sorted(folder.rglob("*.py")):
        yield file.relative_to(folder).with_suffix("").as_posix()


def _defines(path: str, function: str) -> bool:
    file = paths.ROOT / "figures" / f"{path}.py"
    return file.is_file() and f"\ndef {function}(" in file.read_text(encoding="utf-8")


def _snippet(slug: str) -> Iterable[str]:
    yield f"snippets/{CATALOGUE[slug].path}.py"


def _figure(path: str) -> Iterable[str]:
    """A figure may have data beside it."""
    yield from (f"figures/{path}.py", f"figures/{path}.json")


DRAWING = ("torch", "matplotlib", "numpy", "scikit-image", "scikit-learn", "scipy")

KINDS = {
    "notebook": Kind(
        "sitekit.notebooks.execute",
        names=notebooks,
        files=lambda name: (f"docs/{name}.py",),
        packages=(*DRAWING, "ipykernel", "transformers"),
        facts=lambda name: code_cells(paths.DOCS / f"{name}.py"),
    ),
    "figure": Kind("sitekit.figure", names=figures, files=_figure, packages=DRAWING, words=True),
    "exploration": Kind(
        "sitekit.exploration", names=explorations, files=_figure, packages=DRAWING, words=True
    ),
    "diagram": Kind(
        "sitekit.diagram",
        names=lambda: CATALOGUE,
        files=_snippet,
        packages=("torch", "scipy"),
        facts=lambda slug: [fenced.body("diagram", CATALOGUE[slug].path, code) for code in LANGUAGES],
        words=True,
    ),
    "cost": Kind(
        "sitekit.cost",
        names=lambda: CATALOGUE,
        files=_snippet,
        packages=("torch", "sympy"),
        facts=lambda slug: (CATALOGUE[slug].parameters, CATALOGUE[slug].macs, CATALOGUE[slug].state),
    ),
    "block": Kind(
        "sitekit.dropin",
        names=lambda: CATALOGUE,
        files=_snippet,
        packages=("torch",),
        facts=lambda slug: CATALOGUE[slug].drop_in,
    ),
    "font": Kind(
        "sitekit.mathfont", names=lambda: ["math"], files=lambda name: (), packages=("fonttools", "ziamath")
    ),
    "face": Kind(
        "sitekit.textfont",
        names=lambda: ("text", "bold", "italic", "heading"),
        files=lambda name: (),
        packages=("fonttools", "fontpkg-source-sans-3", "fontpkg-source-serif-4"),
    ),
}
"""By name, the longest work first."""


@cache
def _version(package: str) -> str:
    return f"{package} {version(package)}"
