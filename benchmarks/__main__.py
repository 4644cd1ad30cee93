"""Run `python -m benchmarks`, or `python -m benchmarks senet cbam` for some; needs the extra `test`."""

import argparse
import warnings

import torch
from tqdm import tqdm

from benchmarks.pair import Pair
from benchmarks.pairs import ABOVE_ONE, PAIRS, WITHOUT_TWIN
from benchmarks.turns import Cost, Row, compare

COLUMNS = ["snippet", "public twin", "input", "forward, ms", "ratio", "with backward, ms", "ratio"]
COLUMNS += ["memory, MB", "ratio"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"all, or some of: {', '.join(PAIRS)}")
    parser.add_argument("--rounds", type=int, default=31, help="calls of each kind, in turns (default 31)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in PAIRS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(PAIRS)}")
    warnings.filterwarnings("ignore")  # of the public modules
    names = arguments.names or list(PAIRS)
    lines = []
    with tqdm(total=len(names) * arguments.rounds, unit="round") as bar:
        for name in names:
            bar.set_description(name)
            torch.manual_seed(0)
            pair = PAIRS[name]()
            pair.check()
            lines.append(line(name, pair, compare(pair, arguments.rounds, bar.update)))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {arguments.rounds} rounds"
    )
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    print("\n".join(lines))
    above = {name: ABOVE_ONE[name] for name in names if name in ABOVE_ONE}
    for title, reasons in (("Above 1.0 by design", above), ("Without a public twin", WITHOUT_TWIN)):
        if reasons:
            print(f"\n{title}:")
            print("\n".join(f"- {name}: {reason}" for name, reason in reasons.items()))


def line(name: str, pair: Pair, row: Row) -> str:
    cells = [name, pair.public, " ".join(str(tuple(x.shape)) for x in pair.inputs)]
    for costs in (row.forward, row.training):
        cells += [f"{costs[0].milliseconds:.2f} : {costs[1].milliseconds:.2f}", ratio(costs, "milliseconds")]
    cells += [
        f"{row.training[0].peak / 1e6:.1f} : {row.training[1].peak / 1e6:.1f}",
        ratio(row.training, "peak"),
    ]
    return f"| {' | '.join(cells)} |"


def ratio(costs: tuple[Cost, Cost], what: str) -> str:
    return f"{getattr(costs[0], what) / getattr(costs[1], what):.2f}"


if __name__ == "__main__":
    main()
