"""What width does to four scores of random vectors, and to the weights a softmax makes of them."""

import math

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import COLORS, Say, english, new_figure
from snippets.foundations.scores import MODES, ScoredAttention

WIDTHS = (4, 8, 16, 32, 64, 128, 256, 512)
SHOWN = ("dot", "general", "scaled_dot", "additive")
QUERIES, KEYS, REPEATS = 64, 32, 12
SYMBOLS, LENGTH = 12, 10


@torch.no_grad()
def statistics(mode: str, width: int) -> tuple[float, float]:
    """Variance of the scores, and mean entropy of the weights in nats; parameters as torch draws them."""
    torch.manual_seed(0)
    variances, entropies = [], []
    for _ in range(REPEATS):
        attend = ScoredAttention(mode, width, width, hidden_dim=width)
        query, key = torch.randn(1, QUERIES, width), torch.randn(1, KEYS, width)
        variances.append(attend.scores(query, key).var())
        entropies.append(torch.special.entr(attend.attention(query, key)).sum(dim=-1).mean())
    return torch.stack(variances).mean().item(), torch.stack(entropies).mean().item()


def figure(say: Say = english) -> Figure:
    """Left: variance of the scores over the width. Right: entropy of the weights; dashed: all keys alike."""
    drawn, (left, right) = new_figure(2, 1, height=5.4)
    names = say("dot", "点积"), "general", say("scaled_dot", "缩放点积"), say("additive", "加性")
    for color, mode, name in zip(COLORS, SHOWN, names, strict=False):
        found = [statistics(mode, width) for width in WIDTHS]
        for axes, values in zip((left, right), zip(*found, strict=True), strict=True):
            axes.plot(WIDTHS, values, marker="o", color=color, label=name)
    right.axhline(math.log(KEYS), color=COLORS[5], linestyle="--", linewidth=1)
    right.text(WIDTHS[0], math.log(KEYS) + 0.05, "ln 32", color=COLORS[5], ha="left", va="bottom")
    right.set_ylim(0, 4)
    left.set_yscale("log")
    left.set_title(say("variance of scores", "分数的方差"))
    right.set_title(say("entropy of weights", "权重的熵"))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks([4, 32, 256], ["4", "32", "256"])
        axes.set_xlabel("d")
    drawn.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1)
    return drawn


class Reverser(nn.Module):
    """Reads 10 symbols and writes them in reverse; the decoder sees the source through attention only."""

    def __init__(self, mode: str, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS + 1, width)
        self.encoder = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(width, width, batch_first=True)
        self.attend = ScoredAttention(mode, width, width, hidden_dim=width, max_keys=LENGTH)
        self.out = nn.Linear(2 * width, SYMBOLS)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols (B, T) -> logits (B, T, SYMBOLS) given the right symbols so far, weights (B, T, T)."""
        encoded, _ = self.encoder(self.embedding(source))
        state, _ = self.decoder(self.embedding(F.pad(source.flip(1)[:, :-1], (1, 0), value=SYMBOLS)))
        weights = self.attend.attention(state, encoded)
        return self.out(torch.cat([weights @ encoded, state], dim=-1)), weights


def reverse(mode: str, seed: int, steps: int = 300) -> str:
    """Train from a seed; say how many symbols are right, and how often the right place weighs most."""
    torch.manual_seed(seed)
    model = Reverser(mode)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        source = torch.randint(SYMBOLS, (64, LENGTH))
        loss = F.cross_entropy(model(source)[0].flatten(0, 1), source.flip(1).flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    source = torch.randint(SYMBOLS, (500, LENGTH))
    with torch.no_grad():
        logits, weights = model(source)
    right = (logits.argmax(-1) == source.flip(1)).float().mean()
    place = (weights.argmax(-1) == torch.arange(LENGTH).flip(0)).float().mean()
    entropy = torch.special.entr(weights).sum(-1).mean()
    return f"{mode} seed {seed}: right {right:.3f}, place {place:.3f}, entropy {entropy:.2f}"


if __name__ == "__main__":
    for mode in SHOWN:
        for width in (WIDTHS[0], WIDTHS[-1]):
            variance, entropy = statistics(mode, width)
            print(f"{mode} d = {width}: variance {variance:.2f}, entropy {entropy:.2f}")
    for mode in MODES:
        for seed in range(3):
            print(reverse(mode, seed))
