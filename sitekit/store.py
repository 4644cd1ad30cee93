"""What running code yields, from files or, for all that is stale, made anew in fresh processes.

Nothing here imports torch: a build in which nothing changed takes no time to speak of.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from sitekit import entries, paths
from sitekit.errors import BuildError
from sitekit.kinds import KINDS
from sitekit.language import Language
from sitekit.results import DropIn, Results, from_json
from snippets.catalogue import Mechanism

Name = tuple[str, str]
"""Kind and name of a result."""

asked: set[Name] = set()
"""What was asked for: sitekit.builder puts a set of its own here for each page."""

_known: dict[Name, tuple[str, Any]] = {}  # key and outcome in this process


def results(mechanism: Mechanism) -> Results:
    """Return what a mechanism costs, counted, and the shapes of what it takes and gives.

    Raises:
        BuildError: as `ask`.
    """
    return from_json(ask("cost", mechanism.slug))


def drop_in(mechanism: Mechanism) -> DropIn | None:
    """Return what a block for feature maps does in a network; None for what is no such block.

    Raises:
        BuildError: as `ask`.
    """
    found = ask("block", mechanism.slug)
    return DropIn(**found) if found else None


def diagram(mechanism: Mechanism, language: Language) -> str:
    """Return the dataflow diagram of a mechanism as SVG.

    Raises:
        BuildError: as `ask`.
    """
    drawn: str = ask("diagram", mechanism.slug)[language.code]
    return drawn


def drawing(path: str, language: Language) -> str:
    """Return the SVG of figures/<path>.py.

    Raises:
        BuildError: as `ask`.
    """
    drawn: str = ask("figure", path)[language.code]
    return drawn


def exploration(path: str, language: Language) -> dict[str, str]:
    """Return kind and file of what a reader can move beside figures/<path>.py.

    Raises:
        BuildError: as `ask`.
    """
    found: dict[str, str] = ask("exploration", path)[language.code]
    return found


def ask(kind: str, name: str) -> Any:
    """Return a result; make all that is stale if it is stale.

    Raises:
        BuildError: the code is wrong; says file and line.
    """
    asked.add((kind, name))
    if (kind, name) not in _known:
        refresh()
    _, outcome = _known[kind, name]
    if isinstance(outcome, BuildError):
        raise outcome
    return outcome


def refresh(wanted: Iterable[Name] | None = None) -> None:
    """Make all that is stale; to be called again before a build in the same process, as sources may change.

    Args:
        wanted: kinds and names to look at; all there are by default.

    Raises:
        BuildError: results cannot be kept; all processes have ended.
    """
    _, stale = look(current() if wanted is None else wanted)
    make(stale, sorted(stale, key=took, reverse=True))


def look(wanted: Iterable[Name]) -> tuple[set[Name], dict[Name, str]]:
    """Read what is kept; what is stale stays as it was.

    Returns what has changed since the last time, and the keys of what is stale.
    """
    changed, stale = set(), {}
    for kind, name in wanted:
        key = KINDS[kind].key(name)
        if _known.get((kind, name), ("",))[0] == key:
            continue
        outcome = entries.read(kind, name, key)
        if outcome is None:
            stale[kind, name] = key
        else:
            changed.add((kind, name))
            _known[kind, name] = key, outcome
    return changed, stale


def current() -> list[Name]:
    """Return kind and name of every result there is."""
    return [(kind, name) for kind in KINDS for name in KINDS[kind].names()]


def took(one: Name) -> float:
    """Return the seconds that a result took the last time; infinitely many if there was none."""
    return entries.seconds(*one)


def make(stale: dict[Name, str], order: list[Name], tell: Callable[[str], object] = str) -> None:
    """Make in fresh processes; each result is kept as soon as it is there.

    Args:
        stale: keys of what is made.
        order: the same, what comes first at first.
        tell: called with each mistake as soon as it is known.

    Raises:
        BuildError: results cannot be kept; all processes have ended.
    """
    if not stale:
        return
    entries.check()
    unkept: list[BuildError] = []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # sums in another order would draw another figure
    command = [sys.executable, "-m", "sitekit.worker", json.dumps(order)]
    with subprocess.Popen(
        command, cwd=paths.ROOT, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            answer = json.loads(line)
            one = answer["kind"], answer["name"]
            if "error" in answer:
                tell(answer["error"])
            try:
                _keep(*one, stale.pop(one), answer)
            except BuildError as error:
                unkept.append(error)
    for (kind, name), key in stale.items():  # left over: the process died
        ended = f"{kind} of {name}: sitekit.worker ended with exit status {worker.returncode}"
        _known[kind, name] = key, BuildError(ended)
    if unkept:
        raise unkept[0]


def _keep(kind: str, name: str, key: str, answer: dict[str, Any]) -> None:
    """Remember an outcome; keep a result unless the code changed while it was made."""
    if "error" in answer:
        _known[kind, name] = key, BuildError(answer["error"])
        return
    _known[kind, name] = key, answer["result"]
    if KINDS[kind].key(name) == key:
        entries.write(kind, name, key, answer["result"], answer["seconds"])
