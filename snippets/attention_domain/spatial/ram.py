"""RAM: a recurrent network looks at a few small patches of a picture and learns where to look next.

Paper: Volodymyr Mnih, Nicolas Heess, Alex Graves, Koray Kavukcuoglu, "Recurrent Models of Visual Attention",
NeurIPS 2014, arXiv 1406.6247.
Code: none by the authors; github.com/kevinzakka/recurrent-visual-attention, a38ac89, modules.py, model.py.
Differs: the core of the static tasks, no LSTM. The first location comes from the location network at the
zero state. In eval mode the network looks where the policy has its mean instead of drawing.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Episode(NamedTuple):
    """What the T glimpses of each picture gave; the last three are needed in training only."""

    logits: Tensor
    """(B, K), class scores after the last glimpse."""
    locations: Tensor
    """(B, T, 2), where the network looked, (x, y) in [-1, 1], in float32 at least."""
    log_prob: Tensor
    """(B, T), log-density of each location under the policy, in float32 at least."""
    baseline: Tensor
    """(B, T), the reward expected before each glimpse."""


def look(x: Tensor, location: Tensor, size: int, scales: int = 1) -> Tensor:
    """Return what the glimpse sensor rho sees: (B, C, H, W), (B, 2) -> (B, k, C, g, g), k = scales, g = size.

    Patch j = 0, ..., k - 1 is a square of g 2^j pixels around the location, averaged down to g x g: sharp in
    the middle, coarse around it. Zeros lie outside the picture. (-1, -1) is the upper left corner, (1, -1)
    the upper right one. Locations are rounded to whole pixels, so that they receive no gradient; a location
    in half precision may miss its pixel in a large picture.

    Raises:
        ValueError: shapes do not fit.

    >>> picture = torch.arange(36.0).view(1, 1, 6, 6)
    >>> look(picture, torch.zeros(1, 2), size=2, scales=2).flatten(3)
    tensor([[[[14.0000, 15.0000, 20.0000, 21.0000]],
    <BLANKLINE>
             [[10.5000, 12.5000, 22.5000, 24.5000]]]])
    """
    if x.dim() != 4:
        raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
    B, C, H, W = x.shape
    if location.shape != (B, 2):
        raise ValueError(f"location {tuple(location.shape)} must be (B, 2) with B of x {tuple(x.shape)}")
    location = location.to(torch.promote_types(location.dtype, torch.float32))
    extent = torch.tensor((W, H), device=x.device)
    column, row = ((location + 1) / 2 * extent).floor().long()[:, :, None].unbind(1)  # (B, 1), (B, 1)
    patches = []
    for j in range(scales):
        side = size * 2**j
        offset = torch.arange(side, device=x.device) - side // 2
        rows, columns = (row + offset)[:, :, None], (column + offset)[:, None]  # (B, side, 1), (B, 1, side)
        outside = (rows < 0) | (rows >= H) | (columns < 0) | (columns >= W)  # (B, side, side)
        index = rows.clamp(0, H - 1) * W + columns.clamp(0, W - 1)  # (B, side, side)
        index = index.view(B, 1, side**2).expand(-1, C, -1)
        patch = x.flatten(2).gather(2, index).view(B, C, side, side).masked_fill(outside[:, None], 0)
        patches.append(F.avg_pool2d(patch, 2**j))  # (B, C, g, g)
    return torch.stack(patches, 1)


class GlimpseNetwork(nn.Module):
    """What is seen and where, in one vector: ReLU(W ReLU(W_what rho(x, l)) + W' ReLU(W_where l)).

    Shape:
        - x: (B, C, H, W), any H and W
        - location: (B, 2)
        - forward(x, location): (B, n)
    """

    def __init__(self, channels: int, size: int, scales: int, hidden_dim: int) -> None:
        super().__init__()
        if min(channels, size, scales) < 1:
            raise ValueError(f"channels {channels}, size {size} and scales {scales} must be at least 1")
        if hidden_dim < 2 or hidden_dim % 2:
            raise ValueError(f"hidden_dim {hidden_dim} must be even and at least 2")
        self.size, self.scales = size, scales
        self.what = nn.Linear(scales * channels * size**2, hidden_dim // 2)
        self.where = nn.Linear(2, hidden_dim // 2)
        self.from_what = nn.Linear(hidden_dim // 2, hidden_dim)
        self.from_where = nn.Linear(hidden_dim // 2, hidden_dim)

    def forward(self, x: Tensor, location: Tensor) -> Tensor:
        """Return the glimpse vector g_t: (B, C, H, W), (B, 2) -> (B, n)."""
        what = self.what(look(x, location, self.size, self.scales).flatten(1)).relu()  # (B, n / 2)
        where = self.where(location.to(x.dtype)).relu()  # (B, n / 2)
        vector: Tensor = (self.from_what(what) + self.from_where(where)).relu()
        return vector


class RAM(nn.Module):
    """Recurrent attention model that classifies (section 3 of the paper, equations of section 4.1).

    g(x) = the locations l_1, ..., l_T, with l_t ~ N(W_l h_{t-1}, std^2) clamped to the picture;
    f(g, x) = W_a h_T, with h_t = ReLU(W_h h_{t-1} + W_g glimpse(x, l_t)).

    A location has no derivative: `hybrid_loss` trains the location network by REINFORCE, and everything
    else by back-propagation, which stops at the locations. A wrapper such as DistributedDataParallel takes
    part in `forward` only: there train with `hybrid_loss(model(x, full=True), target)`.

    Args:
        channels: channels C of the picture.
        num_classes: number K of classes.
        size: side g of the patches.
        scales: patches k in a glimpse.
        glimpses: glimpses T.
        hidden_dim: width n of the state; n / 2 for what and where.
        std: standard deviation of a drawn coordinate.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, T, 2), locations (x, y) in [-1, 1]
        - forward(x): (B, K)

    Raises:
        ValueError: a size is below 1, `hidden_dim` is odd, `std` is not positive, or shapes do not fit.

    A single glimpse of 4 x 4 pixels at the centre knows nothing of the rest of the picture:

    >>> model, (x,) = example(T=1, g=4, k=1)
    >>> _ = nn.init.zeros_(model.locate.bias)
    >>> centre = F.pad(x[:, :, 18:22, 22:26], (22, 22, 18, 18))  # of 40 x 48 pixels
    >>> torch.equal(model(centre), model(x))
    True

    The first location is the same for all pictures, the next one depends on what was seen:

    >>> model, (x,) = example()
    >>> [round(spread, 4) for spread in model.attention(x).std(0).sum(1).tolist()]
    [0.0, 0.0642, 0.0594]
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        size: int = 8,
        scales: int = 1,
        glimpses: int = 6,
        hidden_dim: int = 256,
        std: float = 0.1,
    ) -> None:
        super().__init__()
        if min(num_classes, glimpses) < 1:
            raise ValueError(f"num_classes {num_classes} and glimpses {glimpses} must be at least 1")
        if not 0 < std < math.inf:
            raise ValueError(f"std {std} must be above 0 and finite")
        self.glimpses, self.hidden_dim, self.std = operator.index(glimpses), hidden_dim, std
        self.glimpse = GlimpseNetwork(channels, size, scales, hidden_dim)
        self.from_state = nn.Linear(hidden_dim, hidden_dim)  # W_h
        self.from_glimpse = nn.Linear(hidden_dim, hidden_dim)  # W_g
        self.locate = nn.Linear(hidden_dim, 2)  # W_l
        self.classify = nn.Linear(hidden_dim, num_classes)  # W_a
        self.value = nn.Linear(hidden_dim, 1)  # baseline

    def attention(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Return g(x), where the network looks: (B, C, H, W) -> (B, T, 2)."""
        return self.play(x, given).locations.to(x.dtype)

    def forward(self, x: Tensor, given: Tensor | None = None, full: bool = False) -> Tensor | Episode:
        """Return the class scores after the last glimpse, (B, K); with `full`, all that `play` returns."""
        episode = self.play(x, given)
        return episode if full else episode.logits

    def play(self, x: Tensor, given: Tensor | None = None) -> Episode:
        """Look T times and return what training needs.

        Locations are `given` (B, T, 2), else drawn in train mode, the means of the policy in eval mode. They
        are computed in float32 at least, whatever the type of x.
        """
        if given is not None and given.shape != (x.shape[0], self.glimpses, 2):
            raise ValueError(
                f"given {tuple(given.shape)} must be (B, T, 2) = {(x.shape[0], self.glimpses, 2)}"
            )
        h = x.new_zeros(x.shape[0], self.hidden_dim)
        steps = []
        for t in range(self.glimpses):
            state = h.detach()  # REINFORCE and the baseline leave the core alone
            mean = self.locate(state)  # (B, 2)
            mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
            noise = self.std * torch.randn_like(mean) if self.training else 0
            drawn = mean.detach() + noise if given is None else given[:, t].to(mean.dtype)
            distance = ((drawn - mean) / self.std).square().sum(1)  # (B,)
            log_prob = -distance / 2 - math.log(2 * math.pi * self.std**2)
            location = drawn.clamp(-1, 1)
            h = (self.from_state(h) + self.from_glimpse(self.glimpse(x, location))).relu()  # (B, n)
            steps.append((location, log_prob, self.value(state).squeeze(1)))
        locations, log_prob, baseline = (torch.stack(column, 1) for column in zip(*steps, strict=True))
        return Episode(self.classify(h), locations, log_prob, baseline)


def hybrid_loss(episode: Episode, target: Tensor) -> Tensor:
    """Return the loss of section 3.1 for classes (B,): a scalar whose gradient is what counts, not its value.

    Cross-entropy trains glimpse network, core and classifier. The reward is 1 for a right answer, else 0;
    REINFORCE makes locations likelier if it was above the baseline, which learns to expect it.

    Raises:
        ValueError: `target` is not (B,), or the batch is empty.

    >>> model, (x,) = example()
    >>> model(x).sum().backward()  # back-propagation alone does not reach the location network
    >>> model.locate.weight.grad is None
    True
    >>> hybrid_loss(model.train().play(x), torch.arange(5)).backward()
    >>> bool(model.locate.weight.grad.any())
    True
    """
    if target.shape != episode.logits.shape[:1] or not len(target):
        raise ValueError(
            f"target {tuple(target.shape)} must be (B,) with B > 0 and B of logits "
            f"{tuple(episode.logits.shape)}"
        )
    logits, baseline = (y.to(episode.log_prob.dtype) for y in (episode.logits, episode.baseline))
    reward = (logits.argmax(1) == target).to(baseline)[:, None]  # (B, 1)
    advantage = reward - baseline.detach()  # (B, T)
    policy_term = -(advantage * episode.log_prob).sum(1).mean()
    baseline_term = (baseline - reward).square().mean()
    return F.cross_entropy(logits, target) + policy_term + baseline_term


def example(
    B: int = 5, H: int = 40, W: int = 48, g: int = 6, k: int = 4, T: int = 3, n: int = 32, K: int = 10
) -> tuple[RAM, tuple[Tensor]]:
    """Return a seeded model and a (B, 1, H, W) picture; the weights of the location network are enlarged."""
    torch.manual_seed(0)
    model = RAM(1, K, g, k, T, n).eval()
    nn.init.normal_(model.locate.weight, std=0.5)
    return model, (torch.rand(B, 1, H, W),)


def variants(**sizes: int) -> dict[str, tuple[RAM, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    model, (x,) = example(**sizes)
    return {"given": (model, (x, torch.rand(x.shape[0], model.glimpses, 2) - 0.5))}


if __name__ == "__main__":
    model, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(model(x).shape)}")
    for t, (column, row) in enumerate(model.attention(x)[0].tolist(), 1):
        print(f"glimpse {t} at x = {column:5.2f}, y = {row:5.2f}")
    seen = 3 * 4 * 6 * 6
    print(f"the network saw {seen} numbers of a picture of {x[0].numel()} pixels")
