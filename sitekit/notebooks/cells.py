"""Notebooks as files: which there are, and the cells in them. A translation has the same code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sitekit import paths
from sitekit.errors import BuildError
from sitekit.language import LANGUAGES

CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)
HEAD = re.compile(r'(?P<text> \[markdown\])?|(?: alt="(?P<alt>.*)")')
COMMENT = re.compile("^# ?", re.MULTILINE)


class Cell(NamedTuple):
    """A cell of a notebook.

    Attributes:
        line: number of the line of the file at which its source starts.
        source: code, or text in Markdown.
        code: whether it is code.
        alt: what the figure of the code shows, in words.
    """

    line: int
    source: str
    code: bool
    alt: str


def notebooks() -> Iterator[str]:
    """Yield each notebook with code of its own by its path below docs/: `en/notebooks/spatial`."""
    for code in LANGUAGES:
        for file in sorted((paths.DOCS / code / "notebooks").glob("*.py")):
            if (name := original(file)) == _name(file):
                yield name


def original(file: Path) -> str:
    """Return the notebook whose outputs this one shows: that of the first language if their code is one."""
    first = paths.DOCS / next(iter(LANGUAGES)) / "notebooks" / file.name
    return _name(first if first.is_file() and code_cells(first) == code_cells(file) else file)


def code_cells(file: Path) -> list[str]:
    """Return the source of each cell of code."""
    return [cell.source for cell in cells(file) if cell.code]


def cells(file: Path) -> list[Cell]:
    """Return the cells of a notebook, its front matter first if it has one.

    Raises:
        BuildError: a cell begins with something else than `# %%`, `# %% [markdown]` or `# %% alt="..."`.
    """
    text = file.read_text(encoding="utf-8")
    front, *pieces = CELL.split(text)
    found = [Cell(1, COMMENT.sub("", front).strip(), code=False, alt="")] if front.strip() else []
    line = 1 + front.count("\n")
    for head, source in zip(pieces[::2], pieces[1::2], strict=True):
        kind = HEAD.fullmatch(head.rstrip())
        if kind is None:
            raise BuildError(f"{place(file, line)}: a cell cannot begin with '# %%{head}'")
        start = line + 1 + len(source) - len(source.lstrip("\n"))
        written = source.strip("\n").rstrip()
        shown = COMMENT.sub("", written) if kind["text"] else written
        found.append(Cell(start, shown, code=not kind["text"], alt=kind["alt"] or ""))
        line += 1 + source.count("\n")
    return found


def place(file: Path, line: int) -> str:
    """Return a file and a line as errors name them."""
    return f"{file.relative_to(paths.ROOT) if file.is_relative_to(paths.ROOT) else file}:{line}"


def _name(file: Path) -> str:
    return file.relative_to(paths.DOCS).with_suffix("").as_posix()
