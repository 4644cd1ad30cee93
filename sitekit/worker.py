"""Makes results in processes of its own: `python -m sitekit.worker '[["cost", "senet"]]'`.

Writes one line of JSON for each to standard output as it is done: "result" or "error", and "seconds".
Progress goes to standard error.
"""

import contextlib
import importlib
import json
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from sitekit.errors import explain
from sitekit.kinds import KINDS
from sitekit.processes import CONTEXT

MOST_PROCESSES = 4
"""Each holds torch and a figure in training, up to a gigabyte."""


def main(wanted: list[tuple[str, str]]) -> None:
    """Make what is wanted in this order, several at a time; one that fails does not stop the others."""
    for kind in {kind for kind, _ in wanted}:
        with contextlib.suppress(Exception):  # said once for each name
            importlib.import_module(KINDS[kind].maker)
    _end_with(os.getppid())
    workers = min(len(wanted), os.cpu_count() or 1, MOST_PROCESSES)
    with (
        tqdm(total=len(wanted), disable=not sys.stderr.isatty()) as bar,
        ProcessPoolExecutor(workers, CONTEXT, initializer=_end_with, initargs=(os.getpid(),)) as pool,
    ):
        futures = {pool.submit(answer, kind, name): (kind, name) for kind, name in wanted}
        for number, future in enumerate(as_completed(futures), 1):
            kind, name = futures[future]
            try:
                found = future.result()
            except BrokenProcessPool:
                found = {"error": f"{kind} of {name}: a process ended before this was done", "seconds": 0}
            bar.set_description(f"{kind} of {name}")
            bar.update()
            if bar.disable:
                line = f"[{number}/{len(wanted)}] {kind} of {name}  {found['seconds']:.1f} s"
                print(line, file=sys.stderr, flush=True)
            try:
                print(json.dumps({"kind": kind, "name": name, **found}), flush=True)
            except BrokenPipeError:
                os._exit(1)  # whoever asked has just ended


def answer(kind: str, name: str) -> dict[str, Any]:
    """Return what is written for a name."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):  # what a snippet prints is not an answer
        try:
            found = {"result": KINDS[kind].make(name)}
        except Exception as error:
            found = {"error": f"{kind} of {name}: {explain(error)}"}
    return {**found, "seconds": time.perf_counter() - start}


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: nobody would take what it makes."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
