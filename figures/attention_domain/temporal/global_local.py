"""A clip of digits, weights set by hand: what dilated convolutions read, and what self-attention reads."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from figures.style import Say, color_bar, english, new_figure, show_image, show_weights
from snippets.attention_domain.temporal.global_local import GLTR

CLIP = (3, 3, 8, 8, 8, 3, 3, 8, 8, 8, 3, 3)
FRAME = 6
DILATIONS = (1, 2, 4)


def digits() -> tuple[Tensor, Tensor]:
    """The clip (1, 12, 64), and the mean three minus the mean eight of the other pictures (64)."""
    data = load_digits()
    images, labels = torch.from_numpy(data.data).float() / 16, torch.from_numpy(data.target)
    shown = {digit: images[labels == digit][:9] for digit in (3, 8)}
    rest = {digit: images[labels == digit][9:].mean(0) for digit in (3, 8)}
    used = {3: 0, 8: 0}
    frames = []
    for digit in CLIP:
        frames.append(shown[digit][used[digit]])
        used[digit] += 1
    return torch.stack(frames)[None], rest[3] - rest[8]


@torch.no_grad()
def module(difference: Tensor) -> GLTR:
    """Convolutions (1/5, 3/5, 1/5) for each pixel; queries and keys: likeness to a three, to an eight."""
    gltr = GLTR(64).eval()
    for parameter in gltr.parameters():
        parameter.zero_()
    for branch in gltr.pyramid:
        branch.get_parameter("0.weight").copy_(torch.eye(64)[..., None] * torch.tensor([0.2, 0.6, 0.2]))
        branch.get_parameter("1.weight").fill_(1)
    for layer in (gltr.query, gltr.key):
        weight = layer.get_parameter("0.weight")
        weight[0, :64, 0] = difference
        weight[1, :64, 0] = -difference
        layer.get_parameter("1.weight").fill_(1.6)
    return gltr


@torch.no_grad()
def rows() -> list[Tensor]:
    """How much frame FRAME reads of each frame: through each convolution, and by self-attention."""
    x, difference = digits()
    gltr = module(difference)
    read = []
    for branch in gltr.pyramid:
        jacobian = torch.func.jacrev(lambda v, run=branch: run(v.mT)[0, :, FRAME])(x)  # (64, 1, 12, 64)
        weight = jacobian.abs().sum((0, 1, 3))
        read.append(weight / weight.sum())
    return [*read, gltr.attention(x)[0, FRAME]]


def figure(say: Say = english) -> Figure:
    """The clip, and below it one strip of weights for each of the four ways in which frame t reads it."""
    x, _ = digits()
    drawn, axes = new_figure(5, 1, height=3.2, height_ratios=(1.1, 1, 1, 1, 1))
    strip = torch.cat([F.pad(frame.view(8, 8), (1, 1), value=float("nan")) for frame in x[0]], dim=1)
    show_image(axes[0], strip, aspect="auto")
    axes[0].set_xticks([10 * frame + 4.5 for frame in range(len(CLIP))], list(map(str, CLIP)))
    axes[0].set_yticks([4.5], [say("clip", "视频")])
    axes[0].tick_params(length=0, labeltop=True, labelbottom=False)
    names = [f"{say('dilation', '膨胀率')} {dilation}" for dilation in DILATIONS]
    names.append(say("attention", "注意力"))
    for panel, name, weights in zip(axes[1:], names, rows(), strict=True):
        show_weights(panel, weights.expand(2, -1))
        panel.set_aspect("auto")
        panel.set_yticks([0.5], [name])
        panel.tick_params(length=0)
    axes[-1].set_xticks([FRAME], ["$t$"])
    color_bar(axes, say)
    return drawn
