"""The linear and delta rules beside their own recurrence, transformers and fused softmax attention.

`python -m benchmarks.recurrent` needs the extra `test`. Writes the times by length beside the figure that
shows them. Each call is forward and backward, of one sequence with HEADS heads of width WIDTH.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

from benchmarks.growth import exponent, setting
from benchmarks.memory import keep_freed_memory, peak_bytes
from benchmarks.pair import check_same
from benchmarks.turns import Ratio, in_turns
from snippets.weight_assignment.self_attention.decayed_linear import decayed_linear
from snippets.weight_assignment.self_attention.delta_rule import delta_rule
from snippets.weight_assignment.self_attention.gated_delta import gated_delta
from snippets.weight_assignment.self_attention.kimi_delta import kimi_delta
from snippets.weight_assignment.self_attention.linear import linear_attention

FILE = Path(__file__).parents[1] / "figures/weight_assignment/self_attention/lengths.json"
HEADS, WIDTH = 4, 64
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
LONG = 4096  # where a rule is compared with its recurrence and with transformers
Rule = Callable[..., tuple[Tensor, Any]]


def softmax(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, None]:
    """Causal attention through torch's fused kernel, which wants the heads before the tokens."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2), None


def recurrence(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None = None, beta: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All rules token by token, as they are written in papers."""
    S = q.new_zeros(*q.shape[:1], *q.shape[2:], v.shape[-1])
    out = []
    for t in range(q.shape[1]):
        if g is not None:
            S = S * (g[:, t].exp()[..., None] if g.dim() == 4 else g[:, t].exp()[..., None, None])
        key, write = k[:, t, :, :, None], v[:, t, :, None]
        if beta is not None:
            write = beta[:, t, :, None, None] * (write - key.mT @ S)
        S = S + key * write
        out.append((q[:, t, :, None] @ S)[:, :, 0])
    return torch.stack(out, dim=1), S


RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "linear": (linear_attention, ("q", "k", "v")),
    "decayed_linear": (decayed_linear, ("q", "k", "v", "g")),
    "delta_rule": (delta_rule, ("q", "k", "v", "beta")),
    "gated_delta": (gated_delta, ("q", "k", "v", "g", "beta")),
    "kimi_delta": (kimi_delta, ("q", "k", "v", "channels", "beta")),
}
THEIRS: dict[str, Rule] = {  # both divide the queries by the root of the width
    "gated_delta": torch_chunk_gated_delta_rule,
    "kimi_delta": chunk_kimi_delta_attention,
}


def inputs(length: int) -> dict[str, Tensor]:
    """Seeded queries, keys, values, gates and rates; keys have length one."""
    torch.manual_seed(0)
    shape = 1, length, HEADS, WIDTH
    q, k, v = torch.randn(3, *shape).unbind()
    made = {"q": F.normalize(q, dim=-1), "k": F.normalize(k, dim=-1), "v": v}
    made |= {"g": -0.1 * torch.rand(shape[:3]), "channels": -0.1 * torch.rand(shape)}
    made["beta"] = torch.rand(shape[:3])
    return {name: t.requires_grad_() for name, t in made.items()}


def call(rule: Rule, tensors: list[Tensor]) -> None:
    """Forward and backward."""
    out, _ = rule(*tensors)
    torch.autograd.grad(out.sum(), tensors)


def check(slug: str) -> None:
    """Refuse to compare what does not compute the same.

    Raises:
        ValueError: the outputs differ by more than rounding.
    """
    rule, names = RULES[slug]
    made = inputs(200)
    expected, _ = rule(*(made[name] for name in names))
    others = {"the recurrence": (token_by_token(slug), 1.0)}
    if slug in THEIRS:
        others["transformers"] = (THEIRS[slug], WIDTH**0.5)
    for name, (other, scale) in others.items():
        check_same(f"{slug}: {name}", expected, scale * other(*(made[name] for name in names))[0])


def token_by_token(slug: str) -> Rule:
    """Return the recurrence with the arguments of a rule."""
    names = ["beta" if name == "beta" else "g" for name in RULES[slug][1][3:]]
    return lambda q, k, v, *rest: recurrence(q, k, v, **dict(zip(names, rest, strict=True)))


def ratios(slug: str, rounds: int) -> dict[str, str]:
    """Return the time of a rule at LONG tokens over that of its recurrence, and over that of transformers."""
    rule, names = RULES[slug]
    made = inputs(LONG)
    tensors = [made[name] for name in names]
    others = {"recurrence": token_by_token(slug), "transformers": THEIRS.get(slug)}
    found = {}
    for name, other in others.items():
        if other is not None:
            ours, theirs = in_turns([partial(call, rule, tensors), partial(call, other, tensors)], rounds)
            found[name] = str(Ratio.of(ours, theirs))
    return found


def by_length(rounds: int) -> dict[str, dict[str, Any]]:
    """Return processor time of the fastest round, and peak memory, of each rule and softmax by length."""
    rules = RULES | {"softmax": (softmax, ("q", "k", "v"))}
    found: dict[str, dict[str, Any]] = {slug: {"milliseconds": [], "bytes": []} for slug in rules}
    for length in tqdm(LENGTHS, unit="length"):
        made = inputs(length)
        calls = [partial(call, rule, [made[name] for name in names]) for rule, names in rules.values()]
        for slug, run, seconds in zip(rules, calls, in_turns(calls, rounds), strict=True):
            found[slug]["milliseconds"].append(round(1e3 * min(seconds), 3))
            found[slug]["bytes"].append(peak_bytes(run))
    for times in found.values():
        times["exponents"] = {kind: exponent(LENGTHS, times[kind]) for kind in ("milliseconds", "bytes")}
    return found


def step_ratio(rounds: int) -> str:
    """Return the time of a decode step after LONG tokens over that after one."""
    rule, names = RULES["gated_delta"]
    made = {name: t.detach() for name, t in inputs(LONG).items()}
    first, last = [rule(*(made[name][:, :length] for name in names))[1] for length in (1, LONG)]
    token = [made[name][:, :1] for name in names]
    steps = [partial(rule, *token, state) for state in (last, first)]
    return str(Ratio.of(*in_turns(steps, rounds)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recurrent", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="calls of each kind, in turns (default 5)")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    keep_freed_memory()
    for slug in RULES:
        check(slug)
    measured = by_length(rounds)
    taken = setting(rounds, heads=HEADS, width=WIDTH, lengths=LENGTHS)
    FILE.write_text(json.dumps({"setting": taken, "rules": measured}, indent=1) + "\n", encoding="utf-8")
    print(f"| rule | time | memory | at {LONG} tokens / recurrence | / transformers |\n|---|---|---|---|---|")
    for slug in RULES:
        growth = " | ".join(f"T^{power:.2f}" for power in measured[slug]["exponents"].values())
        found = ratios(slug, rounds)
        print(f"| {slug} | {growth} | {found['recurrence']} | {found.get('transformers', '–')} |")
    print(f"a step of gated_delta after {LONG} tokens / after one: {step_ratio(20 * rounds)}")


if __name__ == "__main__":
    main()
