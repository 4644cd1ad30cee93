"""What longer runs have recorded in docs/: of proofs, of exports."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from sitekit import paths


def recorded(name: str) -> dict[str, Any]:
    """Return what docs/<name> holds, nothing if there is no such file."""
    file = paths.DOCS / name
    return _read(file, file.stat().st_mtime_ns) if file.is_file() else {}


@cache
def _read(file: Path, modified: int) -> dict[str, Any]:
    """Return the content of a file as it was when `modified`."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
