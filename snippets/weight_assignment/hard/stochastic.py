"""Stochastic hard attention: one location of a feature map is drawn from a policy, and only it is read.

Paper: Kelvin Xu, Jimmy Ba, Ryan Kiros, Kyunghyun Cho, Aaron Courville, Ruslan Salakhutdinov, Richard Zemel,
Yoshua Bengio, "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention", ICML 2015,
arXiv 1502.03044.
Code: github.com/kelvinxu/arctic-captions, f4565bf, capgen.py.
Differs: one step of attention; the decoder that makes h is left to the reader. The scores have no last
bias, which the softmax would not see, and the soft context no gate beta. In eval mode the likeliest
location is read instead of a sample. Layers start as torch starts them; there weights start normal with
standard deviation 0.01, W_h orthogonal if it is square, biases at zero.
SPDX-License-Identifier: MIT
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Glimpse(NamedTuple):
    """What one draw from the policy gives."""

    context: Tensor
    """(B, D), the annotation vector at the location."""
    location: Tensor
    """(B,), index into the H * W positions, row by row."""
    log_prob: Tensor
    """(B,), log of the probability of the location, in float32 at least."""
    entropy: Tensor
    """(B,), entropy of the policy in nats, in float32 at least."""


class StochasticAttention(nn.Module):
    """Hard attention with an additive policy.

    g(x, h) = softmax over i of v^T tanh(W_a a_i + W_h h + b), with a_i the feature vector at position i;
    f(g, x) = a_s with s ~ g. A draw has no derivative, so that the loss of the context does not train the
    policy; `reinforce_loss` does, with the log-probability that `sample` returns.

    A wrapper such as DistributedDataParallel takes part in `forward` only: there train with
    `forward(x, h, full=True)`, which returns what `sample` does. Scores and probabilities are computed in
    float32 at least.

    Args:
        channels: length D of an annotation vector.
        state_dim: length n of the decoder state that asks.
        hidden_dim: width k of the hidden layer of the scores.

    Shape:
        - x: (B, D, H, W), any H and W
        - h: (B, n)
        - attention(x, h): (B, H, W), the policy, sums to one
        - forward(x, h): (B, D), one of the H * W feature vectors, unchanged

    Raises:
        ValueError: a size is below 1, or shapes do not fit.

    The context is one feature vector, not a mixture:

    >>> attend, (x, h) = example()
    >>> weights = attend.attention(x, h)
    >>> best = int(weights[0].argmax())
    >>> torch.equal(attend(x, h)[0], x[0, :, best // 5, best % 5])
    True

    On average the draws give the soft context, the mean under the policy:

    >>> _ = torch.manual_seed(0)
    >>> many = attend.sample(x[:1].expand(4000, -1, -1, -1), h[:1].expand(4000, -1))
    >>> bool((many.context.mean(0) - attend.expected(x, h)[0]).abs().max() < 0.1)
    True

    No gradient of the context reaches the policy; the log-probability brings it:

    >>> glimpse = attend.sample(x, h)
    >>> glimpse.context.requires_grad, glimpse.log_prob.requires_grad
    (False, True)
    """

    def __init__(self, channels: int, state_dim: int, hidden_dim: int) -> None:
        super().__init__()
        if min(channels, state_dim, hidden_dim) < 1:
            raise ValueError(
                f"channels {channels}, state_dim {state_dim} and hidden_dim {hidden_dim} must be at least 1"
            )
        self.annotation = nn.Linear(channels, hidden_dim, bias=False)  # W_a
        self.state = nn.Linear(state_dim, hidden_dim)  # W_h, b
        self.score = nn.Linear(hidden_dim, 1, bias=False)  # v

    def attention(self, x: Tensor, h: Tensor) -> Tensor:
        """Return g(x, h), the policy: (B, D, H, W), (B, n) -> (B, H, W)."""
        policy = self._scores(x, h).softmax(1)  # (B, L), L = H * W
        return policy.view(x.shape[0], *x.shape[2:]).to(x.dtype)  # (B, H, W)

    def forward(self, x: Tensor, h: Tensor, full: bool = False) -> Tensor | Glimpse:
        """Return the context (B, D): a draw in train mode, the likeliest location in eval mode.

        With `full`, return what `sample` does, in both modes.
        """
        if full:
            return self.sample(x, h)
        if self.training:
            return self.sample(x, h).context
        return _read(x, self._scores(x, h).argmax(1))

    def sample(self, x: Tensor, h: Tensor) -> Glimpse:
        """Draw a location and return what training needs."""
        log_policy = self._scores(x, h).log_softmax(1)  # (B, L)
        policy = log_policy.exp()
        location = policy.multinomial(1)  # (B, 1)
        log_prob = log_policy.gather(1, location).squeeze(1)  # (B,)
        entropy = -(policy * log_policy).sum(1)  # (B,)
        location = location.squeeze(1)
        return Glimpse(_read(x, location), location, log_prob, entropy)

    def expected(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the soft context, sum_i g_i a_i: (B, D, H, W), (B, n) -> (B, D)."""
        return torch.einsum("bhw,bdhw->bd", self.attention(x, h), x)

    def _scores(self, x: Tensor, h: Tensor) -> Tensor:
        """Return v^T tanh(W_a a_i + W_h h + b) for each position, row by row: (B, L), L = H * W."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, D, H, W)")
        if h.dim() != 2 or h.shape[0] != x.shape[0]:
            raise ValueError(f"h {tuple(h.shape)} must be (B, n) with B of x {tuple(x.shape)}")
        annotations = x.flatten(2).transpose(1, 2)  # (B, L, D)
        hidden = self.annotation(annotations) + self.state(h)[:, None]  # (B, L, k)
        scores: Tensor = self.score(hidden.tanh()).squeeze(2)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))


def reinforce_loss(reward: Tensor, log_prob: Tensor, baseline: Tensor | float) -> Tensor:
    """Return a scalar whose gradient is an unbiased estimate of that of -E[reward].

    Its value means nothing. The first term trains what comes after the context, if the reward depends
    on it; the second makes draws likelier whose reward, e.g. log p(y | context), is above the baseline.

    Args:
        reward: (B,), what each draw earned.
        log_prob: (B,), from `StochasticAttention.sample`.
        baseline: a number, or (B,), that does not depend on this draw; it changes the variance, not the mean.
            It is a constant here: a learned one needs a loss of its own.

    Raises:
        ValueError: the shapes differ, or there is no draw.

    >>> log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    >>> reinforce_loss(torch.tensor([3.0, 0.0]), log_prob, baseline=1.0).backward()
    >>> log_prob.grad
    tensor([-1.0000,  0.5000])
    """
    if log_prob.shape != reward.shape:
        raise ValueError(
            f"log_prob {tuple(log_prob.shape)} must have the shape of reward {tuple(reward.shape)}"
        )
    if isinstance(baseline, Tensor) and baseline.dim() and baseline.shape != reward.shape:
        raise ValueError(
            f"baseline {tuple(baseline.shape)} must be () or have the shape of reward {tuple(reward.shape)}"
        )
    if not reward.numel():
        raise ValueError(f"reward {tuple(reward.shape)} must hold one draw or more")
    return -(reward + (reward - baseline).detach() * log_prob).mean()


def update_baseline(baseline: Tensor | float, reward: Tensor) -> Tensor:
    """Return the moving average of rewards after one more batch: 0.9 of the old, 0.1 of the new.

    A batch without draws, or with a reward that is not finite, leaves it where it is.

    >>> update_baseline(-2.0, torch.tensor([0.0, -2.0]))
    tensor(-1.9000)
    """
    mean = reward.detach().to(torch.promote_types(reward.dtype, torch.float32)).mean()
    return torch.where(mean.isfinite(), 0.9 * baseline + 0.1 * mean, baseline)


def _read(x: Tensor, location: Tensor) -> Tensor:
    """Return the annotation vector at the location: (B, D, H, W), (B,) -> (B, D)."""
    index = location[:, None, None].expand(-1, x.shape[1], -1)  # (B, D, 1)
    return x.flatten(2).gather(2, index).squeeze(2)


def example(
    B: int = 3, D: int = 8, H: int = 4, W: int = 5, n: int = 6, k: int = 7
) -> tuple[StochasticAttention, tuple[Tensor, Tensor]]:
    """Return a seeded block, a (B, D, H, W) feature map and a (B, n) decoder state."""
    torch.manual_seed(0)
    return StochasticAttention(D, n, k).eval(), (torch.randn(B, D, H, W), torch.randn(B, n))


if __name__ == "__main__":
    attend, (x, h) = example()
    print(f"input {tuple(x.shape)} and {tuple(h.shape)}, output {tuple(attend(x, h).shape)}")
    print(f"likeliest location of the first sample has probability {attend.attention(x, h)[0].max():.3f}")
    glimpse = attend.sample(x, h)
    print(f"drawn: location {glimpse.location[0]}, log-probability {glimpse.log_prob[0]:.3f}")
