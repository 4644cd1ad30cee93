"""Code without its docstrings; every other line stays as it is."""

import ast
from functools import cache


@cache
def docstrings(source: str) -> list[range]:
    """Return the lines of each docstring and the blank lines after it, counted from 0; the file's own first.

    One that is all there is of a class or function is none of them: nothing would be left.

    >>> docstrings('class Gate:\\n    \"\"\"A gate.\"\"\"\\n\\n    bias = 1\\n')
    [range(1, 3)]
    """
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node) is not None and len(node.body) > 1:
            text = node.body[0]
            end = text.end_lineno or text.lineno
            while end < len(lines) and not lines[end].strip():
                end += 1
            found.append(range(text.lineno - 1, end))
    return sorted(found, key=lambda place: place.start)


def without_docstrings(source: str) -> str:
    """Return code without any docstring.

    >>> print(without_docstrings('def double(x):\\n    \"\"\"Twice.\"\"\"\\n    return 2 * x  # exact'))
    def double(x):
        return 2 * x  # exact
    """
    gone = {line for place in docstrings(source) for line in place}
    return "".join(text for line, text in enumerate(source.splitlines(True)) if line not in gone)
