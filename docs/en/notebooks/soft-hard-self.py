# ---
# description: Soft, hard and self attention on one photograph, with their gradients, and hard self-attention.
# ---

# %% [markdown]
# # Soft, hard and self on one photograph
#
# Three words that are often listed as three kinds of attention: on one photograph they turn out to answer
# two different questions.
#
# *Soft* and *hard* say **what values the weights take**: shared among all keys, or all on one. *Self* says
# **where the scores come from**: a query from outside, or the things themselves. We look at each, at its
# weights, at what it passes on and at the gradient it gets. Then we combine the two questions freely.
#
# ## One query, one photograph {#scores}
#
# A cup of coffee, cut into 12 × 18 patches of 8 × 8 pixels. Nothing is trained, all is set by hand: the
# **values** are the pixels of the patches; the **keys** are the same with the mean patch taken away and the
# length set to $\sqrt{d}$; the score is the scaled dot product. The **query** is the key of the patch in
# the blue square, a piece of the right side of the saucer.
#
# It shall find patches *like* itself, not itself, so a mask hides its own key. In this atlas [True means:
# may be attended](../foundations/masks.md).

# %% alt="A cup of coffee on a red saucer; a blue square on the right of it marks the patch that asks."
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from skimage import data, transform
from torch import Tensor, nn

from snippets.foundations.query_key_value import scaled_dot
from snippets.weight_assignment.hard.gumbel import GumbelAttention, gumbel_softmax
from snippets.weight_assignment.hard.stochastic import reinforce_loss
from snippets.weight_assignment.self_attention.self_attention import SelfAttention
from snippets.weight_assignment.soft.key_value import KeyValueAttention

torch.set_num_threads(1)
pixels = transform.resize(data.coffee(), (96, 144), anti_aliasing=True)
photograph = torch.from_numpy(pixels).float()  # (H, W, 3), in [0, 1]
value = F.unfold(photograph.movedim(-1, 0)[None], 8, stride=8)[0].T  # (S, d)
(S, d), columns = value.shape, 144 // 8
key = F.normalize(value - value.mean(dim=0), dim=1) * math.sqrt(d)  # (S, d)
row, column = 8, 13
place = row * columns + column
query = key[place]  # (d,)
others = torch.arange(S) != place  # (S,), True = may be attended


def show(axes: Axes, image: Tensor, title: str = "") -> None:
    axes.imshow(image, cmap="magma", interpolation="none")
    axes.set_title(title)
    axes.axis("off")


def patch(vector: Tensor) -> Tensor:
    return vector.view(3, 8, 8).movedim(0, -1)


figure, axes = plt.subplots(figsize=(3.6, 2.5))
show(axes, photograph)
corner = column * 8, row * 8
axes.add_patch(plt.Rectangle(corner, 8, 8, fill=False, edgecolor="deepskyblue", linewidth=3))
plt.show()
print(f"{S} patches of {d} numbers, {others.sum()} may be attended")

# %% [markdown]
# ## Soft: everyone has a share {#soft}
#
# [Key-value attention](../weight-assignment/soft/key-value.md) turns the scores into weights by a softmax
# and reads the mean of the values. All 215 keys get something, most of them next to nothing. The weight
# lies on the red of the saucer, also on its other side. What is read is a mean: a patch that is nowhere in
# the photograph, and smoother than those it is made of.

# %% alt="A map of weights, bright on both sides of the saucer; the patch that asks; a plain red one."
soft = KeyValueAttention(d)
soft_weights = soft.attention(key[None], query=query[None], mask=others[None])[0]  # (S,)
soft_read = soft(key[None], value[None], query[None], others[None])[0]  # (d,)

figure, panels = plt.subplots(1, 3, figsize=(6, 2), width_ratios=(2, 1, 1))
show(panels[0], soft_weights.view(-1, columns), "soft weights")
show(panels[1], patch(value[place]), "asks")
show(panels[2], patch(soft_read), "is read")
plt.show()
print(f"largest weight {soft_weights.max():.2f}")
print(f"shared by {1 / soft_weights.square().sum():.1f} keys")

# %% [markdown]
# The last line is $1 / \sum_s \alpha_s^2$: it is 1 if one key has it all, and 215 if all have the same.
#
# ## Hard: one takes all {#hard}
#
# The same scores, the same softmax, but now it is a *policy*: probabilities, from which one key is drawn.
# The weights of a draw are zero and one. [Gumbel-softmax attention](../weight-assignment/hard/gumbel.md)
# draws in train mode; its matrix is set by hand so that its scores are ours.
#
# A draw passes on one patch of the photograph as it is, with all its detail, and the next draw another one.
# On average they give the soft answer: soft attention is the expectation of hard attention.

# %% alt="Above, five maps with one bright patch each; below, the red patches that are read."
hard = GumbelAttention(d, d).train()
nn.init.eye_(hard.W.weight).data.div_(math.sqrt(d))
batch = query[None, None], key[None], value[None], others[None, None]  # a batch of one query
assert torch.allclose(hard.scores(*batch[:2]), scaled_dot(*batch[:2]), atol=1e-4)

torch.manual_seed(0)
figure, panels = plt.subplots(2, 5, figsize=(6, 2), height_ratios=(1, 1.2))
for above, below in panels.T:
    hard_weights = hard.attention(*batch)[0, 0].detach()  # (S,)
    show(above, hard_weights.view(-1, columns))
    show(below, patch(hard_weights @ value))
plt.show()
print("weights of a draw:", hard_weights.unique().tolist())


def detail(patches: Tensor) -> float:
    squares = patches.view(-1, 3, 8, 8)
    return squares.diff(dim=3).abs().mean().item()  # mean step to the pixel beside


for count in (10, 1000, 100_000):
    drawn = value[soft_weights.multinomial(count, replacement=True)]  # (count, d)
    error = (drawn.mean(dim=0) - soft_read).norm() / soft_read.norm()
    print(f"mean of {count:6} draws: {error:.2%} from the soft answer")
print(f"step to the pixel beside: draw {detail(drawn):.4f}, soft {detail(soft_read):.4f}")

# %% [markdown]
# ## What gradient flows {#gradient}
#
# Let the loss be the squared distance between what is read and the patch that asks. How should the query
# move?
#
# **Soft.** The answer is a smooth function of the query. Back-propagation gives the exact gradient; a
# finite difference along one direction confirms it.
#
# **Hard.** A draw is a step function of the query: its derivative is zero wherever there is one. What has a
# gradient is the *expected* loss, $\sum_s p_s L_s$. With 215 keys the sum can be written out, and this
# enumeration is the truth to compare with. In practice it costs too much, and
# [REINFORCE](../weight-assignment/hard/stochastic.md) estimates the gradient from draws: right on average,
# noisy each time. A *baseline*, subtracted from the loss, takes away noise and no truth; here it is the
# expected loss.


# %%
def log_weights(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    scores = scaled_dot(queries[None], keys[None])[0]  # (T, S)
    return scores.masked_fill(~mask, -math.inf).log_softmax(dim=1)


def losses(target: Tensor) -> Tensor:
    return torch.cdist(target, value).square()  # (T, S), if query t reads patch s


def soft_loss(logs: Tensor, target: Tensor) -> Tensor:
    return (logs.exp() @ value - target).square().sum(dim=1).mean()


def hard_loss(logs: Tensor, target: Tensor) -> Tensor:
    return (logs.exp() * losses(target)).sum(dim=1).mean()  # all draws, enumerated


def reinforce(logs: Tensor, target: Tensor, draws: int, with_baseline: bool) -> Tensor:
    policy, reward = logs.detach().exp(), -losses(target)
    drawn = policy.multinomial(draws, replacement=True)  # (T, draws)
    expected = (policy * reward).sum(dim=1, keepdim=True)  # (T, 1)
    baseline = expected.expand_as(drawn) if with_baseline else 0.0
    return reinforce_loss(reward.gather(1, drawn), logs.gather(1, drawn), baseline)


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(loss, x, retain_graph=True)[0]


def relative(estimate: Tensor, exact: Tensor) -> float:
    return ((estimate - exact).norm() / exact.norm()).item()


x = query[None].clone().requires_grad_()  # (1, d)
target = value[place][None]
logs = log_weights(x, key, others)
slope, exact = (gradient(loss(logs, target), x) for loss in (soft_loss, hard_loss))
print(f"loss of the soft answer {soft_loss(logs, target):.2f}")
print(f"expected loss of a draw {hard_loss(logs, target):.2f}")

with torch.no_grad():
    step = 0.1 * slope / slope.norm()
    up, down = (soft_loss(log_weights(x + s, key, others), target) for s in (step, -step))
print(f"soft: slope {slope.norm():.4f}, finite difference {(up - down) / 0.2:.4f}")

torch.manual_seed(0)
print("hard: error of REINFORCE, root mean square of 100 runs")
for draws in (10, 100, 1000, 10_000):
    line = f"  {draws:6} draws: "
    for with_baseline, name in ((False, ""), (True, ", with a baseline ")):
        runs = [reinforce(logs, target, draws, with_baseline) for _ in range(100)]
        squares = [relative(gradient(run, x), exact) ** 2 for run in runs]
        line += f"{name}{math.sqrt(sum(squares) / 100):4.0%}"
    print(line)

# %% [markdown]
# The two losses differ: the loss of the mean is below the mean of the losses, as for any convex loss. Soft
# and hard attention are not two ways to train the same thing.
#
# A hundred times as many draws leave a tenth of the error. The alternative is the straight-through gradient
# of Gumbel-softmax: forward a draw, backward the derivative of a softmax. It is an ordinary
# back-propagation, but its mean is not the truth, and more draws do not cure that.

# %%
torch.manual_seed(0)
print("straight-through: error of the mean of 10,000 draws")
for temperature in (2.0, 1.0, 0.5):
    hard.temperature = temperature
    reads = hard(x.expand(1, 10_000, d), *batch[1:])[0]  # (draws, d), a patch each
    estimate = gradient((reads - target).square().sum(dim=1).mean(), x)
    print(f"  temperature {temperature}: {relative(estimate, exact):.0%}")

# %% [markdown]
# ## Self: everyone asks {#self}
#
# Until now one query came from outside, and 215 keys answered. In self-attention every patch is query, key
# and value. [The layer](../weight-assignment/self-attention/self-attention.md) makes the three from one
# token by three matrices. A token here is key and pixels side by side, and the matrices, set by hand, pick
# the half that is needed.
#
# Look at the row of our patch: its weights are the soft weights from above, up to rounding. **Nothing new
# happened to the weights.** They are soft. What is new is who asks: there are 216 queries, and their
# answers, laid side by side, are a picture again.

# %% alt="The photograph, and the cup in smooth patches, each a mean of patches like it."
tokens = torch.cat([key, value], dim=1)[None]  # (1, T, 2 d), here T = S
layer = SelfAttention(2 * d, d)
keys_half, pixels_half = torch.eye(2 * d).chunk(2)  # (d, 2 d) each
for linear, half in zip(layer.children(), (keys_half, keys_half, pixels_half), strict=True):
    linear.weight.data.copy_(half)  # queries, keys, values
not_self = ~torch.eye(S, dtype=torch.bool)  # (T, S), True = may be attended

with torch.no_grad():
    self_weights = layer.attention(tokens, not_self[None])[0]  # (T, S)
    self_read = layer(tokens, not_self[None])[0]  # (T, d)
gap = (self_weights[place] - soft_weights).abs().max().item()
assert gap < 1e-5
print(f"{len(self_weights)} queries; row {place} is off the soft weights by {gap:.0e}")


def picture(patches: Tensor) -> Tensor:
    return F.fold(patches.T[None], (96, 144), 8, stride=8)[0].movedim(0, -1).clamp(0, 1)


figure, panels = plt.subplots(1, 2, figsize=(6, 2.2))
show(panels[0], photograph, "value")
show(panels[1], picture(self_read), "soft self")
plt.show()

# %% [markdown]
# ## Hard self-attention {#hard-self}
#
# If soft, hard and self were three drawers, nothing could lie in two of them. But who asks and how the
# weights are shared is decided in different lines of code. So take the scores of self-attention, all 216
# rows, and make them hard: by the largest score, or by a draw. Each patch is replaced by *one* other patch
# of the photograph, unchanged. This is self-attention, and it is hard.

# %% alt="Twice the cup, made of copies of other patches: whole with the likeliest, rougher with draws."
scores = layer.q_proj(tokens) @ layer.k_proj(tokens).mT / math.sqrt(d)  # (1, T, S)
torch.manual_seed(0)
drawn = gumbel_softmax(scores, temperature=1.0, hard=True, mask=not_self)[0].detach()
likeliest = F.one_hot(self_weights.argmax(dim=1), S).float()  # (T, S)

figure, panels = plt.subplots(1, 2, figsize=(6, 2.2))
for axes, weights, name in zip(panels, (likeliest, drawn), ("likeliest", "drawn"), strict=True):
    show(axes, picture(weights @ value), f"hard self, {name}")
    print(f"{name}: weights {weights.round(decimals=4).unique().tolist()}")
plt.show()

# %% [markdown]
# ## Two questions, four answers {#table}
#
# All four combinations. *Shared by* is $1 / \sum_s \alpha_s^2$ again, a mean over the queries; for a draw it
# is 1. *Loss* is that of the soft answer, or expected over draws. *Error* is that of the gradient: for soft,
# back-propagation against a finite difference; for hard, REINFORCE with a baseline and 1000 draws per query
# against enumeration, root mean square of 10 runs. From outside it is the gradient of the query; with self
# that of all keys, which now ask and answer at once.

# %%
cases = {
    "outside": (query[None], lambda x: log_weights(x, key, others), value[place][None]),
    "self": (key, lambda x: log_weights(x, x, not_self), value),
}
torch.manual_seed(0)
print("weights  scores from  queries  shared by  loss  gradient          error")
for origin, (start, logs_of, target) in cases.items():
    x = start.clone().requires_grad_()
    logs = logs_of(x)
    both = soft_loss(logs, target), hard_loss(logs, target)
    slope, exact = (gradient(loss, x) for loss in both)
    with torch.no_grad():
        step = 0.1 * slope / slope.norm()
        up, down = (soft_loss(logs_of(x + s), target) for s in (step, -step))
    runs = [gradient(reinforce(logs, target, 1000, True), x) for _ in range(10)]
    noise = math.sqrt(sum(relative(run, exact) ** 2 for run in runs) / 10)
    shared = (1 / logs.exp().square().sum(dim=1)).mean().item()
    for kind, share, loss, how, error in (
        ("soft", shared, both[0], "back-propagation", abs((up - down) / 0.2 / slope.norm() - 1)),
        ("hard", 1.0, both[1], "REINFORCE", noise),
    ):
        line = f"{kind:7}  {origin:11}  {len(x):7}  {share:9.1f}  {loss:4.2f}"
        print(f"{line}  {how:16}  {error:5.1%}")

# %% [markdown]
# Read it by columns. *Shared by* and *gradient* follow the first word, soft or hard; *queries* follows the
# second, outside or self. No column needs three kinds.
#
# ## To keep {#keep}
#
# 1. **Soft or hard** says what values the weights take, and with it which gradient you get: exact, or an
#    estimate.
# 2. **Self or not** says where queries, keys and values come from, and with it how many queries there are.
# 3. Self-attention as in the Transformer is *soft* self-attention. The atlas lists it under "self", because
#    that is what is special about it; see [how weights are assigned](../weight-assignment/index.md).
#
# To try: make `key` twice as long; the query is one of the keys, so scores become four times as large. Do
# soft and hard then pass on the same? What happens to the error of REINFORCE, and why?
