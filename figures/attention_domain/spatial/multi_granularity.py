"""Two grains fitted to labels, never to places: each looks at the digit that decides its label."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from skimage import data
from sklearn.datasets import load_digits
from torch import Tensor, nn

from figures.style import COLORS, Say, color_bar, english, new_figure, show_image, show_weights
from snippets.attention_domain.spatial.multi_granularity import Grain, MultipleGranularity

SPECIES = (2, 4, 5, 9, 3, 6, 7, 8)  # one digit for each species; the first four belong to family 0
QUARTER, DIGIT, REGION = 14, 8, 8
FITTED, UNSEEN, COLUMNS = 500, 200, 4


def scenes(n: int, digits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw pictures with two digits on gravel: the family, 0 or 1, and one that only its species has.

    Returns pictures (n, 1, 28, 28), families (n,) and species (n,).
    """
    side = 2 * QUARTER
    gravel = torch.from_numpy(data.gravel()[:256, :256] / 255).float()
    species = torch.randint(0, len(SPECIES), (n,))
    family = species // 4
    pictures = torch.empty(n, 1, side, side)
    for picture, s, f in zip(pictures, species.tolist(), family.tolist(), strict=True):
        top, left = torch.randint(0, 256 - side, (2,)).tolist()
        picture[0] = 0.4 * gravel[top : top + side, left : left + side]
        for quarter, wanted in zip(torch.randperm(4).tolist(), (f, SPECIES[s]), strict=False):
            drawn = digits[classes == wanted]
            row, column = torch.randint(0, QUARTER - DIGIT + 1, (2,)).tolist()
            row, column = row + QUARTER * (quarter // 2), column + QUARTER * (quarter % 2)
            box = picture[0, row : row + DIGIT, column : column + DIGIT]
            box.copy_(torch.maximum(box, drawn[torch.randint(0, len(drawn), ())]))
    return pictures, family, species


def matches(pictures: Tensor, templates: Tensor) -> Tensor:
    """Keep at each position how well the best of ten mean digits fits: (n, 1, H, W) -> (n, 10, H, W)."""
    fit = F.conv2d(F.pad(pictures, (4, 3, 4, 3)), templates)
    best = F.relu(fit - 0.5 * fit.amax((1, 2, 3), keepdim=True)) * (fit == fit.amax(1, keepdim=True))
    for _ in range(2):  # a match stands for the whole digit, not for its centre alone
        best = F.avg_pool2d(best, 5, stride=1, padding=2)
    return best


@torch.no_grad()
def fit(grain: Grain, x: Tensor, labels: Tensor) -> None:
    """Let the detection pass x unchanged, and fit the classifier to the labels by ridge regression."""
    convolution = next(layer for layer in grain.detection if isinstance(layer, nn.Conv2d))
    nn.init.dirac_(convolution.weight)
    nn.init.zeros_(convolution.get_parameter("bias"))
    features = F.pad(x.mean((2, 3)), (0, 1), value=1.0)  # (n, 11), the last for the bias
    wanted = F.one_hot(labels).to(x.dtype)
    gram = features.T @ features
    ridge = 0.03 * gram.diag() * F.pad(torch.ones(10), (0, 1))
    solution = torch.linalg.solve(gram + ridge.diag(), features.T @ wanted)
    grain.classifier.weight.copy_(solution[:-1].T)
    grain.classifier.bias.copy_(solution[-1])


def figure(say: Say = english) -> Figure:
    """Columns: unseen pictures. Rows: picture with both regions, energy of the families, of the species."""
    torch.manual_seed(0)
    found = load_digits()
    digits, classes = torch.from_numpy(found.images / 16).float(), torch.from_numpy(found.target)
    old, new = slice(300, None), slice(300)
    means = torch.stack([digits[old][classes[old] == c].mean(0) for c in range(10)])
    means = means - means.mean((1, 2), keepdim=True)
    templates = (means / means.norm(dim=(1, 2), keepdim=True))[:, None]
    pictures, family, species = scenes(FITTED, digits[old], classes[old])
    block = MultipleGranularity(10, (2, len(SPECIES)), region=REGION, width=10)
    for grain, labels in zip(block.grains, (family, species), strict=True):
        fit(grain, matches(pictures, templates), labels)
    pictures, *_ = scenes(UNSEEN, digits[new], classes[new])  # the first few are shown
    with torch.no_grad():
        x = matches(pictures, templates)
        corners = block.corners(x)
        energies = [grain.energy(x).relu() for grain in block.grains]
    drawn, axes = new_figure(3, COLUMNS, height=4.0)
    for column in range(COLUMNS):
        picture, *maps = axes[column::COLUMNS]
        show_image(picture, pictures[column], f"{say('picture', '图')} {column + 1}", vmin=0, vmax=1)
        for corner, colour in zip(corners[column].tolist(), COLORS, strict=False):
            picture.add_patch(
                Rectangle(
                    (corner[1] - 0.5, corner[0] - 0.5), REGION, REGION, fill=False, color=colour, lw=2.5
                )
            )
        for panel, energy in zip(maps, energies, strict=True):
            show_weights(panel, energy[column])
    for panel, label, colour in zip(
        axes[::COLUMNS], ("x", say("family", "科"), say("species", "种")), ("black", *COLORS), strict=False
    ):
        panel.set_ylabel(label, color=colour)
    color_bar(axes, say, say("energy", "能量"))
    return drawn
