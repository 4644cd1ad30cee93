"""Gather-excite: what a channel holds in the neighbourhood of a position decides how far it is open there.

Paper: Jie Hu, Li Shen, Samuel Albanie, Gang Sun, Andrea Vedaldi, "Gather-Excite: Exploiting Feature Context
in Convolutional Neural Networks", NeurIPS 2018, arXiv 1810.12348.
Code: hujie-frank/GENet, commit ae791f8, models/RN50-GEPF.prototxt, RN50-GEP.prototxt and RN50-GEPP.prototxt.
Differs: the released Caffe models gather globally only; the convolutions for extents 2, 4 and 8 follow the
figures beside them. At the border the mean counts the pixels inside the map. Layers start, and statistics
move, as in torch; in the models convolutions start by He's rule, the two layers of theta_plus with a standard
deviation of 0.01 and biases of zero, and the statistics keep 0.95.
SPDX-License-Identifier: MIT
"""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("theta_minus", "theta", "theta_plus")


class GatherExcite(nn.Module):
    """Gather-excite block: one gate per channel and cell of `extent` x `extent` pixels, or one per channel.

    g(x) = sigmoid(gather(x)); f(g, x) = x * (g, enlarged to the size of x by nearest neighbours).
    - theta_minus, nothing learned: the mean over 2 e - 1 pixels, every e pixels, or over the whole map
    - theta, depthwise convolutions: log2(e) of 3 x 3 with stride 2, or one as large as the map
    - theta_plus: theta over the whole map, then the two layers of SENet, C -> C / r -> C

    Args:
        channels: number of channels C.
        mode: one of the three above.
        extent: e, a power of two, or None for the whole map; theta_plus has no other.
        size: (H, W) of the map, needed if a convolution is as large as the map, else without effect.
        reduction: ratio r of theta_plus.

    Shape:
        - x: (B, C, H, W), any H and W, or only `size` where it is needed
        - attention(x): (B, C, ceil(H / e), ceil(W / e)), or (B, C, 1, 1); each gate in (0, 1)
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `mode` is unknown, a size is below 1, `extent` is no power of two, theta_plus has an
            extent or a reduction that does not divide `channels`, or `size` is missing. `attention` and
            `forward` raise it for a map of another size than `size`, or another number of channels.

    A new block with e = 4 has one gate per 4 x 4 pixels of each channel, here 5 x 8 of them:

    >>> block, (x,) = example()
    >>> (block(x) / x)[0, 0].round(decimals=4).unique().numel()
    40

    Without a neighbourhood the gate of a value is its own sigmoid, which makes the block a Swish:

    >>> torch.allclose(GatherExcite(6, "theta_minus", extent=1)(x), F.silu(x))
    True
    """

    def __init__(
        self,
        channels: int,
        mode: str = "theta",
        extent: int | None = None,
        size: tuple[int, int] | None = None,
        reduction: int = 16,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        self.channels, reduction = operator.index(channels), operator.index(reduction)
        if min(channels, reduction, *(size or (1,))) < 1:
            raise ValueError(f"channels {channels}, reduction {reduction} and size {size} must be at least 1")
        if size is not None and len(size) != 2:
            raise ValueError(f"size {tuple(size)} must be (H, W)")
        if extent is not None and (extent < 1 or extent & (extent - 1)):
            raise ValueError(f"extent {extent} must be a power of two")
        if mode == "theta_plus" and extent is not None:
            raise ValueError(f"extent {extent} must be None in mode {mode!r}")
        if mode == "theta_plus" and channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        self.extent = extent
        self.size = (size[0], size[1]) if size and extent is None and mode != "theta_minus" else None
        if mode == "theta_minus":
            self.gather = mean(extent)
        elif extent is not None:
            self.gather = pyramid(channels, extent)
        elif self.size is not None:
            self.gather = depthwise(channels, self.size)
        else:
            raise ValueError(f"size {size} must be (H, W) in mode {mode!r} with extent {extent}")
        self.excite = two_layers(channels, reduction) if mode == "theta_plus" else nn.Identity()

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one gate per channel and cell: (B, C, H, W) -> (B, C, H', W')."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W) with C = {self.channels}")
        if self.size is not None and x.shape[2:] != self.size:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W) with (H, W) = {self.size}")
        gates: Tensor = self.excite(self.gather(x)).sigmoid()
        return gates

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = x * g(x), each cell's gate for all its pixels: (B, C, H, W) -> (B, C, H, W)."""
        gates = self.attention(x)  # (B, C, H', W')
        if self.extent is not None:
            gates = F.interpolate(gates, x.shape[2:], mode="nearest")  # (B, C, H, W)
        return x * gates


def mean(extent: int | None) -> nn.Module:
    """The mean around each e-th pixel, e - 1 pixels to each side; or the mean of the map."""
    if extent is None:
        return nn.AdaptiveAvgPool2d(1)
    return nn.AvgPool2d(2 * extent - 1, extent, extent - 1, count_include_pad=False)


def depthwise(channels: int, size: tuple[int, int], stride: int = 1, padding: int = 0) -> nn.Sequential:
    """A convolution that keeps the channels apart, and its normalisation."""
    convolution = nn.Conv2d(channels, channels, size, stride, padding, groups=channels, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))


def pyramid(channels: int, extent: int) -> nn.Sequential:
    """log2(extent) convolutions of stride 2, a ReLU between them but none behind the last."""
    layers: list[nn.Module] = []
    for step in range(extent.bit_length() - 1):
        layers += [nn.ReLU()] if step else []
        layers.append(depthwise(channels, (3, 3), stride=2, padding=1))
    return nn.Sequential(*layers)


def two_layers(channels: int, reduction: int) -> nn.Sequential:
    """The excitation of SENet, here behind a ReLU: C -> C / r -> C."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels // reduction, 1),
        nn.ReLU(),
        nn.Conv2d(channels // reduction, channels, 1),
    )


def example(B: int = 2, C: int = 6, H: int = 20, W: int = 32) -> tuple[GatherExcite, tuple[Tensor]]:
    """Return a seeded block of mode theta with extent 4, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    return GatherExcite(C, extent=4).eval(), (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[GatherExcite, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C, size = x.shape[1], (x.shape[2], x.shape[3])
    blocks = {
        "theta_plus": GatherExcite(C, "theta_plus", size=size, reduction=1),
        "theta_global": GatherExcite(C, "theta", size=size),
        "theta_minus": GatherExcite(C, "theta_minus"),
        "theta_minus_local": GatherExcite(C, "theta_minus", extent=8),
    }
    return {name: (block.eval(), (x,)) for name, block in blocks.items()}


if __name__ == "__main__":
    _, (x,) = example()
    for mode, extent in [
        ("theta_minus", 4),
        ("theta_minus", None),
        ("theta", 4),
        ("theta", None),
        ("theta_plus", None),
    ]:
        block = GatherExcite(6, mode, extent, size=(20, 32), reduction=2).eval()
        parameters = sum(parameter.numel() for parameter in block.parameters())
        cells = tuple(block.attention(x).shape[2:])
        print(f"{mode:11} extent {extent!s:4}: {parameters:4} parameters, {cells} gates per channel")
