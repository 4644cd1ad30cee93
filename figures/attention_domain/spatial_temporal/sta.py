"""Two occluded clips of a photograph, features set by hand: scores follow the response, not the truth."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import (
    Say,
    clear_row,
    color_bar,
    english,
    name_rows,
    new_figure,
    picture,
    show_image,
    show_weights,
)
from snippets.attention_domain.spatial_temporal.sta import STA

HEIGHT, WIDTH, REGIONS = 96, 48, 4
HIDDEN = (1, 3, 0, None)  # the stripe that is hidden in each of the four frames


def features(x: Tensor) -> Tensor:
    """Strength of edges in four directions, on a quarter of the size: (B, T, H, W) -> (B, 4, T, h, w)."""
    across = torch.tensor([[-1.0, 0.0, 1.0]] * 3)
    diagonal = torch.tensor([[0.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [-1.0, -1.0, 0.0]])
    filters = torch.stack([across, diagonal, across.T, diagonal.flip(1)])[:, None]
    frames = F.pad(x.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    maps = F.avg_pool2d(F.conv2d(frames, filters).abs(), 4)
    return maps.view(*x.shape[:2], *maps.shape[1:]).transpose(1, 2)


def clips() -> tuple[Tensor, Tensor]:
    """The clip without occlusion (1, 4, H, W), and occluded by grey and by bricks (2, 4, H, W)."""
    clean = picture("astronaut", (HEIGHT, WIDTH)).mean(dim=1, keepdim=True).expand(-1, len(HIDDEN), -1, -1)
    bricks = picture("brick", (HEIGHT, WIDTH)).mean(dim=1)[0]
    bricks = (bricks - bricks.mean()) * 2 + 0.5
    seen = clean.repeat(2, 1, 1, 1)
    rows = HEIGHT // REGIONS
    for frame, stripe in enumerate(HIDDEN):
        if stripe is not None:
            part = slice(stripe * rows, (stripe + 1) * rows)
            seen[0, frame, part] = 0.5
            seen[1, frame, part] = bricks[part].clamp(0, 1)
    return clean, seen


def distances(clean: Tensor, seen: Tensor) -> Tensor:
    """Relative distance to the clean descriptor: of the mean, the best stripes, the weighted sum (2, 3)."""
    true, maps = features(clean).mean(dim=(2, 3, 4)), features(seen)
    descriptors = torch.stack([maps.mean(dim=(2, 3, 4)), *STA(REGIONS)(maps).chunk(2, dim=1)], dim=1)
    distance: Tensor = (descriptors - true[:, None]).norm(dim=-1) / true.norm()
    return distance


def figure(say: Say = english) -> Figure:
    """Above, rows: occluders, columns: the four frames. Below: the score matrices."""
    _, seen = clips()
    scores = STA(REGIONS).attention(features(seen)).mT  # (2, K, T)
    drawn, axes = new_figure(3, 4, height=5.6, height_ratios=(1, 1, 1.6))
    below = clear_row(axes[8:]).subgridspec(1, 2)
    matrices = [drawn.add_subplot(below[row]) for row in range(2)]
    names = say("grey bar", "灰色横条"), say("bricks", "砖墙")
    for row, (name, panel) in enumerate(zip(names, matrices, strict=True)):
        for frame, shown in enumerate(axes[4 * row : 4 * row + 4]):
            show_image(shown, seen[row, frame], f"$t$ = {frame + 1}" if row == 0 else "", vmin=0, vmax=1)
        show_weights(panel, scores[row], name)
        panel.set_xticks(range(4), ["1", "2", "3", "4"])
        panel.set_xlabel("$t$")
        panel.set_aspect("auto")
        panel.tick_params(length=0)
        for frame, stripe in enumerate(HIDDEN):
            for k in range(REGIONS):
                score, most = scores[row, k, frame].item(), scores[row].max().item()
                color = "#ffffff" if score < 0.6 * most else "#101010"
                weight = "bold" if k == stripe else "normal"
                panel.text(frame, k, f"{score:.2f}", ha="center", va="center", color=color, weight=weight)
    name_rows(axes[:8], names)
    matrices[0].set_ylabel(say("stripe", "条"))
    color_bar(matrices, say, say("score", "分数"))
    return drawn
