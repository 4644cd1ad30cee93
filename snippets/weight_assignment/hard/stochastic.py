"""Stochastic hard attention: one location of a feature map is drawn from a policy, and only it is read.

Paper: Kelvin Xu, Jimmy Ba, Ryan Kiros, Kyunghyun Cho, Aaron Courville, Ruslan Salakhutdinov, Richard Zemel,
Yoshua Bengio, "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention", ICML 2015,
arXiv 1502.03044.
Differs: one step of attention; the decoder that makes h is left to the reader. The scores have no last
bias, which the softmax would not see, and the soft context no gate beta. In eval mode the likeliest
location is read instead of a sample.
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
    """(B,), log of the probability of the location."""
    entropy: Tensor
    """(B,), entropy of the policy in nats."""


class StochasticAttention(nn.Module):
    """Hard attention with an additive policy.

    g(x, h) = softmax over i of v^T tanh(W_a a_i + W_h h + b), with a_i the feature vector at position i;
    f(g, x) = a_s with s ~ g. A draw has no derivative, so that the loss of the context does not train the
    policy; `reinforce_loss` does, with the log-probability that `sample` returns.

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
        ValueError: a size is below 1.

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
        policy = self._scores(_annotations(x), h).softmax(1)  # (B, L), L = H * W
        return policy.view_as(x[:, 0])  # (B, H, W)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the context: a draw in train mode, the likeliest location in eval mode. (B, D)."""
        if self.training:
            return self.sample(x, h).context
        annotations = _annotations(x)
        return _read(annotations, self._scores(annotations, h).argmax(1))

    def sample(self, x: Tensor, h: Tensor) -> Glimpse:
        """Draw a location and return what training needs."""
        annotations = _annotations(x)
        log_policy = self._scores(annotations, h).log_softmax(1)  # (B, L)
        policy = log_policy.exp()
        location = policy.multinomial(1)  # (B, 1)
        log_prob = log_policy.gather(1, location).squeeze(1)  # (B,)
        entropy = -(policy * log_policy).sum(1)  # (B,)
        location = location.squeeze(1)
        return Glimpse(_read(annotations, location), location, log_prob, entropy)

    def expected(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the soft context, sum_i g_i a_i: (B, D, H, W), (B, n) -> (B, D)."""
        return torch.einsum("bhw,bdhw->bd", self.attention(x, h), x)

    def _scores(self, annotations: Tensor, h: Tensor) -> Tensor:
        hidden = self.annotation(annotations) + self.state(h)[:, None]  # (B, L, k)
        scores: Tensor = self.score(hidden.tanh()).squeeze(-1)
        return scores  # (B, L)


def reinforce_loss(reward: Tensor, log_prob: Tensor, baseline: Tensor | float) -> Tensor:
    """Return a scalar whose gradient is an unbiased estimate of that of -E[reward].

    Its value means nothing. The first term trains what comes after the context, if the reward depends
    on it; the second makes draws likelier whose reward, e.g. log p(y | context), is above the baseline.

    Args:
        reward: (B,), what each draw earned.
        log_prob: (B,), from `StochasticAttention.sample`.
        baseline: anything that does not depend on this draw; it changes the variance, not the mean.

    >>> log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    >>> reinforce_loss(torch.tensor([3.0, 0.0]), log_prob, baseline=1.0).backward()
    >>> log_prob.grad
    tensor([-1.0000,  0.5000])
    """
    return -(reward + (reward.detach() - baseline) * log_prob).mean()


def update_baseline(baseline: Tensor | float, reward: Tensor) -> Tensor:
    """Return the moving average of rewards after one more batch: 0.9 of the old, 0.1 of the new.

    >>> update_baseline(-2.0, torch.tensor([0.0, -2.0]))
    tensor(-1.9000)
    """
    return 0.9 * baseline + 0.1 * reward.detach().mean()


def _annotations(x: Tensor) -> Tensor:
    """Return the feature vectors row by row: (B, D, H, W) -> (B, L, D) with L = H * W."""
    return x.flatten(2).transpose(1, 2)


def _read(annotations: Tensor, location: Tensor) -> Tensor:
    """Return the annotation vector at the location: (B, L, D), (B,) -> (B, D)."""
    return torch.take_along_dim(annotations, location[:, None, None], 1).squeeze(1)


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
