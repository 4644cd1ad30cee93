"""What every snippet owes in half precision: the float64 result, within the rounding of the type.

How far rounding may move a result depends on the module and its input: a softmax of scores near 900 amplifies
what a gate forgives. Where the result is off by more than a few roundings, the limit is measured: the float64
module is run on inputs and parameters that are moved at random by one rounding of the type, and the result in
half precision may lie a few times as far off as these.

A setting is a way to compute, a mode, a scale of the input and a size of the map or sequence. All are run
by `pytest --all-settings tests/contract/test_precision.py`, without it those of REPRESENTATIVES, chosen so
that each type, way, mode, scale and size occurs, and float16 meets the largest scale on the largest size.
"""

import copy
import itertools
from contextlib import nullcontext
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.contract.walker import build, cast, sizes

LARGEST = {torch.float16: 65504.0, torch.bfloat16: 3e38}
AMPLIFIED = 16  # roundings happen at each step, not only at the start
ROUNDED = 16
SIZES = {
    "large": {"H": 56, "W": 56, "T": 2100, "S": 2090},
    "small": {"H": 7, "W": 7, "T": 600, "S": 610},
}
"""Maps of the first and the last stage of ResNet-50, and sequences. A clip has 16 frames."""


class Setting(NamedTuple):
    """One way to use a module."""

    dtype: torch.dtype
    autocast: bool
    training: bool
    scale: float
    size: str

    def __str__(self) -> str:
        parts = [str(self.dtype).removeprefix("torch."), "autocast" if self.autocast else "cast"]
        return "-".join([*parts, "train" if self.training else "eval", f"{self.scale:g}", self.size])


SETTINGS = [
    Setting(dtype, autocast, training, scale, size)
    for dtype, autocast, training, scale, size in itertools.product(
        [torch.float16, torch.bfloat16], [False, True], [False, True], [1.0, 5.0, 30.0], SIZES
    )
]
REPRESENTATIVES = [
    Setting(torch.float16, False, False, 30.0, "large"),
    Setting(torch.float16, True, True, 5.0, "small"),
    Setting(torch.bfloat16, True, False, 1.0, "small"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "setting" in metafunc.fixturenames:
        settings = SETTINGS if metafunc.config.getoption("--all-settings") else REPRESENTATIVES
        metafunc.parametrize("setting", settings, ids=str)


def results(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs of `forward` and of `attention`, those of floating point."""
    torch.manual_seed(1)  # a module that draws draws the same
    ys = module(*inputs)
    found = [*(ys if isinstance(ys, tuple) else (ys,)), module.attention(*inputs)]
    return [y for y in found if y.is_floating_point()]


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Move each number at random by up to one rounding of the type."""
    noise = 2 * torch.rand(x.shape, dtype=torch.float64) - 1
    return x * (1 + torch.finfo(dtype).eps * noise)


def draws(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether the result depends on random numbers."""
    ys = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        ys.append(copy.deepcopy(module)(*inputs))
    first, second = ([y] if isinstance(y, Tensor) else list(y) for y in ys)
    return not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def chosen_sizes(case: str, setting: Setting) -> dict[str, int]:
    """The sizes of the setting that the case knows; a clip has 16 frames, a small map some 512 channels."""
    usual = sizes(case)
    known = {key: n for key, n in SIZES[setting.size].items() if key in usual}
    if {"T", "H", "W"} <= set(known):
        known["T"] = 16
    known["B"] = 2 if setting.training else 1  # a batch normalisation compares samples
    if setting.size == "small" and "C" in usual:
        known["C"] = max(1, 512 // usual["C"]) * usual["C"]
    return known


def prepared(case: str, setting: Setting) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The case in float64, with parameters and scaled inputs that the type can hold."""
    module, inputs = build(case, **chosen_sizes(case, setting))
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
    inputs = tuple(x * setting.scale if x.is_floating_point() else x for x in inputs)
    inputs = cast(cast(inputs, setting.dtype), torch.float64)
    if not setting.autocast:
        module = module.to(setting.dtype)
    return module.double().train(setting.training), inputs


def amplified(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    expected: list[Tensor],
    dtype: torch.dtype,
    each_layer: bool = False,
) -> list[Tensor]:
    """How far one rounding of inputs and parameters moves each number of the results, at most.

    With `each_layer` input and output of each layer are rounded, too: a hard choice between scores that tie
    in the type may fall otherwise, though rounding of the inputs, which saturate a layer, does not move it;
    and roundings of many numbers cancel in their mean, while a layer that reads the mean gets it rounded.
    """
    far = [torch.zeros_like(y) for y in expected]
    for seed in (10, 11):
        torch.manual_seed(seed)
        other = copy.deepcopy(module)
        for parameter in other.parameters():
            parameter.copy_(rounded(parameter, dtype))
        for part in other.modules() if each_layer else ():
            if not any(True for _ in part.children()):
                part.register_forward_pre_hook(
                    lambda _part, xs: tuple(rounded(x, dtype) if isinstance(x, Tensor) else x for x in xs)
                )
                part.register_forward_hook(
                    lambda _part, _inputs, y: rounded(y, dtype) if isinstance(y, Tensor) else y
                )
        near = tuple(rounded(x, dtype) if x.is_floating_point() else x for x in inputs)
        far = [
            torch.maximum(a, (y - e).abs())
            for a, y, e in zip(far, results(other, near), expected, strict=True)
        ]
    return far


def test_half_precision_is_the_float64_result(case: str, setting: Setting) -> None:
    reference, inputs = prepared(case, setting)
    half = copy.deepcopy(reference).to(torch.float32 if setting.autocast else setting.dtype)
    low = cast(inputs, torch.float32 if setting.autocast else setting.dtype)
    random = setting.training and draws(reference, inputs)
    with torch.no_grad():
        exact = results(copy.deepcopy(reference), inputs)
    try:
        with torch.autocast("cpu", setting.dtype) if setting.autocast else nullcontext():
            computed = results(half, low)
    except (TypeError, ValueError) as refusal:
        if str(setting.dtype).removeprefix("torch.") not in str(refusal):
            raise
        return
    except RuntimeError as missing:  # the LSTM of oneDNN, float16, on a CPU without such instructions
        if "LSTM" not in str(missing) or torch.ops.mkldnn._is_mkldnn_fp16_supported():
            raise
        pytest.skip(str(missing))
    held = [y.abs() < LARGEST[setting.dtype] / 2 for y in exact]  # what the type cannot hold may overflow
    for y, inside in zip(computed, held, strict=True):
        assert y[inside].isfinite().all(), "not finite"
    if setting.training and (loss := sum(y.float().mean() for y in computed)).requires_grad:
        loss.backward()
        assert all(p.grad.isfinite().all() for p in half.parameters() if p.grad is not None), (
            "no finite gradient"
        )
    if random:
        return
    off = [
        (y.double() - e).abs().masked_fill(~inside, 0.0)
        for y, e, inside in zip(computed, exact, held, strict=True)
    ]
    kind = torch.finfo(setting.dtype)
    largest = max((x.abs().max().item() for x in inputs if x.is_floating_point()), default=1.0)
    carried = kind.tiny * max(1.0, largest)  # a gate below the normal numbers is coarse, and scales an input
    floors = [carried] * (len(exact) - 1) + [kind.tiny]  # of the outputs, and of the attention
    allowed = [
        ROUNDED * kind.eps * max(floor, e.abs().masked_fill(~inside, 0.0).max().item())
        for e, inside, floor in zip(exact, held, floors, strict=True)
    ]
    if all(o.max() <= a for o, a in zip(off, allowed, strict=True)):
        return
    for each_layer, times in ((False, AMPLIFIED), (True, 1)):
        with torch.no_grad():
            far = amplified(reference, inputs, exact, setting.dtype, each_layer)
        limits = [
            a + times * f.masked_fill(~inside, 0.0).max()
            for a, f, inside in zip(allowed, far, held, strict=True)
        ]
        if all(o.max() <= limit for o, limit in zip(off, limits, strict=True)):
            return
    pytest.fail(f"off by {[f'{o.max():.3g}' for o in off]}, allowed {[f'{limit:.3g}' for limit in limits]}")
