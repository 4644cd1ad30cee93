"""Notebooks as files: which there are, and the cells of code in them. A translation has the same code."""

import re
from collections.abc import Iterator
from pathlib import Path

from sitekit import paths
from sitekit.language import LANGUAGES

CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)


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
    _, *pieces = CELL.split(file.read_text(encoding="utf-8"))
    pairs = zip(pieces[::2], pieces[1::2], strict=True)
    return [source.strip() for head, source in pairs if "[markdown]" not in head]


def _name(file: Path) -> str:
    return file.relative_to(paths.DOCS).with_suffix("").as_posix()
