# ---
# description: Softmax, a sum, decay, the delta rule and the gated one on one sequence, then trained.
# ---

# %% [markdown]
# # From softmax to delta
#
# Pictures are put into drawers, one after the other. What is in each drawer at the end? Five mechanisms
# answer, on the same sequence.
#
# [Softmax attention](../weight-assignment/self-attention/self-attention.md) keeps all that was ever put in.
# The other four keep one matrix $S$ whose size never changes, and differ in what a token does to it. That
# can be seen without training anything. At last all four are [trained](#trained) to do it.
#
# ## The sequence {#sequence}
#
# A token says *put this picture into that drawer*. The key names one of six drawers: six directions of 16
# numbers, at right angles. The value is the picture, $8 \times 8$ digits written by hand. After ten tokens
# comes a break: the drawers are to be emptied. Seven more tokens follow, and none of them goes into drawers
# e and f.

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from snippets.weight_assignment.self_attention.decayed_linear import decayed_linear
from snippets.weight_assignment.self_attention.delta_rule import delta_rule
from snippets.weight_assignment.self_attention.gated_delta import gated_delta
from snippets.weight_assignment.self_attention.linear import linear_attention

torch.set_num_threads(1)
torch.manual_seed(0)
ORDER, BREAK = "abcdefeacb" + "cadbaca", 10
order = torch.tensor(["abcdef".index(name) for name in ORDER])
drawers = torch.linalg.qr(torch.randn(16, 6)).Q.T  # (6, 16), rows of length one at right angles
digits = load_digits()
pictures = torch.tensor(digits.data / 16, dtype=torch.float32)[torch.randperm(len(digits.data))[: len(order)]]
k, v = drawers[order].view(1, -1, 1, 16), pictures.view(1, -1, 1, 64)  # (B, T, H, d) and (B, T, H, e)

wanted = torch.zeros(6, 64)
for drawer, picture in zip(order[BREAK:], pictures[BREAK:], strict=True):
    wanted[drawer] = picture


def strip(axes, row, title: str, names: str) -> None:
    """Draw pictures side by side, each with the name of its drawer above."""
    axes.imshow(row.view(-1, 8, 8).transpose(0, 1).reshape(8, -1), cmap="gray_r", vmin=0)
    for place in range(8, 8 * len(row), 8):
        axes.axvline(place - 0.5, color="#808080", linewidth=0.8)
    axes.set_xticks(range(4, 8 * len(row), 8), list(names))
    axes.xaxis.tick_top()
    axes.set(yticks=[])
    axes.tick_params(length=0)
    axes.set_ylabel(title, rotation=0, ha="right", va="center")


# %% alt="Ten pictures in drawers a to f, seven after the break in a to d, and what is wanted at the end."
figure, panels = plt.subplots(3, 1, figsize=(4.4, 2.8), layout="constrained")
strip(panels[0], pictures[:BREAK], "first", ORDER[:BREAK])
strip(panels[1], pictures[BREAK:], "then", ORDER[BREAK:])
strip(panels[2], wanted, "wanted", "abcdef")
plt.show()

# %% [markdown]
# The last row is the right answer: for each drawer the last picture since the break, and nothing for e and
# f. Everything below is held against it; the error is that of all six, 0 for right and 1 for a blank page.
# Each row has a scale of its own, from white for zero to black for its largest number, which is printed.


# %%
def show(read: Tensor, title: str) -> None:
    print(f"error {(read - wanted).norm() / wanted.norm():.2f}, largest number {read.max():.2f}")
    _, panels = plt.subplots(2, 1, figsize=(4.4, 1.9), layout="constrained")
    strip(panels[0], wanted, "wanted", "abcdef")
    strip(panels[1], read, title, "abcdef")
    plt.show()


# %% [markdown]
# ## 1. Softmax {#softmax}
#
# All 17 keys and values are kept. The query of a drawer finds every token that went there, whenever it was,
# and reads their mean: without positions, softmax cannot tell the last from the first. The factor 40 makes
# it sharp.

# %% alt="Six pictures read with softmax: blends of all that ever went into a drawer."
show((40 * drawers @ k[0, :, 0].T).softmax(dim=1) @ v[0, :, 0], "softmax")

# %% [markdown]
# ## 2. Linear attention: a sum {#linear}
#
# [Without the softmax](../weight-assignment/self-attention/linear.md) all products of keys and values can
# be added up at once, $S \leftarrow S + k v^\top$, and the cache is gone: 16 by 64 numbers are left, for
# any length. The query reads $S^\top q$. Same ghosts as before, but a sum in place of a mean: drawer a,
# used most often, is the darkest. (All functions return what each token reads, and the last $S$; here the
# last $S$ is enough.)

# %% alt="Six pictures read from the sum: the same blends, and drawer a, used most often, is the darkest."
_, S = linear_attention(k, k, v)
show(drawers @ S[0, 0], "sum")

# %% [markdown]
# ## 3. Decay {#decay}
#
# [One factor](../weight-assignment/self-attention/decayed-linear.md) before each write,
# $S \leftarrow \gamma S + k v^\top$, and what is old grows faint. Here $\gamma = 0.7$, and the functions
# take its logarithm. The last write is on top now, but decay goes by age and not by drawer: it fades what
# nobody replaced just as much. Drawer d, last used four tokens before the end, is pale, though nothing came
# after it.

# %% alt="Six pictures read from the sum that decays: a is clear, the others are pale."
g = torch.full(k.shape[:3], 0.7).log()
_, S = decayed_linear(k, k, v, g)
show(drawers @ S[0, 0], "decay")

# %% [markdown]
# ## 4. The delta rule {#delta}
#
# [Look before you write](../weight-assignment/self-attention/delta-rule.md): read what stands under the
# key, and write the difference alone, $S \leftarrow S + k \, (v - S^\top k)^\top$, or a part $\beta$ of it;
# here $\beta = 1$. The old picture leaves its drawer as the new one comes in, and the other drawers are not
# touched. Four of six are exact. But e and f hold what they held before the break, for nobody wrote there
# again.

# %% alt="Six pictures read with the delta rule: a to d are as wanted, e and f are not empty."
beta = torch.ones(k.shape[:3])
_, S = delta_rule(k, k, v, beta)
show(drawers @ S[0, 0], "delta")

# %% [markdown]
# ## 5. The gated delta rule {#gated}
#
# [Both](../weight-assignment/self-attention/gated-delta.md): first a factor for the whole matrix, then the
# correction under one key. The factor may differ from token to token. Here it is 1, so that nothing fades,
# and only the token after the break has one of nearly 0. All six drawers are right. A trained layer
# computes such factors from its tokens.

# %% alt="Six pictures read with the gated delta rule: all are as wanted, and e and f are empty."
g = torch.zeros(k.shape[:3])
g[:, BREAK] = -20
_, S = gated_delta(k, k, v, g, beta)
show(drawers @ S[0, 0], "gated delta")

# %% [markdown]
# ## 6. Trained {#trained}
#
# So far keys stood at right angles, and gates were set by hand. Now everything is learned: a key is one of
# 64 names, a value one of 32, and each has an embedding. A sequence draws $D$ names and writes $3D$ times,
# to a name and with a value drawn anew each time. Then it is asked for all names that were written: **the
# last value counts**. The rules have the same parameters and a matrix of $16 \times 16$; a rule without a
# gate or $\beta$ ignores it.
#
# Each is trained on $D = 8$ for 300 steps of 64 sequences, with three seeds, and tested on 4 to 32 names.

# %%
NAMES, VALUES, WIDTH = 64, 32, 16
RULES = {
    "linear": lambda k, v, g, beta: linear_attention(k, k, v),
    "decay": lambda k, v, g, beta: decayed_linear(k, k, v, g),
    "delta": lambda k, v, g, beta: delta_rule(k, k, v, beta),
    "gated delta": lambda k, v, g, beta: gated_delta(k, k, v, g, beta),
}


class Recall(nn.Module):
    def __init__(self, rule: str) -> None:
        super().__init__()
        self.rule = rule
        self.name, self.value = nn.Embedding(NAMES, 32), nn.Embedding(VALUES, WIDTH)
        self.query, self.key = (nn.Linear(32, WIDTH, bias=False) for _ in range(2))
        self.gate, self.beta = nn.Linear(32, 1), nn.Linear(32, 1)
        nn.init.constant_(self.gate.bias, 3.0)  # nearly open
        self.norm, self.guess = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, VALUES)

    def forward(self, names: Tensor, values: Tensor, asked: Tensor) -> Tensor:
        x = self.name(names)[:, :, None]  # (B, T, 1, 32), one head
        k, g, beta = F.normalize(self.key(x), dim=-1), F.logsigmoid(self.gate(x)), self.beta(x).sigmoid()
        _, S = RULES[self.rule](k, self.value(values)[:, :, None], g[..., 0], beta[..., 0])
        q = F.normalize(self.query(self.name(asked)), dim=-1)
        return self.guess(self.norm(q @ S[:, 0]))


def draw(count: int, batch: int = 64) -> tuple[Tensor, ...]:
    """Names and values as written, (B, 3 D); the names that may be asked and their last values, (B, D)."""
    asked = torch.rand(batch, NAMES).argsort(dim=1)[:, :count]
    which = torch.randint(count, (batch, 3 * count))
    values = torch.randint(VALUES, which.shape)
    last = torch.full_like(asked, -100)  # never written: not counted
    for t in range(3 * count):
        last.scatter_(1, which[:, t : t + 1], values[:, t : t + 1])
    return asked.gather(1, which), values, asked, last


def train(rule: str, seed: int, steps: int = 300) -> Recall:
    torch.manual_seed(seed)
    model = Recall(rule)
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, steps)
    for _ in range(steps):
        names, values, asked, last = draw(8)
        loss = F.cross_entropy(model(names, values, asked).transpose(1, 2), last)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return model


@torch.no_grad()
def right(model: Recall, count: int) -> float:
    """The part of the names asked for whose last value is guessed."""
    torch.manual_seed(100)
    names, values, asked, last = draw(count, batch=256)
    return (model(names, values, asked).argmax(dim=2) == last)[last >= 0].float().mean().item()


# %%
counts, seeds = (4, 8, 16, 32), (0, 1, 2)
found = {}
print(f"{'':12}" + "".join(f"{count:>13}" for count in counts))
for rule in RULES:
    models = [train(rule, seed) for seed in seeds]
    found[rule] = torch.tensor([[right(model, count) for count in counts] for model in models])
    least, most = found[rule].amin(dim=0).tolist(), found[rule].amax(dim=0).tolist()
    print(f"{rule:12}" + "".join(f"{f'{a:.3f}-{b:.3f}':>13}" for a, b in zip(least, most, strict=True)))

# %% alt="Four falling curves: linear lowest, then decay, and far above them delta and gated delta as one."
figure, axes = plt.subplots(figsize=(4.4, 3), layout="constrained")
for (rule, points), line in zip(found.items(), ("-", "-", "-", "--"), strict=True):
    (curve,) = axes.plot(counts, points.mean(dim=0), line, label=rule)
    axes.plot(counts, points.T, ".", color=curve.get_color())
axes.set_xscale("log", base=2)
axes.set_xticks(counts, counts)
axes.set(ylim=(0, 1.05), xlabel="names, each written three times on average", ylabel="last value right")
axes.legend(loc="lower left", ncols=2)
plt.show()

# %% [markdown]
# Lines are means, dots the three seeds; the table has the least and the most of them. The sum holds all
# values of a name and cannot tell which was the last. Decay prefers recent ones, whatever their name. The
# delta rule replaces, which is the task. The gate adds nothing here, since nothing is to be dropped. All
# fall as there are more names, for the matrix has 16 rows: the delta rule does not hold *more* than a sum,
# it *edits*.
#
# ## Go on {#next}
#
# - Set `beta` to 0.5 in section 4. Which drawers still show what was there before?
# - Give the decay of section 3 a gate of $-20$ at the break, too. What is still wrong?
# - Write each name once in `draw`. Is the delta rule still ahead?
