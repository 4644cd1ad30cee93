"""Operations in the field's words: what layers and functions have in common."""

import re
from typing import Any

from sitekit.diagram.names import Names

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ", "phi": "φ", "psi": "ψ", "mu": "μ",
    "sigma": "σ", "tau": "τ", "rho": "ρ", "omega": "ω",
}  # fmt: skip


def greek(name: str) -> str:
    """Return an attribute's name as a paper prints it: gamma -> γ."""
    return GREEK.get(name, name)


def arrow(names: Names, into: int, out: int) -> str:
    """Return `C → C/r` as one unbreakable word."""
    return f"{names.size(into)}\u00a0→\u00a0{names.size(out)}"


def times(size: Any, rank: int = 1) -> str:
    """Return a kernel size as `3×3`; a single number stands for all `rank` axes."""
    return "×".join(map(str, size if isinstance(size, tuple | list) else (size,) * rank))


def convolution(
    kernel: Any, into: int, out: int, groups: int, dilation: Any, stride: Any, names: Names
) -> str:
    """Return `Conv 3×3, C → C, depthwise, dilation 2`."""
    parts = [f"Conv\u00a0{times(kernel)}", arrow(names, into, out)]
    if groups == into > 1:
        parts.append("depthwise")
    elif groups > 1:
        parts.append(f"{names.size(groups)}\u00a0groups")
    for word, value in (("dilation", dilation), ("stride", stride)):
        widest = max(value) if isinstance(value, tuple | list) else value
        if widest > 1:
            parts.append(f"{word}\u00a0{widest}")
    return ", ".join(parts)


def over(word: str, shape: tuple[int, ...], axes: Any, names: Names) -> str:
    """Return `mean over H, W`; an axis whose name is only a number is counted from 0.

    In a square of scores the last axis holds the keys, the one before it the queries.
    """
    if axes is None:
        return f"{word} over all"
    axes = [axis % max(len(shape), 1) for axis in (axes if isinstance(axes, tuple | list) else [axes])]
    if len(shape) > 2 and shape[-1] == shape[-2] and len(axes) == 1 and axes[0] >= len(shape) - 2:
        return f"{word} over {'keys' if axes[0] == len(shape) - 1 else 'queries'}"
    named = names.axes(shape)
    return f"{word} over " + ", ".join(
        f"axis {axis}" if named[axis].isdigit() else named[axis] for axis in axes
    )


def adaptive_pool(kind: str, shape: tuple[int, ...], size: Any, names: Names) -> str:
    """Return `mean over H, W` for a pool to size 1, otherwise `mean pool to 7×7`; `kind` ends in its rank."""
    word = "mean" if "avg" in kind.casefold() else "max"
    rank = int(re.findall(r"(\d)d$", kind)[0])
    sizes = tuple(size) if isinstance(size, tuple | list) else (size,) * rank
    pooled = [axis - rank for axis, one in enumerate(sizes) if one == 1]
    if len(pooled) + sum(one is None for one in sizes) == rank:
        return over(word, shape, pooled, names)
    return f"{word} pool to {times(sizes)}"
