"""SRM: every channel is scaled by one gate, computed from its own mean and standard deviation.

Paper: HyunJae Lee, Hyo-Eun Kim, Hyeonseob Nam, "SRM: A Style-based Recalibration Module for Convolutional
Neural Networks", ICCV 2019, arXiv 1903.10829.
Code: hyunjaelee410/style-based-recalibration-module, f6221c7, models/recalibration_modules.py.
Differs: nothing in the forward pass of the released code, which this file follows, start values and momentum
included, but for maps of a single position: their variance is zero here, not NaN.
SPDX-License-Identifier: MIT
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SRMLayer(nn.Module):
    """Style-based recalibration.

    g(x)_c = sigmoid(BN(a_c * mean_c + b_c * std_c)), two weights and one normalisation per channel;
    f(g, x) = g * x.

    Args:
        channels: number of channels C.

    Shape:
        - x: (B, C, H, W), any H and W; in training B > 1, the normalisation compares samples
        - attention(x): (B, C, 1, 1), each gate in (0, 1); the gates do not sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `channels` is below 1; `x` has another number of channels; in training, the batch is a
            single sample.

    A new layer has weights zero, so all gates are 0.5:

    >>> new, x = SRMLayer(3), torch.randn(2, 3, 6, 5)
    >>> torch.equal(new(x), x / 2)
    True

    Less contrast changes the gate of that channel, though its mean stays; no other gate moves:

    >>> block, (x,) = example()
    >>> flat = x.clone()
    >>> flat[:, 40] = x[:, 40].mean(dim=(1, 2), keepdim=True)
    >>> (block.attention(flat) != block.attention(x))[0].flatten().nonzero().flatten().tolist()
    [40]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels {channels} must be at least 1")
        self.cfc = nn.Parameter(torch.empty(channels, 2))  # "channel-wise fully connected"
        self.norm = nn.BatchNorm1d(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights of all channels to zero."""
        nn.init.zeros_(self.cfc)

    def style(self, x: Tensor) -> Tensor:
        """Return mean and standard deviation of each channel, float32 at least: (B, C, H, W) -> (B, C, 2)."""
        if x.dim() != 4 or x.shape[1] != self.cfc.shape[0]:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W) with C = {self.cfc.shape[0]}")
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # squares of float16 overflow above 255
        positions = x.shape[2] * x.shape[3]
        mean = x.sum(dim=(2, 3), keepdim=True) / positions  # (B, C, 1, 1)
        # Squares around any constant c exceed those around the mean by positions * (mean - c)^2. With c the
        # value of the mean that is 0; its derivatives are not, and spare a gradient through each difference.
        c = mean.detach()
        squares = F.mse_loss(x, c.expand_as(x), reduction="none").sum(dim=(2, 3), keepdim=True)
        squares = squares - positions * (mean - c).square()  # (B, C, 1, 1)
        deviation = (squares / max(1, positions - 1) + 1e-5).sqrt()  # (B, C, 1, 1)
        return torch.cat([mean, deviation], dim=2).squeeze(3)  # (B, C, 2)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one gate per channel: (B, C, H, W) -> (B, C, 1, 1)."""
        scores = (self.style(x) * self.cfc).sum(dim=2).to(self.norm.weight.dtype)  # (B, C)
        return torch.sigmoid(self.norm(scores))[:, :, None, None].to(x.dtype)  # (B, C, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = g(x) * x: (B, C, H, W) -> (B, C, H, W)."""
        return self.attention(x) * x


def example(B: int = 3, C: int = 64, H: int = 14, W: int = 10) -> tuple[SRMLayer, tuple[Tensor]]:
    """Return a seeded layer, weights not zero, and a (B, C, H, W) map of differing means and contrasts."""
    torch.manual_seed(0)
    x = torch.rand(B, C, 1, 1) * torch.randn(B, C, H, W) + torch.randn(B, C, 1, 1)
    layer = SRMLayer(C)
    nn.init.normal_(layer.cfc)
    return layer.eval(), (x,)


if __name__ == "__main__":
    layer, (x,) = example()
    mean, contrast = layer.style(x)[0].unbind(dim=1)
    gates = layer.attention(x)[0].flatten()
    print(f"input {tuple(x.shape)}, output {tuple(layer(x).shape)}")
    for channel in (0, 1, 2):
        print(f"mean {mean[channel]:+.2f}, std {contrast[channel]:.2f}, gate {gates[channel]:.2f}")
