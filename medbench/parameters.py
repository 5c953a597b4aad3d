"""Parameters: typed values of a plugin, read from the text of a spec.

A parameter's type is the annotation as written in the plugin's source (`int`, `float | None`,
`Literal["a", "b"]`, `tuple[int, ...]`), so that reading a value never runs the plugin.
"""

from __future__ import annotations

import ast
import functools
import math
from dataclasses import dataclass
from typing import Any, cast

from medbench.spec import normalise

_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_NAMES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of a plugin.

    Attributes:
        name: as declared; specs may write it in any case and with `-` for `_`.
        annotation: the declared type, as text.
        default: the value when nothing is written; meaningless when `required`.
        required: True where the class gives no default.
        help: one line from the docstring's `Args:` block; may be empty.
    """

    name: str
    annotation: str
    default: Any = None
    required: bool = False
    help: str = ""

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a `Literal`, empty for other types."""
        return tuple(value for node in _branches(self._type) for value in _choices(node))

    @property
    def expects(self) -> str:
        """What a value must be, in words."""
        return " or ".join(_words(node) for node in _branches(self._type))

    def read(self, text: str) -> Any:
        """Return the value that `text` stands for.

        Raises:
            ValueError: the text is no value of the parameter's type.
        """
        # Text would swallow everything, so it is the last of several types to be tried.
        for node in sorted(_branches(self._type), key=lambda node: _words(node) == "text"):
            try:
                return _read(node, text)
            except ValueError:
                continue
        raise ValueError(f"expects {self.expects}")

    def accept(self, value: Any) -> Any:
        """Return a value written in Python (a variant's, a task's) in the declared type.

        Raises:
            ValueError: the value is not of the parameter's type.
        """
        for node in _branches(self._type):
            try:
                return _accept(node, value)
            except ValueError:
                continue
        raise ValueError(f"expects {self.expects}")

    def check(self) -> None:
        """Make sure that the type can be read from text and that the default is of it.

        Raises:
            ValueError: it is not so; the message says which.
        """
        try:
            expects = self.expects
        except ValueError:
            raise ValueError(
                f"parameter '{self.name}' has the type {self.annotation}, "
                "which cannot be read from text"
            ) from None
        try:
            if not self.required:
                self.accept(self.default)
        except ValueError:
            raise ValueError(
                f"the default of '{self.name}', {self.default!r}, is not {expects}"
            ) from None

    @property
    def _type(self) -> ast.expr:
        return _parsed(self.annotation)


@functools.lru_cache(maxsize=256)
def _parsed(annotation: str) -> ast.expr:
    return ast.parse(annotation, mode="eval").body


def type_name(node: ast.expr) -> str:
    """Return the bare name of a type: `Literal` for `Literal["a"]` and `typing.Literal["a"]`."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _branches(node: ast.expr) -> list[ast.expr]:
    """Return the alternatives of `X | Y` and `Optional[X]`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_branches(node.left), *_branches(node.right)]
    if isinstance(node, ast.Subscript) and type_name(node) == "Optional":
        return [*_branches(node.slice), ast.Constant(None)]
    return [node]


def _choices(node: ast.expr) -> list[Any]:
    if isinstance(node, ast.Subscript) and type_name(node) == "Literal":
        return [ast.literal_eval(item) for item in _items(node)]
    return []


def _items(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _elements(node: ast.expr) -> tuple[list[ast.expr], bool]:
    """Return the types of a tuple's elements and whether the one type repeats."""
    if not isinstance(node, ast.Subscript) or type_name(node) != "tuple":
        raise ValueError(f"cannot read the type {ast.unparse(node)}")
    items = _items(node)
    repeats = len(items) == 2 and isinstance(items[1], ast.Constant) and items[1].value is ...
    return (items[:1] if repeats else items), repeats


def _words(node: ast.expr) -> str:
    if _is_none(node):
        return "none"
    if choices := _choices(node):
        return "one of " + ", ".join(str(choice) for choice in choices)
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    items, repeats = _elements(node)
    inner = [" or ".join(_words(branch) for branch in _branches(item)) for item in items]
    if repeats:
        return f"values separated by '/', each {inner[0]}"
    return f"{len(items)} values separated by '/': {', '.join(inner)}"


def _read(node: ast.expr, text: str) -> Any:
    if _is_none(node):
        if text.lower() != "none":
            raise ValueError
        return None
    if choices := _choices(node):
        return _choice(choices, text)
    name = type_name(node)
    if name == "str":
        return text
    if name == "bool":
        if text.lower() not in _BOOLEANS:
            raise ValueError
        return _BOOLEANS[text.lower()]
    if name == "int":
        return int(text)
    if name == "float":
        return _finite(float(text))
    items, repeats = _elements(node)
    texts = text.split("/") if text else []
    if not repeats and len(texts) != len(items):
        raise ValueError
    types = items * len(texts) if repeats else items
    return tuple(
        Parameter("", ast.unparse(item)).read(part.strip())
        for item, part in zip(types, texts, strict=True)
    )


def _choice(choices: list[Any], text: str) -> Any:
    for choice in choices:
        if normalise(str(choice)) == normalise(text):
            return choice
    raise ValueError


def _accept(node: ast.expr, value: Any) -> Any:
    if allowed := [None] if _is_none(node) else _choices(node):
        if not any(value == choice and type(value) is type(choice) for choice in allowed):
            raise ValueError
        return value
    name = type_name(node)
    kinds: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,)}
    if name in kinds or name == "float":
        # bool is an int to Python, and would pass for 0 or 1 here.
        if isinstance(value, bool) != (name == "bool"):
            raise ValueError
        if not isinstance(value, kinds.get(name, (int, float))):
            raise ValueError
        return _finite(float(value)) if name == "float" else value
    items, repeats = _elements(node)
    if not isinstance(value, list | tuple):
        raise ValueError
    values = cast("list[Any] | tuple[Any, ...]", value)
    if not repeats and len(values) != len(items):
        raise ValueError
    types = items * len(values) if repeats else items
    return tuple(
        Parameter("", ast.unparse(item)).accept(part)
        for item, part in zip(types, values, strict=True)
    )


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return value
