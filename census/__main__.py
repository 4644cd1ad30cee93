"""Count again: `python -m census` writes docs/census.json."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from census import presets, wheel
from census.families import family
from census.patterns import PATTERNS

RESULT = Path(__file__).parents[1] / "docs" / "census.json"


def census(files: wheel.Files) -> Mapping[str, Any]:
    """Return what was found in the files of all families."""
    package, version = wheel.pinned()
    found = {name: family(name, texts) for name, texts in files.items()}
    return {
        "package": package,
        "version": version,
        "date": datetime.now(UTC).date().isoformat(),
        "mechanisms": {pattern.slug: pattern.names for pattern in PATTERNS},
        "families": found,
        "presets": presets.rows(found),
    }


def main() -> None:
    """Count, and say what became of it."""
    found = census(wheel.read())
    families = found["families"]
    RESULT.write_text(text(found), encoding="utf-8")
    decoders = sum(bool(row.get("keeps")) for row in families.values())
    print(f"{found['package']} {found['version']}: {len(families)} families, {decoders} caches counted")


def text(found: Mapping[str, Any]) -> str:
    """Return JSON with a line for each family, so that a newer version reads well as a difference."""
    parts = (
        f" {_json(key)}: {_lines(value) if isinstance(value, dict) else _json(value)}"
        for key, value in found.items()
    )
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(rows: Mapping[str, Any]) -> str:
    return "{\n" + ",\n".join(f"  {_json(name)}: {_json(row)}" for name, row in rows.items()) + "\n }"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
