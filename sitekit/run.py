"""Results of running code, from the cache or, for all that is stale, from fresh processes.

What is run has a name: the slug of a mechanism, or the path below figures/ of a figure that belongs to no
mechanism. Nothing here imports torch: a build in which nothing changed takes no time to speak of.
"""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sitekit import paths, store
from sitekit.errors import BuildError
from sitekit.results import Results, from_json
from sitekit.sources import digest
from snippets.catalogue import CATALOGUE, Mechanism

PACKAGES = ("torch", "matplotlib", "numpy", "scikit-image", "scikit-learn", "sympy")

_known: dict[str, tuple[str, Results | str | BuildError]] = {}  # by name: key and outcome in this process


def results(mechanism: Mechanism) -> Results:
    """Return what running the mechanism yields; run all that is stale if it is stale.

    Raises:
        BuildError: the snippet, its figure or a formula is wrong; says which mechanism, file and line.
    """
    found = _outcome(mechanism.slug)
    assert isinstance(found, Results)
    return found


def drawing(path: str) -> str:
    """Return the SVG of figures/<path>.py, one of `figures()`; run all that is stale if it is stale.

    Raises:
        BuildError: the figure is wrong; says which figure, file and line.
    """
    found = _outcome(path)
    assert isinstance(found, str)
    return found


def refresh() -> None:
    """Run all that is stale; to be called again before a build in the same process, as sources may change."""
    stale = [name for name in (*CATALOGUE, *figures()) if _lookup(name) is None]
    if stale:
        _run(stale)


def figures() -> Iterator[str]:
    """Yield the path of each figure that belongs to no mechanism: `attention_domain/spatial/index`."""
    folder = paths.ROOT / "figures"
    taken = {mechanism.path for mechanism in CATALOGUE.values()}
    for file in sorted(folder.rglob("*.py")):
        path = file.relative_to(folder).with_suffix("").as_posix()
        if path not in taken and "\ndef figure(" in file.read_text(encoding="utf-8"):
            yield path


def cache_key(name: str) -> str:
    """Return a hash of all that the outcome depends on: code, formulas, data, versions of packages.

    A figure without a mechanism may have data beside it: figures/<path>.json.
    """
    mechanism = CATALOGUE.get(name)
    path = mechanism.path if mechanism else name
    roots = ["sitekit/worker.py", f"figures/{path}.py"]
    roots += [f"snippets/{path}.py"] if mechanism else [f"figures/{path}.json"]
    parts = [path]
    parts += [mechanism.parameters, mechanism.macs, *(mechanism.state or ())] if mechanism else []
    parts += [digest(paths.ROOT / root for root in roots)]
    parts += [f"{package} {_version(package)}" for package in PACKAGES]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _outcome(name: str) -> Results | str:
    if name not in _known:
        refresh()
    _, outcome = _known[name]
    if isinstance(outcome, BuildError):
        raise outcome
    return outcome


def _lookup(name: str) -> Results | str | BuildError | None:
    key = cache_key(name)
    known, outcome = _known.get(name, ("", None))
    if known == key:
        return outcome

    def understand(content: bytes) -> Results | str | None:
        stored = json.loads(content)
        return _read(stored["results"]) if stored["key"] == key else None

    found = store.read(_cache_file(name), understand)
    if found is not None:
        _known[name] = key, found
    return found


def _run(stale: list[str]) -> None:
    """Compute in fresh processes; each outcome is stored as soon as it is there.

    Raises:
        BuildError: results cannot be stored; all processes have ended.
    """
    store.check(paths.CACHE / "results")
    unkept: list[BuildError] = []
    keys = {name: cache_key(name) for name in stale}
    command = [sys.executable, "-m", "sitekit.worker", *keys]
    with subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            answer = json.loads(line)
            try:
                _keep(answer, keys.pop(answer["name"]))
            except BuildError as error:
                unkept.append(error)
    for name, key in keys.items():  # left over: the process died
        _known[name] = key, BuildError(f"{name}: sitekit.worker ended with exit status {worker.returncode}")
    if unkept:
        raise unkept[0]


def _keep(answer: dict[str, Any], key: str) -> None:
    """Remember an outcome; store results unless the code changed while it ran."""
    name = answer["name"]
    if "error" in answer:
        _known[name] = key, BuildError(answer["error"])
        return
    _known[name] = key, _read(answer["results"])
    if cache_key(name) != key:
        return
    store.write(_cache_file(name), json.dumps({"key": key, "results": answer["results"]}).encode())


def _read(stored: Any) -> Results | str:
    return stored if isinstance(stored, str) else from_json(stored)


def _cache_file(name: str) -> Path:
    return paths.CACHE / "results" / f"{name}.json"


@cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)
