"""GloRe: positions are gathered into a few nodes, a small graph convolution lets the nodes talk, and back.

Paper: Yunpeng Chen, Marcus Rohrbach, Zhicheng Yan, Shuicheng Yan, Jiashi Feng, Yannis Kalantidis,
"Graph-Based Global Reasoning Networks", CVPR 2019, arXiv 1811.12814.
Code: facebookresearch/GloRe, commit 9c6a734, network/global_reasoning_unit.py and network/initializer.py.
Differs: the paper's graph convolution is (I - A) V W; like the released code, this one learns I + A, with a
bias and a ReLU in between. The last normalisation starts with weight zero inside the unit; in the released
code the network does that. The other layers start as torch starts them, there by Xavier's rule, biases zero.
SPDX-License-Identifier: MIT
"""

import torch
from torch import Tensor, nn


class GraphConvolution(nn.Module):
    """relu(V + A V + b) W_g: nodes exchange their states along learned edges A, then W_g mixes each state.

    Nodes that are n times too small come back n times too small, if b is divided by n as well.

    Shape:
        - v: (B, M, S), M nodes with S numbers each
        - output: (B, M, S)
    """

    def __init__(self, nodes: int, states: int) -> None:
        super().__init__()
        self.adjacency = nn.Conv1d(nodes, nodes, 1, bias=False)
        self.bias = nn.Parameter(torch.empty(nodes, 1))
        self.weight = nn.Linear(states, states, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the bias as torch starts that of a convolution."""
        limit = self.bias.shape[0] ** -0.5
        nn.init.uniform_(self.bias, -limit, limit)

    def forward(self, v: Tensor, n: int = 1) -> Tensor:
        """Return the nodes after one exchange, all divided by n like v: (B, M, S) -> (B, M, S)."""
        updated: Tensor = self.weight(torch.relu(v + self.adjacency(v) + self.bias / n))
        return updated


class GloReUnit(nn.Module):
    """Global reasoning unit in two dimensions.

    g(x) = the weight of each position for each node; f(g, x) = x + BN(W_e GCN(g X^T)^T g), X = W_s x + b_s.
    The same weights gather the positions into nodes and hand the nodes back to the positions.

    Args:
        channels: number of channels C.
        nodes: number of nodes M; C / 4 in the released networks.
        states: numbers S that describe a node; C / 2 there.
        normalize: divide the nodes by the number of positions, for maps whose size varies.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, M, N), no softmax: a weight may be negative and the sum anything
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `channels`, `nodes` or `states` is below 1, or x is not (B, C, H, W).
        TypeError: the unit is itself in float16 and trained without `normalize`; `forward` raises it.

    >>> unit, (x,) = example()
    >>> torch.equal(GloReUnit(32, nodes=8, states=16)(x), x)
    True

    Nodes are sums over positions, so a map shown twice changes what is added, unless they are normalised:

    >>> twice = torch.cat([x, x], dim=3)
    >>> for unit.normalize in (False, True):
    ...     print(torch.allclose(unit(twice), torch.cat([unit(x), unit(x)], dim=3), atol=1e-5))
    False
    True
    """

    def __init__(self, channels: int, nodes: int, states: int, normalize: bool = False) -> None:
        super().__init__()
        if min(channels, nodes, states) < 1:
            raise ValueError(f"channels {channels}, nodes {nodes} and states {states} must be at least 1")
        self.normalize = normalize
        self.assign = nn.Conv2d(channels, nodes, 1)
        self.reduce = nn.Conv2d(channels, states, 1)
        self.reason = GraphConvolution(nodes, states)
        self.extend = nn.Conv2d(states, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=1e-4)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the identity."""
        nn.init.zeros_(self.norm.weight)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each position for each node: (B, C, H, W) -> (B, M, N)."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        weights: Tensor = self.assign(x).flatten(2)  # (B, M, N)
        return weights

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted mean over the positions: (B, C, H, W), (B, M, N) -> (B, M, S)."""
        states = self.reduce(x).flatten(2)  # (B, S, N)
        means: Tensor = (weights / weights.shape[2]) @ states.mT  # divided first, for half precision
        return means

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x): (B, C, H, W) -> (B, C, H, W)."""
        weights = self.attention(x)  # (B, M, N)
        n = 1 if self.normalize else weights.shape[2]  # how much larger nodes are than the means
        nodes = self.reason(self.project(x, weights), n)  # (B, M, S), divided by n
        y = (nodes.mT @ weights).unflatten(2, x.shape[2:])  # (B, S, H, W), divided by n
        z = self.extend(y).to(self.norm.weight.dtype)  # float32 under autocast: n z may pass 65504
        if z.dtype == torch.float16 and n > 1 and self.training:
            raise TypeError(
                f"x must be float32 in training, not {z.dtype}; or set normalize, or use autocast"
            )
        out: Tensor = x + self.norm(n * z).to(x.dtype)
        return out


def example(B: int = 2, C: int = 32, H: int = 14, W: int = 10, r: int = 4) -> tuple[GloReUnit, tuple[Tensor]]:
    """Return a seeded unit, C / r nodes of 2 C / r states, last norm set to one, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    unit = GloReUnit(C, nodes=C // r, states=2 * C // r).eval()
    nn.init.ones_(unit.norm.weight)
    return unit, (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[GloReUnit, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    unit, (x,) = example(**sizes)
    unit.normalize = True
    return {"normalize": (unit, (x,))}


if __name__ == "__main__":
    unit, (x,) = example()
    weights = unit.attention(x)
    low, high = weights.sum(dim=-1).aminmax()
    print(f"input {tuple(x.shape)}, output {tuple(unit(x).shape)}")
    print(f"{weights.shape[1]} nodes; weights of a node sum to {low:.1f} ... {high:.1f} over the positions")
