"""Whose keys and values each of eight layers reads, by four patterns, and what a prompt costs."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from figures.panels import Dial, Field, Slider
from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.self_attention.kv_sharing import KVSharingStack, SharingLayer, last_of_kind

LAYERS, WIDTH, HEADS, PROMPT = 8, 16, 2, 16
OWN = 4  # layers with keys where others share
PATTERNS = (
    tuple(range(LAYERS)),
    tuple(layer - layer % 2 for layer in range(LAYERS)),
    last_of_kind(["window", "full"] * (LAYERS // 2), OWN),
    last_of_kind(["full"] * LAYERS, OWN),
)


def stack(sources: tuple[int, ...], tied: bool = False) -> KVSharingStack:
    """Layers with random weights that add nothing to the tokens, so that none changes what others see."""
    torch.manual_seed(0)
    made = KVSharingStack(WIDTH, HEADS, sources, tied).eval()
    for layer in layers(made):
        nn.init.zeros_(layer.out_proj.weight)
    return made


def layers(made: KVSharingStack) -> list[SharingLayer]:
    """The layers with their type."""
    return [layer for layer in made.layers if isinstance(layer, SharingLayer)]


@torch.no_grad()
def readers(sources: tuple[int, ...]) -> Tensor:
    """Which layers notice that the keys of a layer have changed: (layers that read, layers), bool."""
    made, x = stack(sources), torch.randn(1, PROMPT, WIDTH)
    before, noticed = made.attention(x), torch.zeros(LAYERS, LAYERS, dtype=torch.bool)
    for number, layer in enumerate(layers(made)):
        if layer.k_proj is not None:
            layer.k_proj.weight.neg_()
            noticed[:, number] = (made.attention(x) != before).flatten(2).any(dim=2)[0]
            layer.k_proj.weight.neg_()
    return noticed


@torch.no_grad()
def costs(sources: tuple[int, ...], tied: bool) -> tuple[list[int], list[int]]:
    """Of each layer, how many tokens of a prompt it reads, and how many numbers of a token it keeps."""
    made, read = stack(sources, tied), []
    for layer in layers(made):
        layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[1]))
    _, state = made.prompt(torch.randn(1, PROMPT, WIDTH))
    own = {
        source: sum(t[0, :, 0].numel() for t in kept)
        for source, kept in zip(sorted(set(sources)), state.kept, strict=True)
    }
    return read, [own.get(layer, 0) for layer in range(LAYERS)]


def draw(axes: Axes, sources: tuple[int, ...]) -> None:
    """A square where a layer reads its own keys, a dot where it reads those of another."""
    found = readers(sources)
    for layer, source in found.nonzero().tolist():
        own = layer == source
        axes.plot(source, layer, "s" if own else "o", color=COLORS[0] if own else COLORS[1], markersize=7)
    axes.set_xlim(-0.7, LAYERS - 0.3)
    axes.set_ylim(LAYERS - 0.3, -0.7)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


def figure(say: Say = english) -> Figure:
    """Rows read, columns are read."""
    drawing, axes = new_figure(2, 2, height=4.6, sharex=True, sharey=True)
    names = (
        say("each its own", "各用各的"),
        say("in pairs", "两两共用"),
        say("last of its kind", "同类的最后一层"),
        say("one for the rest", "其余共用一层"),
    )
    for one, sources, name in zip(axes, PATTERNS, names, strict=True):
        draw(one, sources)
        one.set_title(f"{name}: {len(set(sources))}")
    for one in axes[::2]:
        one.set_ylabel(say("layer that reads", "读取的层"))
    for one in axes[2:]:
        one.set_xlabel(say("whose keys", "谁的键"))
    return drawing


def explore(say: Say = english) -> Dial:
    """How many layers have keys of their own, and whether one tensor is key and value."""
    counts = range(1, LAYERS + 1)
    patterns = [last_of_kind(["full"] * LAYERS, own) for own in counts]
    maps = torch.stack([readers(sources) for sources in patterns])[:, None].expand(-1, 2, -1, -1).double()
    found = torch.tensor(
        [[costs(sources, tied) for tied in (False, True)] for sources in patterns], dtype=torch.float64
    )
    sliders = (
        Slider(say("layers with keys", "有键的层数"), tuple(map(str, counts)), OWN - 1),
        Slider(say("a key is also a value", "键兼作值"), (say("no", "否"), say("yes", "是")), 0),
    )
    fields = (
        Field(say("rows: layers, columns: whose keys", "行：层，列：谁的键"), maps, top=1.0),
        Field(
            say("tokens of a prompt of 16 read by layer", "16 个词元的提示，各层读几个"),
            found[:, :, 0, None],
            top=PROMPT,
        ),
        Field(
            say("numbers kept of a token by layer", "各层为每个词元保留的数"),
            found[:, :, 1, None],
            top=2 * WIDTH,
        ),
    )
    return Dial(sliders, fields, tuple(map(str, range(LAYERS))))


if __name__ == "__main__":
    for sources in PATTERNS:
        print(sources, readers(sources).int().argmax(1).tolist(), *costs(sources, tied=False))
