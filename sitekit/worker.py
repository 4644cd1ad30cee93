"""Runs code in processes of its own: `python -m sitekit.worker senet attention_domain/spatial/index`.

A name is the slug of a mechanism, or the path of a figure that belongs to none. Writes one line of JSON per
name to standard output as it is done: `{"name": ..., "results": ...}`, or "error" instead of "results";
progress goes to standard error.
"""

import contextlib
import importlib
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import matplotlib
import numpy as np
import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from sitekit import cost, diagram, figure, paths
from sitekit.diagram.names import Names
from sitekit.errors import BuildError
from sitekit.results import Results, to_json
from snippets.catalogue import CATALOGUE, Mechanism

MOST_PROCESSES = 4
"""Each holds torch and a figure in training, up to a gigabyte."""

START: Literal["fork", "spawn"] = "fork" if sys.platform == "linux" else "spawn"
"""A fork need not import torch again; macOS ends those that use its libraries."""

Report = Callable[[str], contextlib.AbstractContextManager[None]]


def compute(mechanism: Mechanism, step: Report) -> Results:
    """Run one mechanism; `step(name)` is entered around each part of the work."""
    with step("cost"):
        module = importlib.import_module(mechanism.module)
        example = cost.example_sizes(module)
        rows = cost.rows(mechanism, module)
        received, attention, returned = _shapes(module, example)
    with step("diagram"):
        _seed()
        block, inputs = module.example()
        diagram_svg = diagram.draw(block, inputs, example)
    with step("figure"):
        figure_svg = draw(mechanism.path, mechanism.slug)
    return Results(
        figure_svg=figure_svg,
        diagram_svg=diagram_svg,
        inputs=received,
        attention=attention,
        outputs=returned,
        parameters_tex=cost.formula_tex(mechanism.parameters, example),
        macs_tex=cost.formula_tex(mechanism.macs, example),
        state_tex=tuple(cost.formula_tex(formula, example) for formula in mechanism.state or ()),
        rows=rows,
    )


def draw(path: str, name: str) -> str:
    """Return the figure of figures/<path>.py as SVG whose ids start with `name`, empty without the file."""
    if not (paths.ROOT / "figures" / f"{path}.py").is_file():
        return ""
    _seed()
    module = importlib.import_module("figures." + path.replace("/", "."))
    with matplotlib.rc_context():
        return figure.to_svg(module.figure(), name)


def main(names: list[str]) -> None:
    """Compute what is named, several at a time; one that fails does not stop the others."""
    workers = min(len(names), os.cpu_count() or 1, MOST_PROCESSES)
    with (
        tqdm(total=len(names), unit="mechanism", disable=not sys.stderr.isatty()) as bar,
        ProcessPoolExecutor(workers, mp_context=get_context(START)) as pool,
    ):
        futures = {pool.submit(answer, name): name for name in names}
        for number, future in enumerate(as_completed(futures), 1):
            name, times = futures[future], list[str]()
            try:
                found, times = future.result()
            except BrokenProcessPool:
                found = {"name": name, "error": f"{name}: a process ended before this was done"}
            bar.set_description(name)
            bar.update()
            if bar.disable:
                print(f"[{number}/{len(names)}] {name}", *times, sep="  ", file=sys.stderr, flush=True)
            print(json.dumps(found), flush=True)


def answer(name: str) -> tuple[dict[str, Any], list[str]]:
    """Return what is written for a name, and how long each part of the work took."""
    times: list[str] = []
    found: dict[str, Any] = {"name": name}
    with contextlib.redirect_stdout(sys.stderr):  # what a snippet prints is not an answer
        try:
            found["results"] = _results(name, _timer(times))
        except Exception as error:
            found["error"] = explain(name, error)
    return found, times


def _results(name: str, step: Report) -> dict[str, Any] | str:
    if name in CATALOGUE:
        return to_json(compute(CATALOGUE[name], step))
    with step("figure"):
        return draw(name, name.replace("/", "-"))


def explain(name: str, error: Exception) -> str:
    """Return one line: name, file and line of the innermost frame that is ours, what went wrong."""
    if isinstance(error, BuildError):
        return f"{name}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f"{path.relative_to(paths.ROOT)}:{frame.lineno}"
        for frame in frames
        if (path := Path(frame.filename)).is_relative_to(paths.ROOT) and "site-packages" not in path.parts
    ]
    message = str(error).strip() or "no message"
    return f"{name}: {ours[-1]}: {type(error).__name__}: {message}"


def _timer(times: list[str]) -> Report:
    @contextlib.contextmanager
    def step(part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        times.append(f"{part} {time.perf_counter() - start:.1f} s")

    return step


def _shapes(module: ModuleType, example: dict[str, int]) -> tuple[tuple[str, ...], ...]:
    """Return the shapes of inputs, g(x) and f(g(x), x) in the symbols of the example."""
    names = Names(example)
    block, inputs = module.example()
    with torch.no_grad():
        groups = (inputs, block.attention(*inputs), block(*inputs))
    return tuple(tuple(names.shape(tensor.shape) for tensor in cost.tensors(group)) for group in groups)


def _seed() -> None:
    """Make results independent of what ran before."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in another order would draw another figure
    np.random.seed(0)
    random.seed(0)


if __name__ == "__main__":
    main(sys.argv[1:])
