"""What a Python file of ours depends on: itself and every file of ours it imports, directly or not."""

import ast
import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sitekit import paths

FOLDERS = ("snippets", "figures", "sitekit")
CATALOGUE = "snippets.catalogue"  # imported nearly everywhere; what depends on a row hashes that row


def closure(files: Iterable[Path]) -> set[Path]:
    """Return those of `files` that exist and what they import, without the catalogue."""
    return {Path(name) for name in _closure(map(str, files))}


def digest(files: Iterable[Path]) -> str:
    """Return a hash of the names and contents of the closure of `files`."""
    known = _closure(map(str, files))
    text = "".join(f"{os.path.relpath(name, paths.ROOT)} {known[name]}\n" for name in sorted(known))
    return hashlib.sha256(text.encode()).hexdigest()


def _closure(names: Iterable[str]) -> dict[str, str]:
    """Return path and hash of each file of the closure."""
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
    source = Path(name).read_bytes()
    try:
        tree = ast.parse(source)
    except SyntaxError:  # reported when the file is run
        tree = ast.Module([], [])
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    ours = sorted(module for module in modules - {CATALOGUE} if module.split(".")[0] in FOLDERS)
    return hashlib.sha256(source).hexdigest(), tuple(ours)
