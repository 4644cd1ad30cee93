# ---
# description: 同一个序列上的 softmax、累加和、衰减、增量规则与门控增量规则，最后训练一遍。
# ---

# %% [markdown]
# # 从 softmax 到增量规则
#
# 图片一张接一张放进抽屉。最后每个抽屉里是什么？
# 五种机制在同一个序列上作答。
#
# [Softmax 注意力](../weight-assignment/self-attention/self-attention.md)
# 保留放进去过的一切。另外四种只留一个大小不变的矩阵 $S$，
# 区别在于一个词元怎样改动它。不用训练就看得出来。
# 最后再把这四种都[训练](#trained)一遍。
#
# ## 序列 {#sequence}
#
# 一个词元说的是：*把这张图放进那个抽屉*。
# 键指明六个抽屉之一：16 维空间里六个两两正交的方向。
# 值就是图片，$8 \times 8$ 的手写数字。十个词元之后有一次中断：
# 抽屉应当清空。随后又是七个词元，没有一个放进 e 和 f。

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


# %% alt="十张图放进抽屉 a 到 f，中断后七张放进 a 到 d，以及最后应有的内容。"
figure, panels = plt.subplots(3, 1, figsize=(4.4, 2.8), layout="constrained")
strip(panels[0], pictures[:BREAK], "first", ORDER[:BREAK])
strip(panels[1], pictures[BREAK:], "then", ORDER[BREAK:])
strip(panels[2], wanted, "wanted", "abcdef")
plt.show()

# %% [markdown]
# 最后一行是正确答案：每个抽屉里是中断之后放进去的最后一张图，
# e 和 f 为空。下面的结果都与它比较；误差按六个抽屉合计，
# 0 为全对，1 相当于交白卷。每一行各有自己的灰度：
# 零为白，该行最大的数为黑，这个数会打印出来。


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
# 17 个键和值全部保留。抽屉的查询找到放进过它的每个词元，不分先后，
# 读出它们的平均：没有位置，softmax 分不清最后一个和第一个。
# 系数 40 使它足够尖锐。

# %% alt="用 softmax 读出的六张图：每个抽屉里放过的所有图的重影。"
show((40 * drawers @ k[0, :, 0].T).softmax(dim=1) @ v[0, :, 0], "softmax")

# %% [markdown]
# ## 2. 线性注意力：累加和 {#linear}
#
# [去掉 softmax](../weight-assignment/self-attention/linear.md)，
# 键与值的乘积就可以全部加在一起，$S \leftarrow S + k v^\top$，
# 缓存不要了：无论多长，只剩 16 乘 64 个数。查询读到 $S^\top q$。
# 重影与刚才一样，只是平均变成了和：用得最多的抽屉 a 最黑。
# （这些函数都返回每个词元读到的内容和最后的 $S$；这里只需要最后的 $S$。）

# %% alt="从累加和读出的六张图：同样的重影，用得最多的抽屉 a 最黑。"
_, S = linear_attention(k, k, v)
show(drawers @ S[0, 0], "sum")

# %% [markdown]
# ## 3. 衰减 {#decay}
#
# 每次写入之前[乘一个系数](../weight-assignment/self-attention/decayed-linear.md)，
# $S \leftarrow \gamma S + k v^\top$，旧的内容就逐渐变淡。
# 这里 $\gamma = 0.7$，函数接收的是它的对数。
# 现在最后一次写入占了上风，但衰减只看新旧，不分抽屉：
# 没有被替换的也一样变淡。抽屉 d 最后一次写入之后还有四个词元，
# 虽然再没有东西放进来，它也已经很淡。

# %% alt="从衰减的和读出的六张图：a 清楚，其余很淡。"
g = torch.full(k.shape[:3], 0.7).log()
_, S = decayed_linear(k, k, v, g)
show(drawers @ S[0, 0], "decay")

# %% [markdown]
# ## 4. 增量规则 {#delta}
#
# [写之前先看一眼](../weight-assignment/self-attention/delta-rule.md)：
# 读出这个键下已有的内容，只写入差额，
# $S \leftarrow S + k \, (v - S^\top k)^\top$，
# 或只写其中的一部分 $\beta$；这里 $\beta = 1$。
# 新图进来，旧图就离开这个抽屉，其他抽屉不受影响。
# 六个抽屉对了四个，分毫不差。可 e 和 f 里仍是中断之前的内容，
# 因为再没有谁往那里写。

# %% alt="用增量规则读出的六张图：a 到 d 正确，e 和 f 不是空的。"
beta = torch.ones(k.shape[:3])
_, S = delta_rule(k, k, v, beta)
show(drawers @ S[0, 0], "delta")

# %% [markdown]
# ## 5. 门控增量规则 {#gated}
#
# [两样都要](../weight-assignment/self-attention/gated-delta.md)：
# 先给整个矩阵乘一个系数，再修正一个键下的内容。
# 系数可以随词元而变。这里它都是 1，什么也不变淡，
# 只有中断后的第一个词元取得几乎为 0。六个抽屉全对。
# 训练过的层会由词元算出这样的系数。

# %% alt="用门控增量规则读出的六张图：全部正确，e 和 f 为空。"
g = torch.zeros(k.shape[:3])
g[:, BREAK] = -20
_, S = gated_delta(k, k, v, g, beta)
show(drawers @ S[0, 0], "gated delta")

# %% [markdown]
# ## 6. 训练 {#trained}
#
# 到此为止，键两两正交，门由人来定。现在一切都靠学：
# 键是 64 个名字之一，值有 32 种，各有自己的嵌入。
# 一个序列抽取 $D$ 个名字，写入 $3D$ 次，
# 每次的名字和值都重新抽。然后逐一询问写过的名字：
# **最后一个值才算数**。各种规则的参数相同，
# 矩阵都是 $16 \times 16$；没有门或 $\beta$ 的规则对它们不予理会。
#
# 每种规则在 $D = 8$ 上训练 300 步，每步 64 个序列，用三个种子；
# 再用 4 到 32 个名字测试。

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

# %% alt="四条下降的曲线：线性最低，衰减其次，增量与门控增量远在其上，几乎重合。"
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
# 线是平均，点是三个种子；表里是三者的最低与最高。
# 累加和里有一个名字的所有值，分不出哪个是最后的。
# 衰减偏向新近的值，不管它属于哪个名字。增量规则会替换，
# 而这正是任务所要的。门在这里没有帮助，因为没有什么要丢掉。
# 名字越多，所有规则都越差，因为矩阵只有 16 行：
# 增量规则装得并不比累加和*更多*，它会*修改*。
#
# ## 接着做 {#next}
#
# - 在第 4 节把 `beta` 设为 0.5。哪些抽屉里还看得见原有的内容？
# - 给第 3 节的衰减也在中断处加一个 $-20$ 的门。还有什么不对？
# - 让 `draw` 里每个名字只写一次。增量规则还领先吗？
