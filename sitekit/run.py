"""Results of running a mechanism, from the cache or from one fresh process for all that are stale.

Nothing here imports torch: a build in which nothing changed takes no time to speak of.
"""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sitekit import paths
from sitekit.errors import BuildError
from sitekit.results import Results, from_json
from sitekit.sources import digest
from snippets.catalogue import CATALOGUE, Mechanism

PACKAGES = ("torch", "matplotlib", "numpy", "scikit-image", "scikit-learn", "sympy")


_known: dict[str, tuple[str, Results | BuildError]] = {}  # by slug: key and outcome in this process


def results(mechanism: Mechanism) -> Results:
    """Return what running the mechanism yields; run all stale mechanisms of the catalogue if it is stale.

    Raises:
        BuildError: the snippet, its figure or a formula is wrong; says which mechanism, file and line.
    """
    outcome = _lookup(mechanism)
    if outcome is None:
        _run([row for row in CATALOGUE.values() if _lookup(row) is None])
        _, outcome = _known[mechanism.slug]
    if isinstance(outcome, BuildError):
        raise outcome
    return outcome


def cache_key(mechanism: Mechanism) -> str:
    """Return a hash of all that the results depend on: code, formulas and versions of packages."""
    roots = ("sitekit/worker.py", f"snippets/{mechanism.path}.py", f"figures/{mechanism.path}.py")
    parts = [
        mechanism.path,
        mechanism.parameters,
        mechanism.macs,
        digest(paths.ROOT / root for root in roots),
    ]
    parts += [f"{package} {_version(package)}" for package in PACKAGES]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _lookup(mechanism: Mechanism) -> Results | BuildError | None:
    key = cache_key(mechanism)
    known, outcome = _known.get(mechanism.slug, ("", None))
    if known == key:
        return outcome
    try:
        stored = json.loads(_cache_file(mechanism.slug).read_text(encoding="utf-8"))
        if stored["key"] != key:
            return None
        found = from_json(stored["results"])
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not what this version writes
        return None
    _known[mechanism.slug] = key, found
    return found


def _run(stale: list[Mechanism]) -> None:
    """Compute in one fresh process; each result is stored as soon as it is there."""
    rows = {mechanism.slug: mechanism for mechanism in stale}
    keys = {slug: cache_key(mechanism) for slug, mechanism in rows.items()}
    command = [sys.executable, "-m", "sitekit.worker", *keys]
    with subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            answer = json.loads(line)
            slug = answer["slug"]
            _keep(answer, keys.pop(slug), rows[slug])
    for slug, key in keys.items():  # left over: the process died
        _known[slug] = key, BuildError(f"{slug}: sitekit.worker ended with exit status {worker.returncode}")


def _keep(answer: dict[str, Any], key: str, mechanism: Mechanism) -> None:
    """Remember an outcome; store results unless the code changed while it ran."""
    if "error" in answer:
        _known[mechanism.slug] = key, BuildError(answer["error"])
        return
    _known[mechanism.slug] = key, from_json(answer["results"])
    if cache_key(mechanism) != key:
        return
    file = _cache_file(mechanism.slug)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"key": key, "results": answer["results"]}), encoding="utf-8")
    part.replace(file)


def _cache_file(slug: str) -> Path:
    return paths.CACHE / "results" / f"{slug}.json"


@cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)
