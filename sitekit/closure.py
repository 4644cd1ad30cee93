"""What a Python file of ours depends on: itself and every file of ours it imports, directly or not."""

import ast
import hashlib
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sitekit import fingerprint, paths
from sitekit.remembered import Remembered

FOLDERS = ("snippets", "figures", "sitekit")
NEUTRAL = {
    "sitekit.errors",
    "sitekit.paths",
    "snippets.catalogue",  # what depends on a row hashes what it takes from that row
}
"""Imported in many places, but shape no result."""
NOTHING = fingerprint.computed(ast.Module([], []))


def closure(files: Iterable[Path]) -> set[Path]:
    """Return those of `files` that exist and what they import, without the catalogue."""
    return {Path(name) for name in _closure(map(str, files))}


def digest(files: Iterable[Path]) -> str:
    """Return a hash of the closure of `files`: of code without its comments, docstrings and layout."""
    known = _closure(map(str, files))
    lines = sorted(f"{os.path.relpath(name, paths.ROOT)} {code}\n" for name, code in known.items() if code)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _closure(names: Iterable[str]) -> dict[str, str]:
    """Return path and hash of each file of the closure; the hash of a file without code is empty."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    open_ends = list(names)
    while open_ends:
        name = open_ends.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            modified = os.stat(name).st_mtime_ns
        except FileNotFoundError:
            continue
        found[name], imported = _read(name, modified)
        for module in imported:
            stem = f"{paths.ROOT}/{module.replace('.', '/')}"
            open_ends += [f"{stem}.py", f"{stem}/__init__.py"]
    return found


@cache
def _read(name: str, modified: int) -> tuple[str, tuple[str, ...]]:
    """Return the hash of a file as it was when `modified`, and the modules of ours it may import."""
    code, ours = _known().get(_parse, Path(name).read_bytes())
    return code, tuple(ours)


@cache
def _known() -> Remembered:
    """Return what the last build has read from files, by their content."""
    code = [Path(file).read_bytes() for file in (__file__, fingerprint.__file__)]
    return Remembered("closure", (code, sys.version_info[:2]))


def _parse(source: bytes) -> tuple[str, tuple[str, ...]]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # data, or a mistake, which is reported when the file is run
        return hashlib.sha256(source).hexdigest(), ()
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    computed = fingerprint.computed(tree)
    code = "" if computed == NOTHING else hashlib.sha256(computed.encode()).hexdigest()
    ours = sorted(name for name in modules - NEUTRAL if name.split(".")[0] in FOLDERS)
    return code, tuple(ours)
