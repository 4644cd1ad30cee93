"""Digits hidden on a larger canvas: RAM beside scans that nobody learned, and a variant that finds them.

Everything is trained here, three seeds of each kind, and the numbers in the figure are those of this run.
What the page says about them in words is checked before anything is drawn. The loop is the same for all
kinds; only the model and the origin of the locations differ.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from figures.reported import Score, check, show_scores
from figures.style import COLORS, Say, english, new_figure, show_image
from snippets.attention_domain.spatial.ram import RAM, Episode, hybrid_loss, look

CANVAS, SIZE, GLIMPSES, SEEDS = 16, 8, 3, 3
TRAINING = 1400  # of 1797 digits
STEPS, BATCH, RATE = 400, 128, 8e-3
SHOWN = 1  # of the held-out pictures
SCAN = ((0.0, 0.0), (-0.3, -0.3), (0.3, 0.3))


class Finder(nn.Module):
    """Where apart from what: a small copy of the picture tells where to look, a sharp patch what is there."""

    def __init__(self, std: float, width: int = 64) -> None:
        super().__init__()
        self.std = std
        self.locate = nn.Sequential(nn.Linear(SIZE**2, width), nn.ReLU(), nn.Linear(width, 2))
        self.classify = nn.Sequential(nn.Linear(SIZE**2, width), nn.ReLU(), nn.Linear(width, 10))
        self.value = nn.Linear(SIZE**2, 1)

    def play(self, x: Tensor, given: Tensor | None = None) -> Episode:
        """Look once; the same contract as `RAM.play` with T = 1."""
        thumbnail = F.avg_pool2d(x, CANVAS // SIZE).flatten(1)
        mean = self.locate(thumbnail)[:, None]  # (B, 1, 2)
        noise = self.std * torch.randn_like(mean) if self.training else 0
        drawn = mean.detach() + noise if given is None else given
        log_prob = -((drawn - mean) / self.std).square().sum(2) / 2  # up to a constant
        location = drawn.clamp(-1, 1)
        logits = self.classify(look(x, location[:, 0], SIZE).flatten(1))
        return Episode(logits, location, log_prob, self.value(thumbnail))


@dataclass
class Kind:
    """A model, and locations for n pictures if they are not its own."""

    model: Callable[[], RAM | Finder]
    given: Callable[[int], Tensor] | None = None


def ram() -> RAM:
    """Three glimpses at two scales."""
    model = RAM(1, 10, SIZE, scales=2, glimpses=GLIMPSES, hidden_dim=64, std=0.2)
    nn.init.zeros_(model.locate.weight)
    nn.init.zeros_(model.locate.bias)
    return model


def finder() -> Finder:
    """One glimpse; looks at the centre at first."""
    model = Finder(std=0.2)
    nn.init.zeros_(model.locate.get_parameter("2.weight"))
    nn.init.zeros_(model.locate.get_parameter("2.bias"))
    return model


LEARNED = "RAM", "finder"  # kinds whose locations are their own
KINDS = {
    "RAM": Kind(ram),
    "RAM scan": Kind(ram, lambda n: torch.tensor(SCAN).expand(n, -1, -1)),
    "RAM centre": Kind(ram, lambda n: torch.zeros(n, GLIMPSES, 2)),
    "RAM random": Kind(ram, lambda n: 2 * torch.rand(n, GLIMPSES, 2) - 1),
    "finder": Kind(finder),
    "finder centre": Kind(finder, lambda n: torch.zeros(n, 1, 2)),
    "finder random": Kind(finder, lambda n: 2 * torch.rand(n, 1, 2) - 1),
}


def names(say: Say) -> dict[str, str]:
    """What each kind is called in the figure."""
    called = (
        "RAM",
        say("RAM, fixed scan", "RAM，固定扫描"),
        say("RAM, centre", "RAM，正中"),
        say("RAM, random", "RAM，随机"),
        say("where, then what", "先看哪里，再看什么"),
        say("one patch, centre", "一块，正中"),
        say("one patch, random", "一块，随机"),
    )
    return dict(zip(KINDS, called, strict=True))


class Training(nn.Module):
    """A model with its loss as output, for `vmap`."""

    def __init__(self, model: RAM | Finder) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, label: Tensor, given: Tensor | None) -> Tensor:
        """Return the hybrid loss of one batch."""
        return hybrid_loss(self.model.play(x, given), label)


def digits() -> tuple[Tensor, Tensor]:
    """8 x 8 digits (N, 1, 8, 8) in [0, 1] and their labels, shuffled once for all."""
    data = load_digits()
    order = torch.randperm(len(data.data), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.data / 16).float().view(-1, 1, SIZE, SIZE)[order], torch.tensor(data.target)[
        order
    ]


def hide(digit: Tensor) -> tuple[Tensor, Tensor]:
    """Put each digit somewhere on a black canvas; return canvases and the centres of the digits (N, 2)."""
    n = len(digit)
    corner = torch.randint(CANVAS - SIZE + 1, (n, 2, 1))  # x, y
    columns, rows = (corner + torch.arange(SIZE)).unbind(1)
    x = torch.zeros(n, 1, CANVAS, CANVAS)
    x[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None]] = digit[:, 0]
    return x, 2 * (corner[:, :, 0] + SIZE / 2) / CANVAS - 1


def train(kind: Kind) -> list[RAM | Finder]:
    """Train SEEDS models at once, their weights stacked, with Adam; the location network learns slower."""
    torch.manual_seed(0)
    models = [Training(kind.model()) for _ in range(SEEDS)]
    weights = {name: stack.detach().requires_grad_() for name, stack in stack_module_state(models)[0].items()}
    skeleton = copy.deepcopy(models[0]).to("meta")
    losses = vmap(
        lambda weights, *batch: functional_call(skeleton, weights, batch),
        in_dims=(0, 0, 0, 0 if kind.given else None),
        randomness="different",
    )
    policy = [stack for name, stack in weights.items() if "locate" in name]
    others = [stack for name, stack in weights.items() if "locate" not in name]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": policy, "lr": RATE / 10}]
    optimiser = torch.optim.Adam(groups, lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, STEPS)
    image, label = digits()
    for _ in range(STEPS):
        batch = torch.randint(TRAINING, (SEEDS * BATCH,))
        x, _ = hide(image[batch])
        given = kind.given(len(x)).unflatten(0, (SEEDS, BATCH)) if kind.given else None
        parts = x.unflatten(0, (SEEDS, BATCH)), label[batch].unflatten(0, (SEEDS, BATCH))
        optimiser.zero_grad()
        losses(weights, *parts, given).sum().backward()
        optimiser.step()
        schedule.step()
    for seed, model in enumerate(models):
        model.load_state_dict({name: stack[seed] for name, stack in weights.items()})
    return [model.model.eval() for model in models]


@torch.no_grad()
def look_around(model: RAM | Finder, kind: Kind) -> tuple[Episode, Tensor, Tensor, Tensor]:
    """Play the held-out digits, each at five places: episode, canvases, labels, centres of the digits."""
    torch.manual_seed(1)
    image, label = digits()
    x, centre = hide(image[TRAINING:].repeat(5, 1, 1, 1))
    return (
        model.play(x, kind.given(len(x)) if kind.given else None),
        x,
        label[TRAINING:].repeat(5),
        centre,
    )


def score(models: list[RAM | Finder], kind: Kind) -> Score:
    """Measure on the held-out digits."""
    rows = []
    for model in models:
        episode, _, label, centre = look_around(model, kind)
        right = (episode.logits.argmax(1) == label).float().mean()
        rows.append(torch.stack([right, pixels_off(episode, centre).norm(dim=1).mean()]))
    return Score(*torch.stack(rows, 1))


def pixels_off(episode: Episode, centre: Tensor) -> Tensor:
    """Last look minus centre of the digit, in pixels: (N, 2)."""
    return (episode.locations[:, -1] - centre) * CANVAS / 2


def claims(scores: dict[str, Score]) -> dict[str, bool]:
    """What the page says about the numbers, and whether it holds."""
    ram, scan, middle, anywhere = (scores[name] for name in list(KINDS)[:4])
    best = scores["finder"]
    others = [found for name, found in scores.items() if name != "finder"]
    return {
        "RAM does not beat the fixed scan": bool(ram.accuracy.mean() < scan.accuracy.mean()),
        "random locations are worse": bool(anywhere.accuracy.mean() < ram.accuracy.mean() - 0.1),
        "RAM's last look is as far off as the middle": bool(
            ram.distance.mean() > middle.distance.mean() - 0.5
        ),
        "the variant looks at the digit": bool(best.distance.max() < 2),
        "the variant reads best": all(bool(best.accuracy.mean() > s.accuracy.max()) for s in others),
    }


def show_looks(axes: Axes, x: Tensor, locations: Tensor, title: str) -> None:
    """Frame the sharp patches of one picture, numbered."""
    show_image(axes, x, title)
    for t, location in enumerate(locations):
        left, top = ((location + 1) / 2 * CANVAS).floor().tolist()
        left, top = left - SIZE / 2 - 0.5, top - SIZE / 2 - 0.5
        axes.add_patch(Rectangle((left, top), SIZE, SIZE, fill=False, color=COLORS[1], linewidth=2))
        if len(locations) > 1:
            axes.text(left + 3 * t, top - 0.4, str(t + 1), color=COLORS[1])
    axes.set_xlim(-SIZE / 2 - 0.5, CANVAS + SIZE / 2 - 0.5)
    axes.set_ylim(CANVAS + SIZE / 2 - 0.5, -SIZE / 2 - 0.5)


def show_cloud(axes: Axes, off: Tensor, title: str) -> None:
    """Dots for last looks, around a frame for the digit."""
    axes.add_patch(Rectangle((-SIZE / 2, -SIZE / 2), SIZE, SIZE, fill=False, color=COLORS[5]))
    axes.plot(*off[:120].T.tolist(), ".", color=COLORS[1], markersize=4)
    axes.set_title(title)
    axes.set_xlim(-12, 12)
    axes.set_ylim(12, -12)
    axes.set_aspect("equal")
    axes.axis("off")


@cache
def trained() -> tuple[dict[str, Score], dict[str, tuple[Tensor, ...]]]:
    """Scores of all kinds; of those that learn where: one picture, looks at it, all last looks off by."""
    models = {name: train(kind) for name, kind in KINDS.items()}
    scores = {name: score(models[name], kind) for name, kind in KINDS.items()}
    check(claims(scores), scores)
    looks: dict[str, tuple[Tensor, ...]] = {}
    for name in LEARNED:
        episode, x, _, centre = look_around(models[name][0], KINDS[name])
        looks[name] = x[SHOWN], episode.locations[SHOWN], pixels_off(episode, centre)
    return scores, looks


def figure(say: Say = english) -> Figure:
    """Draw where the two that learn to look do look, and how well all read."""
    (scores, looks), called = trained(), names(say)
    drawing, _ = new_figure(height=6.0)
    drawing.clear()
    above, below = drawing.subfigures(2, 1, squeeze=False, height_ratios=(1.5, 1.4))[:, 0]
    axes = list(above.subplots(2, 2).flat)
    for (name, (x, locations, off)), picture, cloud in zip(looks.items(), axes[::2], axes[1::2], strict=True):
        show_looks(picture, x, locations, called[name])
        show_cloud(cloud, off, say("last look", "最后一眼"))
    learned = [called[name] for name in LEARNED]
    show_scores(below.subplots(), {called[name]: found for name, found in scores.items()}, learned, say)
    return drawing


if __name__ == "__main__":
    for name, kind in KINDS.items():
        found = score(train(kind), kind)
        print(f"{name:20} accuracy {found.accuracy.tolist()}, last look {found.distance.tolist()} px")
