"""Two clips through one module, weights set by hand: it averages over time what does not move."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import COLORS, Say, english, new_figure, picture, show_image
from snippets.attention_domain.temporal.temporal_adaptive import TAM

SIZE, FRAMES, SHOWN, STEP, NOISE = 72, 8, 4, 6, 0.1


def clips() -> tuple[Tensor, Tensor]:
    """A camera that stands still and one that moves, without and with noise: two of (2, 1, T, SIZE, SIZE)."""
    torch.manual_seed(0)
    scene = picture("camera", (128, 128)).mean(dim=1)  # (1, 128, 128)
    steps = ([16] * FRAMES, range(0, STEP * FRAMES, STEP))
    clean = torch.stack(
        [torch.stack([scene[:, 24 : 24 + SIZE, s : s + SIZE] for s in starts], dim=1) for starts in steps]
    )
    return clean, clean + NOISE * torch.randn_like(clean)


@torch.no_grad()
def module() -> TAM:
    """All gates open; the further the first two and the last two means lie apart, the sharper Theta."""
    tam = TAM(1, FRAMES, beta=1).eval()
    nn.init.ones_(tam.local_branch.get_parameter("1.bias"))
    nn.init.zeros_(tam.local_branch.get_parameter("1.weight"))
    nn.init.constant_(tam.local_branch.get_parameter("3.weight"), 20)
    first, last = (tam.global_branch.get_parameter(f"{layer}.weight") for layer in (0, 3))
    first.zero_()
    first[0, :2], first[0, -2:] = -1, 1
    first[1] = -first[0]
    last.zero_()
    last[1, :2] = 60
    return tam


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Rows: clips. Columns: a frame, the plain mean of three, the kernel, the output frame."""
    clean, noisy = clips()
    tam = module()
    kernels, outputs = tam.kernel(noisy)[:, 0], tam(noisy)
    means = noisy.unfold(2, 3, 1).mean(-1)
    drawn, axes = new_figure(2, 4, height=3.1)
    for row, label in enumerate((say("still", "静止"), say("moving", "移动"))):
        frames = (noisy[row, 0, SHOWN], means[row, 0, SHOWN - 1], outputs[row, 0, SHOWN])
        titles = (say("frame $t$", "第 t 帧"), say("mean of 3", "三帧平均"), "TAM")
        for column, frame, title in zip((0, 1, 3), frames, titles, strict=True):
            panel = axes[4 * row + column]
            show_image(panel, frame, title if row == 0 else "", vmin=0, vmax=1)
            error = (frame - clean[row, 0, SHOWN]).square().mean().sqrt()
            panel.set_xlabel(f"±{error:.3f}")
        axes[4 * row].set_ylabel(label)
        bars = axes[4 * row + 2]
        bars.bar(("$t-1$", "$t$", "$t+1$"), kernels[row], color=COLORS[0])
        bars.set_ylim(0, 1)
        bars.set_yticks([0, 1])
        bars.set_box_aspect(1)
        bars.set_title("Θ" if row == 0 else "")
    return drawn
