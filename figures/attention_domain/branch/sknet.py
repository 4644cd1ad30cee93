"""One SK unit, weights set by hand, looks at gravel from nearer and nearer: from 3 x 3 it turns to 5 x 5."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from skimage import data
from torch import Tensor

from figures.style import Say, color_bar, english, name_rows, new_figure, show_image, show_weights
from snippets.attention_domain.branch.sknet import SelectiveKernel

SIZE = 64
SIDES = (200, 110, 80, 40)  # of the part shown, in pixels of the photograph
FINE, COARSE, MEAN = range(3)  # channels
REACH = slice(SIZE // 2 - 3, SIZE // 2 + 4)  # 7 positions around the middle


def views() -> Tensor:
    """Parts of a photograph, all enlarged to the same size, mean 0, deviation 1: (4, 1, SIZE, SIZE)."""
    photograph = torch.from_numpy(data.gravel() / 255).float()[None, None]
    parts = [photograph[..., 256 - s // 2 : 256 + s // 2, 256 - s // 2 : 256 + s // 2] for s in SIDES]
    x = torch.cat([F.interpolate(part, SIZE, mode="bilinear", antialias=True) for part in parts])
    return (x - x.mean(dim=(2, 3), keepdim=True)) / x.std(dim=(2, 3), keepdim=True)


@torch.no_grad()
def unit() -> SelectiveKernel:
    """The more detail at a distance of one against that at a distance of two, the more weight for 3 x 3.

    Channel FINE measures the one (in the 3 x 3 branch), COARSE the other (in the 5 x 5 branch); MEAN is what
    the unit passes on, the mean of nine pixels in either branch.
    """
    sk = SelectiveKernel(3, groups=3, reduction=3, min_width=2).eval()
    detail = torch.full((3, 3), -1 / 8)
    detail[1, 1] = 1
    for branch, channel in zip(sk.split, (FINE, COARSE), strict=True):
        kernels = branch.get_parameter("0.weight")
        kernels.zero_()
        kernels[channel] = detail
        kernels[MEAN] = 1 / 9
        branch.get_parameter("1.bias")[MEAN] = 5  # stays positive
    sk.fuse.get_parameter("0.weight").copy_(torch.tensor([[1.0, -0.5, 0.0], [-1.0, 0.5, 0.0]]))
    sk.select.weight.copy_(250 * torch.eye(2).repeat_interleave(3, dim=0))
    return sk


def figure(say: Say = english) -> Figure:
    """Columns: views. Rows: the view; the 7 x 7 pixels around one output and their weights in it."""
    sk, x = unit(), views().repeat(1, 3, 1, 1).requires_grad_()
    weights = sk.attention(x).detach()
    outputs = sum(weights[:, m] * branch(x) for m, branch in enumerate(sk.split))
    (field,) = torch.autograd.grad(outputs[:, MEAN, SIZE // 2, SIZE // 2].sum(), x)
    drawn, axes = new_figure(2, len(SIDES), height=2.9)
    for column in range(len(SIDES)):
        show_image(axes[column], x[column, MEAN])
        below = axes[len(SIDES) + column]
        show_weights(below, field[column, MEAN, REACH, REACH])
        below.set_xlabel(f"{weights[column, 1, MEAN].item():.2f}")
        axes[column].set_title(say(f"{SIDES[column]} px", f"{SIDES[column]} 像素"))
    name_rows(axes, (say("picture", "图像"), say("weights", "权重")))
    color_bar(axes, say)
    return drawn
