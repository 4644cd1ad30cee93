"""What is read at three temperatures, and the bias and noise of the gradient over the temperature."""

from itertools import product
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from figures.panels import GREY, Dial, Field, Slider
from figures.style import COLORS, Say, english, new_figure, show_image
from snippets.weight_assignment.hard.gumbel import GumbelAttention

SHARPNESS = 8.0  # scores are SHARPNESS times the cosine of two digits
LABEL = 3
TEMPERATURES = (0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 5.0)
SHOWN = (5.0, 1.0, 0.1)
STOPS = tuple(round(10 ** (n / 10), 3) for n in range(-10, 8))  # 0.1 to 5
NOISES = 8
DRAWS = 20_000


class Estimate(NamedTuple):
    """Gradient of the query: error of its mean, and standard deviation of one draw, both in exact lengths."""

    bias: float
    noise: float


class Task:
    """A digit 3 asks ten digits, one of each class; what it reads is classified by the class means.

    The loss is the cross-entropy of class 3. Scores and classifier are set by hand; nothing is trained.
    """

    def __init__(self) -> None:
        digits = load_digits()
        images, labels = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
        first = [int((labels == label).nonzero()[0]) for label in range(10)]
        asking = images[(labels == LABEL).nonzero()[1]]  # (1, 64)
        self.value = images[first][None]  # (1, 10, 64)
        self.key = nn.functional.normalize(self.value, dim=-1)
        self.query = nn.functional.normalize(asking, dim=-1)[None]  # (1, 1, 64)
        self.means = torch.stack([images[labels == label].mean(0) for label in range(10)])
        self.attend = GumbelAttention(64, 64).train()
        nn.init.eye_(self.attend.W.weight).data.mul_(SHARPNESS)

    def losses(self, read: Tensor) -> Tensor:
        """Cross-entropy of LABEL for what was read: (..., 64) -> (...)."""
        logits = read @ self.means.T - self.means.square().sum(-1) / 2
        return -logits.log_softmax(-1)[..., LABEL]

    def policy(self) -> Tensor:
        """Probability of each of the ten digits."""
        return self.attend.scores(self.query, self.key).softmax(-1)[0, 0].detach()

    def to_query(self, gradient: Tensor) -> Tensor:
        """Gradient of the scores (..., 10) to that of the query (..., 64)."""
        return SHARPNESS * gradient @ self.key[0]

    def exact(self) -> Tensor:
        """Gradient of the expected loss, by enumeration: (64,)."""
        policy, losses = self.policy(), self.losses(self.value[0])
        return self.to_query(policy * (losses - policy @ losses))

    def reinforce(self, baseline: bool) -> float:
        """Noise of REINFORCE, exact: one estimate for each digit that may be drawn."""
        policy, losses = self.policy(), self.losses(self.value[0])
        reference = policy @ losses if baseline else torch.tensor(0.0)
        scores = (losses - reference)[:, None] * (torch.eye(10) - policy)
        noise = (policy @ (self.to_query(scores) - self.exact()).square().sum(1)).sqrt()
        return float(noise / self.exact().norm())

    def estimate(self, temperature: float, straight_through: bool) -> Estimate:
        """Bias and noise of back-propagation through DRAWS draws."""
        self.attend.temperature, self.attend.straight_through = temperature, straight_through
        torch.manual_seed(0)
        found = self._gradients()
        length = self.exact().norm()
        bias = (found.mean(0) - self.exact()).norm() / length
        return Estimate(bias.item(), (found.var(0).sum().sqrt() / length).item())

    def _gradients(self) -> Tensor:
        query = self.query.expand(1, DRAWS, -1).clone().requires_grad_()
        loss = self.losses(self.attend(query, self.key, self.value)).sum()
        return torch.autograd.grad(loss, query)[0][0]  # (DRAWS, 64)

    @torch.no_grad()
    def read(self, temperature: float, straight_through: bool, seed: int) -> Tensor:
        """What one draw reads, as a picture: (8, 8)."""
        self.attend.temperature, self.attend.straight_through = temperature, straight_through
        torch.manual_seed(seed)
        picture: Tensor = self.attend(self.query, self.key, self.value).view(8, 8)
        return picture


def show_reads(axes: Axes, task: Task, straight_through: bool) -> None:
    """Show what the same noise reads at the temperatures SHOWN, side by side."""
    strip = torch.full((8, 30), torch.nan)
    for place, temperature in enumerate(SHOWN):
        strip[:, 11 * place : 11 * place + 8] = task.read(temperature, straight_through, seed=1)
        label = f"{temperature:g}" if place else f"τ = {temperature:g}"
        axes.text(11 * place + 3.5, 10.2, label, ha="center")
    show_image(axes, strip, vmin=0, vmax=1)


def figure(say: Say = english) -> Figure:
    """Draw what is read above, bias and noise of the gradient below."""
    task = Task()
    drawing, (soft, hard, bias, noise) = new_figure(2, 2, height=4.2, height_ratios=(1, 2.2))
    show_reads(soft, task, False)
    soft.set_title(say("soft", "软"), color=COLORS[0])
    show_reads(hard, task, True)
    hard.set_title(say("straight-through", "直通"), color=COLORS[1])
    for straight_through, color in ((False, COLORS[0]), (True, COLORS[1])):
        found = [task.estimate(temperature, straight_through) for temperature in TEMPERATURES]
        bias.plot(TEMPERATURES, [one.bias for one in found], color=color, marker="o")
        noise.plot(TEMPERATURES, [one.noise for one in found], color=color, marker="o")
    for axes, name in ((bias, say("bias", "偏差")), (noise, say("noise", "噪声"))):
        axes.set_xscale("log")
        axes.set_xticks([0.1, 1, 5], ["0.1", "1", "5"])
        axes.set_xlabel(say("temperature τ", "温度 τ"))
        axes.set_ylabel(name)
    bias.axhline(0, color=COLORS[2])
    bias.text(5, 0.02, "REINFORCE", color=COLORS[2], ha="right", va="bottom")
    with_baseline = say("baseline", "有基线")
    for baseline, color, name in ((False, COLORS[5], "REINFORCE"), (True, COLORS[2], with_baseline)):
        level = task.reinforce(baseline)
        noise.axhline(level, color=color)
        noise.text(5, level, name, color=color, ha="right", va="bottom")
    return drawing


@torch.no_grad()
def explore(say: Say = english) -> Dial:
    """The weights of several draws at each temperature, and what they read."""
    task, weights, reads = Task(), [], []
    for temperature, seed, straight_through in product(STOPS, range(1, NOISES + 1), (False, True)):
        reads.append(task.read(temperature, straight_through, seed))
        torch.manual_seed(seed)  # the same noise
        weights.append(task.attend.attention(task.query, task.key)[0])
    shape = (len(STOPS), NOISES, 2)
    softly, hardly = torch.stack(weights).unflatten(0, shape).unbind(dim=2)
    soft, hard = torch.stack(reads).unflatten(0, shape).unbind(dim=2)
    fields = (
        Field(say("weights, soft", "软权重"), softly, top=1.0),
        Field(say("weights, straight-through", "直通权重"), hardly, top=1.0),
        Field(say("read, soft", "软读取"), soft, GREY, top=1.0),
        Field(say("read, straight-through", "直通读取"), hard, GREY, top=1.0),
    )
    sliders = (
        Slider(say("temperature τ", "温度 τ"), tuple(f"{t:.2g}" for t in STOPS), STOPS.index(1.0)),
        Slider(say("draw", "抽样"), tuple(str(n + 1) for n in range(NOISES)), 0),
    )
    return Dial(sliders, fields, tuple(map(str, range(10))))


if __name__ == "__main__":
    task = Task()
    print("policy", [round(p, 3) for p in task.policy().tolist()])
    print("losses", [round(p, 2) for p in task.losses(task.value[0]).tolist()])
    print(
        f"REINFORCE noise {task.reinforce(False):.2f}, with the mean as baseline {task.reinforce(True):.2f}"
    )
    for temperature in TEMPERATURES:
        soft, hard = (task.estimate(temperature, straight_through) for straight_through in (False, True))
        print(
            f"tau {temperature}: soft {soft.bias:.3f} {soft.noise:.2f}, hard {hard.bias:.3f} {hard.noise:.2f}"
        )
