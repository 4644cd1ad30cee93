"""CANet: a network that restores pictures; convolutions are gated, modules read the two maps before them.

Paper: "Concatenated Attention Neural Network for Image Restoration", arXiv 2006.11162 (2020).
Differs: a reconstruction. The wiring of the modules follows a published summary. What is inside a module, its
two gates, sizes and activations are our reading of one sentence in the abstract; no code was released.
SPDX-License-Identifier: MIT
"""

import torch
from torch import Tensor, nn


class AttendedConv(nn.Module):
    """A 3 x 3 convolution with ReLU, its output y gated by channel, then by pixel.

    g(y) = M_c(y) * M_p(M_c(y) * y), a gate per channel times a gate per pixel; f(g, y) = g * y.

    Args:
        channels: number of channels C.
        reduction: ratio r; the hidden layer of the channel gate has C / r units.

    Shape:
        - x: (B, C, H, W)
        - y: (B, C, H, W), the map after convolution and ReLU
        - attention(y): (B, C, H, W), each weight in (0, 1)
        - forward(x): the gated map and its weights, (B, C, H, W) each

    Raises:
        ValueError: `channels` or `reduction` is below 1, or `reduction` does not divide `channels`.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels {channels} and reduction {reduction} must be at least 1")
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.channel_gate = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )
        self.pixel_gate = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def attention(self, y: Tensor) -> Tensor:
        """Return g(y), one weight for each value: (B, C, H, W) -> (B, C, H, W)."""
        channel: Tensor = self.channel_gate(y.mean(dim=(2, 3)))[:, :, None, None]  # (B, C, 1, 1)
        pixel: Tensor = self.pixel_gate(channel * y)  # (B, 1, H, W)
        return channel * pixel

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gated map and its weights."""
        y = torch.relu(self.conv(x))
        weights = self.attention(y)
        return weights * y, weights


class AttentionModule(nn.ModuleList):
    """A_n, a row of attended convolutions with a shortcut.

    Shape:
        - x: (B, C, H, W)
        - forward(x): the next map and the weights of each layer, (B, C, H, W) each
    """

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return x plus what the row makes of it, and the weights of its layers."""
        y, weights = x, []
        for layer in self:
            y, g = layer(y)
            weights.append(g)
        return x + y, weights


class CANet(nn.Module):
    """Concatenated attention network.

    F_0 = conv(x), F_1 = A_1(F_0), F_n = A_n(select([F_{n-1}; F_{n-2}])), and the restored picture is
    x + conv(fuse([F_0; ...; F_M])).

    Args:
        channels: number of channels C of the maps.
        modules: number of modules M.
        layers: number L of attended convolutions in a module.
        reduction: ratio r; the hidden layer of a channel gate has C / r units.
        image_channels: number of channels of the picture.

    Shape:
        - x: (B, image_channels, H, W), the damaged picture, any H and W
        - attention(x): (B, M, L, C, H, W), the weights of all layers, each in (0, 1)
        - forward(x): (B, image_channels, H, W), the restored picture

    Raises:
        ValueError: a size is below 1, or `reduction` does not divide `channels`.

    The network computes a correction. With a last convolution of zeros the picture stays as it is:

    >>> network, (x,) = example()
    >>> for parameter in network.tail.parameters():
    ...     _ = nn.init.zeros_(parameter)
    >>> torch.equal(network(x), x)
    True

    The weights of a layer are a column of gates times a map of gates, a matrix of rank one:

    >>> torch.linalg.matrix_rank(network.attention(x)[0].flatten(3), rtol=1e-5).tolist()
    [[1, 1], [1, 1], [1, 1], [1, 1]]
    """

    def __init__(
        self, channels: int, modules: int = 3, layers: int = 2, reduction: int = 8, image_channels: int = 3
    ) -> None:
        super().__init__()
        if min(channels, modules, layers, image_channels) < 1:
            raise ValueError(
                f"channels {channels}, modules {modules}, layers {layers} and image_channels "
                f"{image_channels} must be at least 1"
            )
        self.head = nn.Conv2d(image_channels, channels, 3, padding=1)
        self.stack = nn.ModuleList(
            AttentionModule(AttendedConv(channels, reduction) for _ in range(layers)) for _ in range(modules)
        )
        self.select = nn.ModuleList(nn.Conv2d(2 * channels, channels, 1) for _ in range(modules - 1))
        self.fuse = nn.Conv2d((modules + 1) * channels, channels, 1)
        self.tail = nn.Conv2d(channels, image_channels, 3, padding=1)

    def features(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps F_0, ..., F_M and the weights of all layers, (B, C, H, W) each."""
        maps: list[Tensor] = [self.head(x)]
        weights: list[Tensor] = []
        for n, module in enumerate(self.stack):
            start = self.select[n - 1](torch.cat([maps[-1], maps[-2]], dim=1)) if n else maps[0]
            following, gates = module(start)
            maps.append(following)
            weights += gates
        return maps, weights

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights g of all layers: (B, 3, H, W) -> (B, M, L, C, H, W)."""
        weights = torch.stack(self.features(x)[1], dim=1)  # (B, M * L, C, H, W)
        return torch.unflatten(weights, 1, (len(self.stack), -1))  # (B, M, L, C, H, W)

    def forward(self, x: Tensor) -> Tensor:
        """Return the restored picture: (B, 3, H, W) -> (B, 3, H, W)."""
        maps, _ = self.features(x)
        correction: Tensor = self.tail(self.fuse(torch.cat(maps, dim=1)))
        return x + correction


def example(
    B: int = 5, C: int = 32, H: int = 14, W: int = 10, M: int = 4, L: int = 2, r: int = 16
) -> tuple[CANet, tuple[Tensor]]:
    """Return a seeded network and its input: (B, 3, H, W) pictures with noise."""
    torch.manual_seed(0)
    x = torch.rand(B, 3, 1, 1).expand(B, 3, H, W) + 0.1 * torch.randn(B, 3, H, W)
    return CANet(C, modules=M, layers=L, reduction=r).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[CANet, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    network, (x,) = example(**sizes)
    C = network.head.out_channels
    return {
        "one_module": (CANet(C, modules=1).eval(), (x,)),
        "grey": (CANet(C, image_channels=1).eval(), (x[:, :1],)),
    }


if __name__ == "__main__":
    network, (x,) = example()
    weights = network.attention(x)
    print(f"input {tuple(x.shape)}, output {tuple(network(x).shape)}")
    print(f"weights {tuple(weights.shape)}: {weights.min():.3f} to {weights.max():.3f}")
