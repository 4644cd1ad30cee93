"""What a gate and a correction are good for: recall where the last write wins, and a marker erases all."""

import functools

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.self_attention.gated_delta import gated_delta

KINDS = ("softmax", "linear", "gated linear", "delta", "gated delta")
SEEDS = 3  # trained side by side, each with weights of its own
KEYS, VALUES, ASKED = 16, 16, 8
WRITES = 2 * ASKED  # before the marker, and as many behind it
WIDTH = 16
STEPS, BATCH, HELD_OUT, RATE = 300, 32, 1000, 2e-2


def sequences(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys and values that are written, (n, 2 WRITES + 1), then keys that are asked and answers, (n, ASKED).

    Between the two halves stands the marker, key number KEYS. The answer is the last value written under the
    key since, or VALUES, which means nothing; -1 if the key was never written.
    """
    asked = torch.rand(n, KEYS, generator=generator).argsort(dim=1)[:, :ASKED]
    before, after = torch.randint(ASKED, (2, n, WRITES), generator=generator)
    places = torch.cat([before, torch.full((n, 1), ASKED), after], dim=1)
    keys = torch.cat([asked, torch.full((n, 1), KEYS)], dim=1).gather(1, places)
    values = torch.randint(VALUES, keys.shape, generator=generator)
    answers = torch.full((n, ASKED), -1).scatter_(1, before, VALUES)
    for t in range(WRITES + 1, 2 * WRITES + 1):  # one by one: which of two writes wins is not left to chance
        answers.scatter_(1, places[:, t : t + 1], values[:, t : t + 1])
    return keys, values, asked, answers


class Recall(nn.Module):
    """Embedded keys and values, one memory, and a linear layer that reads off the answer."""

    def __init__(self, kind: str, generator: torch.Generator) -> None:
        super().__init__()
        self.kind = kind

        def drawn(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(SEEDS, *shape, generator=generator) * scale)

        self.names, self.values = drawn(KEYS + 1, 2 * WIDTH, scale=1), drawn(VALUES, WIDTH, scale=1)
        self.q, self.k = (drawn(2 * WIDTH, WIDTH, scale=(2 * WIDTH) ** -0.5) for _ in "qk")
        self.gate, self.beta = (drawn(2 * WIDTH, 1, scale=0.1) for _ in "gb")
        self.out, self.bias = drawn(WIDTH, VALUES + 1, scale=WIDTH**-0.5), drawn(1, VALUES + 1, scale=0)
        self.scale = nn.Parameter(torch.ones(SEEDS, 1, 1, 1))

    def forward(self, keys: Tensor, values: Tensor, asked: Tensor) -> Tensor:
        """Return scores of the answers: (SEEDS, n, ASKED, VALUES + 1)."""
        q, k, gate, beta = (self.names @ w for w in (self.q, self.k, self.gate, self.beta))
        q, k, v = F.normalize(q[:, asked], dim=-1), F.normalize(k[:, keys], dim=-1), self.values[:, values]
        g, beta = (
            F.logsigmoid(gate[:, keys] + 3),
            beta[:, keys].sigmoid(),
        )  # at first 0.95 of the memory stays
        if "gated" not in self.kind:
            g = torch.zeros_like(g)
        if self.kind == "softmax":
            read = (4 * self.scale.exp() * q @ k.mT).softmax(dim=-1) @ v
        else:
            read = normalised(
                q @ (corrected(k, v, g, beta) if "delta" in self.kind else added(k, v, g, beta))
            )
        return self.scale.exp() * read @ self.out[:, None] + self.bias[:, None]


def corrected(k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Return the last memory of the module, seeds as heads: (SEEDS, n, T, width) -> (SEEDS, n, d, e)."""
    k, v, g, beta = (t.permute(1, 2, 0, 3) for t in (k, v, g, beta))
    return gated_delta(k, k, v, g[..., 0], beta[..., 0])[1].transpose(0, 1)


def added(k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Return the last memory if nothing is corrected: sum_t exp(g_{t+1} + ... + g_T) beta_t k_t v_t^T."""
    total = g.cumsum(dim=2)
    return (beta * k * (total[:, :, -1:] - total).exp()).mT @ v


def normalised(read: Tensor) -> Tensor:
    """Return what was read with mean square one; what has been erased stays small."""
    return read * (read.square().mean(dim=-1, keepdim=True) + 0.01).rsqrt()


@functools.cache
def shares(kind: str) -> Tensor:
    """Train; return the share of right answers by seed, for written and for erased keys: (2, SEEDS)."""
    generator = torch.Generator().manual_seed(0)
    made = Recall(kind, generator)
    optimizer = torch.optim.Adam(made.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, STEPS)
    for _ in range(STEPS):
        keys, values, asked, answers = sequences(BATCH, generator)
        scores = made(keys, values, asked).flatten(1, 2)
        every = answers.flatten().expand(SEEDS, -1)
        loss = F.cross_entropy(scores.mT, every, ignore_index=-1, reduction="sum") / answers.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    keys, values, asked, answers = sequences(HELD_OUT, generator)
    with torch.no_grad():
        right = made(keys, values, asked).argmax(dim=-1) == answers
    return torch.stack([right[:, chosen].float().mean(dim=1) for chosen in cases(answers)])


def cases(answers: Tensor) -> tuple[Tensor, Tensor]:
    """Which keys were written behind the marker, and which before it only."""
    return (answers >= 0) & (answers < VALUES), answers == VALUES


def figure(say: Say = english) -> Figure:
    """Shares of right answers with three seeds: keys written since on the left, erased ones on the right."""
    drawn, axes = new_figure(1, 2, height=2.6, sharey=True)
    titles = (say("written since", "之后写过"), say("erased", "已被抹去"))
    names = (
        "softmax",
        say("linear", "线性"),
        say("gated linear", "门控线性"),
        say("delta", "增量"),
        say("gated delta", "门控增量"),
    )
    for panel, case, title in zip(axes, range(2), titles, strict=True):
        for row, kind in enumerate(KINDS):
            panel.plot(shares(kind)[case], [row] * SEEDS, "o", color=COLORS[row], alpha=0.8)
        panel.set_title(title)
        panel.set_xlim(-0.05, 1.05)
        panel.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        panel.set_xlabel(say("share right", "正确率"))
    axes[0].set_yticks(range(len(KINDS)), names)
    axes[0].set_ylim(len(KINDS) - 0.5, -0.5)
    return drawn


if __name__ == "__main__":
    for kind in KINDS:
        print(kind, [[round(share, 3) for share in case] for case in shares(kind).tolist()])
