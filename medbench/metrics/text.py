"""Text normalisation: the one behind the published scores, and a plain one of our own."""

from __future__ import annotations

import re
import unicodedata

# Colon and apostrophe are left out, as in the published rule.
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_LONE_PERIOD = re.compile(r"\.(?!\d)")
# The published code hands a flag to the argument that counts replacements; the flag's value is 32.
_PERIODS_AT_MOST = 32

_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_NUMBERS_AND_NONE = {**_NUMBERS, "none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))

# English contractions. Those that are a common word without their apostrophe (its, were, well,
# shell, ill, lets, shed, wed) stay out, and so do those of I: the usual table writes that word as
# a capital, which lower-cased text never has.
_CONTRACTED = """
    ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't
    needn't oughtn't shan't shouldn't wasn't weren't won't wouldn't
    could've might've must've not've should've they've we've what've where've who've would've
    you've it'd there'd they'd where'd who'd you'd he'd how'd someone'd something'd
    it'll they'll what'll who'll why'll you'll how'll somebody'll someone'll something'll
    they're there're what're who're why're you're
    he's how's somebody's someone's something's that's there's what's when's where's who's why's
    ma'am o'clock 'twas y'all
"""
_CONTRACTED_TWICE = """
    couldn't've hadn't've mightn't've shouldn't've wouldn't've he'd've it'd've she'd've
    somebody'd've someone'd've something'd've there'd've they'd've we'd've who'd've you'd've
    y'all'll y'all'd've
"""


def _spelled_out() -> dict[str, str]:
    """Map each spelling that lacks an apostrophe to the full one."""
    table = {word.replace("'", ""): word for word in _CONTRACTED.split()}
    for word in _CONTRACTED_TWICE.split():
        places = [place for place, letter in enumerate(word) if letter == "'"]
        table.update({word[:place] + word[place + 1 :]: word for place in places})
    return table


_CONTRACTIONS = _spelled_out()

_CJK = "\u3400-\u9fff"
_WORD = re.compile(
    rf"[{_CJK}]"
    rf"|[^\W_{_CJK}]+(?:(?:(?<=\d)\.(?=\d)|'(?=[^\W\d_]))[^\W_{_CJK}]+)*"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def published(text: str) -> str:
    """Normalise once as the published evaluation does, its oddities included.

    Lower case. Each of 21 marks is deleted everywhere if it touches a blank anywhere in the text,
    or if a digit, a comma and a digit stand in a row anywhere; otherwise it becomes a blank. Then
    the first 32 periods that no digit follows go; number words none to ten become digits (none is
    0); a, an, the go; contractions get their apostrophes; commas left over go.
    """
    original = text.lower()
    changed = original
    always_delete = _DIGIT_COMMA_DIGIT.search(original) is not None
    for mark in _MARKS:
        touches_blank = f"{mark} " in original or f" {mark}" in original
        changed = changed.replace(mark, "" if always_delete or touches_blank else " ")
    changed = _LONE_PERIOD.sub("", changed, count=_PERIODS_AT_MOST)
    words = (_NUMBERS_AND_NONE.get(word, word) for word in changed.split())
    kept = (_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
    return " ".join(kept).replace(",", "")


def words(text: str) -> list[str]:
    """Split into words by the rule of the strict metrics.

    Compatibility forms are unified (NFKC), letters lowered, curly apostrophes made straight and
    commas between thousands dropped. A word is a run of letters and digits; a period between two
    digits and an apostrophe before a letter belong to it, every other mark separates. A Chinese
    character is a word of its own. Number words zero to ten become digits; a, an, the are dropped.
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    found: list[str] = _WORD.findall(_THOUSANDS.sub("", plain))
    return [_NUMBERS.get(word, word) for word in found if word not in _ARTICLES]
