"""The formulas of the catalogue as a JavaScript module, so that the comparison can compute with them.

Translated by sympy and kept: a build in which no formula changed does not load sympy.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable

from sitekit import paths, store
from sitekit.run import results
from snippets.catalogue import CATALOGUE, Mechanism

KINDS = ("parameters", "macs")


def module() -> str:
    """Return the source of a module that exports `formulas`: slug to functions of the sizes, by kind."""
    rows = (
        f'  "{mechanism.slug}": {{ {", ".join(_functions(mechanism))} }},' for mechanism in CATALOGUE.values()
    )
    return "\n".join(["// Made from snippets/catalogue.py", "export const formulas = {", *rows, "}", ""])


def translated(formula: str, symbols: Iterable[str]) -> str:
    """Return a formula of the catalogue as a JavaScript expression.

    >>> translated("2*C**2/r + Max(C, ceiling(H/2))", "CHr")
    '2*Math.pow(C, 2)/r + Math.max(C, Math.ceil((1/2)*H))'
    """
    import sympy  # type: ignore[import-untyped]

    names = {name: sympy.Symbol(name) for name in symbols}
    return str(sympy.jscode(sympy.sympify(formula, locals=names)))


def _functions(mechanism: Mechanism) -> list[str]:
    symbols = sorted(results(mechanism).rows[0].sizes)
    key = json.dumps([mechanism.parameters, mechanism.macs, symbols, importlib.metadata.version("sympy")])
    file = paths.CACHE / "formulas" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    formulas = store.read(file, _formulas)
    if formulas is None:
        formulas = [translated(getattr(mechanism, kind), symbols) for kind in KINDS]
        store.write(file, json.dumps(formulas).encode())
    arguments = f"({{ {', '.join(symbols)} }})"
    return [f"{kind}: {arguments} => {code}" for kind, code in zip(KINDS, formulas, strict=True)]


def _formulas(content: bytes) -> list[str]:
    formulas: list[str] = json.loads(content)
    if not (
        isinstance(formulas, list)
        and len(formulas) == len(KINDS)
        and all(isinstance(formula, str) and formula for formula in formulas)
    ):
        raise ValueError("not the formulas of a mechanism")
    return formulas
