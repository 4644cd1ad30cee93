"""The same scores, set by hand, added as in the paper and multiplied as in the released code of BAM."""

import torch
from matplotlib.figure import Figure

from figures.style import WEIGHT_MAP, Say, color_bar, english, new_figure, picture, show_image
from snippets.attention_domain.channel_spatial.bam import BAM

SIZE = (96, 96)
SCORES = (3.0, 0.0, -3.0)


@torch.no_grad()
def block(multiply: bool) -> BAM:
    """Channels score 3, 0 and -3 (red, green, blue); a position scores the more, the redder it is there."""
    bam = BAM(3, reduction=1, dilation=2, multiply=multiply)
    for parameter in bam.parameters():
        if parameter.dim() > 1:
            parameter.zero_()
    bam.channel_branch[-1].get_parameter("bias").copy_(torch.tensor(SCORES))
    redness, _, _, *around, score = bam.spatial_branch
    redness.get_parameter("weight")[0, :, 0, 0] = torch.tensor([1.0, -0.5, -0.5])
    redness.get_parameter("bias").zero_()
    for layers in around:
        layers.get_parameter("0.weight")[0, 0] = 1 / 9
        layers.get_parameter("0.bias").zero_()
    score.get_parameter("weight")[0, 0] = 12.0
    score.get_parameter("bias").fill_(-3.0)
    return bam.eval()


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Top: picture, weights of the channels with added scores. Below: scores, weights when multiplied."""
    x = picture("astronaut", SIZE)
    drawn, axes = new_figure(2, 4, height=3.0)
    show_image(axes[0], x, "x")
    scores = block(multiply=False).spatial_branch(x)
    show_image(axes[4], scores, "$M_s$", vmin=-3, vmax=3)
    axes[4].set_xlabel(
        f"{scores.min():.1f} {say('to', '到')} {scores.max():.1f}".replace("-", "\N{MINUS SIGN}")
    )
    for row, multiply in enumerate((False, True)):
        weights = block(multiply).attention(x)[0]
        for channel, weight in enumerate(weights):
            shown = axes[4 * row + 1 + channel]
            title = f"$M_c = {SCORES[channel]:.0f}$" if row == 0 else ""
            show_image(shown, weight, title, cmap=WEIGHT_MAP, vmin=0, vmax=1)
        axes[4 * row + 1].set_ylabel("$M_c + M_s$" if row == 0 else r"$M_c \cdot M_s$")
    color_bar(axes, say, say("gate", "门控"))
    return drawn
