"""What the box of a torch function or tensor method says."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sitekit.diagram.names import Names
from sitekit.diagram.operations import adaptive_pool, arrow, convolution, over, times

ATTENTION = "dot-product attention"
"""What the fused kernel computes, whose scores may be scaled."""

REARRANGING = {
    "view", "reshape", "flatten", "unflatten", "transpose", "permute", "swapaxes", "swapdims", "movedim",
    "moveaxis", "unsqueeze", "squeeze", "chunk", "split", "tensor_split", "unbind", "select", "narrow",
    "contiguous", "expand", "expand_as", "view_as", "reshape_as", "repeat", "tile", "repeat_interleave",
    "clone", "to", "type", "type_as", "float", "double", "half", "bfloat16", "bool", "long", "int", "cpu",
    "as_strided", "t", "adjoint", "diagonal", "broadcast_to", "broadcast_tensors", "meshgrid",
    "requires_grad_", "pad", "nan_to_num", "dropout", "dropout1d", "dropout2d", "__get__", "__getitem__",
    "__setitem__", "_pack_padded_sequence", "_pad_packed_sequence",
}  # fmt: skip
"""Functions whose result holds the same numbers as their first argument."""
FILLED = {
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros",
    "new_ones", "new_full", "new_empty", "new_tensor",
}  # fmt: skip
"""Functions that use no more than the shape of their argument: constants."""

REDUCTIONS = {
    "mean": "mean", "sum": "sum", "amax": "max", "max": "max", "amin": "min", "min": "min",
    "std": "standard deviation", "var": "variance", "norm": "norm", "vector_norm": "norm",
    "linalg_vector_norm": "norm", "linalg_norm": "norm", "logsumexp": "log-sum-exp", "argmax": "argmax",
    "argmin": "argmin", "softmax": "softmax", "log_softmax": "log-softmax",
    "gumbel_softmax": "Gumbel-softmax",
    "cumsum": "running sum", "cumprod": "running product", "prod": "product", "normalize": "normalise",
    "sort": "sort", "argsort": "sort", "flip": "reverse", "any": "any", "all": "all",
}  # fmt: skip
AXIS_IS_THIRD = {"norm", "vector_norm", "linalg_vector_norm", "linalg_norm", "normalize", "gumbel_softmax"}

PLAIN = {
    "relu": "ReLU", "relu6": "ReLU6", "gelu": "GELU", "silu": "SiLU", "elu": "ELU", "selu": "SELU",
    "leaky_relu": "LeakyReLU", "sqrt": "√x", "rsqrt": "1/√x", "square": "x²", "neg": "−x", "abs": "|x|",
    "reciprocal": "1/x", "bernoulli": "Bernoulli sample", "multinomial": "sample", "index_select": "gather",
    "take_along_dim": "gather", "roll": "shift", "interpolate": "upsample", "grid_sample": "sample at grid",
    "affine_grid": "sampling grid", "one_hot": "one-hot", "layer_norm": "LayerNorm",
    "group_norm": "GroupNorm",
    "batch_norm": "BatchNorm", "instance_norm": "InstanceNorm", "rms_norm": "RMSNorm",
    "tril": "lower triangle", "triu": "upper triangle", "detach": "stop gradient",
}  # fmt: skip

SIGNS = {
    "mul": "×", "multiply": "×", "add": "+", "sub": "−", "subtract": "−", "div": "÷", "divide": "÷",
    "true_divide": "÷", "truediv": "÷", "floordiv": "÷", "floor_divide": "÷", "maximum": "max of both",
    "minimum": "min of both", "pow": "power",
}  # fmt: skip
COMPARISONS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "eq": "=", "ne": "≠"}
PRODUCTS = {"matmul", "rmatmul", "bmm", "mm", "mv", "dot", "inner"}
REVERSED = {"__rsub__": "sub", "__rtruediv__": "div", "__rdiv__": "div", "__rpow__": "pow"}


@dataclass(frozen=True)
class Operand:
    """A tensor that goes into a function.

    `step` is the step it comes from, None for a constant; `name` names a constant that is a parameter or
    comes from one.
    """

    shape: tuple[int, ...]
    step: int | None
    name: str | None
    ancestors: frozenset[int]


@dataclass(frozen=True)
class Call:
    """One call of a function."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operands: list[Operand]
    names: Names

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first tensor."""
        return self.operands[0].shape if self.operands else ()

    @property
    def plain(self) -> str:
        """Its name without the marks of methods and of changes in place."""
        return self.name.strip("_")

    @property
    def data(self) -> list[Operand]:
        """The tensors that come from an input."""
        return [operand for operand in self.operands if operand.step is not None]

    def argument(self, position: int, *keywords: str, default: Any = None) -> Any:
        """Return an argument however it was passed."""
        for keyword in keywords:
            if keyword in self.kwargs:
                return self.kwargs[keyword]
        return self.args[position] if len(self.args) > position else default

    def constants(self, before: str) -> str:
        """Return the names of parameters that go into it."""
        named = [
            one.name for one in self.operands if one.step is None and one.name not in (None, "weight", "bias")
        ]
        return before + ", ".join(map(str, named)) if named else ""


def label(call: Call) -> str | None:
    """Return what a function does; None if it only rearranges its first argument."""
    if call.name == "__getitem__" and len(call.data) > 1:
        return "gather"
    if call.name in REARRANGING:
        return None
    if call.name in REVERSED:
        return _arithmetic(call, REVERSED[call.name], reverse=True)
    if call.plain in SIGNS:
        return _arithmetic(call, call.plain)
    if call.plain in PRODUCTS:
        return "matmul" + call.constants(" with ")
    if call.plain in COMPARISONS:
        other = call.argument(1, "other")
        return COMPARISONS[call.plain] + (f" {other:g}" if isinstance(other, int | float) else "")
    if call.plain in REDUCTIONS:
        return _reduction(call)
    for pattern, write in PATTERNS:
        if re.fullmatch(pattern, call.plain):
            return write(call)
    return PLAIN.get(call.plain, call.plain.replace("_", " ")) + call.constants(", ")


def _reduction(call: Call) -> str:
    if len(call.operands) > 1:
        return f"{REDUCTIONS[call.plain]} of both"
    axes = call.argument(2 if call.plain in AXIS_IS_THIRD else 1, "dim", "dims", "axis")
    if axes is None and call.plain == "normalize":
        axes = 1
    return over(REDUCTIONS[call.plain], call.shape, axes, call.names)


def _arithmetic(call: Call, name: str, *, reverse: bool = False) -> str | None:
    sign = SIGNS[name]
    if len(call.data) == 2:
        return _both(sign, *call.data)
    constant = next((one.name for one in call.operands if one.step is None and one.name), None)
    scalar = next((value for value in call.args if isinstance(value, int | float)), None)
    if constant:
        return f"{sign} {constant}"
    if scalar is None:
        return f"{sign} constant"
    if abs(scalar) < 1e-3 and sign == "+":
        return None
    if reverse:
        return f"{scalar:g} {sign} x" if sign != "power" else f"{scalar:g} to the x"
    if sign == "power":
        return {2: "x²", 0.5: "√x", -0.5: "1/√x", -1: "1/x"}.get(scalar, f"power {scalar:g}")
    return _scale(sign, float(scalar), call.names)


def _both(sign: str, one: Operand, other: Operand) -> str:
    if sign == "×" and (one.step, one.shape) == (other.step, other.shape):
        return "x²"
    if sign == "+" and (one.step in other.ancestors or other.step in one.ancestors):
        return "+ residual"
    return f"{sign}\u00a0(broadcast)" if one.shape != other.shape else sign


def _scale(sign: str, value: float, names: Names) -> str:
    """Return `÷ √D` or `× √D` where the factor is the root of a named size or one over it, else the number.

    A whole factor is a number of its own, even if it is the root of a size.
    """
    if sign in "×÷" and 0 < value < math.inf:
        divisor = value if sign == "÷" else 1 / value
        for shown, square in (("÷", divisor**2), ("×", divisor**-2)):
            root = names.size(round(square))
            if abs(square - round(square)) < 1e-6 * square and not root.isdigit():
                if shown == "×" and (1 / divisor).is_integer():
                    continue
                return f"{shown} √{root}" if re.fullmatch(r"\w+", root) else f"{shown} √({root})"
    return f"{sign} {value:g}".replace("inf", "∞").replace("-", "−")


def _masked(call: Call) -> str:
    """Say which value stands in the masked places."""
    given = [*call.args, *call.kwargs.values()]
    fills = [value.item() if isinstance(value, Tensor) else value for value in given if _is_scalar(value)]
    if not fills:
        return "choose by mask"
    return f"{'−∞' if fills[-1] < -1e4 else format(fills[-1], 'g').replace('-', '−')} where masked"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.dim() == 0)


def _einsum(call: Call) -> str:
    equation = str(call.args[0]).replace(" ", "") if isinstance(call.args[0], str) else ""
    given, _, result = equation.partition("->")
    summed = set(given) - set(result) - set(",.")
    kind = "sum" if len(call.operands) == 1 else "matmul" if summed else "×"
    shown = f" {given.replace(',', ', ')} →\u00a0{result}" if equation else ""
    return kind + shown + call.constants(" with ")


def _joined(call: Call) -> str | None:
    if len({one.step for one in call.data}) < 2:
        return None
    return "stack" if call.plain == "stack" else "concat"


def _convolution(call: Call) -> str:
    weight = call.operands[1].shape
    groups = call.argument(6, "groups", default=1)
    dilation, stride = call.argument(5, "dilation", default=1), call.argument(3, "stride", default=1)
    return convolution(weight[2:], weight[1] * groups, weight[0], groups, dilation, stride, call.names)


def _linear(call: Call) -> str:
    out, into = call.operands[1].shape
    own = call.operands[1].name
    return (f"{own}: " if own not in (None, "weight") else "") + f"Linear {arrow(call.names, into, out)}"


def _pool(call: Call) -> str:
    word = "mean" if call.plain.startswith("avg") else "max"
    return f"{word} pool {times(call.argument(1, 'kernel_size'), int(call.plain[-2]))}"


def _neighbourhoods(call: Call) -> str:
    size = call.argument(1, "kernel_size") if call.name == "unfold" and len(call.args) < 4 else None
    return "neighbourhoods" + (f" {times(size, 2)}" if size else "")


def _attention(call: Call) -> str:
    return ATTENTION if call.argument(6, "scale") == 1 else f"scaled {ATTENTION}"


PATTERNS: list[tuple[str, Callable[[Call], str | None]]] = [
    ("scaled_dot_product_attention", _attention),
    ("adaptive_(avg|max)_pool.d", lambda call: adaptive_pool(
        call.plain, call.shape, call.argument(1, "output_size"), call.names)),
    ("(avg|max)_pool.d", _pool),
    ("conv.d", _convolution),
    ("linear", _linear),
    ("einsum", _einsum),
    ("cat|concat|concatenate|stack|hstack|vstack", _joined),
    ("where|masked_fill", _masked),
    ("topk", lambda call: f"top {call.names.size(call.argument(1, 'k'))}"),
    ("unfold", _neighbourhoods),
    ("scatter.*", lambda call: "one-hot" if call.operands[0].step is None else "scatter"),
]  # fmt: skip
"""Pattern of the name, and what writes the label."""
