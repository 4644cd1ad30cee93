"""What the box of a layer says."""

import re

from torch import nn

from sitekit.diagram.names import Names
from sitekit.diagram.operations import adaptive_pool, arrow, convolution, greek, over, times

MULTI_HEAD = "multi-head attention"

PLAIN = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Softplus": "softplus", "Softmax2d": "softmax over channels"}
NORM = re.compile(r"((?:Batch|Layer|Group|Instance|RMS|LocalResponse)Norm)(?:\dd)?")
POOL = re.compile(r"(Avg|Max)Pool(\d)d")
TYPE_NAMES = re.compile(
    r"(conv|fc|lin|linear|bn|norm|act|activation|relu|gelu|sigmoid|softmax|pool|rnn|lstm|gru|mlp|dropout)?[\d_]*"
)
"""Attribute names that say no more than the type of the layer does."""


def label(layer: nn.Module, path: str, shape: tuple[int, ...], names: Names) -> str | None:
    """Return what a layer does to a tensor of this shape; None if it only rearranges it.

    The layer's own name, the last part of `path`, stands before it if it says something.
    """
    text = _kind(layer, shape, names)
    own = path.rsplit(".", 1)[-1]
    if text is None or TYPE_NAMES.fullmatch(own) or own.replace("_", "") in text.split()[0].casefold():
        return text
    short = len(greek(own)) <= 3
    return f"{greek(own)}:\u00a0{text}" if short else f"{greek(own)}: {text}"


def _kind(layer: nn.Module, shape: tuple[int, ...], names: Names) -> str | None:
    kind = type(layer).__name__
    if isinstance(layer, nn.Identity | nn.Flatten | nn.Unflatten) or kind.startswith("Dropout"):
        return None
    if isinstance(layer, nn.Linear):
        return f"Linear {arrow(names, layer.in_features, layer.out_features)}"
    if isinstance(layer, nn.modules.conv._ConvNd):
        form = (layer.kernel_size, layer.in_channels, layer.out_channels, layer.groups)
        return convolution(*form, layer.dilation, layer.stride, names)
    if isinstance(layer, nn.RNNBase):
        ways = ", both directions" if layer.bidirectional else ""
        width = layer.hidden_size * (2 if layer.bidirectional else 1)
        return f"{kind}{ways}, {arrow(names, layer.input_size, width)}"
    if isinstance(layer, nn.Embedding):
        return f"embedding {arrow(names, layer.num_embeddings, layer.embedding_dim)}"
    if isinstance(layer, nn.MultiheadAttention):
        return MULTI_HEAD
    if isinstance(layer, nn.Softmax):
        return over("softmax", shape, layer.dim, names)
    if kind.startswith("Adaptive"):
        return adaptive_pool(kind, shape, layer.output_size, names)
    if pool := POOL.fullmatch(kind):
        word = "mean" if pool[1] == "Avg" else "max"
        return f"{word} pool {times(layer.kernel_size, int(pool[2]))}"
    if norm := NORM.fullmatch(kind):
        return norm[1]
    return PLAIN.get(kind, kind)
