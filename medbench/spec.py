"""Spec strings: `name[param=value,param=value]`, chained with `+`, listed with `,`.

Everything here is text in, text out: what the names and values mean is decided in
`medbench.plugins`, which knows the declared parameters.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from medbench.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9_.\-/]+")  # metrics are called closed/strict
_OPEN, _CLOSE, _QUOTES = "[", "]", "\"'"


@dataclass(frozen=True)
class Spec:
    """One plugin name with its parameters as written.

    Attributes:
        name: lower case, `-` turned into `_`.
        values: (parameter, text) pairs in the order written; parameter names as in `name`.
    """

    name: str
    values: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.values:
            return self.name
        return f"{self.name}[{','.join(f'{key}={_quoted(text)}' for key, text in self.values)}]"


def normalise(name: str) -> str:
    """Return a name as medbench compares it: lower case, `_` for `-`."""
    return name.strip().lower().replace("-", "_")


def split(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside brackets and quotes.

    Raises:
        UserError: a bracket or a quote is not closed.
    """
    parts, depth, quote, start = [], 0, "", 0
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter == _OPEN:
            depth += 1
        elif letter == _CLOSE:
            depth -= 1
            if depth < 0:
                raise _malformed(text, f"a '{_CLOSE}' closes nothing")
        elif letter == separator and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    if quote:
        raise _malformed(text, f"a quote {quote} is not closed")
    if depth:
        raise _malformed(text, f"a '{_OPEN}' is not closed")
    parts.append(text[start:])
    return [part.strip() for part in parts]


def parse(text: str) -> Spec:
    """Read one spec, `name` or `name[param=value,...]`.

    Raises:
        UserError: the text is not of that form, or a parameter is given twice.
    """
    text = text.strip()
    head, bracket, rest = text.partition(_OPEN)
    if not _NAME.fullmatch(head.strip()):
        raise _malformed(text, f"'{head.strip()}' is not a name" if head.strip() else "no name")
    if not bracket:
        return Spec(normalise(head))
    if not rest.endswith(_CLOSE):
        raise _malformed(text, f"the bracket is not closed at the end of '{text}'")
    values: dict[str, str] = {}
    for item in filter(None, split(rest[:-1], ",")):
        key, equals, value = item.partition("=")
        if not equals or not _NAME.fullmatch(key.strip()):
            raise _malformed(text, f"'{item}' is not param=value")
        key = normalise(key)
        if key in values:
            raise _malformed(text, f"parameter '{key}' is given twice")
        values[key] = _unquoted(value.strip())
    return Spec(normalise(head), tuple(values.items()))


def parse_chain(text: str) -> tuple[Spec, ...]:
    """Read a chain such as `lora+vcd[alpha=0.5]`, its parts in order."""
    return tuple(parse(part) for part in split(text, "+"))


def parse_list(text: str) -> list[str]:
    """Split a comma list of specs and unfold every `a|b` grid, in the order written."""
    return [single for part in split(text, ",") for single in expand(part)]


def expand(text: str) -> Iterator[str]:
    """Yield the chain once for each combination of its `a|b` values."""
    chain = parse_chain(text)
    choices = [[_choices(v) for _, v in spec.values] for spec in chain]
    for picked in itertools.product(*(itertools.product(*options) for options in choices)):
        specs = (
            Spec(s.name, tuple((k, v) for (k, _), v in zip(s.values, vs, strict=True)))
            for s, vs in zip(chain, picked, strict=True)
        )
        yield "+".join(str(spec) for spec in specs)


def _choices(value: str) -> list[str]:
    """Return what a value may be: `a|b`, also inside a value that is a spec of its own."""
    if _OPEN not in value:
        return value.split("|")
    return [single for part in split(value, "|") for single in expand(part)]


def _quoted(text: str) -> str:
    if not any(letter in text for letter in ",[]+|") and text == text.strip():
        return text
    return f'"{text}"' if '"' not in text else f"'{text}'"


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in _QUOTES:
        return text[1:-1]
    return text


def _malformed(text: str, why: str) -> UserError:
    return UserError(
        f"cannot read '{text}'",
        f"{why}.",
        "Write name[param=value,param=value], chained with '+', listed with ','.",
    )
