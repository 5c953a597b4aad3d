"""The sections of a free-text radiology report, as MIMIC-CXR's reports are written.

The rule is the one that MIMIC-CXR's makers published with the data set: a header is a line's start
in capitals up to a colon; sections of the same meaning get one name; of several, the last counts.
Their tables of misspelt headers and of view words are not repeated here: a slip of one letter is
forgiven in the words that matter, and `_VIEWS` holds the usual words for views. Nor are the 54
reports treated apart whose sections they set by hand. A few reports will therefore differ from
`mimic_cxr_sectioned.csv`, which is to be preferred where it is at hand.
"""

from __future__ import annotations

import re

_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
# What other headers mean, written as they are after lower-casing.
_MEANINGS = {
    "conclusion": "impression",
    "conclusions": "impression",
    "finding": "findings",
    "findings and impression": "impression",
    "findings/impression": "impression",
    "chest, two views": "findings",
}
# A header with one of these in it is of that section; the first one counts.
_WITHIN = ("impression", "findings", "history", "comparison", "addendum")
_SPELT = {"impression": "impression", "conclusion": "impression", "findings": "findings"}
# Headers that only name the views stand above findings.
_VIEWS = re.compile(
    r"\b(portable|upright|supine|(pa|ap|frontal) (and|&) lat(eral)?"
    r"|(ap|pa|frontal|lateral|single|one|two|three) views?)\b"
)
_EMPTY_LINE = "\n \n"


def sections(report: str) -> dict[str, str]:
    """Return the sections of a report: name -> text on one line, blanks collapsed.

    Text before the first header is "preamble". Findings and impressions without text do not
    count. Where neither is left, the last section ends at its first empty line, and what follows
    is "last_paragraph". De-identified words stay as they are ("___").
    """
    found = [
        (name, text)
        for name, text in _split(report.replace("\r\n", "\n"))
        if text or name not in ("findings", "impression")
    ]
    if found and not any(name in ("findings", "impression") for name, _ in found):
        name, text = found[-1]
        before, gap, after = text.partition(_EMPTY_LINE)
        if gap:
            found[-1:] = [(name, before), ("last_paragraph", after)]
    return {name: " ".join(text.split()) for name, text in found}


def _split(report: str) -> list[tuple[str, str]]:
    """Return the sections in order: name and stripped text; a name may come several times."""
    headers = list(_HEADER.finditer(report))
    ends = [match.start() for match in headers[1:]] + [len(report)]
    parts = [
        (_name(match[1]), report[match.end() : end].strip())
        for match, end in zip(headers, ends, strict=False)
    ]
    before = report[: headers[0].start()] if headers else report
    return [("preamble", before.strip()), *parts]


def _name(header: str) -> str:
    words = " ".join(header.lower().split())
    if words in _MEANINGS:
        return _MEANINGS[words]
    for name in _WITHIN:
        if name in words:
            return name
    for right, name in _SPELT.items():
        if _is_slip(words, right):
            return name
    return "findings" if _VIEWS.search(words) else words


def _is_slip(word: str, right: str) -> bool:
    """Say whether one letter is missing, too many or another, or two neighbours are swapped."""
    shorter = min(len(word), len(right))
    start = next((at for at in range(shorter) if word[at] != right[at]), shorter)
    most = shorter - start
    same = next((n for n in range(most) if word[-1 - n] != right[-1 - n]), most)
    odd, wanted = word[start : len(word) - same], right[start : len(right) - same]
    return max(len(odd), len(wanted)) <= 1 or (len(odd) == 2 and odd == wanted[::-1])
