"""Saliency and focus: what stands out by itself, and what a query looks for.

Paper: Zhaoyang Niu, Guoqiang Zhong, Hui Yu, "A review on the attention mechanism of deep learning",
Neurocomputing 452, 2021. Max pooling and gating as models of saliency: Xipeng Qiu, "Neural Networks and Deep
Learning" (in Chinese), 2020, chapter 8.
Differs: both tell it in words; the functions here are the usual ones. The focus scores with q^T W x, Luong's
"general", so that a query may have any width.
SPDX-License-Identifier: MIT
"""

import math

import torch
from torch import Tensor, nn


class MaxPooling(nn.Module):
    """Bottom-up: in each channel the largest values win.

    g(x) = softmax(beta x) over the positions of a channel; f(g, x) = sum of g x. With beta = 0 that is mean
    pooling, with beta = inf max pooling: the weight of the largest value is one, the others are zero.

    Args:
        beta: sharpness, 0 or more; inf makes the attention hard.

    Shape:
        - x: (B, C, H, W)
        - attention(x): (B, C, H, W); the weights of a channel sum to one
        - forward(x): (B, C)

    Raises:
        ValueError: `beta` is below 0 or NaN, or x is not (B, C, H, W).

    >>> x = torch.tensor([1.0, 3.0]).log().view(1, 1, 1, 2)
    >>> [round(MaxPooling(beta).attention(x)[..., 1].item(), 3) for beta in (0, 1, 2, math.inf)]
    [0.5, 0.75, 0.9, 1.0]
    """

    def __init__(self, beta: float = math.inf) -> None:
        super().__init__()
        if not beta >= 0:
            raise ValueError(f"beta {beta} must be at least 0")
        self.beta = beta

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), how much each position counts in its channel: (B, C, H, W) -> (B, C, H, W)."""
        values = _map(x).flatten(2)  # (B, C, N)
        if self.beta < math.inf:
            values = values.to(torch.promote_types(x.dtype, torch.float32))  # beta x would be coarse in half
            return (self.beta * values).softmax(dim=2).view_as(x).to(x.dtype)
        winner = values.argmax(dim=2, keepdim=True)  # (B, C, 1), one of them if several are largest
        return torch.zeros_like(values).scatter(2, winner, 1.0).view_as(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), what is left of each channel: (B, C, H, W) -> (B, C)."""
        return (self.attention(x) * x).sum(dim=(2, 3))


class Gate(nn.Module):
    """Bottom-up: every value passes through a gate of its own.

    g(x) = sigmoid(W x + b) at each position; f(g, x) = g x.

    Args:
        channels: number of channels C.

    Shape:
        - x: (B, C, H, W)
        - attention(x): (B, C, H, W), each gate in (0, 1); they do not sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `channels` is below 1.

    With all weights zero each gate is sigmoid(0) and half of everything passes:

    >>> gate, x = Gate(2), torch.randn(1, 2, 3, 4)
    >>> _ = gate.W.weight.data.zero_(), gate.W.bias.data.zero_()
    >>> torch.equal(gate(x), x / 2)
    True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels {channels} must be at least 1")
        self.W = nn.Conv2d(channels, channels, 1)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one gate per value: (B, C, H, W) -> (B, C, H, W)."""
        gates: Tensor = self.W(x).sigmoid()
        return gates

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = g(x) x: (B, C, H, W) -> (B, C, H, W)."""
        return self.attention(x) * x


class Focus(nn.Module):
    """Top-down: a query q from elsewhere says what to look for.

    g(x, q) = softmax(q^T W x_1, ..., q^T W x_N) over the N positions; f(g, x) = sum of g_n x_n.

    Args:
        channels: number of channels C.
        query_dim: width D of a query.

    Shape:
        - x: (B, C, H, W)
        - query: (B, T, D), T queries for each map
        - attention(x, query): (B, T, H, W); the weights of a query sum to one
        - forward(x, query): (B, T, C)

    Raises:
        ValueError: `channels` or `query_dim` is below 1, or x and query are not B maps and B sets of queries.

    Four queries look at four places of the same map; a query of zeros reads the mean:

    >>> focus, (x, query) = example()
    >>> focus.attention(x, query)[0].flatten(1).argmax(dim=1).tolist()
    [45, 41, 30, 27]
    >>> torch.allclose(focus(x, 0 * query)[:, 0], x.mean(dim=(2, 3)), atol=1e-6)
    True
    """

    def __init__(self, channels: int, query_dim: int) -> None:
        super().__init__()
        if channels < 1 or query_dim < 1:
            raise ValueError(f"channels {channels} and query_dim {query_dim} must be at least 1")
        self.W = nn.Linear(query_dim, channels, bias=False)

    def attention(self, x: Tensor, query: Tensor) -> Tensor:
        """Return g(x, q), where each query looks: (B, C, H, W), (B, T, D) -> (B, T, H, W)."""
        if query.dim() != 3 or query.shape[0] != _map(x).shape[0]:
            raise ValueError(f"query {tuple(query.shape)} must be (B, T, D) with B of x {tuple(x.shape)}")
        root = math.sqrt(x.shape[1])  # scores may pass 65504, where float16 ends
        scores = self.W(query) / root @ x.flatten(2)  # (B, T, N)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * root
        weights: Tensor = scores.softmax(dim=2).to(x.dtype).unflatten(2, x.shape[2:])  # (B, T, H, W)
        return weights

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        """Return f(g(x, q), x), what each query reads: (B, C, H, W), (B, T, D) -> (B, T, C)."""
        return self.attention(x, query).flatten(2) @ x.flatten(2).mT


def _map(x: Tensor) -> Tensor:
    if x.dim() != 4:
        raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
    return x


def example(
    B: int = 2, T: int = 4, C: int = 16, D: int = 12, H: int = 8, W: int = 6
) -> tuple[Focus, tuple[Tensor, Tensor]]:
    """Return a seeded focus, a map (B, C, H, W) and T queries (B, T, D)."""
    torch.manual_seed(0)
    return Focus(C, D).eval(), (torch.randn(B, C, H, W), torch.randn(B, T, D))


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x, _) = example(**sizes)
    return {
        "max_pooling": (MaxPooling().eval(), (x,)),
        "soft_maximum": (MaxPooling(3.0).eval(), (x,)),
        "gate": (Gate(x.shape[1]).eval(), (x,)),
    }


if __name__ == "__main__":
    focus, (x, query) = example()
    for name, weights in (
        ("max pooling", MaxPooling().attention(x)[0, 0]),
        ("gate", Gate(16).attention(x)[0, 0]),
        ("focus, query 1", focus.attention(x, query)[0, 0]),
        ("focus, query 2", focus.attention(x, query)[0, 1]),
    ):
        place = divmod(weights.argmax().item(), x.shape[3])
        print(f"{name:14}  largest weight {weights.max():.2f} at {place}, all sum to {weights.sum():.2f}")
