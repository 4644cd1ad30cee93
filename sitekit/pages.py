"""The pages: where they are, what they are called, what they say first."""

import re
from functools import cache
from pathlib import Path

from sitekit import paths
from sitekit.errors import BuildError
from sitekit.language import Language
from snippets.catalogue import Domain, Mechanism, Weights

FOUNDATIONS = "foundations/index.md"
PROVED = "how-it-is-proved.md"

_HEADING = re.compile(r"^# +(?P<title>.+?)(?: *\{[^}]*\})? *#* *$", re.MULTILINE)
_SELF = {Weights.SELF: "self-attention"}


def page(mechanism: Mechanism) -> str:
    """Return the page of a mechanism, from the root of a language: `attention-domain/channel/senet.md`."""
    return mechanism.path.replace("_", "-") + ".md"


def overview(value: Weights | Domain) -> str:
    """Return the page that compares the mechanisms of one value of an axis."""
    if isinstance(value, Weights):
        return f"weight-assignment/{_SELF.get(value, value.value)}/index.md"
    return f"attention-domain/{value.name.lower().replace('_', '-')}/index.md"


def exists(name: str, language: Language) -> bool:
    """Whether a language has this page."""
    return (paths.DOCS / language.code / name).is_file()


def title(name: str, language: Language) -> str:
    """Return the heading of a page, as Markdown.

    Raises:
        BuildError: there is no such page, or it has no heading.
    """
    return _opening(name, language)[0]


def short_title(name: str, language: Language) -> str:
    """Return the heading up to its colon: SENet of "SENet: squeeze-and-excitation"."""
    return re.split("[:：]", title(name, language))[0].strip()


def summary(name: str, language: Language) -> str:
    """Return the first paragraph of a page, as Markdown.

    Raises:
        BuildError: there is no such page, or it does not start with a heading and a paragraph.
    """
    return _opening(name, language)[1]


def _opening(name: str, language: Language) -> tuple[str, str]:
    file = paths.DOCS / language.code / name
    where = f"{paths.DOCS.name}/{language.code}/{name}"
    if not file.is_file():
        raise BuildError(f"{where} is missing")
    opening = _read(file, file.stat().st_mtime_ns)
    if opening is None:
        raise BuildError(f"{where} does not start with a heading '# ...' and a paragraph")
    return opening


@cache
def _read(file: Path, modified: int) -> tuple[str, str] | None:
    """Return heading and first paragraph of a file as it was when `modified`."""
    text = file.read_text(encoding="utf-8")
    heading = _HEADING.search(text)
    if heading is None:
        return None
    paragraph = text[heading.end() :].strip().split("\n\n", 1)[0]
    if not paragraph or paragraph.startswith(("#", "`", "<", "|", "!")):
        return None
    return heading["title"], " ".join(paragraph.split())
