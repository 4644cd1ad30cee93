"""Attention in one formula: g turns an input into weights, f uses the weights on the same input.

Paper: Meng-Hao Guo et al., "Attention mechanisms in computer vision: A survey", Computational Visual Media
2022, arXiv 2111.07624.
Differs: the survey leaves g and f open; here each is a plain function. Scores are means, so that there is
nothing to train; a learned g takes their place in every real mechanism. The survey's g has one argument; a
query from elsewhere would be a second one, as in the file `query_key_value.py`.
SPDX-License-Identifier: MIT
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def what(x: Tensor) -> Tensor:
    """Score each channel by its mean: (B, T, C, H, W) -> (B, 1, C, 1, 1)."""
    return _clip(x).mean(dim=(1, 3, 4), keepdim=True)


def where(x: Tensor) -> Tensor:
    """Score each position by its mean: (B, T, C, H, W) -> (B, 1, 1, H, W)."""
    return _clip(x).mean(dim=(1, 2), keepdim=True)


def when(x: Tensor) -> Tensor:
    """Score each frame by its mean: (B, T, C, H, W) -> (B, T, 1, 1, 1)."""
    return _clip(x).mean(dim=(2, 3, 4), keepdim=True)


def gate(scores: Tensor) -> Tensor:
    """Squash each score alone to (0, 1); the shape stays. Several gates may be open at once."""
    return scores.sigmoid()


def normalise(scores: Tensor) -> Tensor:
    """Turn the scores of a sample into a distribution, by a softmax; the shape stays. They sum to one."""
    return scores.flatten(1).softmax(dim=1).view_as(scores)


def scale(weights: Tensor, x: Tensor) -> Tensor:
    """Multiply what is there by its weight; the shape of x stays.

    Raises:
        ValueError: some axis of the weights is neither 1 nor as long as that of x.
    """
    return _fitting(weights, x) * x


def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
    """Sum weights * x over the axes along which the weights differ; these become 1.

    With `normalise` the sum is a mean and stays within the range of x. With raw scores it may be anything.

    Raises:
        ValueError: some axis of the weights is neither 1 nor as long as that of x.
    """
    weighted = _fitting(weights, x) * x
    kept = [size if n == 1 else 1 for n, size in zip(weights.shape[1:], x.shape[1:], strict=True)]
    return weighted.sum_to_size(x.shape[0], *kept)


class Attention(nn.Module):
    """Attention = f(g(x), x).

    Args:
        g: x -> weights, which broadcast against x; a function, or a module that learns.
        f: (weights, x) -> output, `scale`, `weighted_sum` or another function.

    Shape:
        - x: (B, T, C, H, W), T frames; g and f decide, other shapes are theirs
        - attention(x): (B, 1, C, 1, 1) from `what`, (B, 1, 1, H, W) from `where`, (B, T, 1, 1, 1) from `when`
        - forward(x): as x with `scale`; with `weighted_sum` the attended axes are 1

    Raises:
        ValueError: `what`, `where` or `when` meet an x that does not have five axes, or `scale` or
            `weighted_sum` weights that do not fit x.

    Two frames with means ln 1 and ln 3:

    >>> clip = torch.tensor([1.0, 3.0]).log().view(1, 2, 1, 1, 1)
    >>> Attention(lambda x: normalise(when(x)), weighted_sum).attention(clip).flatten()
    tensor([0.2500, 0.7500])

    The mean of twos is two, whatever their weights; without normalisation it is not:

    >>> twos = torch.full((1, 3, 1, 1, 1), 2.0)
    >>> Attention(lambda x: normalise(when(x)), weighted_sum)(twos).item()
    2.0
    >>> Attention(when, weighted_sum)(twos).item()
    12.0
    """

    def __init__(self, g: Callable[[Tensor], Tensor], f: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.g = g
        self.f = f

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights; their shape says what they act on."""
        return self.g(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x)."""
        return self.f(self.attention(x), x)


def _clip(x: Tensor) -> Tensor:
    if x.dim() != 5:
        raise ValueError(f"x {tuple(x.shape)} must be (B, T, C, H, W)")
    return x


def _fitting(weights: Tensor, x: Tensor) -> Tensor:
    if weights.dim() != x.dim() or any(
        n not in (1, size) for n, size in zip(weights.shape, x.shape, strict=True)
    ):
        raise ValueError(
            f"weights {tuple(weights.shape)} must have {x.dim()} dimensions that broadcast to x "
            f"{tuple(x.shape)}"
        )
    return weights


def example(B: int = 2, T: int = 5, C: int = 3, H: int = 8, W: int = 6) -> tuple[Attention, tuple[Tensor]]:
    """Return spatial attention, a weighted mean over the positions, and a seeded clip (B, T, C, H, W)."""
    torch.manual_seed(0)
    return Attention(lambda x: normalise(where(x)), weighted_sum).eval(), (torch.randn(B, T, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[Attention, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, inputs = example(**sizes)
    return {
        "channel_gate": (Attention(lambda x: gate(what(x)), scale).eval(), inputs),
        "mean_of_frames": (Attention(lambda x: normalise(when(x)), weighted_sum).eval(), inputs),
        "raw_sum": (Attention(when, weighted_sum).eval(), inputs),
    }


if __name__ == "__main__":
    _, (clip,) = example()
    for score in (what, where, when):
        for weigh, f in ((gate, scale), (normalise, weighted_sum)):
            weights = weigh(score(clip))
            shapes = f"weights {tuple(weights.shape)}, output {tuple(f(weights, clip).shape)}"
            print(f"{score.__name__:5} {weigh.__name__:9} {f.__name__:12}  {shapes}")
