"""What a file computes, as a hash: comments and docstrings do not count."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path


def fingerprint(files: Iterable[Path]) -> str:
    """Return a hash of what `files` compute."""
    code = "\n".join(computed(ast.parse(file.read_text(encoding="utf-8"))) for file in files)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def computed(tree: ast.Module) -> str:
    """Return what a source computes, as text.

    >>> twice = ast.parse("def f(x): return 2*x")
    >>> computed(ast.parse("def f(x):\\n    '''Double.'''\\n    return 2 * x  # twice")) == computed(twice)
    True
    >>> computed(ast.parse("def f(x): return 3 * x")) == computed(twice)
    False
    """
    return repr(_plain(tree))


def _plain(node: object) -> object:
    """Return a tree as tuples and lists, without empty fields, which newer versions of Python add."""
    if isinstance(node, list):
        return [_plain(part) for part in node if not _is_text(part)]
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node)]
        return type(node).__name__, [field for field in fields if field[1] not in (None, [])]
    return node


def _is_text(node: object) -> bool:
    """Return whether a statement is a string, which computes nothing."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
