"""How far estimated weights are from softmax, and what the signs of a QR decomposition do to their mean."""

import functools

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from snippets.weight_assignment.self_attention.random_features import PerformerAttention, directions

HEADS, WIDTH, TOKENS, SEEDS = 4, 16, 64, 5
DEVIATIONS = (0.5, 1.0, 2.0)
FEATURES = (11, 44, 176, 704)
BLOCKS, DIM = 80_000, 8


@torch.no_grad()
def error(deviation: float, features: int | None, seed: int) -> float:
    """Relative error of the output against softmax; without features, that of the mean of the values."""
    torch.manual_seed(seed)
    E = HEADS * WIDTH
    exact, x = MultiHeadAttention(E, HEADS), torch.randn(1, TOKENS, E)
    for projection, std in ((exact.q_proj, deviation), (exact.k_proj, deviation), (exact.v_proj, 1)):
        nn.init.normal_(projection.weight, std=std / E**0.5)
    right = exact(x, is_causal=True)
    if features is None:
        nn.init.zeros_(exact.q_proj.weight)
        found: Tensor = exact(x, is_causal=True)
    else:
        layer = PerformerAttention(E, HEADS, features)
        layer.load_state_dict(exact.state_dict() | {"projection": layer.projection})
        found = layer(x)
    return float((found - right).norm() / right.norm())


@functools.cache
def mean_error(deviation: float, features: int | None) -> float:
    """Mean over the seeds."""
    return sum(error(deviation, features, seed) for seed in range(SEEDS)) / SEEDS


@functools.cache
def average(sign: int, repaired: bool) -> float:
    """Mean of the estimates of exp(x . y), of its value: two unit vectors at right angles on the axes."""
    torch.manual_seed(0)
    if repaired:
        omega = directions(BLOCKS * DIM, DIM)
    else:
        q, _ = torch.linalg.qr(torch.randn(BLOCKS, DIM, DIM))
        omega = q.mT.flatten(0, 1) * torch.randn(BLOCKS * DIM, DIM).norm(dim=1, keepdim=True)
    along = sign * torch.eye(DIM)[:2].sum(dim=0)
    return (omega @ along - along.square().sum() / 2).exp().mean().item()


def figure(say: Say = english) -> Figure:
    """Left: error by the number of features. Right: mean of the estimates."""
    drawn, (errors, means) = new_figure(1, 2, height=3.4, width_ratios=(1.5, 1))
    for deviation, color in zip(DEVIATIONS, COLORS, strict=False):
        errors.plot(
            FEATURES, [mean_error(deviation, m) for m in FEATURES], "o-", color=color, label=deviation
        )
        errors.axhline(mean_error(deviation, None), color=color, linestyle="--", linewidth=1.2)
    errors.set_xscale("log")
    errors.set_yscale("log")
    errors.set_xticks(FEATURES, [str(m) for m in FEATURES])
    errors.minorticks_off()
    errors.set_yticks((0.1, 0.3, 1), ("0.1", "0.3", "1"))
    errors.set_ylim(bottom=0.05)
    errors.set_xlabel(say("features m", "特征数 m"))
    errors.set_ylabel(say("error", "误差"))
    names = (say("repaired", "已修复"), say("as it comes", "未修复"))
    for repaired, name, marker, color in (
        (True, names[0], "o", COLORS[3]),
        (False, names[1], "s", COLORS[4]),
    ):
        means.plot((0, 1), [average(sign, repaired) for sign in (1, -1)], marker, color=color, label=name)
    means.axhline(1, color="black", linewidth=0.8)
    means.set_xticks((0, 1), (say("along", "顺轴"), say("against", "逆轴")))
    means.set_xlim(-0.5, 1.5)
    means.set_ylim(0.75, 1.25)
    means.set_ylabel(say("mean estimate ÷ true", "估计均值 ÷ 真值"))
    errors.legend(title=say("deviation", "标准差"), title_fontsize=10, loc="lower left", labelspacing=0.2)
    means.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), handletextpad=0.1)
    return drawn


if __name__ == "__main__":
    for deviation in DEVIATIONS:
        print(deviation, [round(mean_error(deviation, m), 3) for m in (*FEATURES, None)])
    print([[round(average(sign, repaired), 3) for sign in (1, -1)] for repaired in (True, False)])
