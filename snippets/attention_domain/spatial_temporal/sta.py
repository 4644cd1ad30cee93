"""STA: each horizontal stripe of a clip is read from the frames in which it responds most.

Paper: Yang Fu, Xiaoyang Wang, Yunchao Wei, Thomas Huang, "STA: Spatial-Temporal Attention for Large-Scale
Video-Based Person Re-Identification", AAAI 2019, arXiv 1811.04129.
Differs: the module ends with the fused descriptor; backbone, the linear layer behind it and the two other
losses are left to the reader. Stripes are pooled before they are weighed, which gives the same descriptor.
A frame without any response gets the score zero instead of a division by zero.
SPDX-License-Identifier: MIT
"""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class STA(nn.Module):
    """Spatial-temporal attention without parameters, for clips of T frames in K horizontal stripes.

    - map of a frame: m_t(h, w) = e_t(h, w) / sum of e_t, with the energy e_t = sum_c x_c^2
    - g(x)_tk = the share of stripe k in m_t, divided by its sum over the frames
    - f(g, x) = mean over the stripes of [stripe k of the frame with the largest g_tk, sum_t g_tk stripe k]

    Args:
        regions: number K of horizontal stripes; if K does not divide H, neighbouring stripes share a row.

    Shape:
        - x: (B, C, T, H, W), any sizes
        - energy(x): (B, T, H, W), each map sums to one
        - attention(x): (B, T, K), each stripe sums to one over the frames
        - forward(x): (B, 2 C), first the best stripes, then the weighted sum

    Raises:
        ValueError: `regions` is below 1, or x is not (B, C, T, H, W).

    Four equal frames, but the top of the first is blank. It gets no weight there; what is left of its energy
    is spread over three stripes, so these count more than those of the other frames:

    >>> sta, clip = STA(regions=4), torch.ones(1, 2, 4, 8, 3)
    >>> clip[:, :, 0, :2] = 0
    >>> print(sta.attention(clip)[0])
    tensor([[0.0000, 0.3077, 0.3077, 0.3077],
            [0.3333, 0.2308, 0.2308, 0.2308],
            [0.3333, 0.2308, 0.2308, 0.2308],
            [0.3333, 0.2308, 0.2308, 0.2308]])

    Only shares count, so that a frame ten times as bright gets the same scores:

    >>> clip[:, :, 2] *= 10
    >>> print(sta.attention(clip)[0, 2])
    tensor([0.3333, 0.2308, 0.2308, 0.2308])
    """

    def __init__(self, regions: int = 4) -> None:
        super().__init__()
        if regions < 1:
            raise ValueError(f"regions {regions} must be at least 1")
        self.regions = operator.index(regions)

    def energy(self, x: Tensor) -> Tensor:
        """Return the map of each frame: (B, C, T, H, W) -> (B, T, H, W), in float32 at least."""
        if x.dim() != 5:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, T, H, W)")
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # sums of squares leave float16
        return _shares(x.square().sum(dim=1), (2, 3))

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the scores of frames and stripes: (B, C, T, H, W) -> (B, T, K)."""
        return self._scores(x).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), one descriptor per clip: (B, C, T, H, W) -> (B, 2 C)."""
        scores = self._scores(x)[:, None]  # (B, 1, T, K)
        stripes = self._stripes(x)  # (B, C, T, K)
        best = scores.argmax(dim=2, keepdim=True).expand(-1, x.shape[1], -1, -1)  # (B, C, 1, K)
        top = stripes.gather(2, best).squeeze(2)  # (B, C, K)
        total = (scores * stripes).sum(dim=2)  # (B, C, K)
        return torch.cat([top, total], dim=1).mean(dim=-1).to(x.dtype)  # (B, 2 C)

    def _scores(self, x: Tensor) -> Tensor:
        """Return the scores in float32 at least, so that rounding ties no frames: (B, T, K)."""
        return _shares(self._stripes(self.energy(x)), 1)

    def _stripes(self, x: Tensor) -> Tensor:
        """Return the mean of each stripe: (..., H, W) -> (..., K)."""
        rows = x.mean(dim=-1)  # (..., H)
        stripes = F.adaptive_avg_pool1d(rows.flatten(0, -3), self.regions)
        return stripes.view(*rows.shape[:-1], self.regions)


def sample_frames(length: int, frames: int = 4) -> Tensor:
    """Return the numbers of `frames` frames, drawn one from each of as many equal parts of a video.

    >>> [int(number) // 25 for number in sample_frames(100)]
    [0, 1, 2, 3]
    """
    if not (operator.index(length) >= 1 and frames >= 1):
        raise ValueError(f"length {length} and frames {frames} must be at least 1")
    drawn = (torch.arange(frames) + torch.rand(frames, dtype=torch.float64)) * (length / frames)
    return drawn.long().clamp(max=length - 1)


def inter_frame_regularisation(maps: Tensor) -> Tensor:
    """Return how far the maps of two frames drawn at random lie apart, to be added to the loss.

    The Frobenius norm, averaged over the clips; it keeps a single frame from taking all the weight.

    >>> maps = STA().energy(torch.ones(2, 3, 4, 8, 5))
    >>> print(inter_frame_regularisation(maps))
    tensor(0.)
    """
    if maps.dim() != 4 or maps.shape[1] < 2 or not maps.shape[0]:
        raise ValueError(f"maps {tuple(maps.shape)} must be (B, T, H, W) with B > 0 and T > 1")
    first, second = maps[:, torch.randperm(maps.shape[1], device=maps.device)[:2]].unbind(dim=1)
    distance: Tensor = torch.linalg.matrix_norm(first - second)  # (B,)
    return distance.mean()


def _shares(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Divide non-negative values by their sum; zeros stay zeros."""
    return x / x.sum(dim, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


def example(
    B: int = 2, C: int = 6, T: int = 3, H: int = 8, W: int = 5, K: int = 4
) -> tuple[STA, tuple[Tensor]]:
    """Return the module and a (B, C, T, H, W) clip of features after a ReLU."""
    torch.manual_seed(0)
    return STA(regions=K).eval(), (torch.randn(B, C, T, H, W).relu(),)


def variants(**sizes: int) -> dict[str, tuple[STA, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    return {"shared_rows": (STA(regions=3).eval(), (x,))}


if __name__ == "__main__":
    sta, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(sta(x).shape)}")
    for frame, scores in enumerate(sta.attention(x)[0]):
        print(f"frame {frame}: scores of the stripes", " ".join(f"{score:.2f}" for score in scores))
