"""A CBAM trained for seconds to tell digits apart, never told where they are: its spatial gate finds them."""

from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from skimage import data
from sklearn.datasets import load_digits
from torch import Tensor, nn

from figures.panels import GREY, Field, Gate
from figures.style import Say, color_bar, english, new_figure, show_image, show_weights
from snippets.attention_domain.channel_spatial.cbam import CBAM

DIGITS = (0, 1, 4)
CANVAS, DIGIT, CHANNELS, STEPS = 32, 12, 8, 150
COLUMNS = 5


def digits() -> tuple[Tensor, Tensor]:
    """All handwritten zeros, ones and fours: (n, DIGIT, DIGIT) in [0, 1], and their classes (n,)."""
    found = load_digits()
    classes = torch.from_numpy(found.target)
    kept = torch.isin(classes, torch.tensor(DIGITS))
    images = torch.from_numpy(found.images[kept.numpy()] / 16).float()[:, None]
    return F.interpolate(images, DIGIT, mode="bilinear")[:, 0], classes[kept]


def textures() -> Tensor:
    """Grass, gravel and brick: (3, 256, 256) in [0, 0.8]."""
    photographs = [
        torch.from_numpy(texture / 255).float() for texture in (data.grass(), data.gravel(), data.brick())
    ]
    return 0.8 * F.avg_pool2d(torch.stack(photographs), 2)


def scenes(digit: Tensor, texture: Tensor) -> tuple[Tensor, Tensor]:
    """Put each digit somewhere on a texture: pictures and the boxes of the digits, (n, 1, CANVAS, CANVAS)."""
    n = len(digit)
    row, column = torch.randint(0, CANVAS - DIGIT + 1, (2, n, 1, 1))
    top, left = torch.randint(0, 256 - CANVAS + 1, (2, n, 1, 1))
    sample, side, small = torch.arange(n)[:, None, None], torch.arange(CANVAS), torch.arange(DIGIT)
    place = sample, row + small[:, None], column + small
    drawn, box = torch.zeros(2, n, CANVAS, CANVAS)
    drawn[place], box[place] = digit, 1.0
    ground = texture[torch.randint(0, 3, (n, 1, 1)), top + side[:, None], left + side]
    return torch.maximum(ground, drawn)[:, None], box[:, None]


class Classifier(nn.Module):
    """Two convolutions, CBAM, one convolution, maximum over all positions. The gates start nearly closed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, CHANNELS, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
        )
        self.cbam = CBAM(CHANNELS, reduction=4)
        nn.init.constant_(self.cbam.get_parameter("spatial_gate.norm.bias"), -2.0)
        self.head = nn.Sequential(nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1), nn.ReLU())
        self.readout = nn.Linear(2 * CHANNELS, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.readout(self.head(self.cbam(self.stem(x))).amax(dim=(2, 3)))
        return scores


def train(digit: Tensor, classes: Tensor, texture: Tensor) -> Classifier:
    """Teach a classifier the classes of the digits, each time in other scenes."""
    network = Classifier()
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.01, total_steps=STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(0, len(digit), (64,))
        pictures, _ = scenes(digit[chosen], texture)
        loss = F.cross_entropy(network(pictures), classes[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@cache
@torch.enable_grad()
def trained() -> tuple[Classifier, Tensor]:
    """A classifier, and pictures that it was not trained on."""
    torch.manual_seed(0)
    (digit, classes), texture = digits(), textures()
    unseen = len(digit) // 5
    network = train(digit[unseen:], classes[unseen:], texture)
    return network, scenes(digit[:unseen], texture)[0]


@torch.no_grad()
def seen() -> tuple[Tensor, Tensor, Tensor]:
    """Unseen pictures, and the spatial and channel gates of a classifier trained on others."""
    network, pictures = trained()
    x = network.stem(pictures)
    channel = network.cbam.channel_gate(x)
    return pictures, network.cbam.spatial_gate(channel * x), channel


def figure(say: Say = english) -> Figure:
    """Columns: unseen pictures. Rows: picture, spatial gate, channel gates."""
    pictures, spatial, channel = seen()
    drawn, axes = new_figure(3, COLUMNS, height=2.9, height_ratios=(5, 5, 3))
    for column in range(COLUMNS):
        picture, weights, bars = axes[column::COLUMNS]
        show_image(picture, pictures[column], str(column + 1), vmin=0, vmax=1)
        show_weights(weights, spatial[column])
        bars.bar(range(CHANNELS), channel[column].flatten())
        bars.set(ylim=(0, 1), xticks=[], yticks=[])
    for panel, label in zip(axes[::COLUMNS], ("x", "$M_s$", "$M_c$"), strict=True):
        panel.set_ylabel(label, rotation=0, ha="right", va="center")
    color_bar(axes[: 2 * COLUMNS], say, say("gate", "门控"))
    return drawn


@torch.no_grad()
def explore(say: Say = english) -> Gate:
    """The features behind either gate, both or none: their mean over the channels."""
    network, pictures = trained()
    x, cbam = network.stem(pictures[:COLUMNS]), network.cbam
    gates, behind = [], []
    for channel in (torch.ones(COLUMNS, CHANNELS, 1, 1), cbam.channel_gate(x)):
        spatial = cbam.spatial_gate(channel * x)
        gates += [torch.ones_like(spatial), spatial]
        behind += [channel * x, spatial * channel * x]
    shape = (COLUMNS, 2, 2, *x.shape[2:])
    passed = torch.stack(behind, dim=1).mean(dim=2).view(shape)
    fields = (
        Field("x", pictures[:COLUMNS].view(COLUMNS, 1, 1, CANVAS, CANVAS), GREY, top=1.0),
        Field("Mₛ", torch.stack(gates, dim=1).view(shape), top=1.0),
        Field(say("passed on", "输出"), passed, root=True, top=passed.max().item()),
    )
    names = tuple(str(n + 1) for n in range(COLUMNS))
    return Gate(names, (say("channel", "通道"), say("spatial", "空间")), fields, numbers=())
