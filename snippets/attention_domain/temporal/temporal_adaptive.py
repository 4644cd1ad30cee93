"""TAM: every clip brings its own temporal kernel, and every frame a gate before the kernel is applied.

Paper: Zhaoyang Liu, Limin Wang, Wayne Wu, Chen Qian, Tong Lu, "TAM: Temporal Adaptive Module for Video
Recognition", ICCV 2021, arXiv 2005.06803.
Code: liu-zhy/temporal-adaptive-module, 5fcb46f, ops/temporal_module.py.
Differs: gates and kernel are joined into one T x T matrix per channel, whose product with the frames equals
gating and then convolving; on a CPU that is faster than a convolution with one group for each sample and
channel. Clips are (B, C, T, H, W); the released code takes the frames of all clips as one batch.
SPDX-License-Identifier: MIT
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TAM(nn.Module):
    """Temporal adaptive module for clips of T frames.

    With z the mean of each channel in each frame, and a time axis that is padded with zeros:
    - local branch: L = sigmoid(V2 * relu(BN(V1 * z))), convolutions over time, one gate per channel and frame
    - global branch: Theta = softmax(W2 relu(BN(W1 z))), linear over all frames, one kernel per channel
    - g(x)_ts = Theta_(s - t + K // 2) L_s for the K frames s around t, else 0; f(g, x)_t = sum_s g_ts x_s

    Args:
        channels: number of channels C.
        frames: length T of every clip; the linear layers of the global branch depend on it.
        kernel_size: number K of frames that an output frame reads, odd.
        alpha: the global branch has alpha T hidden units.
        beta: the local branch has C / beta hidden channels.

    Shape:
        - x: (B, C, T, H, W), any H and W
        - importance(x): (B, C, T), the gates L, each in (0, 1)
        - kernel(x): (B, C, K), the kernels Theta, each sums to one
        - attention(x): (B, C, T, T), output frames by input frames, banded; rows do not sum to one
        - forward(x): (B, C, T, H, W)

    Raises:
        ValueError: a size is below 1, `kernel_size` is even, `beta` does not divide `channels`, or the input
            is not (B, C, T, H, W) with T = `frames`.

    With zero weights in the last layers all gates are 1/2 and the kernel is a plain mean of three frames. In
    a clip that never changes, the outer frames miss a neighbour and with it a third of their sum:

    >>> block = TAM(8, frames=5).eval()
    >>> _ = block.local_branch[-2].weight.data.zero_(), block.global_branch[-2].weight.data.zero_()
    >>> print(block(torch.ones(1, 8, 5, 2, 2))[0, 0, :, 0, 0].detach())
    tensor([0.3333, 0.5000, 0.5000, 0.5000, 0.3333])

    The gate of a frame sees its neighbours, the kernel sees the whole clip:

    >>> block, (x,) = example()
    >>> other = torch.cat([x[:, :, :-1], torch.randn_like(x[:, :, -1:])], dim=2)
    >>> (block.importance(x) != block.importance(other)).any(dim=1)[0].tolist()
    [False, False, False, False, True, True]
    >>> torch.allclose(block.kernel(x), block.kernel(other))
    False
    """

    def __init__(
        self, channels: int, frames: int, kernel_size: int = 3, alpha: int = 2, beta: int = 4
    ) -> None:
        super().__init__()
        if min(channels, frames, alpha, beta) < 1:
            raise ValueError(
                f"channels {channels}, frames {frames}, alpha {alpha} and beta {beta} must be at least 1"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} must be odd and at least 1")
        if channels % beta:
            raise ValueError(f"channels {channels} must be divisible by beta {beta}")
        self.frames = frames
        self.kernel_size = kernel_size
        self.local_branch = nn.Sequential(
            nn.Conv1d(channels, channels // beta, kernel_size, padding=kernel_size // 2, bias=False),
            nn.BatchNorm1d(channels // beta),
            nn.ReLU(),
            nn.Conv1d(channels // beta, channels, 1, bias=False),
            nn.Sigmoid(),
        )
        self.global_branch = nn.Sequential(
            nn.Linear(frames, alpha * frames, bias=False),
            nn.BatchNorm1d(alpha * frames),
            nn.ReLU(),
            nn.Linear(alpha * frames, kernel_size, bias=False),
            nn.Softmax(dim=-1),
        )

    def importance(self, x: Tensor) -> Tensor:
        """Return L, one gate per channel and frame: (B, C, T, H, W) -> (B, C, T)."""
        gates: Tensor = self.local_branch(self._means(x))
        return gates

    def kernel(self, x: Tensor) -> Tensor:
        """Return Theta, one kernel per channel: (B, C, T, H, W) -> (B, C, K)."""
        z = self._means(x)
        kernels: Tensor = self.global_branch(z.flatten(0, 1))  # (B C, K)
        return kernels.view(*z.shape[:2], self.kernel_size)  # (B, C, K)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each frame in each output frame: (B, C, T, H, W) -> (B, C, T, T)."""
        outside = self.frames - 1 - self.kernel_size // 2
        lags = F.pad(self.kernel(x), (outside, outside))  # (B, C, 2 T - 1), weight of s - t = 1 - T ... T - 1
        band = lags.unfold(-1, self.frames, 1).flip(-2)  # (B, C, T, T), row t is Theta centred on frame t
        return band * self.importance(x)[:, :, None]

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), a weighted sum of frames for each frame: (B, C, T, H, W) -> same."""
        return (self.attention(x) @ x.flatten(3)).view_as(x)

    def _means(self, x: Tensor) -> Tensor:
        """Return z, the mean of each channel in each frame: (B, C, T, H, W) -> (B, C, T)."""
        if x.dim() != 5 or x.shape[2] != self.frames:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, T, H, W) with T = {self.frames}")
        return x.mean(dim=(3, 4))


def example(
    B: int = 2, C: int = 16, T: int = 6, H: int = 7, W: int = 5, K: int = 3
) -> tuple[TAM, tuple[Tensor]]:
    """Return a seeded module and a (B, C, T, H, W) clip whose frames differ in their means."""
    torch.manual_seed(0)
    x = torch.randn(B, C, T, H, W) + torch.randn(B, C, T, 1, 1)
    return TAM(C, frames=T, kernel_size=K).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[TAM, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    return {"wide_kernel": (TAM(x.shape[1], x.shape[2], kernel_size=5, alpha=3, beta=2).eval(), (x,))}


if __name__ == "__main__":
    block, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    print("kernel of the first channel:", " ".join(f"{weight:.3f}" for weight in block.kernel(x)[0, 0]))
    print("gates of the first channel: ", " ".join(f"{gate:.3f}" for gate in block.importance(x)[0, 0]))
