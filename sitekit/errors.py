"""Errors that stop the build and say where in docs/ the cause is."""

import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from click import ClickException
from pymdownx.superfences import SuperFencesException  # type: ignore[import-untyped]

from sitekit import paths


class BuildError(SuperFencesException, ClickException):  # type: ignore[misc]
    """Stops the build.

    A SuperFencesException, because superfences swallows every other exception that a fence raises;
    a ClickException, because the generator's command line then prints the message and no traceback.
    """


def explain(error: BaseException) -> str:
    """Return one line: file and line of the innermost frame that is ours, and what went wrong."""
    message = " ".join(str(error).split()) or "no message"
    if isinstance(error, ClickException):
        return message
    if isinstance(error, SyntaxError) and error.filename:
        frames = [(error.filename, error.lineno)]
        message = error.msg
    else:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [
        f"{path.relative_to(paths.ROOT)}:{line}: "
        for name, line in frames
        if (path := Path(name)).is_relative_to(paths.ROOT) and "site-packages" not in path.parts
    ]
    return f"{ours[-1] if ours else ''}{type(error).__name__}: {message}"


def fail(message: str, needle: str) -> NoReturn:
    """Raise BuildError with `message`, naming every file and line of docs/ that holds `needle`."""
    places = [f"{file}:{line}" for file, line in locate(needle)]
    raise BuildError(f"{', '.join(places)}: {message}" if places else message)


def locate(needle: str) -> Iterator[tuple[str, int]]:
    """Yield file (relative to the root of the repository) and line of every place `needle` stands in.

    A needle that begins or ends with a letter or digit is looked for as a whole word.
    """
    if not needle:
        return
    start, end = (r"\b" if re.match(r"\w", edge, re.ASCII) else "" for edge in (needle[0], needle[-1]))
    pattern = re.compile(start + re.escape(needle) + end, re.ASCII)
    notebooks = sorted(paths.DOCS.glob("*/notebooks/*.py"))
    sources = [*sorted(paths.DOCS.rglob("*.md")), *notebooks, paths.DOCS / "references.bib"]
    for file in filter(Path.is_file, sources):
        text = file.read_text(encoding="utf-8")
        for match in pattern.finditer(text):
            yield file.relative_to(paths.ROOT).as_posix(), text.count("\n", 0, match.start()) + 1
