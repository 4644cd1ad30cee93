"""What an expression of a configuration is worth, read from its syntax: nothing runs.

Constants, names, arithmetic, comparisons, lists and a few functions are read; an expression of another kind
is unknown.
"""

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Defaults = dict[str, Any]

_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Mod: operator.mod},
    **{ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv, ast.Pow: operator.pow},
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le},
    **{ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not},
    **{ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b},
    **{ast.Not: operator.not_, ast.USub: operator.neg},
}
_FUNCTIONS = {function.__name__: function for function in (bool, dict, int, len, list, max, min, range, set)}
METHODS: Mapping[str, Callable[..., Any]] = {
    "append": list.append,
    "get": dict.get,
    "pop": dict.pop,
    "setdefault": dict.setdefault,
}


class UnknownError(Exception):
    """An expression that is not read here."""


def worth(node: ast.expr, fields: Defaults, local: Defaults) -> Any:
    """Return what an expression is worth.

    Args:
        node: the expression.
        fields: of the class, by name: `self.name`.
        local: variables of the function; a walrus adds one.

    Raises:
        UnknownError: part of it is not read here, or fails.

    >>> worth(ast.parse("self.width // heads", mode="eval").body, {"width": 32}, {"heads": 4})
    8
    """

    def value(node: ast.expr) -> Any:
        return worth(node, fields, local)

    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [value(item) for item in items]
        case ast.Dict(keys=keys, values=values) if all(keys):
            return {value(key): value(item) for key, item in zip(keys, values, strict=True) if key}
        case ast.Name(id=name) if name in local:
            return local[name]
        case ast.Attribute(value=ast.Name(id="self"), attr=name) if name in fields:
            return fields[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return apply(_OPERATORS[type(op)], value(left), value(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return apply(_OPERATORS[type(op)], value(left), value(right))
        case ast.BoolOp(op=ast.And(), values=values):
            return _first(values, value, until=False)
        case ast.BoolOp(op=ast.Or(), values=values):
            return _first(values, value, until=True)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return value(body if value(test) else orelse)
        case ast.NamedExpr(target=ast.Name(id=name), value=inner):
            local[name] = value(inner)
            return local[name]
        case ast.Subscript(value=inner, slice=ast.Slice(lower=None, upper=ast.expr() as upper, step=None)):
            return apply(operator.getitem, value(inner), slice(value(upper)))
        case ast.Subscript(value=inner, slice=place):
            return apply(operator.getitem, value(inner), value(place))
        case ast.ListComp(
            elt=item, generators=[ast.comprehension(target=ast.Name(id=name), iter=over, ifs=[])]
        ):
            return [worth(item, fields, local | {name: each}) for each in value(over)]
        case ast.Call(
            func=ast.Name(id="getattr"), args=[ast.Name(id="self"), ast.Constant(value=name), other]
        ):
            return fields[name] if name in fields else value(other)
        case ast.Call(func=ast.Attribute(value=inner, attr=name), args=arguments, keywords=[]) if (
            name in METHODS
        ):
            return apply(METHODS[name], value(inner), *map(value, arguments))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return apply(_FUNCTIONS[name], *map(value, arguments))
        case ast.Call(keywords=keywords):  # interval(min=0.0, max=1.0)(default=0.02), field(default=4)
            for keyword in keywords:
                if keyword.arg == "default":
                    return value(keyword.value)
    raise UnknownError(ast.unparse(node))


def _first(nodes: Iterable[ast.expr], value: Callable[[ast.expr], Any], until: bool) -> Any:
    found = None
    for node in nodes:
        found = value(node)
        if bool(found) == until:
            break
    return found


def apply(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function gives; UnknownError if it fails."""
    try:
        return function(*arguments)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UnknownError(str(error)) from error
