# ---
# description: Insert attention blocks into a trained ResNet without losing its weights or its accuracy.
# ---

# %% [markdown]
# # Plug a block into a ResNet and keep its weights
#
# A trained network gets an attention block: what it knew must survive, and here we watch whether it does.
#
# Three things can go wrong: the block changes the output from the first moment, the checkpoint no longer
# fits, or it seems to fit and does not. Each is shown, measured and cured, on real data: 1797 handwritten
# digits, 8 × 8 pixels. A third is kept for testing, 599 digits; one digit is 0.17 % of accuracy. No smaller
# difference can be told apart.

# %% alt="Ten handwritten digits of 8 by 8 pixels, zero to nine."
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
# ## A small ResNet {#network}
#
# Eight layers: a convolution, three residual units of two convolutions each, a linear layer. (Shortcuts that
# change the width are not counted.) One line prepares for what comes: `block` stands at the end of the
# residual branch, and at first it is the identity. An identity has no parameters, so it leaves no trace in a
# checkpoint.


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
# Four passes over the training digits are enough. `train` sets the seed, so every network sees the same
# batches in the same order.


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
# ## A block that starts as the identity {#identity}
#
# The [non-local block](../attention-domain/spatial/non-local.md) adds something to its input, and what it
# adds goes through a batch normalisation whose weight starts at zero. So at first it adds zero. Put it
# between the units, and no prediction changes, not by one bit.


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
# ## Loading: read the report {#load}
#
# That reused the layers themselves. Usually the weights come from a file, and a file knows only names. In a
# `Sequential` a name begins with a place, and the new block has pushed all places from 5 on by one.
#
# `load_state_dict(..., strict=False)` accepts that in silence. Whatever finds no namesake stays random. The
# accuracy shows it, and the report could have told: it should list nothing but the keys of the new block. The
# cure is to rename the keys before loading.


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
# ## A block that does not start so {#half}
#
# [SENet](../attention-domain/channel/senet.md) multiplies each channel by a gate, and a new gate is about
# $\sigma(0) = 0.5$: every residual branch is halved. The block stands in its own slot, so no key moves and
# the report is clean. All weights are there, and still the network got worse.

# %%
with_se = resnet8(with_se=True)
report = with_se.load_state_dict(checkpoint, strict=False)
assert all(".block." in name for name in report.missing_keys)
assert not report.unexpected_keys

print(f"{len(report.missing_keys)} missing:", *report.missing_keys[:2], "...")
print(f"accuracy {accuracy(plain):.1f} % before, {accuracy(with_se):.1f} % with SE blocks")

# %% [markdown]
# ## The cure: open the gates {#cure}
#
# Give the last layer of each block a positive bias $b$ and the gate starts at about $\sigma(b)$. The larger
# $b$, the closer to one, and to the old network. It has a price: the gate learns through the slope
# $\sigma(b)(1 - \sigma(b))$, and that goes to zero. At $b = 10$ nothing is disturbed, and the gate can hardly
# move. Around 3 is a compromise.


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
# ## Fine-tune, and compare fairly {#tune}
#
# Now one pass over the training digits, at a tenth of the rate. A fair comparison needs a fourth network: the
# plain one, trained just as much longer. Otherwise the pass itself would be counted as a merit of the block.

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
# The halved network wins back most of what it lost, and still lags behind. With open gates there was nothing
# to win back. And no block *helps* here: the plain network, trained as much, does as well. On so easy a task
# that is no wonder; the point was not to *hurt*. With other seeds the numbers move, but in each of four that
# we tried, only the halved network fell behind.
#
# The last line is the price of starting at zero. After one pass the non-local block still adds next to
# nothing, so its row cannot differ much from the first. To become useful it needs a longer training than
# this.
#
# The assertion counts parameters by the formula on the page of
# [SENet](../attention-domain/channel/senet.md#cost), $2 C^2 / r + C / r + C$ for each of the three widths.
#
# ## To keep {#keep}
#
# 1. Build the block so that it starts as the identity, and measure it: the difference before any training.
# 2. Load with `strict=False`, then look: missing may be only the new block's keys, unexpected must be empty.
# 3. Compare with the old network, trained just as much longer.
