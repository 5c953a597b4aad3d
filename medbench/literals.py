"""Literals: the value of an expression in a parsed file, without running the file."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, cast

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
}
_DEPTH = 20


def evaluate(node: ast.expr, constants: Mapping[str, ast.expr], depth: int = 0) -> Any:
    """Return the value of a literal; arithmetic such as `2 / 3` and named constants count as such.

    Args:
        node: the expression.
        constants: name -> expression of the constants that it may name.
        depth: how many names and brackets lie around it, so that `A = A` comes to an end.

    Raises:
        ValueError, TypeError, ArithmeticError: it is no literal.
    """
    if depth > _DEPTH:
        raise ValueError("nested too deeply")

    def below(inner: ast.expr | None) -> Any:
        if inner is None:  # {**other}
            raise ValueError("no literal")
        return evaluate(inner, constants, depth + 1)

    match node:
        case ast.Constant():
            return cast("Any", node.value)
        case ast.Name(id=name) if name in constants:
            return below(constants[name])
        case ast.Tuple():
            return tuple(below(item) for item in node.elts)
        case ast.List():
            return [below(item) for item in node.elts]
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            return {below(key): below(value) for key, value in pairs}
        case ast.UnaryOp(op=ast.USub()):
            return -below(node.operand)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](below(node.left), below(node.right))
        case _:
            raise ValueError("no literal")
