"""Files of results that are kept between builds: `.sitecache/results/KIND/NAME`.

The first line of a file names the key of what follows, its hash and how long it took to make. A file is
written in one step. So a build that is killed, a full disk or a second build at the same time leaves nothing
that a later build could take for a result: what is not there in full is made anew.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

from sitekit import paths
from sitekit.errors import BuildError

UNFINISHED = 3600.0  # seconds after which a file in writing was given up


def read(kind: str, name: str, key: str) -> Any:
    """Return the result that was kept under this key; None if there is none, or none that is whole."""
    try:
        first, content = _file(kind, name).read_bytes().split(b"\n", 1)
        if first.decode().split()[:2] == [key, _hash(content)]:
            return json.loads(content)
    except (OSError, ValueError):
        pass  # none, cut, of another version: whatever it is, it is made anew
    return None


def seconds(kind: str, name: str) -> float:
    """Return how long it took the last time; what was never made comes first."""
    try:
        with _file(kind, name).open("rb") as file:
            return float(file.readline().split()[2])
    except (OSError, ValueError, IndexError):
        return float("inf")


def write(kind: str, name: str, key: str, result: Any, took: float) -> None:
    """Keep a result, in full or not at all.

    Raises:
        BuildError: it cannot be written; says which file and why.
    """
    content = json.dumps(result).encode()
    _write(_file(kind, name), f"{key} {_hash(content)} {took:.1f}\n".encode() + content)


def check() -> None:
    """Say before long work whether its results could be kept.

    Raises:
        BuildError: nothing can be written.
    """
    file = _folder() / "check"
    _write(file, bytes(100_000))
    file.unlink(missing_ok=True)


def files() -> list[Path]:
    """Return every file of a result that is kept."""
    found = _folder().rglob("*.json")
    return [file for file in found if file.parent.name != "remembered"]


def keep_only(current: Iterable[tuple[str, str]]) -> None:
    """Remove all but these kinds and names, and what builds that were cut off have not finished."""
    kept = {_file(kind, name) for kind, name in current}
    for file in [file for file in _folder().rglob("*") if file.is_file()]:
        if file.suffix == ".part":
            if time.time() - file.stat().st_mtime > UNFINISHED:
                file.unlink(missing_ok=True)
        elif file not in kept and file.parent.name != "remembered":
            file.unlink(missing_ok=True)


def _folder() -> Path:
    return paths.CACHE / "results"


def _file(kind: str, name: str) -> Path:
    return _folder() / kind / f"{name}.json"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(file: Path, content: bytes) -> None:
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
