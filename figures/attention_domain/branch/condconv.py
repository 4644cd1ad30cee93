"""One layer, two experts set by hand: the noisier the picture, the more its kernel blurs."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from skimage import data
from torch import Tensor

from figures.style import Say, color_bar, english, name_rows, new_figure, show_image, show_weights
from snippets.attention_domain.branch.condconv import CondConv2d

SIZE = 80
NOISE = (0.0, 0.05, 0.1, 0.2)


def pictures() -> tuple[Tensor, Tensor]:
    """A photograph, and the same with more and more noise: (1, 1, SIZE, SIZE), (4, 1, SIZE, SIZE)."""
    face = torch.from_numpy(data.camera()[64:224, 150:310] / 255).float()[None, None]
    clean = F.interpolate(face, SIZE, mode="area")
    torch.manual_seed(0)
    noise = torch.randn(1, 1, SIZE, SIZE)
    return clean, torch.cat([clean + deviation * noise for deviation in NOISE])


def with_detail(x: Tensor) -> Tensor:
    """Add a channel: how much each pixel differs from the mean of its 3 x 3 neighbourhood."""
    return torch.cat([x, (x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)).abs()], dim=1)


@torch.no_grad()
def layer() -> CondConv2d:
    """The experts are a point and a blur; their weights sum to one, and depend on the mean of the detail."""
    conv = CondConv2d(2, 1, kernel_size=5, experts=2).eval()
    binomial = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    conv.experts.zero_()
    point, blur = conv.experts.view(2, *conv.kernel_shape)
    point[0, 0, 2, 2] = 1
    blur[0, 0] = torch.outer(binomial, binomial)
    slope = torch.tensor([-1.0, 1.0])
    conv.routing.weight.copy_(torch.stack([torch.zeros(2), 80 * slope], dim=1))
    conv.routing.bias.copy_(-4.9 * slope)
    return conv


def error(y: Tensor, clean: Tensor) -> float:
    """Root mean square of the difference, without a margin of two pixels."""
    return (y - clean)[..., 2:-2, 2:-2].square().mean().sqrt().item()


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Columns: noise. Rows: the picture, the kernel mixed for it, the picture after this kernel."""
    clean, noisy = pictures()
    conv, x = layer(), with_detail(noisy)
    weights, y = conv.attention(x), conv(x)
    kernels = (weights @ conv.experts).view(-1, *conv.kernel_shape)[:, 0, 0]
    drawn, axes = new_figure(3, len(NOISE), height=4.9)
    for column in range(len(NOISE)):
        above, middle, below = axes[column :: len(NOISE)]
        show_image(above, noisy[column], vmin=0, vmax=1)
        show_weights(middle, kernels[column])
        show_image(below, y[column], vmin=0, vmax=1)
        above.set_xlabel(f"±{error(noisy[column], clean[0]):.3f}")
        middle.set_xlabel(f"{say('blur', '模糊')} {weights[column, 1].item():.2f}")
        below.set_xlabel(f"±{error(y[column], clean[0]):.3f}")
        above.set_title(f"{say('noise', '噪声')} {NOISE[column]:g}")
    name_rows(axes, (say("picture", "图像"), say("kernel", "卷积核"), say("output", "输出")))
    color_bar(axes, say)
    return drawn
