"""Default configurations, read from the source of their classes: nothing is imported, nothing runs.

A class lists its fields with their defaults; `__post_init__` fills in what depends on others, such as the
kind of each layer. Both are read here: assignments, conditions, loops and expressions of numbers, words and
lists. What is written in another way stays unknown, and so does what depends on it.
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
_METHODS: Mapping[str, Callable[..., Any]] = {
    "append": list.append,
    "get": dict.get,
    "pop": dict.pop,
    "setdefault": dict.setdefault,
}


class UnknownError(Exception):
    """An expression that is not read here."""


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
                _assign(target, _value(value, fields, local), fields, local)
            except UnknownError:
                _forget(target, fields, local)
        case ast.If(test=test, body=body, orelse=orelse):
            try:
                _run_all(body if _value(test, fields, local) else orelse, fields, local)
            except UnknownError:
                _forget_all(statement, fields, local)
        case ast.For(target=ast.Name(id=name), iter=over, body=body):
            try:
                for each in _value(over, fields, local):
                    local[name] = each
                    _run_all(body, fields, local)
            except UnknownError:
                _forget_all(statement, fields, local)
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name)) as call) if name in _METHODS:
            try:
                _value(call, fields, local)
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
            changed = _value(inner, fields, local)
            _apply(operator.setitem, changed, _value(place, fields, local), value)
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


def _value(node: ast.expr, fields: Defaults, local: Defaults) -> Any:
    def value(node: ast.expr) -> Any:
        return _value(node, fields, local)

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
            return _apply(_OPERATORS[type(op)], value(left), value(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _apply(_OPERATORS[type(op)], value(left), value(right))
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
            return _apply(operator.getitem, value(inner), slice(value(upper)))
        case ast.Subscript(value=inner, slice=place):
            return _apply(operator.getitem, value(inner), value(place))
        case ast.ListComp(
            elt=item, generators=[ast.comprehension(target=ast.Name(id=name), iter=over, ifs=[])]
        ):
            return [_value(item, fields, local | {name: each}) for each in value(over)]
        case ast.Call(
            func=ast.Name(id="getattr"), args=[ast.Name(id="self"), ast.Constant(value=name), other]
        ):
            return fields[name] if name in fields else value(other)
        case ast.Call(func=ast.Attribute(value=inner, attr=name), args=arguments, keywords=[]) if (
            name in _METHODS
        ):
            return _apply(_METHODS[name], value(inner), *map(value, arguments))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _apply(_FUNCTIONS[name], *map(value, arguments))
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


def _apply(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UnknownError(str(error)) from error
