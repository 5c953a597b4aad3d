"""Reading answers that another program wrote: JSON lines or a JSON list, one object an answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, cast

from medbench.errors import UserError

# What the programs of the field call a sample, its answer, and the gold answer beside it.
IDS = ("id", "question_id", "qid", "sample_id")
OUTPUTS = ("output", "text", "prediction", "pred", "response")
GOLDS = ("gold", "gt", "gt_ans", "ground_truth", "answer")
PROMPT = "prompt"


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        place: where it stands in the file, such as "line 17".
        id: what the file calls its sample.
        output: the answer, as it came; may be empty.
        golds: (field, text) of the gold answers that it carries.
        prompt: the text put to the model; None where the file does not tell.
    """

    place: str
    id: str
    output: str
    golds: tuple[tuple[str, str], ...] = ()
    prompt: str | None = None


@dataclass(frozen=True)
class Predictions:
    """The answers of a file, in its order.

    Attributes:
        path: of the file; sha256: of its bytes.
        id_field, output_field: which fields were read.
    """

    path: Path
    sha256: str
    id_field: str
    output_field: str
    items: tuple[Prediction, ...]


def read_predictions(
    path: Path, *, id_field: str = "", output_field: str = "", private: bool = False
) -> Predictions:
    """Read a file of answers.

    Args:
        path: of JSON lines, or of a JSON list.
        id_field, output_field: which fields to read; "" for the known one that is there.
        private: keep what the file holds out of messages.

    Raises:
        UserError: the file cannot be read, or an answer has no id or is no text; names its line.
    """
    try:
        data = path.read_bytes()
        # utf-8-sig reads plain UTF-8 as well, and some editors add the mark.
        text = data.decode("utf-8-sig")
    except OSError as error:
        why = f"{error.strerror or error}."
        raise UserError(f"cannot read {path}", why, "Check the path and its rights.") from None
    except UnicodeDecodeError as error:
        why = f"Byte {error.start} is not UTF-8."
        raise UserError(f"cannot read {path}", why, "Write it in UTF-8.") from None
    records = list(_records(path, text))
    if not records:
        raise UserError(f"{path} holds no answers", "It is empty.", "Give one object an answer.")
    first = records[0][1]
    id_field = _field(path, "id", id_field, IDS, first, private=private)
    output_field = _field(path, "output", output_field, OUTPUTS, first, private=private)
    golds = [name for name in GOLDS if name not in (id_field, output_field)]
    items = [
        _prediction(path, place, record, id_field, output_field, golds) for place, record in records
    ]
    sha256 = hashlib.sha256(data).hexdigest()
    return Predictions(path, sha256, id_field, output_field, tuple(items))


def _records(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where each object stands, and the object."""
    if text.lstrip().startswith("["):
        entries = cast("list[Any]", _parsed(str(path), text))
        places = ((f"entry {number}", one) for number, one in enumerate(entries, 1))
    else:
        places = _lines(path, text)
    for place, record in places:
        if not isinstance(record, dict):
            raise UserError(
                f"{place} of {path} is no JSON object",
                f"It is {_kind(record)}.",
                'Give one object an answer, such as {"id": ..., "text": ...}.',
            )
        yield place, cast("dict[str, Any]", record)


def _lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    # Not splitlines(): JSON strings may hold other separators than the newline.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number}", _parsed(f"line {number} of {path}", line)


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        why = "Lists or objects are nested too deeply."
    except json.JSONDecodeError as error:
        why = f"{error.msg} at character {error.pos} of {len(text)}."
    except ValueError:
        why = "A number has too many digits."
    raise UserError(f"{where} is no JSON", why, "Write JSON lines, or one JSON list.") from None


def _field(
    path: Path,
    what: str,
    asked: str,
    known: Sequence[str],
    record: Mapping[str, Any],
    *,
    private: bool,
) -> str:
    """Return which field of the records to read."""
    found = [name for name in ((asked,) if asked else known) if name in record]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{path} has several fields that may be the {what}",
            f"They are {' and '.join(found)}.",
            f"Name the right one: --{what} {found[0]}",
        )
    looked = f"Its first object has no '{asked or known[0]}'"
    looked += "" if asked else f", nor {', '.join(known[1:])}"
    # A file may be keyed by ids.
    there = "" if private else f"; it has {', '.join(map(ascii, record)) or 'nothing'}"
    raise UserError(
        f"{path} has no field with the {what} of an answer",
        f"{looked}{there}.",
        f"Name it: --{what} FIELD",
    )


def _prediction(
    path: Path,
    place: str,
    record: Mapping[str, Any],
    id_field: str,
    output_field: str,
    golds: Sequence[str],
) -> Prediction:
    def refuse(field: str, do: str) -> UserError:
        here = f"{place} of {path}"
        if field not in record:
            return UserError(f"{here} has no '{field}'", "Others have it.", do)
        return UserError(
            f"the '{field}' of {here} is no text", f"It is {_kind(record[field])}.", do
        )

    name = record.get(id_field)
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not _is_text(name):
        raise refuse(id_field, "Give every answer the id of its sample, a text or a whole number.")
    output = record.get(output_field)
    if not _is_text(output):
        raise refuse(output_field, "Write the answer as a text; an empty one is allowed.")
    carried: list[tuple[str, str]] = []
    for field in golds:
        gold = record.get(field)
        if gold is None:
            continue
        if isinstance(gold, int | float) and not isinstance(gold, bool):
            gold = str(gold)
        if not _is_text(gold):
            raise refuse(field, "It is compared with the task's gold answer; take the field out.")
        carried.append((field, gold))
    prompt = record.get(PROMPT)
    return Prediction(
        place, name.strip(), output, tuple(carried), prompt if _is_text(prompt) else None
    )


def _is_text(value: object) -> TypeGuard[str]:
    """Say whether a value is a text that can be written down."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON can spell half of a character
        return False
    return True


def _kind(value: object) -> str:
    """Say what a value of JSON is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text" if _is_text(value) else "half of a character (a lone surrogate)"
    return "a list" if isinstance(value, list) else "an object"
