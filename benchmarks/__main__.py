"""Run `python -m benchmarks`, or `python -m benchmarks senet cbam` for some; needs the extra `test`."""

import argparse
import warnings

import torch
from tqdm import tqdm

from benchmarks.compare import Cost, compare
from benchmarks.memory import keep_freed_memory
from benchmarks.pair import Pair
from benchmarks.pairs import ALONE, PAIRS

COLUMNS = ["snippet", "public twin", "input"]
COLUMNS += [
    f"{kind}{what}" for kind in ("forward", "with backward") for what in (", ms", " / twin", " / limit")
]
COLUMNS += ["memory, MB", "memory / twin"]
EXPLAINED = """One thread, processor time, medians of {rounds} rounds in turns, torch {torch}.
A ratio is the median of the ratios of all turns, with its quartiles; where these lie wide apart there is no
verdict. The limit is two reads and one write of the largest input, measured in the same turns."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    every = PAIRS | ALONE
    parser.add_argument("names", nargs="*", metavar="name", help=f"all, or some of: {', '.join(every)}")
    parser.add_argument("--rounds", type=int, default=31, help="calls of each kind, in turns (default 31)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in every]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(every)}")
    warnings.filterwarnings("ignore")  # of the public modules
    torch.set_num_threads(1)
    keep_freed_memory()
    names = arguments.names or list(every)
    lines = []
    with tqdm(total=2 * len(names) * arguments.rounds, unit="round") as bar:
        for name in names:
            bar.set_description(name)
            torch.manual_seed(0)
            pair = every[name]()
            pair.check()
            lines.append(line(name, pair, compare(pair, arguments.rounds, bar.update)))
    print(EXPLAINED.format(rounds=arguments.rounds, torch=torch.__version__))
    print(f"\n| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    print("\n".join(lines))


def line(name: str, pair: Pair, costs: tuple[Cost, Cost]) -> str:
    cells = [name, pair.public, " ".join(str(tuple(x.shape)) for x in pair.inputs)]
    for cost in costs:
        cells += [f"{cost.milliseconds:.2f}", str(cost.twin or "–"), str(cost.limit)]
    peak, twin = costs[1].peak, costs[1].twin_peak
    cells += [f"{peak / 1e6:.1f}", f"{peak / twin:.2f}" if twin else "–"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
