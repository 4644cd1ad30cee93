"""One position of one photograph under the spatial mechanisms, weights set by hand."""

from itertools import product

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.attention_domain.spatial import attention_factors
from figures.attention_domain.spatial.criss_cross import dense
from figures.panels import GREY, Field, Photograph, Query
from figures.style import Say, color_bar, english, mark, new_figure, picture, show_image, show_weights
from snippets.attention_domain.spatial.asymmetric_non_local import APNB, pyramid
from snippets.attention_domain.spatial.augmented_convolution import AugmentedConv2d
from snippets.attention_domain.spatial.criss_cross import CrissCrossAttention
from snippets.attention_domain.spatial.disentangled_non_local import DisentangledNonLocal
from snippets.attention_domain.spatial.em_attention import EMAUnit
from snippets.attention_domain.spatial.gather_excite import GatherExcite
from snippets.attention_domain.spatial.global_context import GlobalContext
from snippets.attention_domain.spatial.glore import GloReUnit
from snippets.attention_domain.spatial.hamburger import NMF
from snippets.attention_domain.spatial.non_local import NonLocalBlock
from snippets.attention_domain.spatial.psanet import PointwiseSpatialAttention
from snippets.attention_domain.spatial.ram import look

SIZE = (36, 48)
QUERY = (26, 36)  # row and column: the right of the saucer
GRID = (11, 14)  # positions that a reader can choose
SHARPNESS = 8.0  # factor of the scores
SALIENCE = 3.0  # factor of the score that all positions share: brightness
NEAR = 1 / 6  # width of a neighbourhood, in widths of the map


def colours(image: Tensor) -> Tensor:
    """Brightness, red - green and yellow - blue, standardised, of length one: (1, 3, H, W) -> same."""
    red, green, blue = image.unbind(dim=1)
    x = torch.stack([image.mean(dim=1), red - green, (red + green) / 2 - blue], dim=1)
    x = x - x.mean(dim=(2, 3), keepdim=True)
    return F.normalize(x / x.std(dim=(2, 3), keepdim=True), dim=1)


def set_to(factor: float, *layers: nn.Module) -> None:
    """Make 1 x 1 convolutions multiply by a number."""
    for layer in layers:
        assert isinstance(layer, nn.Conv2d)
        layer.weight.copy_(factor * torch.eye(*layer.weight.shape[:2])[..., None, None])
        if layer.bias is not None:
            layer.bias.zero_()


def near(x: Tensor) -> float:
    """NEAR in positions."""
    return NEAR * x.shape[3]


# Each of these returns the weights of all positions, (N, N), or (1, N) if they are the same for all


def non_local(x: Tensor) -> Tensor:
    """theta = phi = identity."""
    block = NonLocalBlock(3, reduction=1, scale=SHARPNESS).eval()
    set_to(1, block.theta, block.phi)
    return block.attention(x)[0]


def criss_cross(x: Tensor, passes: int) -> Tensor:
    """Query, key and value are the features; for two passes, the product of their weights."""
    block = CrissCrossAttention(3, reduction=1, recurrence=1).eval()
    set_to(SHARPNESS, block.query)
    set_to(1, block.key, block.value)
    block.gamma.fill_(1)
    first = dense(block.attention(x))
    return first if passes == 1 else dense(block.attention(block(x))) @ first


def anchors(x: Tensor) -> Tensor:
    """The weight of each of 110 anchors, shared by the positions it is the mean of."""
    signs = torch.cat([x, -x], dim=1).relu()  # because the keys pass a ReLU
    block = APNB(6, reduction=1).eval()
    set_to((SHARPNESS * 6**0.5) ** 0.5, block.key[0])
    share = pyramid(torch.eye(x[0, 0].numel()).view(-1, 1, *x.shape[2:]))[
        :, 0, :, 0
    ]  # (N, 110), of positions
    return block.attention(signs)[0] @ share.mT


def bases(x: Tensor) -> Tensor:
    """What a position gets of each position by way of 8 bases, from a seeded start."""
    torch.manual_seed(0)
    unit = EMAUnit(3, bases=8, iterations=10).eval()
    set_to(SHARPNESS, unit.project)
    z = unit.attention(x)[0]
    return z @ (z / z.sum(dim=0)).mT


def global_context(x: Tensor) -> Tensor:
    """One score for all, the brightness."""
    block = GlobalContext(3, reduction=1).eval()
    block.score.weight.copy_(torch.tensor([SALIENCE, 0.0, 0.0])[None, :, None, None])
    return block.attention(x)[0, :1].view(1, -1)


def disentangled(x: Tensor) -> Tensor:
    """The mean of both terms: what the non-local block and what the global context reads."""
    block = DisentangledNonLocal(3, reduction=1, scale=SHARPNESS).eval()
    set_to(1, block.theta, block.phi)
    block.m.weight.copy_(torch.tensor([SALIENCE, 0.0, 0.0])[None, :, None, None])
    return block.attention(x)[0] / 2


def factor(image: Tensor, number: int) -> Tensor:
    """One of the four factors, set as on its page."""
    weights = attention_factors.block(number).attention(attention_factors.features(image))
    return weights[0, 0]


def augmented(x: Tensor) -> Tensor:
    """The features and how near a position is."""
    size = (x.shape[2], x.shape[3])
    layer = AugmentedConv2d(4, 2, 1, key_channels=4, value_channels=1, num_heads=1, size=size)
    layer.qkv.weight.zero_()
    layer.qkv.weight[:4, :, 0, 0] = 2 * torch.eye(4)  # 2 = root of the width, by which q is divided
    layer.qkv.weight[4:7, :3, 0, 0] = SHARPNESS * torch.eye(3)
    for table, side in zip((layer.rel_height, layer.rel_width), size, strict=True):
        table.zero_()
        table[:, 3] = -(torch.arange(1 - side, side) / near(x)).square() / 2  # asked by the constant feature
    return layer.attention(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))[0, 0]


def point_wise(x: Tensor) -> Tensor:
    """Red positions look to the upper left, the others to the lower right; what a position collects."""
    height, width = x.shape[2:]
    block = PointwiseSpatialAttention(2, (height, width), reduction=1).eval()
    set_to(1, block.reduce[0], block.predict.get_submodule("0.0"))
    rows, columns = torch.arange(1 - height, height)[:, None], torch.arange(1 - width, width)
    centres = ((1.25 * near(x), 2 * near(x)), (-1.25 * near(x), -2 * near(x)))
    hills = [((rows + down) ** 2 + (columns + right) ** 2) / (-2 * near(x) ** 2) for down, right in centres]
    hill = torch.stack(hills, dim=-1).exp().view(-1, 2, 1, 1)
    block.predict.get_parameter("1.weight").copy_(SHARPNESS * hill)
    red = x[:, 1:2].clamp(0, 1)
    return block.attention(torch.cat([red, 1 - red], dim=1))[0, 0]


def gates(x: Tensor) -> Tensor:
    """The gates of red - green, each for 4 x 4 positions."""
    gate = GatherExcite(1, "theta_minus", extent=4).attention(SALIENCE * x[:, 1:2])
    return F.interpolate(gate, x.shape[2:], mode="nearest").view(1, -1)


def pattern(x: Tensor) -> Tensor:
    """How much each position has of the pattern that is strongest at a position."""
    torch.manual_seed(0)
    bases, codes = NMF(6, rank=4, steps=6, one_step=True)(torch.cat([x, -x], dim=1).relu().flatten(2))
    amounts: Tensor = (codes * bases.norm(dim=1, keepdim=True))[0]
    return amounts.mT[amounts.argmax(dim=1)]


def node(x: Tensor) -> Tensor:
    """The weights of a node that gathers red."""
    unit = GloReUnit(3, nodes=1, states=1).eval()
    unit.assign.weight.copy_(torch.tensor([0.0, 1.0, 0.0])[None, :, None, None])
    unit.assign.get_parameter("bias").zero_()
    return unit.attention(x)[0, :1].relu()


def glimpse(image: Tensor, row: int, column: int, size: int = 6, scales: int = 3) -> Tensor:
    """What RAM sees when it looks at a position, sharp in the middle, coarse around it: (3, H, W)."""
    (height, width), edge = image.shape[2:], size * 2**scales
    location = torch.tensor([[(2 * column + 1) / width - 1, (2 * row + 1) / height - 1]])
    seen = torch.zeros(3, height + 2 * edge, width + 2 * edge)
    for j, patch in reversed(list(enumerate(look(image, location, size, scales)[0]))):
        top, left, side = row + edge - size * 2**j // 2, column + edge - size * 2**j // 2, size * 2**j
        seen[:, top : top + side, left : left + side] = patch.kron(torch.ones(2**j, 2**j))
    return seen[:, edge:-edge, edge:-edge]


@torch.no_grad()
def maps(image: Tensor, say: Say) -> dict[str, tuple[Tensor, str]]:
    """Weights of the positions by title, and what they are: of a query, of nobody, or no shares at all."""
    x = colours(image)
    return {
        say("non-local", "非局部"): (non_local(x), "query"),
        say("criss-cross", "十字交叉"): (criss_cross(x, 1), "query"),
        say("criss-cross\n× 2", "十字交叉\n× 2"): (criss_cross(x, 2), "query"),
        "APNB": (anchors(x), "query"),
        "EMA": (bases(x), "query"),
        "GCNet": (global_context(x), "nobody"),
        "DNL": (disentangled(x), "query"),
        "E2": (factor(image, 2), "query"),
        "E4": (factor(image, 4), "query"),
        "AAConv": (augmented(x), "query"),
        "PSANet": (point_wise(x), "query"),
        "GENet": (gates(x), "gates"),
        "Hamburger": (pattern(x), "gates"),
        "GloRe": (node(x), "gates"),
    }


def figure(say: Say = english) -> Figure:
    """The picture, the square roots of all weights, a glimpse; below, what is shared with non-local."""
    image = picture("coffee", SIZE)
    found = maps(image, say)
    index = QUERY[0] * SIZE[1] + QUERY[1]
    (compared, _), *_ = found.values()
    drawn, axes = new_figure(4, 4, height=5.4)
    drawn.set_layout_engine("constrained", h_pad=0.09)
    whole = (-0.5, SIZE[1] - 0.5, SIZE[0] - 0.5, -0.5)
    show_image(axes[0], picture("coffee", (4 * SIZE[0], 4 * SIZE[1])), say("query", "查询"), extent=whole)
    show_image(axes[-1], glimpse(image, *QUERY), "RAM")
    for panel, (title, (rows, kind)) in zip(axes[1:-1], found.items(), strict=True):
        weights = rows[min(index, len(rows) - 1)]
        show_weights(panel, weights.view(SIZE).sqrt(), title)
        if kind != "gates":
            shared = torch.minimum(weights, compared[index]).sum()
            panel.set_xlabel(f"{shared:.2f}", labelpad=2)
    for panel, kind in zip(axes, ["query", *(kind for _, kind in found.values()), "query"], strict=True):
        if kind == "query":
            mark(panel, *QUERY)
    color_bar(axes, say, say("root of weight", "权重的平方根"))
    return drawn


@torch.no_grad()
def explore(say: Say = english) -> Query:
    """The same mechanisms under any position, on a smaller map."""
    image = picture("coffee", GRID)
    fields = [
        Field(title.replace("\n", " "), rows.view(-1, *GRID), root=True)
        for title, (rows, _) in maps(image, say).items()
    ]
    places = product(range(GRID[0]), range(GRID[1]))
    seen = [glimpse(image, row, column, size=2).mean(dim=0) for row, column in places]
    shown = Photograph(picture("coffee", (16 * GRID[0], 16 * GRID[1]))[0])
    return Query(shown, (*fields, Field("RAM", torch.stack(seen), GREY, top=1.0)), start=(7, 10))
