"""Global context block of GCNet: one weighted mean of all positions, transformed, is added to every position.

Paper: Yue Cao, Jiarui Xu, Stephen Lin, Fangyun Wei, Han Hu, "GCNet: Non-local Networks Meet
Squeeze-Excitation Networks and Beyond", ICCV Workshops 2019, arXiv 1904.11492.
Code: xvjiarui/GCNet, 029db54, mmdet/ops/gcb/context_block.py.
Differs: the score has no bias, because the softmax removes one. A width that r does not divide is refused,
and a single hidden unit, which the layer normalisation would make constant. The released code can also add
and multiply at once.
SPDX-License-Identifier: MIT
"""

import torch
from torch import Tensor, nn

MODES = ("add", "mul")


class GlobalContext(nn.Module):
    """Global context block.

    g(x) = a, with a_j = softmax_j(w . x_j), one weight per position for all queries alike;
    f(g, x)_i = x_i + t, or x_i * sigmoid(t), with t = W2 relu(LN(W1 c)) and the context c = sum_j a_j x_j.

    The last layer starts at zero, so t = 0: `add` starts as the identity, `mul` halves its input.

    Args:
        channels: number of channels C.
        reduction: ratio r; the hidden layer has C / r units.
        mode: "add" or "mul".

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, 1, N), positive, sums to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `mode` is unknown, a size is below 1, `reduction` does not divide `channels`, fewer
            than two units are left, or x has another number of dimensions.

    >>> block, (x,) = example()
    >>> torch.equal(GlobalContext(64)(x), x), torch.equal(GlobalContext(64, mode="mul")(x), x / 2)
    (True, True)

    Whatever is added is the same at all positions:

    >>> added = (block(x) - x).flatten(2)
    >>> bool(added.abs().max() > 0.1), bool(added.std(dim=-1).max() < 1e-6)
    (True, True)

    Without a score each of 10 x 12 positions gets 1 / 120, and the context is the mean of SENet:

    >>> _ = nn.init.zeros_(block.score.weight)
    >>> [round(1 / weight.item(), 3) for weight in block.attention(x).aminmax()]
    [120.0, 120.0]
    >>> torch.allclose(block.context(x), x.mean(dim=(2, 3)), atol=1e-6)
    True
    """

    def __init__(self, channels: int, reduction: int = 16, mode: str = "add") -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels {channels} and reduction {reduction} must be at least 1")
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        hidden = channels // reduction
        if hidden < 2:
            raise ValueError(f"channels // reduction {hidden} must be at least 2")
        self.mode = mode
        self.score = nn.Conv2d(channels, 1, 1, bias=False)
        first, last = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.transform = nn.Sequential(first, nn.LayerNorm(hidden), nn.ReLU(), last)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the released code: the score with variance 2 / C, the last layer with zeros."""
        nn.init.kaiming_normal_(self.score.weight)
        for parameter in self.transform[-1].parameters():
            nn.init.zeros_(parameter)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one weight per position: (B, C, H, W) -> (B, 1, N)."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        scores: Tensor = self.score(x).flatten(2)  # (B, 1, N)
        return scores.softmax(dim=-1)

    def context(self, x: Tensor) -> Tensor:
        """Return the weighted mean of all positions: (B, C, H, W) -> (B, C)."""
        return (x.flatten(2) @ self.attention(x).mT).squeeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x): (B, C, H, W) -> (B, C, H, W)."""
        change: Tensor = self.transform(self.context(x))[:, :, None, None]  # (B, C, 1, 1)
        return x + change if self.mode == "add" else x * change.sigmoid()


def example(
    B: int = 2, C: int = 64, H: int = 10, W: int = 12, r: int = 16
) -> tuple[GlobalContext, tuple[Tensor]]:
    """Return a seeded block, drawn at random so that it adds something, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    block = GlobalContext(C, reduction=r).eval()
    for parameter in block.transform.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block, (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, inputs = example(**sizes)
    block.mode = "mul"
    return {"mul": (block, inputs)}


if __name__ == "__main__":
    block, (x,) = example()
    weights, added = block.attention(x)[0], (block(x) - x)[0].flatten(1)
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    print(f"weights of {weights.numel()} positions, uniform would be 1: ", end="")
    print(f"{weights.numel() * weights.min():.2f} to {weights.numel() * weights.max():.2f}")
    print(f"added to channel 0: {added[0].min():.4f} to {added[0].max():.4f} over all positions")
