"""GLTR: dilated convolutions look at nearby frames, then self-attention compares all frames with all.

Paper: Jianing Li, Jingdong Wang, Qi Tian, Wen Gao, Shiliang Zhang, "Global-Local Temporal Representations for
Video Person Re-Identification", ICCV 2019, arXiv 1908.10049.
Differs: what the paper leaves open is as simple as can be: convolutions have biases, the pyramid keeps the
length by padding with zeros, keys, queries and values have the width 3 d / a with a = 2. A mask is added.
SPDX-License-Identifier: MIT
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GLTR(nn.Module):
    """Global-local temporal representation: one vector for a sequence of T frame features.

    - dilated temporal pyramid: F' = the outputs of three convolutions over 3 frames, dilated by 1, 2, 4
    - temporal self-attention: g(x) = softmax(B^T C) over the frames, f(g, x) = the mean over time of
      F' + W_o (V g^T), with B, C the normalised queries and keys and V the values of F'

    Args:
        embed_dim: width d of the feature of a frame.
        reduction: ratio a; queries, keys and values have 3 d / a channels.

    Shape:
        - x: (B, T, d), any T
        - mask: (B, T), bool, True = real frame, may be attended; None = all are real
        - attention(x, mask): (B, T, T), queries by keys; each row sums to one, over the real frames
        - forward(x, mask): (B, 3 d), zeros for a sequence without real frames

    Raises:
        ValueError: `embed_dim` or `reduction` is below 1, `reduction` does not divide 3 `embed_dim`, x is not
            (B, T, d), or the mask is not (B, T).
        TypeError: the mask is not bool.

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    The pyramid widens the view without more weights: what changes when frame 8 of 17 changes.

    >>> block, _ = example(T=17)
    >>> x, other = torch.zeros(2, 1, 17, 4)
    >>> other[:, 8] = 1
    >>> for branch in block.pyramid:
    ...     print((branch(x.mT) != branch(other.mT)).any(dim=1)[0].nonzero().flatten().tolist())
    [7, 8, 9]
    [6, 8, 10]
    [4, 8, 12]

    Self-attention reaches every real frame. Without query weights all of them count the same:

    >>> block, (x, mask) = example()
    >>> _ = [nn.init.zeros_(parameter) for parameter in block.query.parameters()]
    >>> print(block.attention(x, mask)[1, 0].detach())
    tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000, 0.0000, 0.0000])
    """

    def __init__(self, embed_dim: int, reduction: int = 2) -> None:
        super().__init__()
        if embed_dim < 1 or reduction < 1:
            raise ValueError(f"embed_dim {embed_dim} and reduction {reduction} must be at least 1")
        wide = 3 * embed_dim
        if wide % reduction:
            raise ValueError(f"3 * embed_dim {wide} must be divisible by reduction {reduction}")
        self.embed_dim = embed_dim
        self.pyramid = nn.ModuleList(
            _conv_bn_relu(embed_dim, embed_dim, 3, dilation) for dilation in (1, 2, 4)
        )
        self.query = _conv_bn_relu(wide, wide // reduction)  # B in the paper
        self.key = _conv_bn_relu(wide, wide // reduction)  # C in the paper
        self.value = nn.Conv1d(wide, wide // reduction, 1)
        self.out = nn.Conv1d(wide // reduction, wide, 1)

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the weight of each frame for each frame: (B, T, d) -> (B, T, T)."""
        mask = self._checked(x, mask)
        return self._weights(self._local(x, mask), mask).to(x.dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), the mean of short- and long-term features over time: (B, T, d) -> (B, 3 d)."""
        mask = self._checked(x, mask)
        local = self._local(x, mask)  # (B, 3 d, T)
        query, key, value = (layer(local).mT[:, None] for layer in (self.query, self.key, self.value))
        read = F.scaled_dot_product_attention(query, key, value, mask[:, None, None], scale=1.0)
        frames: Tensor = local + self.out(read[:, 0].mT)  # (B, 3 d, T)
        share = _float32_or_more(mask, x) / mask.sum(-1, keepdim=True).clamp(min=1)  # (B, T), in the mean
        return (frames * share[:, None]).sum(-1).to(x.dtype)  # (B, 3 d)

    def _local(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return F', the outputs of the dilated convolutions side by side: (B, T, d) -> (B, 3 d, T)."""
        frames = x.masked_fill(~mask[..., None], 0).mT  # (B, d, T)
        return torch.cat([branch(frames) for branch in self.pyramid], dim=1)

    def _weights(self, local: Tensor, mask: Tensor) -> Tensor:
        """Return softmax(B^T C) over the real frames: (B, 3 d, T) -> (B, T, T)."""
        query, key = (_float32_or_more(layer(local), local) for layer in (self.query, self.key))
        scores = query.mT @ key  # (B, T, T)
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1) * mask[:, None]

    def _checked(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the mask, or one that keeps all frames."""
        if x.dim() != 3 or x.shape[-1] != self.embed_dim:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, d) with d = {self.embed_dim}")
        if mask is None:
            return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
        if mask.shape != x.shape[:2]:
            raise ValueError(f"mask {tuple(mask.shape)} must be (B, T) = {tuple(x.shape[:2])}")
        return mask


def _conv_bn_relu(inputs: int, outputs: int, size: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution over time that keeps the length, normalisation and ReLU."""
    convolution = nn.Conv1d(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation)
    return nn.Sequential(convolution, nn.BatchNorm1d(outputs), nn.ReLU())


def _float32_or_more(values: Tensor, x: Tensor) -> Tensor:
    """Return values in the type of x, but at least in float32."""
    return values.to(torch.promote_types(x.dtype, torch.float32))


def example(B: int = 3, T: int = 7, d: int = 4, a: int = 2) -> tuple[GLTR, tuple[Tensor, Tensor]]:
    """Return a seeded block, B sequences (B, T, d) and their mask (B, T): lengths T, T - 2, T - 4, ..."""
    torch.manual_seed(0)
    lengths = (T - 2 * torch.arange(B)).clamp(min=1)
    mask = torch.arange(T) < lengths[:, None]
    return GLTR(d, reduction=a).eval(), (torch.randn(B, T, d), mask)


def variants(**sizes: int) -> dict[str, tuple[GLTR, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, (x, _) = example(**sizes)
    return {"no_mask": (block, (x,))}


if __name__ == "__main__":
    block, (x, mask) = example()
    print(f"input {tuple(x.shape)}, output {tuple(block(x, mask).shape)}")
    for rows, real in zip(block.attention(x, mask), mask, strict=True):
        weights = " ".join(f"{weight:.2f}" for weight in rows[0])
        print(f"{int(real.sum())} real frames, weights of the first {weights}")
