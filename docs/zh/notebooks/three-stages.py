# ---
# description: 在一张照片上打分、加权、读取：用普通的 PyTorch 一步一步做，并故意犯一个错。
# ---

# %% [markdown]
# # 三个阶段，亲手做一遍
#
# 把一张照片切成小块，让它们互相看：打分、softmax、求平均，各用一行代码。
#
# 这里什么也不训练。要学的只有一件事：
# [查询、键、值](../foundations/query-key-value.md)的三个阶段，
# 对看得见的数字做了什么。
#
# ## 从照片到向量 {#vectors}
#
# 照片有 144 × 192 个像素。切成 8 × 8 的方块，得到 18 × 24 个小块。
# 每个小块是一行 $d = 3 \cdot 8 \cdot 8 = 192$ 个数，共有 $S = 432$ 行。
#
# 每个小块有两种身份。作为**值**，它是可以读到的内容，也就是像素。
# 作为**键**，它是被查找的对象，而原始像素不适合做键：
# 两个明亮的小块，不论画的是什么，点积都大。
# 所以先减去平均小块，再把所有的键化成同样的长度 $\sqrt{d}$。
# **查询**是蓝框中那个小块的键，它是橙色宇航服的一角。

# %% alt="穿橙色宇航服的宇航员肖像，衣袖上的蓝框标出提问的小块。"
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
# ## 阶段一：打分 {#score}
#
# 每个键与查询有多匹配？点积给每个键一个数，所有的键一次算完。
#
# 为什么要除以 $\sqrt{d}$？取两个向量，各有 $d$ 个独立的、方差为 1 的数，
# 它们的点积的标准差是 $\sqrt{d}$，除过之后回到 1。
# 这样一来，向量有多宽就不再左右注意力有多尖锐。
# 但像素并不独立，相邻的像素彼此相近。
# 所以我们的分数比这条规律说的要分散得多。

# %%
dot_scores = key @ query  # (S, d) @ (d,) -> (S,)
scores = dot_scores / math.sqrt(d)

for name, some, rule in [("dot", dot_scores, math.sqrt(d)), ("scaled", scores, 1)]:
    print(f"{name}: {some.min():.1f} to {some.max():.1f}")
    print(f"  spread {some.std():.1f}, by the rule {rule:.1f}")

# %% [markdown]
# ## 阶段二：加权 {#weigh}
#
# softmax 把分数变成权重：没有负数，总和为一。
# 先把分数除以一个**温度**，就能调节它有多严格。
# 温度低，最好的键几乎独占，接近硬选择；温度高，所有的键所得相差无几。
# 因子 $1/\sqrt{d}$ 也是一种温度：没有它，这个小块就只看见自己。
#
# 要数清有多少个键在分享权重，就打印 $1 / \sum_i \alpha_i^2$。
# 一个键独占时它等于 1，人人均分时它等于 $S$。

# %% alt="三张权重图：0.25 时亮着一两个小块，1 时亮着两只衣袖的一部分，4 时亮着整件宇航服。"
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
# 温度为 1 时，这一角衣袖找到了宇航服的其余部分，连画面另一侧的也找到了。
# 没有人告诉它位置：注意力比较的是内容，内容在哪里，它并不知道。
#
# ## 阶段三：读取 {#read}
#
# 输出是各个值按权重求得的平均。它也是 $d$ 个数的向量，
# 所以可以当成小块来看。温度越高，混进来的小块越多，丢掉的细节也越多。

# %% alt="四个小块：先是查询，然后是 0.25、1 和 4 时读到的，细节越来越少。"
figure, panels = plt.subplots(1, 4, figsize=(6, 1.8))
show(panels[0], value[place].view(3, 8, 8).movedim(0, -1), "query")
for axes, temperature in zip(panels[1:], (0.25, 1, 4), strict=True):
    weights = (scores / temperature).softmax(dim=0)
    output = weights @ value  # (S,) @ (S, d) -> (d,)
    show(axes, output.view(3, 8, 8).movedim(0, -1), f"{temperature}")
plt.show()

# %% [markdown]
# ## 所有查询一起来 {#all}
#
# 现在让每个小块都来提问。分数从向量变成矩阵，
# 一行对应一个查询，一列对应一个键，还是那三行代码。
# 把输出拼回去，又是一张照片：
# 相似小块多的地方变得平滑，没有同类的小块仍然清晰。

# %% alt="原照片，以及由加权平均拼成的肖像：衣服和墙变平，眼睛仍清晰。"
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
# ## 换成模块，结果相同 {#module}
#
# 图谱的模块里，三个阶段分别叫 `score`、`weigh` 和 `read`，前面多一维批次。
# PyTorch 自带的函数用一个融合核做完三步，不存权重。
# 除了相加的次序，三者一致。

# %%
batch = key[None], key[None], value[None]  # queries, keys, values
ours = Attention(scaled_dot)(*batch)[0]
torchs = F.scaled_dot_product_attention(*batch)[0]

for name, other in [("Attention", ours), ("scaled_dot_product_attention", torchs)]:
    difference = (other - output).abs().max().item()
    assert difference < 1e-5
    print(f"{name}: largest difference {difference:.0e}")

# %% [markdown]
# ## 一个不报错的错误 {#mistake}
#
# softmax 要指定一个轴，而这个矩阵的两个轴一样长。
# 选错了轴，权重就不是在一个查询的各个键之间分配，
# 而是在一个键的各个**查询**之间分配。
# 程序不会崩溃，形状也都对，画面上还是她，只是有些小块过亮，有些过暗。
# 在照片上，眼睛看得出来；在网络中间没有人看，训练照常进行。
#
# 一行代码就能发现它：打印各行之和。这是值得写下来的测试。

# %% alt="两张肖像：左边正确，右边有零散的小块过暗或过亮。"
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
# ## 遮住半张照片 {#mask}
#
# 掩码规定一个查询可以看见哪些键。本图谱的掩码是布尔型，
# **True 表示可以关注**。这里只有右半边可以关注：
# 左半边只好用右边的小块来画。宇航服画得不错，因为另一只衣袖可以照抄；
# 国旗在右边没有同类，就丢了。
#
# softmax 之前，被遮住的分数变成 $-\infty$，
# 所以它们的权重正好是 0，其余的总和仍为一。
# 还剩一种情形：一个查询什么也看不见。手算得到 0/0，`weigh` 给出零。

# %% alt="只用右半边小块拼成的肖像：左边有宇航服，没有国旗。"
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
# ## 接着试 {#next}
#
# - 改动 `row` 和 `column`：头发、国旗、白墙。哪个小块同类多，哪个没有？
# - 去掉 `F.normalize`。现在哪些小块胜出，为什么不是相似的那些？
# - 这里的键是像素。在网络里，键是学来的，什么算相似也是学来的：
#   [多头自注意力](../weight-assignment/self-attention/multi-head.md)。
