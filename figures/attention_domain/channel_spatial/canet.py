"""The reconstructed CANet learns for seconds to remove noise, with its gates and with the gates held open."""

from functools import cache

import torch
from matplotlib.figure import Figure
from skimage.filters import gaussian
from torch import Tensor

from figures.style import (
    COLORS,
    WEIGHT_MAP,
    Say,
    clear_row,
    color_bar,
    english,
    new_figure,
    picture,
    show_image,
)
from snippets.attention_domain.channel_spatial.canet import CANet

SEEDS = (0, 1, 2)
NOISE, PATCH, BATCH, STEPS = 25 / 255, 32, 8, 80
MIDDLE = slice(32, 128), slice(32, 128)  # rows and columns that are drawn


def noisy(clean: Tensor) -> Tensor:
    """Add white noise, standard deviation NOISE of the range of the picture."""
    return clean + NOISE * torch.randn_like(clean)


def psnr(restored: Tensor, clean: Tensor) -> float:
    """Peak signal-to-noise ratio in dB."""
    return -10 * (restored - clean).square().mean().log10().item()


def train(seed: int, gated: bool) -> CANet:
    """Teach a network on patches of two photographs."""
    torch.manual_seed(seed)
    network = CANet(16, modules=3, layers=2)
    if not gated:
        for module in network.stack:
            for layer in module.children():
                layer.attention = torch.ones_like  # type: ignore[assignment]
    photographs = torch.cat([picture(name, (256, 256)) for name in ("astronaut", "coffee")])
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.01, total_steps=STEPS)
    side = torch.arange(PATCH)
    for _ in range(STEPS):
        top, left = torch.randint(0, 256 - PATCH + 1, (2, BATCH, 1, 1))
        which = torch.randint(0, 2, (BATCH, 1, 1))
        clean = photographs[which, :, top + side[:, None], left + side].movedim(-1, 1)
        loss = (network(noisy(clean)) - clean).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def blurred(x: Tensor) -> Tensor:
    """Smooth with a Gaussian, standard deviation one pixel."""
    return torch.from_numpy(gaussian(x[0].numpy(), 1.0, channel_axis=0))[None]


@cache
def restored() -> tuple[tuple[Tensor, ...], Tensor, dict[bool, list[float]]]:
    """Noisy, restored and clean picture; the weights of the layer where they vary most; PSNR of each seed."""
    networks = {gated: [train(seed, gated) for seed in SEEDS] for gated in (True, False)}
    clean = picture("chelsea", (160, 160))
    torch.manual_seed(len(SEEDS))
    x = noisy(clean)
    with torch.no_grad():
        reached = {gated: [psnr(n(x), clean) for n in networks[gated]] for gated in networks}
        shown = networks[True][0](x)
        layers = networks[True][0].attention(x)[0].flatten(0, 1).mean(dim=1)  # (M * L, 160, 160)
        weights = layers[..., *MIDDLE]
    return (x, shown, clean), weights[weights.flatten(1).std(dim=1).argmax()], reached


def figure(say: Say = english) -> Figure:
    """Top: noisy, restored and clean picture, weights by pixel. Below: what each seed reached."""
    (x, shown, clean), weights, reached = restored()
    drawn, axes = new_figure(2, 4, height=3.9, height_ratios=(5, 6))
    titles = say("noisy", "含噪"), say("restored", "复原"), say("clean", "干净")
    for panel, image, title in zip(axes, (x, shown, clean), titles, strict=False):
        show_image(panel, image[..., *MIDDLE].clamp(0, 1), title)
    axes[0].set_xlabel(f"{psnr(x, clean):.2f} dB")
    axes[1].set_xlabel(f"{reached[True][0]:.2f} dB")
    show_image(axes[3], weights, say("weights", "权重"), cmap=WEIGHT_MAP)
    color_bar(axes[:4], say)
    below = drawn.add_subplot(clear_row(axes[4:]))
    for row, values in enumerate(reached.values()):
        below.plot(values, [row] * len(values), "o", color=COLORS[row], markersize=8, clip_on=False)
        mean = sum(values) / len(values)
        text = f"{say('mean', '均值')} {mean:.2f}"
        below.annotate(text, (mean, row), (0, 9), textcoords="offset points", ha="center")
    below.axvline(psnr(blurred(x), clean), color=COLORS[5], linestyle="--")
    below.set(ylim=(1.5, -0.8), xlabel="PSNR [dB]")
    below.set_yticks((0, 1), (say("gates", "有门控"), say("no gates", "无门控")))
    return drawn
