"""Run `python -m benchmarks`, or `python -m benchmarks senet cbam` for some; needs the extra `test`."""

import argparse
import warnings
from collections.abc import Callable

import torch
from tqdm import tqdm

from benchmarks import against_mmcv, against_pytorchcv, against_torch
from benchmarks.measure import Cost, Row, compare
from benchmarks.pair import Pair

PAIRS: dict[str, Callable[[], Pair]] = {
    function.__name__: function
    for function in (
        against_torch.self_attention,
        against_torch.multi_head,
        against_torch.transformer_encoder,
        against_torch.transformer_decoder,
        against_pytorchcv.senet,
        against_mmcv.non_local,
        against_pytorchcv.self_attention_2d,
        against_mmcv.criss_cross,
        against_mmcv.global_context,
        against_mmcv.attention_factors,
        against_pytorchcv.sknet,
        against_pytorchcv.cbam,
    )
}


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
