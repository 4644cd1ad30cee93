# ---
# description: What criss-cross, anchors, EM bases and a single map keep of dense attention, and their cost.
# ---

# %% [markdown]
# # All pairs, and what is kept without them
#
# Dense attention lets every position of a picture ask every other. What remains of its answer when most of
# the pairs are left out, and what is saved?
#
# Four blocks stand beside the [non-local block](../attention-domain/spatial/non-local.md), on one photograph,
# with the same features and the same query. The [overview](../attention-domain/spatial/index.md) shows them
# in one figure; here they are measured.
#
# ## The dense answer {#dense}
#
# A cup of coffee, 36 × 54 positions. A feature is brightness, red − green and yellow − blue, each
# standardised, the vector scaled to length one. Nothing is trained: queries and keys are these features, the
# scores are multiplied by 8, and the **values** are the pixels. So what a position reads is a colour, and the
# answers of all positions are a picture.

# %% alt="A cup on a red saucer, a circle on it; weights, bright where it is red; the cup in few colours."
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from skimage import data, transform
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from snippets.attention_domain.spatial.asymmetric_non_local import APNB, pyramid
from snippets.attention_domain.spatial.criss_cross import CrissCrossAttention
from snippets.attention_domain.spatial.em_attention import EMAUnit
from snippets.attention_domain.spatial.global_context import GlobalContext
from snippets.attention_domain.spatial.non_local import NonLocalBlock

torch.set_num_threads(1)
torch.set_grad_enabled(False)
H, W, SHARPNESS = 36, 54, 8.0
N, query = H * W, 26 * W + 39  # the right of the saucer
pixels = transform.resize(data.coffee(), (H, W), anti_aliasing=True)
photograph = torch.from_numpy(pixels).float()  # (H, W, 3), in [0, 1]
value = photograph.view(N, 3)

red, green, blue = photograph.movedim(-1, 0)
x = torch.stack([photograph.mean(dim=2), red - green, (red + green) / 2 - blue])[None]  # (1, 3, H, W)
x = x - x.mean(dim=(2, 3), keepdim=True)
x = F.normalize(x / x.std(dim=(2, 3), keepdim=True), dim=1)


def set_to(factor: float, *layers: nn.Conv2d) -> None:
    """Make 1 × 1 convolutions multiply by a number."""
    for layer in layers:
        layer.weight.copy_(factor * torch.eye(layer.weight.shape[0])[..., None, None])
        layer.bias.zero_()


def show(axes: Axes, image: Tensor, title: str, circle: bool = True) -> None:
    axes.imshow(image, cmap="magma", interpolation="none")
    axes.set_title(title)
    axes.axis("off")
    if circle:
        axes.plot(query % W, query // W, "o", ms=8, mfc="none", mec="white", mew=2)


block = NonLocalBlock(3, reduction=1, scale=SHARPNESS).eval()
set_to(1, block.theta, block.phi)
dense = block.attention(x)[0]  # (N, N)

figure, panels = plt.subplots(1, 3, figsize=(7, 2))
show(panels[0], photograph, "query")
show(panels[1], dense[query].view(H, W).sqrt(), "weights")
show(panels[2], (dense @ value).view(H, W, 3), "is read", circle=False)
plt.show()
print(f"{N} positions, {dense.numel():,} pairs")
order = dense[query].sort(descending=True).values.cumsum(dim=0)
print(f"half of the query's weight lies on {int((order < 0.5).sum()) + 1} positions")

# %% [markdown]
# Maps show the square root of the weights, each from zero to its own largest.
#
# How much of such a map does another one keep? Two sets of weights that sum to one **share**
# $\sum_j \min(a_j, a'_j)$: 1 if they are equal, 0 if they have no position in common. The second measure
# looks at the answer: how far **off** is what is read from the dense reading, if the mean colour of the
# picture, an answer without any attention, is off by 1?

# %%
matrices: dict[str, Tensor] = {"dense": dense}  # (N, N) each
mean_off = (dense @ value - value.mean(dim=0)).norm()


def shared(weights: Tensor) -> Tensor:
    return torch.minimum(weights, dense).sum(dim=1)  # (N,)


def off(weights: Tensor) -> float:
    return float((weights @ value - dense @ value).norm() / mean_off)


def report(name: str, weights: Tensor) -> None:
    matrices[name] = weights
    print(f"{name}: shares {shared(weights)[query]:.2f}, all queries {shared(weights).mean():.2f}", end="")
    print(f", off by {off(weights):.2f}")


# %% [markdown]
# ## Rows and columns {#criss-cross}
#
# [Criss-cross attention](../attention-domain/spatial/criss-cross.md) asks only the own row and the own
# column. One pass cannot share more with the dense map than the dense map has there. The second pass reads
# positions that have already read; the weights of both, multiplied as matrices, say what arrives from where.


# %% alt="A cross through the query; then the cross with the saucer dimly around it."
def as_matrix(weights: Tensor) -> Tensor:
    """(1, H, W, H + W) -> (N, N)."""
    column, row = weights[0].split((H, W), dim=-1)
    pairs = torch.einsum("hwi,wj->hwij", column, torch.eye(W))
    pairs += torch.einsum("hwj,hi->hwij", row, torch.eye(H))
    return pairs.reshape(N, N)


block = CrissCrossAttention(3, reduction=1, recurrence=1).eval()
set_to(SHARPNESS, block.query)
set_to(1, block.key, block.value)
block.gamma.fill_(1)
first = as_matrix(block.attention(x))
second = as_matrix(block.attention(block(x))) @ first

figure, panels = plt.subplots(1, 2, figsize=(5, 2))
for axes, weights, name in zip(panels, (first, second), ("criss-cross", "criss-cross × 2"), strict=True):
    show(axes, weights[query].view(H, W).sqrt(), name)
    print(f"{int((weights[query] > 0).sum())} positions have weight; ", end="")
    report(name, weights)
plt.show()
print(f"the dense map has {dense[query][first[query] > 0].sum():.2f} of its weight on the cross")

# %% [markdown]
# ## Anchors {#anchors}
#
# In the [asymmetric block](../attention-domain/spatial/asymmetric-non-local.md) all positions ask, and 110
# means over cells of four grids answer. To compare, each anchor's weight is divided among the positions it is
# the mean of. Keys pass a ReLU in this block, so the features are split by sign.

# %% alt="A coarse map of cells, brightest on the left and on the right of the saucer."
block = APNB(6, reduction=1).eval()
set_to(math.sqrt(SHARPNESS * math.sqrt(6)), block.key[0])  # the block divides scores by sqrt(6)
to_anchors = block.attention(torch.cat([x, -x], dim=1).relu())[0]  # (N, 110)
of_anchors = pyramid(torch.eye(N).view(N, 1, H, W))[:, 0, :, 0].T  # (110, N), rows sum to one
report("anchors", to_anchors @ of_anchors)

figure, axes = plt.subplots(figsize=(2.6, 2))
show(axes, matrices["anchors"][query].view(H, W).sqrt(), "anchors")
plt.show()

# %% [markdown]
# ## Bases {#bases}
#
# [EM attention](../attention-domain/spatial/em-attention.md) fits a few vectors to the features of *this*
# picture. Two positions meet if they belong to the same basis: $\sum_k z_{qk} z_{jk} / \sum_n z_{nk}$. The
# number of bases can be chosen.

# %% alt="Three maps of everything red, from 2, 8 and 64 bases."
figure, panels = plt.subplots(1, 3, figsize=(7, 2))
for axes, K in zip(panels, (2, 8, 64), strict=True):
    torch.manual_seed(0)
    block = EMAUnit(3, bases=K, iterations=10).eval()
    set_to(SHARPNESS, block.project)
    z = block.attention(x)[0]  # (N, K)
    report(f"{K} bases", z @ (z / z.sum(dim=0)).T)
    show(axes, matrices[f"{K} bases"][query].view(H, W).sqrt(), f"{K} bases")
plt.show()

# %% [markdown]
# ## One map for all {#one}
#
# [GCNet](../attention-domain/spatial/global-context.md) has no queries. A fair choice of its score is the
# mean of all queries. And what is the best that any single map could do? It reads one colour, for everybody
# the same. The least wrong one is the mean of all dense readings, and the mean of all dense maps reads it.

# %% alt="The map of the block, bright on coffee and table; the mean of all dense maps, nearly even."
block = GlobalContext(3, reduction=1).eval()
block.score.weight.copy_(SHARPNESS * x.mean(dim=(2, 3))[..., None, None])
report("GCNet", block.attention(x)[0].expand(N, N))
report("mean map", dense.mean(dim=0).expand(N, N))

figure, panels = plt.subplots(1, 2, figsize=(5, 2))
for axes, name in zip(panels, ("GCNet", "mean map"), strict=True):
    show(axes, matrices[name][query].view(H, W).sqrt(), name, circle=False)
plt.show()

# %% [markdown]
# ## Kept and paid {#table}
#
# The costs are counted, not timed: the weights that a position has, and the multiply-adds of one forward pass
# at 64 channels with the default widths of the blocks, here and on a map with nine times as many positions.
# *Shared* is the mean over all queries; *off by* is the measure from above.


# %%
def multiply_adds(block: nn.Module, times: int) -> int:
    """Of one forward pass over a map of `times` the height and the width."""
    with FlopCounterMode(display=False) as counter:
        block.to("meta")(torch.empty(1, 64, times * H, times * W, device="meta"))
    return counter.get_total_flops() // 2


blocks = {
    "dense": (NonLocalBlock(64), N),
    "criss-cross": (CrissCrossAttention(64, recurrence=1), H + W),
    "criss-cross × 2": (CrissCrossAttention(64, recurrence=2), H + W),
    "anchors": (APNB(64), 110),
    "8 bases": (EMAUnit(64, bases=8), 8),
    "64 bases": (EMAUnit(64, bases=64), 64),
    "GCNet": (GlobalContext(64), 1),
}
print("                 shared  off by  weights  M multiply-adds  × 9 positions")
for name, (block, count) in blocks.items():
    kept = f"{shared(matrices[name]).mean():6.2f}  {off(matrices[name]):6.2f}"
    small, large = (multiply_adds(block.eval(), times) for times in (1, 3))
    print(f"{name:15}  {kept}  {count:7}  {small / 1e6:15.1f}  {large / small:9.1f} ×")

# %% [markdown]
# Both measures are needed. One pass of criss-cross attention shares next to nothing with the dense map and
# reads nearly the same colours all the same: the cross is a sample of the picture, and a mean needs no more
# where values repeat. Anchors share far more and are further off, since each is a mean already, of red and of
# what lies beside it. Bases come closest in both, and 8 are nearly as good as 64: this picture has few
# colours. A single map answers all queries alike; even the best one is hardly better than the mean colour.
#
# Nine times the positions cost the dense block 77 times as much, criss-cross 19 times, the others 9 times.
#
# ## To keep {#keep}
#
# 1. Pairs can be spared because positions repeat each other. What is lost is what only one position knows.
# 2. A map that looks different may give the same answer. Compare what is read, not only the weights.
# 3. Without a query there is one answer for all. GCNet wants no more: it adds a context, it does not ask.
#
# These are weights by hand, on three features. Trained weights have other maps, and the order may change: run
# it all with `SHARPNESS` 3 and 20. Which blocks come closer to the dense answer, and why?
