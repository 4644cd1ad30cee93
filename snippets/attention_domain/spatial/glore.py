"""GloRe: positions are gathered into a few nodes, a small graph convolution lets the nodes talk, and back.

Paper: Yunpeng Chen, Marcus Rohrbach, Zhicheng Yan, Shuicheng Yan, Jiashi Feng, Yannis Kalantidis,
"Graph-Based Global Reasoning Networks", CVPR 2019, arXiv 1811.12814.
Differs: the paper's graph convolution is (I - A) V W; like the released code, this one learns I + A, with a
bias and a ReLU in between. The last normalisation starts with weight zero inside the unit; in the released
code the network does that.
"""

import torch
from torch import Tensor, nn


class GraphConvolution(nn.Module):
    """relu(V + A V + b) W_g: nodes exchange their states along learned edges A, then W_g mixes each state.

    Shape:
        - v: (B, M, S), M nodes with S numbers each
        - output: (B, M, S)
    """

    def __init__(self, nodes: int, states: int) -> None:
        super().__init__()
        self.adjacency = nn.Conv1d(nodes, nodes, 1)
        self.weight = nn.Linear(states, states, bias=False)

    def forward(self, v: Tensor) -> Tensor:
        """Return the nodes after one exchange: (B, M, S) -> (B, M, S)."""
        updated: Tensor = self.weight(torch.relu(v + self.adjacency(v)))
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
        ValueError: `channels`, `nodes` or `states` is below 1.

    >>> unit, (x,) = example()
    >>> torch.equal(GloReUnit(32, nodes=8, states=16)(x), x)
    True

    Nodes are sums over positions, so a map shown twice doubles them, unless they are normalised:

    >>> twice = torch.cat([x, x], dim=3)
    >>> once, doubled = (unit.project(z, unit.attention(z)) for z in (x, twice))
    >>> torch.allclose(doubled, 2 * once, atol=1e-4)
    True
    >>> unit.normalize = True
    >>> torch.allclose(unit(twice), torch.cat([unit(x), unit(x)], dim=3), atol=1e-5)
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
        nn.init.zeros_(self.norm.weight)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each position for each node: (B, C, H, W) -> (B, M, N)."""
        weights: Tensor = self.assign(x).flatten(2)  # (B, M, N)
        return weights

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        """Gather the positions into nodes: (B, C, H, W), (B, M, N) -> (B, M, S)."""
        states = self.reduce(x).flatten(2)  # (B, S, N)
        nodes: Tensor = weights @ states.mT  # (B, M, S)
        if self.normalize:
            nodes = nodes / states.shape[-1]
        return nodes

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x): (B, C, H, W) -> (B, C, H, W)."""
        weights = self.attention(x)  # (B, M, N)
        nodes = self.reason(self.project(x, weights))  # (B, M, S)
        y = nodes.mT @ weights  # (B, S, N)
        y = y.unflatten(2, x.shape[2:])  # (B, S, H, W)
        out: Tensor = x + self.norm(self.extend(y))
        return out


def example(B: int = 2, C: int = 32, H: int = 14, W: int = 10, r: int = 4) -> tuple[GloReUnit, tuple[Tensor]]:
    """Return a seeded unit, C / r nodes of 2 C / r states, last norm set to one, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    unit = GloReUnit(C, nodes=C // r, states=2 * C // r).eval()
    nn.init.ones_(unit.norm.weight)
    return unit, (torch.randn(B, C, H, W),)


if __name__ == "__main__":
    unit, (x,) = example()
    weights = unit.attention(x)
    low, high = weights.sum(dim=-1).aminmax()
    print(f"input {tuple(x.shape)}, output {tuple(unit(x).shape)}")
    print(f"{weights.shape[1]} nodes; weights of a node sum to {low:.1f} ... {high:.1f} over the positions")
