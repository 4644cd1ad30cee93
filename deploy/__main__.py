"""Run `python -m deploy`, or `python -m deploy senet cbam` for some; needs the extra `deploy`.

Writes docs/onnx.json: what becomes of each module, and of its variants, in ONNX Runtime. With `--check`
nothing is written; the run fails if a module goes through with other open sizes than recorded.
"""

import argparse
import json
import sys
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from deploy import cases, onnx
from snippets.catalogue import CATALOGUE

FILE = cases.ROOT / "docs" / "onnx.json"


def behaviour(recorded: dict[str, Any] | None) -> dict[str, tuple[list[str], bool]]:
    """What matters of a record: for each case the open sizes, and whether it goes through."""
    found = recorded["cases"] if recorded else {}
    return {name: (list(outcome["open"]), bool(outcome["refused"])) for name, outcome in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="slug", help="all, or some mechanisms")
    parser.add_argument("--stale", action="store_true", help="only those whose module has changed since")
    parser.add_argument("--check", action="store_true", help="compare with docs/onnx.json, write nothing")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in CATALOGUE]:
        parser.error(f"no mechanism {unknown[0]!r}; `python -m snippets` lists all")
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    slugs = arguments.names or list(CATALOGUE)
    if arguments.stale:
        slugs = [s for s in slugs if known.get(s, {}).get("source") != cases.source(CATALOGUE[s])]
    with get_context("spawn").Pool(arguments.processes) as pool:
        found = dict(tqdm(pool.imap_unordered(onnx.named_record, slugs), total=len(slugs), unit="mechanism"))
    if arguments.check:
        changed = [slug for slug in slugs if behaviour(found[slug]) != behaviour(known.get(slug))]
        sys.exit(f"Another outcome than recorded: {', '.join(changed)}" if changed else 0)
    known |= found
    kept = {slug: known[slug] for slug in CATALOGUE if slug in known}
    FILE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
