"""A proposal network finds the digit in a cluttered picture, trained in four ways.

Everything is trained here, three seeds of each kind, and the numbers in the figure are those of this run.
What the page says about them in words is checked before anything is drawn.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits
from torch import Tensor, nn

from figures.reported import Score, check, show_scores
from figures.style import COLORS, Say, english, new_figure, show_image
from snippets.attention_domain.spatial.ra_cnn import AttentionProposal, ranking_loss

CANVAS, DIGIT, PIECE, PIECES = 32, 16, 5, 6
TRAINING, SEEDS = 1400, 3  # of 1797 digits
STEPS, BATCH, RATE = 300, 48, 5e-3
SHOWN = 1  # of the held-out pictures

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
SIGNALS: dict[str, Loss | None] = {
    "none": None,
    "ranking": ranking_loss,
    "cross-entropy": lambda before, after, label: F.cross_entropy(after, label),
    "both": lambda before, after, label: ranking_loss(before, after, label) + F.cross_entropy(after, label),
}
"""What trains the proposal network; the other networks are trained by cross-entropy always."""


def names(say: Say) -> dict[str, str]:
    """What each signal is called in the figure."""
    called = (
        say("square fixed", "正方形固定"),
        say("ranking", "排序损失"),
        say("cross-entropy", "交叉熵"),
        say("both", "两者"),
    )
    return dict(zip(SIGNALS, called, strict=True))


class TwoScales(nn.Module):
    """A coarse look at the whole picture, a proposal, a sharp look at the square."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine = self._features(), self._features()
        self.read_coarse, self.read_fine = nn.Linear(384, 10), nn.Linear(384, 10)
        self.apn = AttentionProposal(in_features=384, size=DIGIT, hidden_dim=32)
        nn.init.zeros_(self.apn.fc2.weight)
        quarter = torch.tensor(0.25)  # half side of a square of half the width
        self.apn.fc2.bias.data = torch.stack([quarter.new_zeros(()), quarter.new_zeros(()), quarter.logit()])

    @staticmethod
    def _features() -> nn.Sequential:
        """(B, 1, 16, 16) -> (B, 384)."""
        return nn.Sequential(nn.Flatten(), nn.Linear(DIGIT**2, 384), nn.GELU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return class scores before and after the zoom, the square t (B, 3) and what it shows."""
        features = self.coarse(F.avg_pool2d(x, 2))
        crop = self.apn(features, x)
        return (
            self.read_coarse(features),
            self.read_fine(self.fine(crop)),
            self.apn.propose(features, x),
            crop,
        )


def digits() -> tuple[Tensor, Tensor]:
    """8 x 8 digits (N, 1, 8, 8) in [0, 1] and their labels, shuffled once for all."""
    data = load_digits()
    order = torch.randperm(len(data.data), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.data / 16).float().view(-1, 1, 8, 8)[order], torch.tensor(data.target)[order]


def paste(x: Tensor, patch: Tensor) -> Tensor:
    """Put each patch (N, 1, S, S) somewhere on its picture, in place; return the centres (N, 2) in pixels."""
    n, size = len(patch), patch.shape[-1]
    corner = torch.randint(CANVAS - size + 1, (n, 2, 1))  # x, y
    columns, rows = (corner + torch.arange(size)).unbind(1)
    x[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None]] = patch[:, 0]
    return corner[:, :, 0] + (size - 1) / 2


def scenes(image: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen digits at twice their size among pieces of others; centres of the digits."""
    x = torch.zeros(len(chosen), 1, CANVAS, CANVAS)
    for _ in range(PIECES):
        top, left = torch.randint(8 - PIECE + 1, (2,)).tolist()
        others = image[torch.randint(TRAINING, (len(chosen),))]
        paste(x, others[:, :, top : top + PIECE, left : left + PIECE])
    return x, paste(x, F.interpolate(image[chosen], size=(DIGIT, DIGIT), mode="bilinear"))


def train(signal: Loss | None, seed: int) -> TwoScales:
    """Train with Adam; the mask is soft at first, so that its edges feel what lies farther away."""
    torch.manual_seed(seed)
    model = TwoScales()
    proposal = list(model.apn.parameters())
    networks = [p for name, p in model.named_parameters() if not name.startswith("apn")]
    optimiser = torch.optim.Adam([*proposal, *networks], lr=RATE)
    image, label = digits()
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        model.apn.sharpness = 0.5 if step < STEPS / 2 else 3.0
        chosen = torch.randint(TRAINING, (BATCH,))
        before, after, _, _ = model(scenes(image, chosen)[0])
        target = label[chosen]
        own = F.cross_entropy(before, target) + F.cross_entropy(after, target)
        for part, loss in ((networks, own), (proposal, signal and signal(before, after, target))):
            if loss is not None:
                for p, gradient in zip(part, torch.autograd.grad(loss, part, retain_graph=True), strict=True):
                    p.grad = gradient
        optimiser.step()
    return model.eval()


@torch.no_grad()
def test(model: TwoScales) -> tuple[Tensor, Tensor]:
    """Accuracy after the zoom and mean distance of the square's centre; held-out digits, five times."""
    torch.manual_seed(1)
    image, label = digits()
    chosen = torch.arange(TRAINING, len(image)).repeat(5)
    x, centre = scenes(image, chosen)
    _, after, t, _ = model(x)
    return (after.argmax(1) == label[chosen]).float().mean(), (t[:, :2] - centre).norm(dim=1).mean()


def claims(scores: dict[str, Score]) -> dict[str, bool]:
    """What the page says about the numbers, and whether it holds."""
    fixed, ranking, entropy, both = scores.values()
    moved = (ranking, entropy, both)
    return {
        "each signal brings the square to the digit": all(
            bool(s.distance.mean() < 0.6 * fixed.distance.mean()) for s in moved
        ),
        "each signal helps to read": all(
            bool(s.accuracy.mean() > fixed.accuracy.mean() + 0.2) for s in moved
        ),
        "cross-entropy alone reads better than the ranking loss alone": bool(
            entropy.accuracy.mean() > ranking.accuracy.mean()
        ),
    }


def show_square(axes: Axes, t: Tensor, color: str) -> None:
    """Frame the square t = (t_x, t_y, t_l)."""
    x, y, half = t.tolist()
    axes.add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, color=color, linewidth=2))


@cache
def trained() -> tuple[dict[str, Score], Tensor, list[tuple[Tensor, Tensor]]]:
    """Scores of all kinds, one picture, and for the first three kinds their square and what it shows."""
    models = {name: [train(signal, seed) for seed in range(SEEDS)] for name, signal in SIGNALS.items()}
    scores = {
        name: Score(*(torch.stack(column) for column in zip(*map(test, several), strict=True)))
        for name, several in models.items()
    }
    check(claims(scores), scores)
    torch.manual_seed(2)
    image, _ = digits()
    x, _ = scenes(image, torch.arange(TRAINING, TRAINING + 8))
    with torch.no_grad():
        found = [several[0](x) for several in list(models.values())[:3]]
    return scores, x[SHOWN], [(t[SHOWN], crop[SHOWN]) for _, _, t, crop in found]


def figure(say: Say = english) -> Figure:
    """Draw the squares of one picture, what they show, and how well all kinds read."""
    (scores, x, squares), called = trained(), names(say)
    drawing, _ = new_figure(height=5.6)
    drawing.clear()
    above, below = drawing.subfigures(2, 1, squeeze=False, height_ratios=(1.8, 1))[:, 0]
    picture, *crops = above.subplots(2, 2).flat
    show_image(picture, x, "x")
    colors = COLORS[5], COLORS[1], COLORS[0]
    for axes, (t, crop), title, color in zip(crops, squares, called.values(), colors, strict=False):
        show_square(picture, t, color)
        show_image(axes, crop, title)
        axes.title.set_color(color)
    learned = list(called.values())[1:]
    show_scores(below.subplots(), {called[name]: found for name, found in scores.items()}, learned, say)
    return drawing


if __name__ == "__main__":
    for name, signal in SIGNALS.items():
        for seed in range(SEEDS):
            accuracy, distance = test(train(signal, seed))
            print(f"{name:14} seed {seed}: accuracy {accuracy:.3f}, square off by {distance:.2f} px")
