"""SENet: every channel is scaled by one gate, computed from the means of all channels.

Paper: Jie Hu, Li Shen, Samuel Albanie, Gang Sun, Enhua Wu, "Squeeze-and-Excitation Networks",
CVPR 2018, arXiv 1709.01507 (v4, the journal version).
Code: hujie-frank/SENet, 0262d43, models/SE-ResNet-50.prototxt (Caffe).
Differs: nothing in the forward pass. `bias=True` counts like the released Caffe models, `bias=False`
like the ablations in section 6 of the paper; a width that r does not divide is refused, not rounded.
The release holds no start values; here they are PyTorch's.
SPDX-License-Identifier: MIT
"""

import torch
from torch import Tensor, nn


class SEBlock(nn.Module):
    """Squeeze-and-excitation block (section 3, equations 2 to 4).

    g(x) = sigmoid(W2 relu(W1 z)) with z the mean of each channel; f(g, x) = g * x.

    Args:
        channels: number of channels C.
        reduction: ratio r; the hidden layer has C / r units.
        bias: whether the two linear layers have biases.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, C, 1, 1), each gate in (0, 1); the gates do not sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `channels` or `reduction` is below 1, or `reduction` does not divide `channels`.

    The squeeze is a mean, so moving the pixels around cannot change a gate:

    >>> block, (x,) = example()
    >>> shuffled = x.flatten(2)[:, :, torch.randperm(x[0, 0].numel())].view_as(x)
    >>> torch.allclose(block.attention(shuffled), block.attention(x), atol=1e-6)
    True

    With all weights zero each gate is sigmoid(0) and the block halves its input:

    >>> for parameter in block.parameters():
    ...     _ = nn.init.zeros_(parameter)
    >>> torch.equal(block(x), x / 2)
    True
    """

    def __init__(self, channels: int, reduction: int = 16, bias: bool = True) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels {channels} and reduction {reduction} must be at least 1")
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        self.excitation = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=bias),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels, bias=bias),
            nn.Sigmoid(),
        )

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one gate per channel: (B, C, H, W) -> (B, C, 1, 1)."""
        squeezed = x.mean(dim=(2, 3))  # (B, C)
        gates: Tensor = self.excitation(squeezed)  # (B, C)
        return gates[:, :, None, None]  # (B, C, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = g(x) * x: (B, C, H, W) -> (B, C, H, W)."""
        return self.attention(x) * x


def example(B: int = 2, C: int = 64, H: int = 14, W: int = 10, r: int = 16) -> tuple[SEBlock, tuple[Tensor]]:
    """Return a seeded block and its input: a (B, C, H, W) map whose channels differ in their means."""
    torch.manual_seed(0)
    x = torch.randn(B, C, H, W) + torch.randn(B, C, 1, 1)
    return SEBlock(C, reduction=r).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[SEBlock, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    return {"no_bias": (SEBlock(x.shape[1], bias=False).eval(), (x,))}


if __name__ == "__main__":
    block, (x,) = example()
    gates = block.attention(x)[0].flatten()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    print(f"gates of the first sample: {gates.min():.3f} to {gates.max():.3f}, mean {gates.mean():.3f}")
