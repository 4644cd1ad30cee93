"""Default configurations, read from the source of their classes: nothing is imported, nothing runs.

A class lists its fields with their defaults; `__post_init__` fills in what depends on others, such as the
kind of each layer. Both are read here: assignments, conditions, loops and expressions of numbers, words and
lists. What is written in another way stays unknown, and so does what depends on it.
"""

import ast
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from census.expressions import METHODS, Defaults, UnknownError, apply, worth


def defaults(texts: Iterable[str]) -> dict[str, Defaults]:
    """Return what the fields of each configuration class are by default, by the name of the class.

    >>> source = '''
    ... class ToyConfig(PreTrainedConfig):
    ...     layers: int = 4
    ...     layer_types: list[str] | None = None
    ...     def __post_init__(self, **kwargs):
    ...         every = kwargs.pop("every", 2)
    ...         if self.layer_types is None:
    ...             self.layer_types = ["full" if i % every else "window" for i in range(self.layers)]
    ... '''
    >>> defaults([source])
    {'ToyConfig': {'layers': 4, 'layer_types': ['window', 'full', 'window', 'full']}}
    """
    found: dict[str, Defaults] = {}
    for text in texts:
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = _class(node, found)
    return found


def _class(node: ast.ClassDef, known: Mapping[str, Defaults]) -> Defaults:
    fields: Defaults = {}
    for base in node.bases:
        if isinstance(base, ast.Name):
            fields |= known.get(base.id, {})
    for statement in node.body:
        _run(statement, fields, fields)
    _rename(fields)
    functions = [statement for statement in node.body if isinstance(statement, ast.FunctionDef)]
    for function in functions:
        if function.name == "__post_init__":
            _run_all(function.body, fields, {"kwargs": {}})
    for function in functions:
        result = function.body[-1]
        if _is_property(function) and isinstance(result, ast.Return) and result.value:
            field = ast.Attribute(ast.Name("self"), function.name)
            _run(ast.Assign([field], result.value), fields, {})
    _rename(fields)
    return fields


def _is_property(function: ast.FunctionDef) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "property" for each in function.decorator_list)


def _rename(fields: Defaults) -> None:
    """Give a field its common name as well: `n_layer` is also `num_hidden_layers`."""
    for name, field in fields.get("attribute_map", {}).items():
        if field in fields:
            fields[name] = fields[field]


def _run_all(statements: Iterable[ast.stmt], fields: Defaults, local: Defaults) -> None:
    for statement in statements:
        _run(statement, fields, local)


def _run(statement: ast.stmt, fields: Defaults, local: Defaults) -> None:
    """Take over what a statement assigns; forget the old value of what it assigns in a way not read here."""
    match statement:
        case (
            ast.Assign(targets=[target], value=value)
            | ast.AnnAssign(target=target, value=ast.expr() as value)
        ):
            try:
                _assign(target, worth(value, fields, local), fields, local)
            except UnknownError:
                _forget(target, fields, local)
        case ast.If(test=test, body=body, orelse=orelse):
            try:
                _run_all(body if worth(test, fields, local) else orelse, fields, local)
            except UnknownError:
                _forget_all(statement, fields, local)
        case ast.For(target=ast.Name(id=name), iter=over, body=body):
            try:
                for each in worth(over, fields, local):
                    local[name] = each
                    _run_all(body, fields, local)
            except UnknownError:
                _forget_all(statement, fields, local)
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name)) as call) if name in METHODS:
            try:
                worth(call, fields, local)
            except UnknownError:
                _forget_all(statement, fields, local)
        case ast.FunctionDef():
            pass
        case _:
            _forget_all(statement, fields, local)


def _assign(target: ast.expr, value: Any, fields: Defaults, local: Defaults) -> None:
    match target:
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            fields[name] = value
        case ast.Name(id=name):
            local[name] = value
        case ast.Subscript(value=inner, slice=place):
            changed = worth(inner, fields, local)
            apply(operator.setitem, changed, worth(place, fields, local), value)
        case _:
            raise UnknownError(ast.unparse(target))


def _forget_all(statement: ast.stmt, fields: Defaults, local: Defaults) -> None:
    """Forget whatever a statement assigns or calls a method of."""
    for node in ast.walk(statement):
        match node:
            case ast.Assign(targets=[target, *_]) | ast.AugAssign(target=target):
                _forget(target, fields, local)
            case ast.Call(func=ast.Attribute(value=changed)):
                _forget(changed, fields, local)


def _forget(target: ast.expr, fields: Defaults, local: Defaults) -> None:
    match target:
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            fields.pop(name, None)
        case ast.Name(id=name):
            local.pop(name, None)
        case ast.Subscript(value=inner):
            _forget(inner, fields, local)
