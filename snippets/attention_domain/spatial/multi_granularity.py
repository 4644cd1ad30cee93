"""MGD: one classifier per level of a label tree, each picks its own region; their descriptors are joined.

Paper: Dequan Wang, Zhiqiang Shen, Jie Shao, Wei Zhang, Xiangyang Xue, Zheng Zhang, "Multiple Granularity
Descriptors for Fine-grained Categorization", ICCV 2015 (no arXiv version known).
Differs: a reconstruction. The text of the paper was not at hand; known are its abstract and its three steps,
detection, region discovery, description. Chosen here: the evidence of the likeliest class as the energy of a
position, all windows of one size as proposals, one region per grain, one convolution for each network of the
paper, on a common feature map. The classifier of the joined descriptors is left to the reader.
SPDX-License-Identifier: MIT
"""

import operator
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Grain(nn.Module):
    """One level of the label tree: two networks and the classifier that tells the first one where to look.

    The classifier is called on the mean of the map; what single positions say is read from the one row of its
    weight that belongs to the likeliest class, 1 / K of the work of calling it everywhere.

    Shape:
        - x: (B, C, H, W)
        - logits(x): (B, K), trained with the labels of this level
        - energy(x): (B, H, W)
        - description(x): (B, d, H, W)
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.detection = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.classifier = nn.Linear(width, classes)
        self.description = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())

    def logits(self, x: Tensor) -> Tensor:
        """Classify the whole map: (B, C, H, W) -> (B, K)."""
        logits: Tensor = self.classifier(self.detection(x).mean(dim=(2, 3)))
        return logits

    def energy(self, x: Tensor) -> Tensor:
        """Return what each position says for the likeliest class, w_c . features: -> (B, H, W)."""
        features = self.detection(x)  # (B, d, H, W)
        likeliest = self.classifier(features.mean(dim=(2, 3))).argmax(1)  # (B,)
        return torch.einsum("bd,bdhw->bhw", self.classifier.weight[likeliest], features)


class MultipleGranularity(nn.Module):
    """Multiple-granularity descriptors.

    For each grain, g(x) is one on the k x k window with the largest sum of energy and zero elsewhere (hard);
    f(g, x) describes each window by itself and joins the results.

    Args:
        channels: channels C of the map.
        classes: number of classes of each grain, coarse to fine: families, genera, species.
        region: side k of the window; a map that is smaller is read whole along that axis.
        width: width d of the descriptor of one grain.

    Shape:
        - x: (B, C, H, W)
        - attention(x): (B, L, H, W) of zeros and ones, L grains
        - logits(x): one (B, K) per grain
        - forward(x): (B, L d)

    Raises:
        ValueError: there is no grain, a size is below 1, or x is not (B, C, H, W).

    Each grain looks at a window of its own, here 4 x 4, and only there:

    >>> block, (x,) = example()
    >>> block.attention(x)[0].sum((1, 2))
    tensor([16., 16., 16.])
    >>> block.corners(x)[0].tolist()
    [[8, 1], [3, 4], [1, 5]]
    >>> coarse = block(x.requires_grad_())[0, :6]
    >>> touched = torch.autograd.grad(coarse.sum(), x)[0][0].abs().sum(0) > 0
    >>> torch.equal(touched, block.attention(x)[0, 0].bool())
    True
    """

    def __init__(self, channels: int, classes: Sequence[int], region: int, width: int) -> None:
        super().__init__()
        if not classes or min(classes) < 1:
            raise ValueError(f"classes {tuple(classes)} must hold one or more numbers of at least 1")
        if min(channels, region, width) < 1:
            raise ValueError(f"channels {channels}, region {region} and width {width} must be at least 1")
        self.region = operator.index(region)
        self.grains = cast(Sequence[Grain], nn.ModuleList(Grain(channels, n, width) for n in classes))

    def logits(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of each grain; their cross-entropies train the choice of the regions."""
        return tuple(grain.logits(x) for grain in self.grains)

    def corners(self, x: Tensor) -> Tensor:
        """Return row and column of the upper left corner of each region: (B, C, H, W) -> (B, L, 2)."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        energy = torch.stack([grain.energy(x) for grain in self.grains], 1)  # (B, L, H, W)
        energy = energy.to(torch.promote_types(energy.dtype, torch.float32))  # or means of windows tie
        windows = F.avg_pool2d(energy, self._size(x), stride=1)  # (B, L, H - k + 1, W - k + 1)
        best = windows.flatten(2).argmax(2)  # (B, L)
        return torch.stack([best // windows.shape[3], best % windows.shape[3]], 2)  # (B, L, 2)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one in the region of each grain: (B, C, H, W) -> (B, L, H, W)."""
        (top, left), (h, w) = self.corners(x)[..., None].unbind(2), self._size(x)  # (B, L, 1) each
        row, column = (torch.arange(n, device=x.device) for n in x.shape[2:])
        inside_rows = (row >= top) & (row < top + h)  # (B, L, H)
        inside_columns = (column >= left) & (column < left + w)  # (B, L, W)
        return (inside_rows[..., None] & inside_columns[..., None, :]).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), the joined descriptors: (B, C, H, W) -> (B, L d)."""
        corners, (h, w) = self.corners(x), self._size(x)
        sample = torch.arange(x.shape[0], device=x.device)[:, None, None]
        rows = corners[..., 0, None] + torch.arange(h, device=x.device)  # (B, L, h)
        columns = corners[..., 1, None] + torch.arange(w, device=x.device)  # (B, L, w)
        descriptors = []
        for grain, row, column in zip(self.grains, rows.unbind(1), columns.unbind(1), strict=True):
            crop = x[sample, :, row[:, :, None], column[:, None]].movedim(3, 1)  # (B, C, h, w)
            descriptors.append(grain.description(crop).mean(dim=(2, 3)))  # (B, d)
        return torch.cat(descriptors, 1)

    def _size(self, x: Tensor) -> tuple[int, int]:
        """Return height and width of a region: k, or less if the map is smaller."""
        return min(self.region, x.shape[2]), min(self.region, x.shape[3])


def example(
    B: int = 2,
    C: int = 16,
    H: int = 12,
    W: int = 10,
    K_1: int = 5,
    K_2: int = 11,
    K_3: int = 19,
    k: int = 4,
    d: int = 6,
) -> tuple[MultipleGranularity, tuple[Tensor]]:
    """Return a seeded block for K_1 families, K_2 genera and K_3 species, and its input (B, C, H, W)."""
    torch.manual_seed(0)
    return MultipleGranularity(C, (K_1, K_2, K_3), region=k, width=d).eval(), (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[MultipleGranularity, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C = x.shape[1]
    return {
        "one_grain": (MultipleGranularity(C, [7], region=3, width=6).eval(), (x,)),
        "wide_region": (MultipleGranularity(C, (5, 11), region=11, width=6).eval(), (x,)),
    }


if __name__ == "__main__":
    block, (x,) = example()
    print(f"input {tuple(x.shape)}, descriptors {tuple(block(x).shape)}")
    for level, (row, column) in zip(
        ("family", "genus", "species"), block.corners(x)[0].tolist(), strict=True
    ):
        print(f"{level}: region of 4 x 4 from row {row}, column {column}")
