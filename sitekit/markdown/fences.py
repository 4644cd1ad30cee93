"""Fences: each is a part of the page or code. What is neither stops the build.

pymdownx.superfences finds them and asks the functions here.
"""

import re
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from typing import Any

from markdown import Markdown  # type: ignore[import-untyped]
from markdown.preprocessors import Preprocessor  # type: ignore[import-untyped]
from pygments.lexers import find_lexer_class_by_name, get_all_lexers  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]
from pymdownx.superfences import highlight_validator  # type: ignore[import-untyped]

from sitekit.errors import BuildError, fail
from sitekit.language import Language
from sitekit.parts import PARTS, make
from sitekit.remembered import Remembered

LEFT = re.compile(r"[> \t]*(`{3,}[^`]*|~{3,}[^~]*)")


def _part(body: str, name: str, css_class: str, options: Any, md: Markdown, **extra: Any) -> str:
    try:
        return make(name, body, md.sitekit_language)
    except BuildError:
        raise
    except Exception as error:  # superfences would swallow it and show the source of the block
        fail(f"{name} failed: {type(error).__name__}: {error}", body.strip() or _opening(name, md))


def _code(body: str, language: str, css_class: str, options: Any, md: Markdown, **extra: Any) -> Any:
    """Return a block of code with its colours, which take an eighth of a build unless they are known."""
    superfences = md.preprocessors["fenced_code_block"]

    def colored(*_: object) -> str:
        html: str = superfences.highlight(body, language, options, md, **extra)
        return html

    settings = superfences.highlight_ext.getConfigs()
    return known_code(md.sitekit_language).get(colored, body, language, options, extra, settings)


@cache
def known_code(language: Language) -> Remembered:
    """Return the blocks of code with colours that the pages of a language had last."""
    return Remembered(f"code-{language.code}", [version(name) for name in ("pygments", "pymdown-extensions")])


def _is_code(language: str, inputs: Any, options: Any, attributes: Any, md: Markdown) -> bool:
    """Whether a fence is one of code, which all are that are no part.

    Raises:
        BuildError: Pygments does not know its language; or it is a part with options.
    """
    if language in PARTS:
        fail(f"the fence '{language}' takes no options", _opening(language, md))
    if language and not _is_known(language):
        near = get_close_matches(language, [*PARTS, *_lexers()], n=1, cutoff=0.75)
        hint = f"did you mean '{near[0]}'?" if near else f"parts: {', '.join(PARTS)}"
        fail(f"unknown fence '{language}', neither a part nor a language; {hint}", _opening(language, md))
    return bool(highlight_validator(language, inputs, options, attributes, md))


def _is_known(language: str) -> bool:
    try:
        find_lexer_class_by_name(language)
    except ClassNotFound:
        return False
    return True


def _lexers() -> list[str]:
    return [alias for _, aliases, _, _ in get_all_lexers() for alias in aliases]


def _opening(name: str, md: Markdown) -> str:
    """Return the line that opens the fence, to be found in docs/."""
    opening = re.compile(rf"(`{{3,}}|~{{3,}})[ \t]*(\{{[ \t]*)?\.?{re.escape(name)}(?![\w#.+-])")
    lines = (line.strip("> \t") for line in md.lines)
    return next((line for line in lines if opening.match(line)), name)


class Leftovers(Preprocessor):  # type: ignore[misc]
    """Stops the build at a fence that superfences has left as text."""

    def run(self, lines: list[str]) -> list[str]:
        for line in lines:
            if LEFT.fullmatch(line):
                fail(f"the fence '{line.strip()}' is not closed, or not understood", line.strip("> \t"))
        return lines


SUPERFENCES = {
    "pymdownx.superfences": {
        "custom_fences": [
            {"name": "*", "class": "", "format": _code, "validator": _is_code},
            *({"name": name, "class": name, "format": _part} for name in PARTS),
        ]
    }
}
