"""Files that are kept between builds: read only if they are whole, written in one step.

A build that is killed, a full disk or a second build at the same time leaves no file that a later build could
take for one of its own: what is not there in full is made anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from sitekit import paths
from sitekit.errors import BuildError

Found = TypeVar("Found")


def read(file: Path, understand: Callable[[bytes], Found]) -> Found | None:
    """Return what `understand` makes of a file; None if there is none, or none that it understands."""
    try:
        return understand(file.read_bytes())
    except Exception:  # empty, cut, of another version: whatever it is, it is made anew
        return None


def write(file: Path, content: bytes) -> None:
    """Write a file, which stands there in full or not at all.

    Raises:
        BuildError: it cannot be written; says which file and why.
    """
    part = file.with_name(f"{file.name}.{uuid4().hex}.part")  # another build has another name for its own
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        name = file.relative_to(paths.ROOT) if file.is_relative_to(paths.ROOT) else file
        raise BuildError(f"cannot write {name}: {error.strerror or error}") from error


def check(folder: Path) -> None:
    """Say before long work whether its results could be kept.

    Raises:
        BuildError: nothing can be written there.
    """
    file = folder / "check"
    write(file, bytes(100_000))
    file.unlink(missing_ok=True)
