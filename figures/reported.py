"""Numbers of a training run that a figure makes itself: drawn as text, held against what the page says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from torch import Tensor

from figures.style import COLORS, Say


@dataclass
class Score:
    """Accuracy, and mean distance in pixels between where a model looks and the object, of each seed."""

    accuracy: Tensor
    distance: Tensor


def show_scores(axes: Axes, scores: Mapping[str, Score], learned: Collection[str], say: Say) -> None:
    """A row per kind: a dot per seed, their mean in figures, mean distance; orange if it learns where."""
    mean, far = 1.08, 2.0  # columns of figures, right of the scale
    axes.text(mean, -0.9, say("mean", "均值"))
    axes.text(far, -0.9, say("off by", "相距"), ha="right")
    for row, (name, found) in enumerate(scores.items()):
        color = COLORS[1] if name in learned else COLORS[5]
        axes.plot(found.accuracy.tolist(), [row] * len(found.accuracy), "o", color=color)
        axes.text(mean, row, f"{found.accuracy.mean():.2f}", va="center")
        axes.text(far, row, f"{found.distance.mean():.1f} px", va="center", ha="right")
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -1.5)
    axes.set_xlim(0, far)
    axes.set_xticks((0, 0.5, 1))
    axes.spines["bottom"].set_bounds(0, 1)
    axes.set_xlabel(say("accuracy", "正确率"), x=0.5 / far)


def check(says: Mapping[str, bool], scores: Mapping[str, Score]) -> None:
    """Refuse to draw numbers that contradict what the page says about them."""
    if wrong := [claim for claim, holds in says.items() if not holds]:
        raise ValueError(f"the page says: {'; '.join(wrong)}; measured: {dict(scores)}")
