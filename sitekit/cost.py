"""What a mechanism costs: counted on the meta device, and held against the formulas of the catalogue."""

import dataclasses
import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from types import ModuleType
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sitekit import paths
from sitekit.diagram.names import Names, example_sizes
from sitekit.errors import BuildError
from sitekit.results import CostRow, Results
from snippets.catalogue import CATALOGUE, Mechanism

Sizes = Mapping[str, int]

# Rows after the first, for one sample, as far as the example has the symbol: one thing grows at a time.
MAPS = tuple({"C": C, "H": side, "W": side} for C, side in ((256, 14), (256, 28), (256, 56), (512, 28)))
SEQUENCES = tuple({"T": length, "S": length, "N": length} for length in (16, 64, 256))
WIDTH, HEADS = 512, 8  # of D, E, d, d_k, ...


def make(slug: str) -> dict[str, Any]:
    """Run one mechanism; return its results as plain values.

    Raises:
        BuildError: as `rows`.
    """
    mechanism = CATALOGUE[slug]
    module = importlib.import_module(mechanism.module)
    example = example_sizes(module)
    formulas = {"parameters": mechanism.parameters, "macs": mechanism.macs}
    measured = rows(mechanism, module)
    inputs, attention, outputs = _shapes(module, example)
    found = Results(
        inputs=inputs,
        attention=attention,
        outputs=outputs,
        parameters_tex=formula_tex(mechanism.parameters, example),
        macs_tex=formula_tex(mechanism.macs, example),
        state_tex=tuple(formula_tex(formula, example) for formula in mechanism.state or ()),
        javascript={kind: formula_javascript(formula, example) for kind, formula in formulas.items()},
        rows=measured,
    )
    return dataclasses.asdict(found)


def count(module: ModuleType, sizes: Sizes) -> CostRow:
    """Count one forward pass of `example(**sizes)`, run on the meta device, which has shapes but no values.

    Raises:
        ValueError: the snippet refuses these sizes.
    """
    block, inputs = module.example(**sizes)
    block.to("meta")
    inputs = tuple(tensor.to("meta") for tensor in inputs)
    with torch.no_grad():
        weights = sum(tensor.numel() for tensor in tensors(block.attention(*inputs)))
        with FlopCounterMode(display=False) as counter:
            block(*inputs)
    parameters = sum(parameter.numel() for parameter in block.parameters())
    return CostRow(dict(sizes), parameters, counter.get_total_flops() // 2, weights)


def kept(module: ModuleType, sizes: Sizes) -> tuple[Fraction, Fraction] | None:
    """Count the numbers in floating point that `step` returns as its state, for one sample.

    Positions and lengths, which are integers, are not counted. The example's tokens are read twice: what the
    second time adds grows with each token, the rest is there in any case.

    Returns the count per token and the one per sequence; None without `step`.
    """
    block, inputs = module.example(**sizes)
    if not hasattr(block, "step"):
        return None
    counts = []
    with torch.no_grad():
        x, state = decoding(block, inputs)
        for _ in range(2):
            _, state = block.step(x, state)
            counts.append(sum(part.numel() for part in tensors(state) if part.is_floating_point()))
    samples, tokens, *_ = x.shape
    grown = counts[1] - counts[0]
    return Fraction(grown, samples * tokens), Fraction(counts[0] - grown, samples)


def decoding(block: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
    """Return the tokens that `step` reads, and the state that it starts from.

    Without a source that is None. A block that reads one has `start`, which takes it under the names that it
    has in `forward`.
    """
    (x,), source = streams(block, inputs)
    return x, block.start(**source) if source else None


def streams(block: Any, inputs: tuple[Tensor, ...]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return what `start` takes of the inputs of `forward`, by name, and before it all others."""
    named = dict(zip(inspect.signature(block.forward).parameters, inputs, strict=False))
    taken = inspect.signature(block.start).parameters if hasattr(block, "start") else ()
    source = {name: named.pop(name) for name in taken if name in named}
    return list(named.values()), source


def rows(mechanism: Mechanism, module: ModuleType) -> tuple[CostRow, ...]:
    """Count a mechanism at the sizes of its example and at those of the table, and check its formulas there.

    The formulas are also checked with each symbol doubled by itself, so that no symbol can be missing.

    Raises:
        BuildError: a formula cannot be read or gives another number than was counted.
    """
    example = example_sizes(module)
    table = [count(module, example), *_accepted(module, _table_sizes(example))]
    doubled = _accepted(module, ({**example, name: 2 * size} for name, size in example.items()))
    for row in [*table, *doubled]:
        _check(mechanism, "parameters", mechanism.parameters, row.sizes, row.parameters)
        _check(mechanism, "macs", mechanism.macs, row.sizes, row.macs)
    for row in [table[0], *doubled]:
        _check_state(mechanism, kept(module, row.sizes), row.sizes)
    return tuple(table)


def formula_tex(formula: str, symbols: Iterable[str]) -> str:
    """Return a formula of the catalogue as TeX.

    >>> formula_tex("2*C**2/r + C", "Cr")
    '\\\\frac{2 C^{2}}{r} + C'
    """
    names = {sympy.Symbol(name, positive=True, integer=True): _symbol_tex(name) for name in symbols}
    return str(sympy.latex(_read(formula, symbols), symbol_names=names))


def formula_javascript(formula: str, symbols: Iterable[str]) -> str:
    """Return a formula of the catalogue as a JavaScript expression.

    >>> formula_javascript("2*C**2/r + Max(C, ceiling(H/2))", "CHr")
    '2*Math.pow(C, 2)/r + Math.max(C, Math.ceil((1/2)*H))'
    """
    return str(sympy.jscode(sympy.sympify(formula, locals={name: sympy.Symbol(name) for name in symbols})))


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a tensor or in nested tuples, lists and dictionaries of tensors."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors(part)


def _shapes(module: ModuleType, example: Sizes) -> tuple[tuple[str, ...], ...]:
    """Return the shapes of inputs, g(x) and f(g(x), x) in the symbols of the example."""
    names = Names(dict(example))
    block, inputs = module.example()
    with torch.no_grad():
        groups = (inputs, block.attention(*inputs), block(*inputs))
    return tuple(tuple(names.shape(tensor.shape) for tensor in tensors(group)) for group in groups)


def _table_sizes(example: Sizes) -> list[dict[str, int]]:
    growing = MAPS if {"H", "W"} <= set(example) else SEQUENCES
    fixed = {"B": 1, "heads": HEADS} | {name: WIDTH for name in example if _is_width(name)}
    found: list[dict[str, int]] = []
    for choice in growing:
        sizes = {name: {**fixed, **choice}.get(name, size) for name, size in example.items()}
        if sizes not in found and set(choice) & set(example):
            found.append(sizes)
    return found


def _is_width(name: str) -> bool:
    return name in ("D", "E", "d") or name.startswith("d_")


def _accepted(module: ModuleType, choices: Iterable[Sizes]) -> list[CostRow]:
    """Count at all choices but those that the snippet refuses (e.g. a width that heads do not divide)."""
    found = []
    for sizes in choices:
        try:
            found.append(count(module, sizes))
        except ValueError:
            continue
    return found


def _check_state(mechanism: Mechanism, counted: tuple[Fraction, Fraction] | None, sizes: Sizes) -> None:
    state, module = mechanism.state, f"snippets/{mechanism.path}.py"
    if state and counted:
        for kind, formula, count in zip(("per token", "per sequence"), state, counted, strict=True):
            _check(mechanism, f"state {kind}", formula, sizes, count)
    elif state:
        raise BuildError(f"snippets/catalogue.py: {mechanism.slug} has a state, but {module} has no `step`")
    elif counted:
        raise BuildError(f"snippets/catalogue.py: {mechanism.slug} needs a state, for {module} has `step`")


def _check(mechanism: Mechanism, kind: str, formula: str, sizes: Sizes, counted: int | Fraction) -> None:
    try:
        expression = _read(formula, sizes)
        value = expression.subs({symbol: sizes[symbol.name] for symbol in expression.free_symbols})
    except (sympy.SympifyError, SyntaxError, TypeError, KeyError, AttributeError) as error:
        raise BuildError(
            f"{_place(mechanism, formula)}: cannot read the {kind} formula '{formula}' "
            f"with the symbols {', '.join(sizes)}: {error!r}"
        ) from error
    if value != counted:
        at = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise BuildError(
            f"{_place(mechanism, formula)}: the {kind} formula '{formula}' gives {value} at {at}, "
            f"counted {counted}"
        )


def _place(mechanism: Mechanism, formula: str) -> str:
    """Return the file and line of a formula of the catalogue."""
    name = "snippets/catalogue.py"
    before, path, after = (paths.ROOT / name).read_text(encoding="utf-8").partition(f'"{mechanism.path}"')
    start = after.find(f'"{formula}"')
    return f"{name}:{(before + path + after[:start]).count(chr(10)) + 1}" if start >= 0 else name


def _read(formula: str, symbols: Iterable[str]) -> Any:
    names = {name: sympy.Symbol(name, positive=True, integer=True) for name in symbols}
    return sympy.sympify(formula, locals=names)


def _symbol_tex(name: str) -> str:
    if len(name) == 1:
        return name
    letter, _, index = name.partition("_")
    if len(letter) == 1 and index:
        return rf"{letter}_{{\mathrm{{{index}}}}}"
    return rf"\,\mathrm{{{name.replace('_', ' ')}}}\,"
