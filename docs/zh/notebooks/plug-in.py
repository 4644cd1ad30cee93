# ---
# description: 在训练好的 ResNet 里插入注意力模块，权重和准确率都不丢。
# ---

# %% [markdown]
# # 把模块插进 ResNet，权重不丢
#
# 给训练好的网络装一个注意力模块：它学到的东西必须保住，下面检验是否保住了。
#
# 有三件事可能出错：模块一装上就改变了输出；检查点装不进去；
# 或者看似装进去了，其实没有。每一件都演示、测量、给出解法。
# 数据是真实的：1797 个手写数字，8 × 8 像素。
# 留出三分之一做测试，共 599 个，一个数字相当于 0.17% 的准确率。
# 比这更小的差别分辨不出来。

# %% alt="十个 8 × 8 像素的手写数字，从零到九。"
import copy

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from snippets.attention_domain.channel.senet import SEBlock
from snippets.attention_domain.spatial.non_local import NonLocalBlock

torch.set_num_threads(1)
digits = load_digits()
images = torch.tensor(digits.images).float()[:, None] / 16  # (1797, 1, 8, 8), in [0, 1]
labels = torch.tensor(digits.target)
torch.manual_seed(0)
test, training = torch.randperm(len(labels)).split([599, 1198])

figure, panels = plt.subplots(1, 10, figsize=(6, 0.8))
for axes, image in zip(panels, images, strict=False):
    axes.imshow(image[0], cmap="gray", interpolation="none")
    axes.axis("off")
plt.show()
print(f"{len(training)} digits to train on, {len(test)} to test")

# %% [markdown]
# ## 一个小 ResNet {#network}
#
# 八层：一个卷积，三个残差单元各两个卷积，一个线性层
# （改变宽度的捷径不计在内）。有一行是为后面准备的：
# `block` 位于残差分支的末端，起初是恒等映射。
# 恒等映射没有参数，所以在检查点里不留痕迹。


# %%
class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, block: nn.Module) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.block = block
        self.shortcut = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.block(self.residual(x)))


def resnet8(with_se: bool = False) -> nn.Sequential:
    torch.manual_seed(0)

    def unit(inputs: int, outputs: int, stride: int) -> Residual:
        block = SEBlock(outputs, reduction=4) if with_se else nn.Identity()
        return Residual(inputs, outputs, stride, block)

    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        unit(8, 8, stride=1),
        unit(8, 16, stride=2),
        unit(16, 32, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()


# %% [markdown]
# 把训练数字过四遍就够了。`train` 固定了随机种子，
# 所以每个网络看到的批次和次序都相同。


# %%
def train(network: nn.Module, epochs: int, rate: float) -> None:
    torch.manual_seed(0)
    orders = [training[torch.randperm(len(training))] for _ in range(epochs)]
    batches = torch.cat(orders).split(64)
    optimizer = torch.optim.SGD(network.parameters(), momentum=0.9, weight_decay=5e-4)
    schedule = OneCycleLR(optimizer, rate, total_steps=len(batches))
    network.train()
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    network.eval()


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    return 100 * (network(images[test]).argmax(dim=1) == labels[test]).float().mean().item()


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


plain = resnet8()
train(plain, epochs=4, rate=0.1)
checkpoint = copy.deepcopy(plain.state_dict())
print(f"accuracy {accuracy(plain):.1f} %, {size(plain):,} parameters")

# %% [markdown]
# ## 起始时是恒等映射的模块 {#identity}
#
# [非局部模块](../attention-domain/spatial/non-local.md)在输入上加一项，
# 这一项要经过一个批归一化，而它的权重从零开始。所以起初加的是零。
# 把它放在残差单元之间，没有一个预测改变，一个比特也不差。


# %%
def inserted(network: nn.Sequential) -> nn.Sequential:
    torch.manual_seed(0)
    layers = list(network)
    return nn.Sequential(*layers[:5], NonLocalBlock(16), *layers[5:]).eval()


with_non_local = inserted(copy.deepcopy(plain))

with torch.no_grad():
    difference = (with_non_local(images[test]) - plain(images[test])).abs().max().item()
print(f"largest difference of any output: {difference}")
more = size(with_non_local) - size(plain)
print(f"accuracy {accuracy(with_non_local):.1f} %, {more:,} parameters more")

# %% [markdown]
# ## 加载：要看报告 {#load}
#
# 上面直接沿用了原来的层。通常权重来自文件，而文件只认名字。
# 在 `Sequential` 里，名字以序号开头，
# 新模块把从 5 起的序号都往后推了一位。
#
# `load_state_dict(..., strict=False)` 对此一声不响。
# 找不到同名者的，就保持随机。准确率显出了问题，其实报告里早就有：
# 其中应当只列出新模块的名字。解法是先改名，再加载。


# %%
def moved(name: str) -> str:
    place, rest = name.split(".", 1)
    return f"{int(place) + (int(place) >= 5)}.{rest}"


renamed = {moved(name): tensor for name, tensor in checkpoint.items()}
for title, weights in [("as saved", checkpoint), ("renamed", renamed)]:
    loaded = inserted(resnet8())
    report = loaded.load_state_dict(weights, strict=False)
    foreign = [name for name in report.missing_keys if not name.startswith("5.")]
    print(f"{title}: accuracy {accuracy(loaded):.1f} %")
    print(f"  missing {len(report.missing_keys)}, of these {len(foreign)} not of the block")
    print(f"  unexpected {len(report.unexpected_keys)}")

# %% [markdown]
# ## 起始时不是恒等映射的模块 {#half}
#
# [SENet](../attention-domain/channel/senet.md) 给每个通道乘一个门控，
# 而新的门控约等于 $\sigma(0) = 0.5$：每个残差分支都减半。
# 模块有自己的位置，没有名字移动，报告也干净。
# 权重一个不少，网络却变差了。

# %%
with_se = resnet8(with_se=True)
report = with_se.load_state_dict(checkpoint, strict=False)
assert all(".block." in name for name in report.missing_keys)
assert not report.unexpected_keys

print(f"{len(report.missing_keys)} missing:", *report.missing_keys[:2], "...")
print(f"accuracy {accuracy(plain):.1f} % before, {accuracy(with_se):.1f} % with SE blocks")

# %% [markdown]
# ## 解法：把门打开 {#cure}
#
# 给每个模块的最后一层一个正的偏置 $b$，门控就从约 $\sigma(b)$ 开始。
# $b$ 越大，门控越接近一，网络也越接近原来的样子。
# 代价在于：门控靠斜率 $\sigma(b)(1 - \sigma(b))$ 来学习，
# 而斜率趋于零。$b = 10$ 时什么也没有打乱，门控也几乎动不了。
# 取 3 左右是折中。


# %%
def open_gates(network: nn.Sequential, bias: float) -> nn.Sequential:
    opened = copy.deepcopy(network)
    for unit in opened[3:6]:
        nn.init.constant_(unit.block.excitation[2].bias, bias)
    return opened


print("bias     gate    slope  difference  accuracy")
for bias in (1, 3, 5, 10):
    opened = open_gates(with_se, bias)
    gate = torch.tensor(bias).sigmoid()
    slope = gate * (1 - gate)
    with torch.no_grad():
        difference = (opened(images[test]) - plain(images[test])).abs().max()
    print(f"{bias:4}  {gate:.5f}  {slope:.5f}  {difference:10.3f}  {accuracy(opened):5.1f} %")

# %% [markdown]
# ## 微调，并公平地比较 {#tune}
#
# 现在把训练数字过一遍，学习率取十分之一。
# 公平的比较需要第四个网络：原来的那个，也多训练这么久。
# 否则，这一遍训练的功劳会算到模块头上。

# %%
networks = {
    "plain": copy.deepcopy(plain),
    "non-local": with_non_local,
    "SE": with_se,
    "SE, bias 3": open_gates(with_se, 3),
}
print("network     parameters  before    after")
for name, network in networks.items():
    before = accuracy(network)
    train(network, epochs=1, rate=0.01)
    more = size(network) - size(plain)
    print(f"{name:10}  {more:+10,}  {before:4.1f} %  {accuracy(network):5.1f} %")
norm = with_non_local[5].norm.weight.abs().max()
print(f"non-local: its norm has moved from 0 to at most {norm:.4f}")

expected = sum(2 * channels**2 // 4 + channels // 4 + channels for channels in (8, 16, 32))
assert size(with_se) - size(plain) == expected

# %% [markdown]
# 减半的网络追回了大部分损失，但仍然落后。门打开的网络本来就没有损失。
# 而且这里没有哪个模块真的“有帮助”：原来的网络同样多训练一遍，结果一样好。
# 任务这么容易，并不奇怪；这里要的是“不添乱”。
# 换别的随机种子，数字会变；但试过的四个种子里，
# 落后的都只有减半的那个网络。
#
# 最后一行是从零开始的代价。过了一遍之后，非局部模块加上的仍近乎零，
# 所以它那一行不可能与第一行差多少。它要有用，需要训练得更久。
#
# 断言里的参数量用的是
# [SENet](../attention-domain/channel/senet.md#cost) 页上的公式，
# 三种宽度各计 $2 C^2 / r + C / r + C$。
#
# ## 记住三条 {#keep}
#
# 1. 让模块从恒等映射开始，并且测量：训练之前，输出差多少。
# 2. 用 `strict=False` 加载，然后看报告：
#    缺少的只能是新模块的名字，多余的必须为空。
# 3. 与原来的网络比较，而且让它也多训练同样久。
