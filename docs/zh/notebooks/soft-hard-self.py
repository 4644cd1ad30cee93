# ---
# description: 同一张照片上的软注意力、硬注意力与自注意力：权重、传下去的内容与梯度，以及硬的自注意力。
# ---

# %% [markdown]
# # 软、硬、自：同一张照片
#
# 软、硬、自这三个词常被当作三类注意力并列；放到同一张照片上看，
# 它们回答的其实是两个问题。
#
# **软**与**硬**说的是**权重取什么值**：所有的键分享，还是全归一个。
# **自**说的是**分数从哪里来**：由外来的查询打分，还是内容自己互相打分。
# 下面逐一去看：权重是什么样子，传下去的是什么，得到的是怎样的梯度。
# 最后把两个问题自由组合。
#
# ## 一个查询，一张照片 {#scores}
#
# 一杯咖啡，切成 12 × 18 个小块，每块 8 × 8 个像素。这里没有训练，一切由手工设定：
# **值**是小块的像素；**键**是减去平均小块、再把长度化为 $\sqrt{d}$ 的像素；
# 分数是缩放点积。**查询**是蓝框中那个小块的键，它在茶碟的右侧。
#
# 它要找的是**像**自己的小块，不是自己，所以用掩码遮住它自己的键。
# 本图谱的掩码，[True 表示可以关注](../foundations/masks.md)。

# %% alt="红色茶碟上的一杯咖啡，茶碟右侧的蓝框标出提问的小块。"
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
# ## 软：人人有份 {#soft}
#
# [键值对注意力](../weight-assignment/soft/key-value.md)用 softmax 把分数变成权重，
# 再求值的平均。215 个键都分到一点，多数近乎没有。
# 权重落在茶碟的红色部分，另一侧也有。读到的是一个平均：
# 照片上没有这样一块，它比参与平均的那些小块都平滑。

# %% alt="权重图，茶碟两侧发亮；提问的小块；一个平滑的红色小块。"
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
# 最后一行是 $1 / \sum_s \alpha_s^2$：一个键独占时为 1，人人均分时为 215。
#
# ## 硬：一个独得 {#hard}
#
# 分数还是那些，softmax 也还是那个，但现在它是**策略**：
# 一组概率，按它抽出一个键。抽出之后，权重非零即一。
# [Gumbel-softmax 注意力](../weight-assignment/hard/gumbel.md)在训练模式下抽样；
# 它的矩阵由手工设定，使分数与上面相同。
#
# 一次抽样把照片上的某一块原样传下去，细节俱在；下一次又是另一块。
# 平均起来就是软的答案：软注意力是硬注意力的期望。

# %% alt="上排五张图，各有一个亮点；下排是读到的五个红色小块。"
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
# ## 得到怎样的梯度 {#gradient}
#
# 设损失是读到的小块与提问的小块之间的平方距离。查询该往哪里动？
#
# **软。** 答案是查询的光滑函数，反向传播给出精确的梯度；
# 沿一个方向取有限差分，可以验证。
#
# **硬。** 一次抽样是查询的阶梯函数，凡有导数处，导数都为零。
# 有梯度的是**期望**损失 $\sum_s p_s L_s$。
# 键只有 215 个，这个和可以一项项写出来，枚举的结果就是用来比较的真值。
# 实际中这样做代价太大，于是由
# [REINFORCE](../weight-assignment/hard/stochastic.md) 根据抽样来估计梯度：
# 平均起来正确，每一次都有噪声。从损失中减去一个**基线**，
# 减掉的是噪声，不影响真值；这里的基线就是期望损失。


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
# 两种损失并不相等：平均的损失低于损失的平均，凡凸的损失都如此。
# 软注意力与硬注意力并不是训练同一个东西的两种办法。
#
# 抽样增加到一百倍，误差还剩十分之一。另一条路是 Gumbel-softmax 的直通梯度：
# 前向是一次抽样，反向是 softmax 的导数。
# 它就是普通的反向传播，但它的平均不是真值，多抽也无济于事。

# %%
torch.manual_seed(0)
print("straight-through: error of the mean of 10,000 draws")
for temperature in (2.0, 1.0, 0.5):
    hard.temperature = temperature
    reads = hard(x.expand(1, 10_000, d), *batch[1:])[0]  # (draws, d), a patch each
    estimate = gradient((reads - target).square().sum(dim=1).mean(), x)
    print(f"  temperature {temperature}: {relative(estimate, exact):.0%}")

# %% [markdown]
# ## 自：人人都来问 {#self}
#
# 到此为止，查询只有一个，从外面来，由 215 个键回答。
# 在自注意力里，每个小块既是查询，又是键，又是值。
# [这一层](../weight-assignment/self-attention/self-attention.md)用三个矩阵从一个词元得到三者。
# 这里的词元由键和像素并排组成，三个矩阵由手工设定，各取所需的一半。
#
# 请看提问小块所在的那一行：除了舍入误差，权重就是上面的软权重。
# **权重没有任何新变化**，仍然是软的。新的是谁在问：
# 查询有 216 个，把答案拼回去，又是一张照片。

# %% alt="原照片，以及由平滑小块拼成的杯子，每块都是相似小块的平均。"
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
# ## 硬的自注意力 {#hard-self}
#
# 假如软、硬、自是三个抽屉，就没有东西能同时放进两个。
# 可是谁来问、权重怎样分，是由不同的代码决定的。
# 那就取自注意力的分数，216 行都要，再把它们变硬：
# 取分数最大的，或者抽一个。
# 每个小块都换成照片上的**另一块**，原样不动。
# 这是自注意力，而且是硬的。

# %% alt="两张由其他小块拼成的杯子：取最可能的较完整，抽样的较杂乱。"
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
# ## 两个问题，四种答案 {#table}
#
# 四种组合列在一起。*Shared by* 仍是 $1 / \sum_s \alpha_s^2$，对查询取平均；抽样时为 1。
# *Loss* 是软答案的损失，或对抽样求的期望。*Error* 是梯度的误差：
# 软的，拿反向传播与有限差分比；
# 硬的，拿带基线、每个查询抽 1000 次的 REINFORCE 与枚举比，取 10 次的均方根。
# 查询来自外面时，是对查询的梯度；自注意力时，是对所有键的梯度，
# 它们这时既提问又回答。

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
# 按列来读。*Shared by* 与 *gradient* 随第一个词而变，即软还是硬；
# *queries* 随第二个词而变，即外来还是自身。没有哪一列需要三类。
#
# ## 要点 {#keep}
#
# 1. **软还是硬**，说的是权重取什么值，也就决定了得到怎样的梯度：精确的，还是估计的。
# 2. **自还是不自**，说的是查询、键、值从哪里来，也就决定了有多少个查询。
# 3. Transformer 里的自注意力是**软的**自注意力。图谱把它列在“自”之下，
#    因为这才是它的特别之处；见[权重如何分配](../weight-assignment/index.md)。
#
# 接着试：把 `key` 加长一倍。查询也是其中一个键，所以分数变为四倍。
# 软与硬传下去的是否就一样了？
# REINFORCE 的误差会怎样变，为什么？
