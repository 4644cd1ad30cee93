"""RA-CNN: a proposal network picks a square of the picture, and the next network sees it enlarged.

Paper: Jianlong Fu, Heliang Zheng, Tao Mei, "Look Closer to See Better: Recurrent Attention Convolutional
Neural Network for Fine-grained Image Recognition", CVPR 2017, DOI 10.1109/CVPR.2017.476.
Code: github.com/ouceduxzk/Fine_Grained_Classification, e19d04f, caffe_racnn, a copy of the authors' Caffe.
Differs: one proposal, without the networks before and after it. Gradients are those of the equations; the
released Caffe code crops without the mask and replaces its derivative by a rule of its own. Layers start as
torch starts them; there weights start normal with standard deviation 0.001, biases at zero.
SPDX-License-Identifier: MIT
"""

import math
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionProposal(nn.Module):
    """Attention proposal network (APN), mask and zoom.

    g(features, x) = M(t), nearly one inside the square of centre (t_x, t_y) and half side t_l, nearly zero
    outside, with t = the picture's size times sigmoid(W_2 tanh(W_1 features)); f(g, x) = the square of g x,
    enlarged to S x S. Positions, mask and zoom are computed in float32 at least.

    The zoom is torch's `grid_sample`, which knows no forward-mode derivative.

    Args:
        in_features: numbers F in the features of a picture, e.g. 512 * 14 * 14.
        size: side S of the output.
        hidden_dim: width n of the hidden layer.
        sharpness: k; the edges of the mask are logistic functions of slope k / 4 per pixel.

    Shape:
        - features: (B, ...), F numbers a picture, from the network that saw x
        - x: (B, C, H, W), any H and W
        - propose(features, x): (B, 3), t_x, t_y and t_l in pixels; pixel (0, 0) is at the origin
        - attention(features, x): (B, 1, H, W)
        - forward(features, x): (B, C, S, S)

    Raises:
        ValueError: a size is below 1, `sharpness` is not positive, or shapes do not fit.

    The mask is the product of a window in x and one in y; with a large k it is the square itself:

    >>> mask = boxcar(torch.tensor([[3.0, 2.0, 1.2]]), 5, 7, sharpness=50.0)
    >>> mask[0, 0].round().int().tolist()[1:4]
    [[0, 0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0, 0]]
    >>> round(mask.sum().item(), 2)
    9.0

    Unlike a crop of whole pixels, the output has a derivative with respect to the square:

    >>> apn, (features, x) = example()
    >>> apn(features, x).sum().backward()
    >>> bool(apn.fc2.weight.grad.abs().sum() > 0)
    True
    """

    def __init__(self, in_features: int, size: int, hidden_dim: int = 1024, sharpness: float = 10.0) -> None:
        super().__init__()
        if min(in_features, size, hidden_dim) < 1:
            raise ValueError(
                f"in_features {in_features}, size {size} and hidden_dim {hidden_dim} must be at least 1"
            )
        if not 0 < sharpness < math.inf:
            raise ValueError(f"sharpness {sharpness} must be above 0 and finite")
        self.size, self.sharpness = operator.index(size), sharpness
        self.fc1 = nn.Linear(in_features, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, 3)

    def propose(self, features: Tensor, x: Tensor) -> Tensor:
        """Return t = (t_x, t_y, t_l) in pixels: (B, ...), (B, C, H, W) -> (B, 3)."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        if features.shape[0] != x.shape[0]:
            raise ValueError(
                f"features {tuple(features.shape)} must be (B, ...) with B of x {tuple(x.shape)}"
            )
        H, W = x.shape[2:]
        logits: Tensor = self.fc2(self.fc1(features.flatten(1)).tanh())  # (B, 3)
        share = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
        return share * torch.tensor((W, H, max(H, W)), device=x.device)

    def attention(self, features: Tensor, x: Tensor) -> Tensor:
        """Return g, the mask M: (B, ...), (B, C, H, W) -> (B, 1, H, W)."""
        return boxcar(self.propose(features, x), x.shape[2], x.shape[3], self.sharpness).to(x.dtype)

    def forward(self, features: Tensor, x: Tensor) -> Tensor:
        """Return the enlarged square: (B, ...), (B, C, H, W) -> (B, C, S, S)."""
        t = self.propose(features, x)
        masked = x * boxcar(t, x.shape[2], x.shape[3], self.sharpness)
        return zoom(masked, t, self.size).to(x.dtype)


def boxcar(t: Tensor, height: int, width: int, sharpness: float) -> Tensor:
    """Return M(x, y) = [h(x - x_0) - h(x - x_1)] [h(y - y_0) - h(y - y_1)], h(u) = 1 / (1 + exp(-k u)).

    (x_0, y_0) and (x_1, y_1) are the corners t_x -+ t_l, t_y -+ t_l: (B, 3) -> (B, 1, height, width).
    Half precision is too coarse for pixels: t is taken to float32 at least, and so is the mask.

    Raises:
        ValueError: t is not (B, 3).
    """
    t = _squares(t).to(torch.promote_types(t.dtype, torch.float32))
    low, high = t[:, :2] - t[:, 2:], t[:, :2] + t[:, 2:]  # (B, 2), x before y
    columns = window(low[:, :1], high[:, :1], width, sharpness)
    rows = window(low[:, 1:], high[:, 1:], height, sharpness)
    return (rows[:, :, None] * columns[:, None])[:, None]


def window(low: Tensor, high: Tensor, side: int, sharpness: float) -> Tensor:
    """Return h(x - low) - h(x - high) for the pixels x = 0, 1, ...: (B, 1), (B, 1) -> (B, side)."""
    pixel = torch.arange(side, device=low.device)
    return (sharpness * (pixel - low)).sigmoid() - (sharpness * (pixel - high)).sigmoid()


def zoom(x: Tensor, t: Tensor, size: int) -> Tensor:
    """Enlarge the square t to size x size: (B, C, H, W), (B, 3) -> (B, C, size, size).

    Output pixel (i, j) reads x at the upper left corner plus (i, j) / lambda, with lambda = size / (2 t_l),
    bilinearly; beyond the border the pixel there is repeated. Computed and returned in float32 at least.

    Raises:
        ValueError: t is not (B, 3).

    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> zoom(x, torch.tensor([[2.0, 2.0, 1.0]]), 4)[0, 0]
    tensor([[ 5.0000,  5.5000,  6.0000,  6.5000],
            [ 7.0000,  7.5000,  8.0000,  8.5000],
            [ 9.0000,  9.5000, 10.0000, 10.5000],
            [11.0000, 11.5000, 12.0000, 12.5000]])
    """
    high = torch.promote_types(torch.promote_types(x.dtype, t.dtype), torch.float32)
    x, t = x.to(high), _squares(t).to(high)
    extent = torch.tensor((x.shape[3], x.shape[2]), device=x.device)  # x before y
    step = torch.arange(size, dtype=high, device=t.device) * (2 / size)  # in half sides
    grid = torch.stack(torch.meshgrid(step, step, indexing="xy"), -1)  # (S, S, 2)
    low, half = (t[:, :2] - t[:, 2:])[:, None, None], t[:, 2, None, None, None]
    pixel = low + half * grid  # (B, S, S, 2)
    return F.grid_sample(x, (2 * pixel + 1) / extent - 1, padding_mode="border", align_corners=False)


def _squares(t: Tensor) -> Tensor:
    if t.dim() != 2 or t.shape[1] != 3:
        raise ValueError(f"t {tuple(t.shape)} must be (B, 3)")
    return t


def ranking_loss(before: Tensor, after: Tensor, label: Tensor, margin: float = 0.05) -> Tensor:
    """Return max(0, p - p' + margin), mean over the batch: class scores (B, K) twice, (B,) -> ().

    p and p' are the probabilities of the right class before and after the zoom. This loss alone trains the
    proposal in the paper: a square is good if the next network, which sees no more than it, is surer.

    Raises:
        ValueError: shapes do not fit, or the batch is empty.

    >>> scores = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    >>> round(ranking_loss(scores[:1], scores[1:], torch.tensor([1])).item(), 4)  # 0.5 before, 0.1192 after
    0.4308
    >>> ranking_loss(scores[:1], scores[1:], torch.tensor([0])).item()
    0.0
    """
    if before.shape != after.shape:
        raise ValueError(f"after {tuple(after.shape)} must have the shape of before {tuple(before.shape)}")
    if label.shape != before.shape[:1] or not label.numel():
        raise ValueError(
            f"label {tuple(label.shape)} must be (B,) with B > 0 and B of before {tuple(before.shape)}"
        )
    high = torch.promote_types(before.dtype, torch.float32)
    p, p_next = (scores.softmax(1, dtype=high).gather(1, label[:, None]) for scores in (before, after))
    return (p - p_next + margin).clamp(min=0).mean()


def example(
    B: int = 4, H: int = 20, W: int = 24, F: int = 30, n: int = 16, S: int = 12
) -> tuple[AttentionProposal, tuple[Tensor, Tensor]]:
    """Return a seeded block, features (B, F) and a picture (B, 3, H, W)."""
    torch.manual_seed(0)
    return AttentionProposal(F, S, n).eval(), (torch.randn(B, F), torch.rand(B, 3, H, W))


def variants(**sizes: int) -> dict[str, tuple[AttentionProposal, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    apn, (features, x) = example(**sizes)
    return {"features_as_maps": (apn, (features[..., None, None], x))}  # (B, F, 1, 1)


if __name__ == "__main__":
    apn, (features, x) = example()
    print(f"input {tuple(features.shape)} and {tuple(x.shape)}, output {tuple(apn(features, x).shape)}")
    for column, row, half in apn.propose(features, x).tolist():
        print(f"centre x = {column:5.2f}, y = {row:5.2f}, half side {half:5.2f}")
