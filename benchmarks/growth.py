"""Time and memory of the spatial blocks by number of positions: `python -m benchmarks.growth`.

Writes what it measured beside the figure that shows it.
"""

import argparse
import datetime
import inspect
import json
import os
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.memory import keep_freed_memory, peak_bytes
from snippets.catalogue import CATALOGUE, Domain

FILE = Path(__file__).parents[1] / "figures/attention_domain/spatial/growth.json"
CHANNELS = 64
SIDES = (16, 24, 32, 48, 64, 96, 128)
FITTED = 1024  # positions from which on the exponents are fitted
IN_USE: dict[str, dict[str, int]] = {  # sizes that `example` makes smaller than they are in use
    "em_attention": {"K": 64},
    "psanet": {"r": 4},
    "hamburger": {"R": 64},
}
LEFT_OUT = {"ram": "looks at the same number of pixels in a picture of any size"}
LARGE = ("attention_factors", "psanet", "augmented_convolution")  # gigabytes, or minutes, beyond 64 x 64


def blocks() -> list[str]:
    """Return the spatial mechanisms whose example is one map of any number of channels, height and width."""
    spatial = [
        slug for slug, row in CATALOGUE.items() if row.domain is Domain.SPATIAL and slug not in LEFT_OUT
    ]
    return [slug for slug in spatial if _takes_a_map(import_module(CATALOGUE[slug].module))]


def _takes_a_map(module: ModuleType) -> bool:
    sizes = {name: size.default for name, size in inspect.signature(module.example).parameters.items()}
    return [x.shape for x in module.example()[1]] == [tuple(sizes.get(name) for name in "BCHW")]


def sides(slug: str) -> list[int]:
    """Return the sides of the maps a block is measured on."""
    return [side for side in SIDES if side <= 64 or slug not in LARGE]


def build(slug: str, side: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a block and its input, a (1, CHANNELS, side, side) map."""
    example = import_module(CATALOGUE[slug].module).example
    block, inputs = example(B=1, C=CHANNELS, H=side, W=side, **IN_USE.get(slug, {}))
    return block, inputs


@torch.no_grad()
def peak(block: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Return the most bytes of tensors alive at a time, input included."""
    return peak_bytes(lambda: block(*(x.clone() for x in inputs)))


def processor_milliseconds(block: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Return the processor time of a call; with one thread that is its time on a machine at rest."""
    start = time.process_time()
    block(*inputs)
    return (time.process_time() - start) * 1e3


def exponent(positions: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope of a straight line through the logarithms, from FITTED positions on.

    >>> exponent([256, 1024, 4096], [0.9, 1, 8])
    1.5
    """
    points = [(n, value) for n, value in zip(positions, values, strict=True) if n >= FITTED]
    x, y = np.log(points).T
    return round(float(np.polyfit(x, y, 1)[0]), 3)


@torch.no_grad()
def measure(rounds: int) -> dict[str, dict[str, Any]]:
    """Return the processor time of the fastest round and the peak memory of each block at each size."""
    slugs = blocks()
    cases = {(slug, side): build(slug, side) for slug in slugs for side in sides(slug)}
    order = list(cases)
    fastest = dict.fromkeys(order, float("inf"))
    with tqdm(total=(1 + rounds) * len(order), unit="call") as bar:
        bytes_alive = {}
        for case in order:  # also warms up
            bar.set_description(case[0])
            bytes_alive[case] = peak(*cases[case])
            bar.update()
        for number in range(rounds):
            for case in order if number % 2 else reversed(order):
                bar.set_description(case[0])
                fastest[case] = min(fastest[case], processor_milliseconds(*cases[case]))
                bar.update()
    return {
        slug: {
            "positions": [side**2 for side in sides(slug)],
            "milliseconds": [round(fastest[slug, side], 4) for side in sides(slug)],
            "bytes": [bytes_alive[slug, side] for side in sides(slug)],
        }
        for slug in slugs
    }


def with_exponents(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add to each block the exponents of its time and of its memory."""
    kinds = ("milliseconds", "bytes")
    return {
        slug: {**block, "exponents": {kind: exponent(block["positions"], block[kind]) for kind in kinds}}
        for slug, block in measured.items()
    }


def setting(rounds: int, **more: Any) -> dict[str, Any]:
    """Return what a measurement was taken with: versions, machine, and what else the caller says."""
    return {
        "torch": torch.__version__.partition("+")[0],
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "rounds": rounds,
        **more,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=15, help="calls of each block at each size (default 15)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    measured = with_exponents(measure(arguments.rounds))
    taken = setting(arguments.rounds, channels=CHANNELS, fitted=FITTED)
    FILE.write_text(json.dumps({"setting": taken, "blocks": measured}, indent=1) + "\n", encoding="utf-8")
    print("| block | complexity | time | memory |\n|---|---|---|---|")
    for slug, block in measured.items():
        growth = (f"N^{exponent:.2f}" for exponent in block["exponents"].values())
        print(f"| {slug} | {CATALOGUE[slug].complexity} | {' | '.join(growth)} |")


if __name__ == "__main__":
    main()
