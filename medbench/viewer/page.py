"""The page: one HTML file that holds its data, style and script, and may load nothing else.

Nothing in the data can become markup or code. In the file it stands as JSON without `<`, which no
parser takes for an end or a beginning; the script puts it on the page as text only; and the policy
in the file's head lets the browser run this very script, use this very style, and nothing more.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from medbench.atomic import write_atomically
from medbench.errors import UserError
from medbench.viewer.content import Content

_PARTS = Path(__file__).parent / "page"
# In this order: each uses what stands in those before it.
_SCRIPTS = (
    "dom", "data", "state", "filters", "controls", "head", "list", "overlay", "sample", "keys",
    "main",
)  # fmt: skip
_MARK = re.compile(r"\{\{(\w+)\}\}")


def write(content: Content, path: Path) -> int:
    """Write the page, and return its size in bytes.

    Raises:
        UserError: the file cannot be written.
    """

    def fill(target: Path) -> None:
        with target.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces(content))

    try:
        write_atomically(path, fill, private=content.private)
    except OSError as error:
        raise UserError(
            f"cannot write {path}",
            f"{error.strerror or error}.",
            "Name a file in a folder that is there: --output FILE",
        ) from error
    return path.stat().st_size


def pieces(content: Content) -> Iterator[str]:
    """Yield the text of the page piece by piece, since it may be large."""
    style = (_PARTS / "view.css").read_text(encoding="utf-8")
    script = "\n".join((_PARTS / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    filled = {
        "policy": _policy(style, script),
        "title": escape(content.title).encode("ascii", "xmlcharrefreplace").decode("ascii"),
        "style": style,
        "index": _as_json(content.index),
        "script": script,
    }
    template = (_PARTS / "view.html").read_text(encoding="utf-8")
    # Every other piece is a mark's name. Only the template has marks, not what fills it.
    for place, piece in enumerate(_MARK.split(template)):
        if place % 2 == 0:
            yield piece
        elif piece == "parts":
            # After the script, so that the list is there before the browser has read them.
            for name, part in content.parts():
                yield f'<script type="application/json" id="{name}">{_as_json(part)}</script>\n'
        else:
            yield filled[piece]


def _policy(style: str, script: str) -> str:
    """Return the content security policy of the page."""
    rules = (
        "default-src 'none'",
        "img-src data:",
        f"style-src '{_hash(style)}'",
        f"script-src '{_hash(script)}'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    )
    return "; ".join(rules)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _as_json(value: Any) -> str:
    """Return JSON in ASCII that no parser of HTML or scripts can take for an end or a beginning."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
