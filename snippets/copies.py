"""Copies of modules in a project of yours: made, looked at, brought up to date.

The first line of a copy names the version of the atlas, the module and its checksum, so that a copy can tell
whether it was edited and whether the module has changed since.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import unified_diff
from hashlib import sha256
from pathlib import Path

from . import __version__
from .catalogue import CATALOGUE, Mechanism
from .lookup import code

STAMP = re.compile(
    r"# attention-atlas (?P<version>\S+), (?P<path>\S+)\.py, sha256 (?P<checksum>[0-9a-f]{16})\n"
)


class CopyError(Exception):
    """A copy cannot be made or found; says so in one sentence."""


@dataclass(frozen=True)
class Copy:
    """A module in a file of a project.

    Attributes:
        file: where it is.
        slug: of the module.
        version: of the atlas it was taken from.
        edited: whether it is no longer what was copied.
        behind: whether the module is no longer what was copied.
    """

    file: Path
    slug: str
    version: str
    edited: bool
    behind: bool

    @property
    def state(self) -> str:
        """In words."""
        if self.slug not in CATALOGUE:
            return "no longer in the atlas"
        words = [word for word, holds in (("edited", self.edited), ("behind", self.behind)) if holds]
        return " and ".join(words) or "up to date"


def add(rows: Iterable[Mechanism], folder: Path) -> list[Path]:
    """Copy modules into a folder, all or none; return the files.

    Raises:
        CopyError: a file of this name is there, or the folder cannot be written.
    """
    files = {folder / f"{row.slug}.py": row for row in rows}
    with _in_words():
        if taken := [str(file) for file in files if file.exists()]:
            raise CopyError(f"nothing was copied, as {', '.join(taken)} is there; `update` renews copies")
        folder.mkdir(parents=True, exist_ok=True)
        for file, row in files.items():
            _write(file, row)
    return list(files)


def copies(folder: Path) -> list[Copy]:
    """Return all copies in a folder and below it, without hidden folders.

    Raises:
        CopyError: there is none.
    """
    with _in_words():
        files = [
            file for file in sorted(folder.rglob("*.py")) if file.is_file() and not _hidden(file, folder)
        ]
        found = [copy for file in files if (copy := _read(file))]
    if not found:
        raise CopyError(f"no copies in {folder}; `add NAME --to {folder}` makes one")
    return found


def update(copy: Copy) -> Iterator[str]:
    """Yield the lines of the diff from a copy that is behind to the module; replace the copy unless edited.

    Raises:
        CopyError: the file cannot be written.
    """
    if copy.slug not in CATALOGUE or not copy.behind:
        return
    row = CATALOGUE[copy.slug]
    old = _text(copy.file).splitlines()
    yield from unified_diff(old, _stamped(row).splitlines(), f"{copy.file}", f"{row.slug}.py", lineterm="")
    if not copy.edited:
        with _in_words():
            _write(copy.file, row)


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CopyError(f"{error.filename}: {error.strerror}") from error


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _read(file: Path) -> Copy | None:
    text = _text(file)
    stamp = STAMP.match(text)
    if stamp is None:
        return None
    slug = stamp["path"].rpartition("/")[2]
    edited = _checksum(text[stamp.end() :]) != stamp["checksum"]
    behind = slug in CATALOGUE and _checksum(code(CATALOGUE[slug])) != stamp["checksum"]
    return Copy(file, slug, stamp["version"], edited, behind)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")  # any file of the project


def _write(file: Path, row: Mechanism) -> None:
    file.write_text(_stamped(row), encoding="utf-8")


def _stamped(row: Mechanism) -> str:
    text = code(row)
    return f"# attention-atlas {__version__}, {row.path}.py, sha256 {_checksum(text)}\n{text}"


def _checksum(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
