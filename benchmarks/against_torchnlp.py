"""Sequence attention beside that of pytorch-nlp."""

import torch
from torch import Tensor
from torchnlp.nn import Attention

from benchmarks.pair import Pair, in_order
from snippets.weight_assignment.soft.luong_global import GlobalAttention

BATCH, TARGETS, SOURCES, WIDTH = 8, 64, 96, 256


def luong_global() -> Pair:
    """The dot score; with the general one pytorch-nlp joins the context with W_a h_t instead of h_t."""
    ours = GlobalAttention(WIDTH, WIDTH, mode="dot")
    theirs = in_order(ours, Attention(WIDTH, attention_type="dot"))

    def run(target: Tensor, source: Tensor) -> Tensor:
        y: Tensor = theirs(target, source)[0]
        return y

    inputs = torch.randn(BATCH, TARGETS, WIDTH), torch.randn(BATCH, SOURCES, WIDTH)
    return Pair("torchnlp.nn.Attention, dot", ours, run, inputs)
