# ---
# description: Score, weigh, read on a photograph, step by step in plain PyTorch, with a deliberate mistake.
# ---

# %% [markdown]
# # The three stages by hand
#
# A photograph, cut into patches that look at each other: a score, a softmax and a mean, one line each.
#
# Nothing is trained here. All there is to learn is what the three stages of
# [query, key, value](../foundations/query-key-value.md) do to numbers that you can see.
#
# ## From a photograph to vectors {#vectors}
#
# The photograph has 144 × 192 pixels. Cut into squares of 8 × 8 it becomes 18 × 24 patches, and a patch is a
# row of $d = 3 \cdot 8 \cdot 8 = 192$ numbers; there are $S = 432$ of them.
#
# Each patch plays two parts. As **value** it is what may be read: its pixels. As **key** it is what may be
# found, and for that raw pixels are poor: the dot product of two bright patches is large whatever they show.
# So the mean patch is taken away, and all keys get the same length, $\sqrt{d}$. The **query** is the key of
# the patch in the blue square, a piece of the orange suit.

# %% alt="Portrait of an astronaut in an orange suit; a blue square on her sleeve marks the patch that asks."
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from skimage import data, transform
from torch import Tensor

from snippets.foundations.query_key_value import Attention, scaled_dot, weigh

pixels = transform.resize(data.astronaut()[:384], (144, 192), anti_aliasing=True)
photograph = torch.from_numpy(pixels).float()  # (H, W, 3), in [0, 1]
value = F.unfold(photograph.movedim(-1, 0)[None], 8, stride=8)[0].T  # (S, d)
(S, d), columns = value.shape, 192 // 8
key = F.normalize(value - value.mean(dim=0), dim=1) * math.sqrt(d)  # (S, d)
row, column = 14, 5
place = row * columns + column
query = key[place]  # (d,)


def show(axes: Axes, image: Tensor, title: str = "") -> None:
    axes.imshow(image, cmap="magma", interpolation="none")
    axes.set_title(title)
    axes.axis("off")


figure, axes = plt.subplots(figsize=(3.6, 2.7))
show(axes, photograph)
corner = column * 8, row * 8
axes.add_patch(plt.Rectangle(corner, 8, 8, fill=False, edgecolor="deepskyblue", linewidth=3))
plt.show()
print(f"value {tuple(value.shape)}, key {tuple(key.shape)}, query {tuple(query.shape)}")

# %% [markdown]
# ## Stage 1: score {#score}
#
# How well does each key match the query? The dot product says it with one number per key, all keys at once.
#
# Why divide by $\sqrt{d}$? Take two vectors of $d$ independent numbers of variance 1: their dot product has
# standard deviation $\sqrt{d}$, and the division brings it back to 1. The width of a vector then no longer
# decides how sharp the attention is. But pixels are not independent, neighbours agree. So our scores spread
# far more than the rule says.

# %%
dot_scores = key @ query  # (S, d) @ (d,) -> (S,)
scores = dot_scores / math.sqrt(d)

for name, some, rule in [("dot", dot_scores, math.sqrt(d)), ("scaled", scores, 1)]:
    print(f"{name}: {some.min():.1f} to {some.max():.1f}")
    print(f"  spread {some.std():.1f}, by the rule {rule:.1f}")

# %% [markdown]
# ## Stage 2: weigh {#weigh}
#
# Softmax turns the scores into weights: none is negative, and they sum to one. Dividing the scores by a
# **temperature** first says how strict it is. Low, the best key takes all: almost a hard choice. High, all
# keys get nearly the same. The factor $1/\sqrt{d}$ is a temperature too: without it the patch would see only
# itself.
#
# To count how many keys share the weight, print $1 / \sum_i \alpha_i^2$. It is 1 if one key has it all, and
# $S$ if all have the same.

# %% alt="Three maps of weights: at 0.25 one patch or two, at 1 parts of both sleeves, at 4 the whole suit."
figure, panels = plt.subplots(1, 3, figsize=(6, 1.9))
for axes, temperature in zip(panels, (0.25, 1, 4), strict=True):
    weights = (scores / temperature).softmax(dim=0)  # (S,)
    show(axes, weights.view(-1, columns), f"{temperature}")
    keys = 1 / weights.square().sum()
    print(f"temperature {temperature}: sum {weights.sum():.3f}, shared by {keys:.1f} keys")
plt.show()

weights = dot_scores.softmax(dim=0)
print(f"without 1/sqrt(d): the largest weight is {weights.max():.6f}")

# %% [markdown]
# At temperature 1 the sleeve finds the rest of the suit, on the other side of the picture too. No position
# was given: attention compares contents, and where they stand it does not know.
#
# ## Stage 3: read {#read}
#
# The output is the mean of the values, each counted by its weight. It is one more vector of $d$ numbers, so
# it can be looked at as a patch. The higher the temperature, the more patches are mixed, and the more detail
# is lost.

# %% alt="Four patches: the query, then what is read at 0.25, at 1 and at 4, with less and less detail."
figure, panels = plt.subplots(1, 4, figsize=(6, 1.8))
show(panels[0], value[place].view(3, 8, 8).movedim(0, -1), "query")
for axes, temperature in zip(panels[1:], (0.25, 1, 4), strict=True):
    weights = (scores / temperature).softmax(dim=0)
    output = weights @ value  # (S,) @ (S, d) -> (d,)
    show(axes, output.view(3, 8, 8).movedim(0, -1), f"{temperature}")
plt.show()

# %% [markdown]
# ## All queries at once {#all}
#
# Now every patch asks. The vector of scores becomes a matrix with a row per query and a column per key, and
# the same three lines do everything. Laid side by side, the outputs are a picture again: smooth where many
# patches are alike, sharp where a patch has no relatives.

# %% alt="The photograph, and the portrait made of weighted means: suit and wall are flat, eyes sharp."
all_scores = key @ key.T / math.sqrt(d)  # (T, S), here T = S
all_weights = all_scores.softmax(dim=-1)  # (T, S), each row sums to one
output = all_weights @ value  # (T, d)


def picture(patches: Tensor) -> Tensor:
    return F.fold(patches.T[None], (144, 192), 8, stride=8)[0].movedim(0, -1).clamp(0, 1)


figure, panels = plt.subplots(1, 2, figsize=(6, 2.4))
show(panels[0], photograph, "value")
show(panels[1], picture(output), "output")
plt.show()
print(f"weights {tuple(all_weights.shape)}, output {tuple(output.shape)}")

# %% [markdown]
# ## The same with the module {#module}
#
# The module of the atlas has the three stages as `score`, `weigh` and `read`, and a batch in front. PyTorch's
# own function does all three in one kernel, without storing the weights. All agree, up to the order of
# additions.

# %%
batch = key[None], key[None], value[None]  # queries, keys, values
ours = Attention(scaled_dot)(*batch)[0]
torchs = F.scaled_dot_product_attention(*batch)[0]

for name, other in [("Attention", ours), ("scaled_dot_product_attention", torchs)]:
    difference = (other - output).abs().max().item()
    assert difference < 1e-5
    print(f"{name}: largest difference {difference:.0e}")

# %% [markdown]
# ## A mistake that raises no error {#mistake}
#
# Softmax needs an axis, and the matrix has two of equal length. With the wrong one, weights are shared out
# among the *queries* of a key instead of the keys of a query. Nothing crashes, no shape is wrong, and the
# picture is still hers, with some patches too bright and some too dark. In a picture the eye notices. In the
# middle of a network nobody looks, and the training goes on.
#
# One line finds it: print the sums of the rows. That is a test worth having.

# %% alt="Twice the portrait: the left is right, on the right scattered patches are too dark or too bright."
sharp = all_scores / 0.25
right, wrong = sharp.softmax(dim=1), sharp.softmax(dim=0)

figure, panels = plt.subplots(1, 2, figsize=(6, 2.4))
show(panels[0], picture(right @ value), "dim=1")
show(panels[1], picture(wrong @ value), "dim=0")
plt.show()
for name, matrix in [("dim=1", right), ("dim=0", wrong)]:
    low, high = matrix.sum(dim=1).aminmax()
    print(f"{name}: rows sum to {low:.2f} ... {high:.2f}")

# %% [markdown]
# ## Hide half of the picture {#mask}
#
# A mask says which keys a query may see. In this atlas it is a bool, and **True means: may be attended**.
# Here only the right half may be: the left half has to be painted with patches from the right. The suit comes
# out well, since the other sleeve is there to copy; the flag has no relatives on that side and is lost.
#
# Hidden scores become $-\infty$ before the softmax, so their weights are exactly 0 and the rest still sums to
# one. One case is left: a query that may see nothing. By hand that gives 0/0; `weigh` gives zeros.

# %% alt="The portrait made of patches of its right half: on the left the suit is there, the flag is not."
visible = torch.arange(S) % columns >= columns // 2  # (S,), the right half
masked = all_scores.masked_fill(~visible, -math.inf).softmax(dim=-1)
assert torch.allclose(masked, weigh(all_scores[None], visible[None, None])[0])

figure, axes = plt.subplots(figsize=(3.6, 2.7))
show(axes, picture(masked @ value))
plt.show()
print(f"largest hidden weight {masked[:, ~visible].max():.0f}")
print(f"smallest sum of a row {masked.sum(dim=1).min():.4f}")

nothing = torch.zeros(S, dtype=torch.bool)
by_hand = all_scores[:1].masked_fill(~nothing, -math.inf).softmax(dim=-1)
by_atlas = weigh(all_scores[None, :1], nothing[None, None])
print(f"nothing to see: by hand {by_hand.sum():.0f}, weigh {by_atlas.sum():.0f}")

# %% [markdown]
# ## Go on {#next}
#
# - Change `row` and `column`: hair, flag, white wall. Which patch has many relatives, which has none?
# - Leave out `F.normalize`. Which patches win now, and why are they not the similar ones?
# - Here the keys are pixels. In a network they are learned, and so is what counts as similar:
#   [multi-head self-attention](../weight-assignment/self-attention/multi-head.md).
