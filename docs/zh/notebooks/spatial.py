# ---
# description: 十字交叉、锚点、EM 的基与唯一的一张图，各把稠密注意力保留了多少，各要付多少代价。
# ---

# %% [markdown]
# # 所有的对，以及少了它们还剩什么
#
# 稠密注意力让画面的每个位置询问所有位置。把大多数位置对省掉，它的答案还剩多少，又省下了什么？
#
# 这里把四个模块与[非局部模块](../attention-domain/spatial/non-local.md)放在一起：
# 同一张照片，同样的特征，同一个查询。[概览](../attention-domain/spatial/index.md)用一张图把它们并列，
# 这里来量一量。
#
# ## 稠密的答案 {#dense}
#
# 一杯咖啡，36 × 54 个位置。特征是亮度、红 − 绿、黄 − 蓝，各自标准化，再把向量长度化为一。
# 没有训练：查询与键就是这些特征，分数乘以 8，**值**是像素。于是一个位置读到的是一种颜色，
# 所有位置的答案拼起来是一张画。

# %% alt="红色茶碟上的一杯咖啡，碟上有一个圈；权重图，红的地方亮；用少数几种颜色画出的杯子。"
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
# 图中显示权重的平方根，各以自己的最大值为上限。
#
# 另一张图把它保留了多少？两组和为一的权重**重合** $\sum_j \min(a_j, a'_j)$：
# 相等时为 1，没有共同位置时为 0。第二个量看的是答案：读到的内容与稠密的读数**相差**多少，
# 以整幅画面的平均颜色，即不用任何注意力的答案，相差为 1。

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
# ## 行与列 {#criss-cross}
#
# [十字交叉注意力](../attention-domain/spatial/criss-cross.md)只问自己所在的行与列。
# 稠密的图在十字上有多少权重，一遍的重合就不会超过多少。第二遍去读的，是已经读过一遍的位置；
# 把两遍的权重作为矩阵相乘，就知道什么从哪里来。


# %% alt="穿过查询的十字；再一张，十字周围隐约可见茶碟。"
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
# ## 锚点 {#anchors}
#
# 在[非对称模块](../attention-domain/spatial/asymmetric-non-local.md)里，所有位置都来问，
# 作答的是四个网格上各单元的 110 个均值。为了比较，把每个锚点的权重平分给它所平均的位置。
# 这个模块的键要经过 ReLU，所以把特征按正负拆开。

# %% alt="由方格组成的粗糙的图，茶碟左右两侧最亮。"
block = APNB(6, reduction=1).eval()
set_to(math.sqrt(SHARPNESS * math.sqrt(6)), block.key[0])  # the block divides scores by sqrt(6)
to_anchors = block.attention(torch.cat([x, -x], dim=1).relu())[0]  # (N, 110)
of_anchors = pyramid(torch.eye(N).view(N, 1, H, W))[:, 0, :, 0].T  # (110, N), rows sum to one
report("anchors", to_anchors @ of_anchors)

figure, axes = plt.subplots(figsize=(2.6, 2))
show(axes, matrices["anchors"][query].view(H, W).sqrt(), "anchors")
plt.show()

# %% [markdown]
# ## 基 {#bases}
#
# [EM 注意力](../attention-domain/spatial/em-attention.md)给**这一张**画面的特征拟合少数几个向量。
# 两个位置属于同一个基，就算相遇：$\sum_k z_{qk} z_{jk} / \sum_n z_{nk}$。基的个数可以选。

# %% alt="三张图，红色处都亮，分别来自 2、8、64 个基。"
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
# ## 共用一张图 {#one}
#
# [GCNet](../attention-domain/spatial/global-context.md) 没有查询。
# 它的分数，取所有查询的平均，算是公道。那么单独一张图最好能做到什么？
# 它只读出一种颜色，人人相同。错得最少的，是所有稠密读数的平均，把所有稠密的图平均起来，读到的正是它。

# %% alt="该模块的图，咖啡与桌面较亮；所有稠密的图的平均，几乎均匀。"
block = GlobalContext(3, reduction=1).eval()
block.score.weight.copy_(SHARPNESS * x.mean(dim=(2, 3))[..., None, None])
report("GCNet", block.attention(x)[0].expand(N, N))
report("mean map", dense.mean(dim=0).expand(N, N))

figure, panels = plt.subplots(1, 2, figsize=(5, 2))
for axes, name in zip(panels, ("GCNet", "mean map"), strict=True):
    show(axes, matrices[name][query].view(H, W).sqrt(), name, circle=False)
plt.show()

# %% [markdown]
# ## 保留与代价 {#table}
#
# 代价是数出来的，不是计时：一个位置有多少个权重，以及 64 个通道、模块取默认宽度时一次前向传播的乘加次数，
# 一栏是这里的图，一栏是位置数为九倍的图。*Shared* 是对所有查询平均的重合；*off by* 是上面所说的相差。


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
# 两个量都需要。一遍十字交叉与稠密的图几乎没有重合，读到的颜色却几乎一样：十字是画面的一份抽样，
# 值本来就重复，求平均用不着更多。锚点重合得多，却相差得更远，因为每个锚点已经是平均，
# 红色与旁边的颜色混在一起。两个量上都最接近的是基，8 个几乎与 64 个一样好：这张画面颜色不多。
# 只有一张图，就对所有查询给同一个答案；即使是最好的一张，也几乎不比平均颜色强。
#
# 位置数到九倍，稠密模块的代价到 77 倍，十字交叉到 19 倍，其余都是 9 倍。
#
# ## 要点 {#keep}
#
# 1. 位置对之所以能省，是因为位置互相重复。丢掉的，是只有某一个位置才知道的东西。
# 2. 样子不同的图，可能给出相同的答案。要比读到的内容，不只比权重。
# 3. 没有查询，就只有一个答案给所有人。GCNet 也不求更多：它添上一份上下文，并不提问。
#
# 这里的权重由手工设定，特征只有三个。训练得到的权重会画出别的图，次序也可能改变：
# 把 `SHARPNESS` 换成 3 和 20，从头运行一遍。哪些模块更接近稠密的答案，为什么？
