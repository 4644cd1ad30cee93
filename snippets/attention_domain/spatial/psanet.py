"""Point-wise spatial attention: each position predicts, from itself alone, its weights for all others.

Paper: Hengshuang Zhao, Yi Zhang, Shu Liu, Jianping Shi, Chen Change Loy, Dahua Lin, Jiaya Jia,
"PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018.
Code: hszhao/semseg, commit 4f274c3, model/psanet.py and lib/psa; hszhao/PSANet, commit ff91e4f.
Differs: follows the released code, which has a softmax where the paper's formula has 1 / N, and sets both
results side by side where that formula adds them. The reduced maps are not shrunk. A map that is larger than
the predicted one is refused; the released code gives the offsets that are missing the score zero. Layers
start as torch starts them, as in semseg; the Caffe models start by He's rule, and their statistics keep 0.95.
SPDX-License-Identifier: MIT
"""

import torch
from torch import Tensor, nn


class PointwiseSpatialAttention(nn.Module):
    """Point-wise spatial attention with M = C / r inner channels.

    A position predicts one score per offset, (2 S - 1) (2 T - 1) of them: enough for any position in a map of
    S x T. Of this over-complete map it keeps the H x W offsets that lie inside the map.
    - collect: the score of source j for target i is the one that i predicted for the offset j - i
    - distribute: it is the one that j predicted for the offset i - j

    g(x) = softmax over j of both; f(g, x) = [x, proj([sum_j collect_ij r_j, sum_j distribute_ij s_j])], with
    r and s the reduced maps of the two branches.

    Args:
        channels: number of channels C.
        size: (S, T), height and width of the largest map.
        reduction: ratio r; 4 in the released code.

    Shape:
        - x: (B, C, H, W) with H <= S and W <= T; N = H W
        - attention(x): (B, 2, N, N), collect and distribute, targets by sources; rows sum to one
        - forward(x): (B, 2 C, H, W), x first

    Raises:
        ValueError: a size is below 1 or `reduction` does not divide `channels`. `attention` and `forward`
            raise it for a map that is larger than `size`.

    With the same weights in both branches, distribute is collect with sources and targets swapped:

    >>> block, (x,) = example()
    >>> block.reduce_p, block.predict_p = block.reduce, block.predict
    >>> collect, distribute = block.scores(x).unbind(dim=1)
    >>> torch.equal(distribute, collect.mT)
    True

    A position does not ask what the others hold. Change one, and only the row changes that it predicts:

    >>> x[0, :, 2, 3] += 1
    >>> int((block.scores(x)[0, 0] != collect[0]).any(dim=1).sum())
    1
    """

    def __init__(self, channels: int, size: tuple[int, int], reduction: int = 4) -> None:
        super().__init__()
        if channels < 1 or reduction < 1 or min(size) < 1:
            raise ValueError(f"channels {channels}, size {size} and reduction {reduction} must be at least 1")
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        inner = channels // reduction
        S, T = self.size = tuple(size)
        offsets = (2 * S - 1) * (2 * T - 1)
        self.reduce = conv_bn_relu(channels, inner)
        self.predict = nn.Sequential(conv_bn_relu(inner, inner), nn.Conv2d(inner, offsets, 1, bias=False))
        self.reduce_p = conv_bn_relu(channels, inner)
        self.predict_p = nn.Sequential(conv_bn_relu(inner, inner), nn.Conv2d(inner, offsets, 1, bias=False))
        self.proj = conv_bn_relu(2 * inner, channels)

    def scores(self, x: Tensor) -> Tensor:
        """Return the scores of collect and distribute: (B, C, H, W) -> (B, 2, N, N), targets by sources."""
        return self._scores(self.reduce(x), self.reduce_p(x))

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of collect and distribute: (B, C, H, W) -> (B, 2, N, N)."""
        return self.scores(x).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), x beside what it collected and was given: (B, C, H, W) -> (B, 2 C, H, W)."""
        r, s = self.reduce(x), self.reduce_p(x)  # (B, M, H, W) each
        collect, distribute = self._scores(r, s).softmax(dim=-1).unbind(dim=1)  # (B, N, N) each
        y = torch.cat([r.flatten(2) @ collect.mT, s.flatten(2) @ distribute.mT], dim=1)  # (B, 2 M, N)
        return torch.cat([x, self.proj(torch.unflatten(y, 2, x.shape[2:]))], dim=1)

    def _scores(self, r: Tensor, s: Tensor) -> Tensor:
        collect = self._cut(self.predict(r))  # (B, N, N), the position that predicts by the other one
        distribute = self._cut(self.predict_p(s)).mT  # the position that predicts is the source
        return torch.stack([collect, distribute], dim=1)

    def _cut(self, scores: Tensor) -> Tensor:
        """Keep the scores of offsets that lie inside the map: (B, offsets, H, W) -> (B, N, N)."""
        (H, W), (S, T) = scores.shape[2:], self.size
        if H > S or W > T:
            raise ValueError(f"map {(H, W)} must be at most size {self.size}")
        i, j = torch.arange(H, device=scores.device), torch.arange(W, device=scores.device)
        rows, columns = i - i[:, None] + S - 1, j - j[:, None] + T - 1  # (H, H), (W, W), from 0 on
        index = rows[:, None, :, None] * (2 * T - 1) + columns[:, None, :]  # (H, W, H, W)
        return scores.flatten(2).mT.gather(2, index.view(H * W, H * W).expand(scores.shape[0], -1, -1))


def conv_bn_relu(inputs: int, outputs: int) -> nn.Sequential:
    """1 x 1 convolution without bias, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def example(
    B: int = 3, C: int = 16, H: int = 5, W: int = 6, r: int = 2
) -> tuple[PointwiseSpatialAttention, tuple[Tensor]]:
    """Return a seeded block for maps of H x W, and such a (B, C, H, W) map."""
    torch.manual_seed(0)
    return PointwiseSpatialAttention(C, (H, W), reduction=r).eval(), (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[PointwiseSpatialAttention, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, (x,) = example(**sizes)
    S, T = block.size
    larger = PointwiseSpatialAttention(x.shape[1], (S + 2, T + 1), reduction=1)
    return {"smaller_map": (larger.eval(), (x,))}


if __name__ == "__main__":
    block, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    print(f"offsets predicted per position: {block.predict[-1].out_channels}, kept: {x[0, 0].numel()}")
    for name, weights in zip(("collect", "distribute"), block.attention(x)[0], strict=True):
        given = weights.sum(dim=0)
        print(f"{name:10}  each target receives 1; a source gives {given.min():.2f} to {given.max():.2f}")
