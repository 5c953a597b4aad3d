"""A dozen kinds of question, each with several phrasings, and how their answers are balanced.

Kinds and phrasings are data; one small function a kind picks what to ask about. The last phrasing
of a kind is never used to train the base model: it is new to it downstream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from medbench.phantom.stream import Stream
from medbench.phantom.world import LESIONS, ORGAN_NAMES, ORGANS, SIZE, STYLES, Scene

PHRASINGS: dict[str, tuple[str, ...]] = {
    "exist": (
        "is there a {type} in the {organ}?",
        "does the {organ} contain a {type}?",
        "can a {type} be seen in the {organ}?",
        "is a {type} present in the {organ}?",
        "does the {organ} show a {type}?",
    ),
    "organ": (
        "is the {organ} shown?",
        "does the image show the {organ}?",
        "can the {organ} be seen?",
        "is the {organ} in the image?",
        "is the {organ} present in the image?",
    ),
    "normal": (
        "is the {organ} normal?",
        "is the {organ} free of lesions?",
        "does the {organ} look healthy?",
        "is the {organ} without a lesion?",
        "does the {organ} look normal?",
    ),
    "any": (
        "is there a {type}?",
        "does the image contain a {type}?",
        "can a {type} be seen?",
        "is a {type} present?",
        "is there a {type} in the image?",
    ),
    "region": (
        "what part of the body is shown?",
        "which part of the body does the image show?",
        "which region is in the image?",
        "what is the region shown?",
        "which region of the body is shown?",
    ),
    "what": (
        "what is in the {organ}?",
        "what can be seen in the {organ}?",
        "which lesion does the {organ} contain?",
        "which lesion is in the {organ}?",
        "what does the {organ} contain?",
    ),
    "where": (
        "where is the {type}?",
        "in which organ is the {type}?",
        "which organ contains the {type}?",
        "where can the {type} be seen?",
        "in which organ can the {type} be seen?",
    ),
    "size": (
        "how big is the {type} in the {organ}?",
        "what size is the {type} in the {organ}?",
        "what is the size of the {type} in the {organ}?",
        "which size does the {type} in the {organ} have?",
        "what size does the {type} in the {organ} have?",
    ),
    "type_size": (
        "how big is the {type}?",
        "what size is the {type}?",
        "what is the size of the {type}?",
        "which size does the {type} have?",
        "what size does the {type} have?",
    ),
    "count": (
        "how many lesions are there?",
        "how many lesions are in the image?",
        "how many lesions does the image show?",
        "what is the number of lesions?",
        "how many lesions can be seen?",
    ),
    "choice": (
        "is the lesion in the {organ} a {first} or a {second}?",
        "does the {organ} contain a {first} or a {second}?",
        "which is in the {organ}, a {first} or a {second}?",
        "what can be seen in the {organ}, a {first} or a {second}?",
        "can a {first} or a {second} be seen in the {organ}?",
    ),
    "height": (
        "in which half of the image is the {type}?",
        "which half of the image contains the {type}?",
        "is the {type} in the upper or the lower half?",
        "where is the {type}, upper or lower half?",
        "in which half can the {type} be seen?",
    ),
    "report": (
        "write a report.",
        "describe the image.",
        "what does the report of the image say?",
        "describe the image in a report.",
    ),
}
# Words alone, asked only while the base is trained: they teach to look up what a question names.
LOOKUPS: dict[str, tuple[str, ...]] = {"finding": ("{organ}?",), "place": ("{type}?",)}
KINDS = tuple(kind for kind in PHRASINGS if kind != "report")
CLOSED = ("exist", "organ", "normal", "any")
COUNTS = ("zero", "one", "two", "three")
TRAINED_PHRASINGS = 4


@dataclass(frozen=True)
class Question:
    """A question about a scene with its answer and the part of the image that decides it.

    Attributes:
        kind: a key of `PHRASINGS`; phrasing: which of them.
        organs, lesions: names and indices whose union is the RoI: the lesion asked about, or,
            where there is none, the organs one has to search to know.
    """

    kind: str
    phrasing: int
    text: str
    answer: str
    organs: tuple[str, ...] = ()
    lesions: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Picked:
    """What a kind's function chose: the words for the phrasing, the answer and the RoI."""

    answer: str
    words: dict[str, str] = field(default_factory=dict[str, str])
    organs: tuple[str, ...] = ()
    lesions: tuple[int, ...] = ()


def ask(scene: Scene, kind: str, stream: Stream, *, phrasing: int, want: float) -> Question | None:
    """Ask a question of a kind about a scene, or return None where the scene has none.

    Args:
        stream: decides what is asked about.
        phrasing: index into the kind's phrasings.
        want: in [0, 1); decides which answer is asked for, before anything is looked at, which
            is what balances answers (below one half: "yes", "small", "upper", first choice; below
            one quarter: "three").
    """
    picked = _PICKERS[kind](scene, stream, want)
    if picked is None:
        return None
    phrasings = PHRASINGS.get(kind) or LOOKUPS[kind]
    text = phrasings[min(phrasing, len(phrasings) - 1)].format(**picked.words)
    return Question(kind, phrasing, text, picked.answer, picked.organs, picked.lesions)


def _all_organs(scene: Scene) -> tuple[str, ...]:
    return tuple(organ.name for organ in scene.organs)


def _empty_organs(scene: Scene) -> list[str]:
    return [organ.name for organ in scene.organs if scene.lesion_in(organ.name) is None]


def _draw_type(scene: Scene, stream: Stream, *, without: tuple[str, ...]) -> str:
    """Draw a type from the style's own frequencies, so that a rare name gives nothing away."""
    pairs = list(zip(LESIONS, STYLES[scene.style].weights, strict=True))
    left = [(name, weight) for name, weight in pairs if name not in without]
    return stream.weighted([name for name, _ in left], [weight for _, weight in left])


def _exist(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    if want < 0.5:
        if not scene.lesions:
            return None
        index = stream.below(len(scene.lesions))
        lesion = scene.lesions[index]
        words = {"type": lesion.type, "organ": lesion.organ}
        return _Picked("yes", words, lesions=(index,))
    # most negatives are hard: a wrong type in an organ with a lesion, or the right type elsewhere
    difficulty = stream.random()
    organ = stream.choose(_all_organs(scene))
    lesion_type = ""
    if difficulty < 0.8 and scene.lesions:
        lesion = stream.choose(scene.lesions)
        if difficulty < 0.55:
            organ = lesion.organ
        else:
            organ = stream.choose([name for name in _all_organs(scene) if name != lesion.organ])
            lesion_type = lesion.type
    index = scene.lesion_in(organ)
    here = scene.lesions[index].type if index is not None else ""
    if not lesion_type or lesion_type == here:
        lesion_type = _draw_type(scene, stream, without=(here,))
    return _Picked("no", {"type": lesion_type, "organ": organ}, organs=(organ,))


def _organ(scene: Scene, stream: Stream, want: float) -> _Picked:
    shown = _all_organs(scene)
    if want < 0.5:
        name = stream.choose(shown)
        return _Picked("yes", {"organ": name}, organs=(name,))
    region = stream.choose([name for name in ORGANS if name != scene.region])
    name = stream.choose([name for name in ORGAN_NAMES if name in ORGANS[region]])
    return _Picked("no", {"organ": name}, organs=shown)


def _normal(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    if want < 0.5:
        names = _empty_organs(scene)
        if not names:
            return None
        name = stream.choose(names)
        return _Picked("yes", {"organ": name}, organs=(name,))
    if not scene.lesions:
        return None
    index = stream.below(len(scene.lesions))
    return _Picked("no", {"organ": scene.lesions[index].organ}, lesions=(index,))


def _any(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    if want < 0.5:
        if not scene.lesions:
            return None
        name = stream.choose(scene.lesions).type
        return _Picked("yes", {"type": name}, lesions=scene.of_type(name))
    absent = _draw_type(scene, stream, without=tuple(lesion.type for lesion in scene.lesions))
    return _Picked("no", {"type": absent}, organs=_all_organs(scene))


def _region(scene: Scene, stream: Stream, want: float) -> _Picked:
    return _Picked(scene.region, organs=_all_organs(scene))


def _what(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    if want < 0.15:
        names = _empty_organs(scene)
        if not names:
            return None
        name = stream.choose(names)
        return _Picked("nothing", {"organ": name}, organs=(name,))
    if not scene.lesions:
        return None
    index = stream.below(len(scene.lesions))
    lesion = scene.lesions[index]
    return _Picked(lesion.type, {"organ": lesion.organ}, lesions=(index,))


def _single(scene: Scene, stream: Stream) -> int | None:
    """Return a lesion whose type names it without doubt, or None."""
    single = [i for i, les in enumerate(scene.lesions) if len(scene.of_type(les.type)) == 1]
    return stream.choose(single) if single else None


def _where(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    index = _single(scene, stream)
    if index is None:
        return None
    lesion = scene.lesions[index]
    return _Picked(lesion.organ, {"type": lesion.type}, lesions=(index,))


def _size(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    wanted = "small" if want < 0.5 else "large"
    indices = [i for i, lesion in enumerate(scene.lesions) if lesion.size == wanted]
    if not indices:
        return None
    index = stream.choose(indices)
    lesion = scene.lesions[index]
    words = {"type": lesion.type, "organ": lesion.organ}
    return _Picked(lesion.size, words, lesions=(index,))


def _type_size(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    index = _single(scene, stream)
    if index is None or scene.lesions[index].size != ("small" if want < 0.5 else "large"):
        return None
    lesion = scene.lesions[index]
    return _Picked(lesion.size, {"type": lesion.type}, lesions=(index,))


def _count(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    indices = tuple(range(len(scene.lesions)))
    if len(indices) != len(COUNTS) - 1 - int(want * len(COUNTS)):
        return None
    organs = () if indices else _all_organs(scene)
    return _Picked(COUNTS[len(indices)], organs=organs, lesions=indices)


def _choice(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    if not scene.lesions:
        return None
    index = stream.below(len(scene.lesions))
    lesion = scene.lesions[index]
    other = _draw_type(scene, stream, without=(lesion.type,))
    first, second = (lesion.type, other) if want < 0.5 else (other, lesion.type)
    words = {"organ": lesion.organ, "first": first, "second": second}
    return _Picked(lesion.type, words, lesions=(index,))


def _height(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    index = _single(scene, stream)
    if index is None:
        return None
    lesion = scene.lesions[index]
    above = SIZE / 2 - lesion.y
    if abs(above) < 4 or (above > 0) != (want < 0.5):
        return None
    return _Picked("upper" if above > 0 else "lower", {"type": lesion.type}, lesions=(index,))


def _finding(scene: Scene, stream: Stream, want: float) -> _Picked:
    organ = stream.choose(scene.organs).name
    return _Picked(finding(scene, organ), {"organ": organ})


def _place(scene: Scene, stream: Stream, want: float) -> _Picked | None:
    index = _single(scene, stream)
    if want < 0.8 and index is None:
        return None
    if index is None or want >= 0.8:
        present = tuple(lesion.type for lesion in scene.lesions)
        return _Picked("nothing", {"type": _draw_type(scene, stream, without=present)})
    lesion = scene.lesions[index]
    return _Picked(f"{lesion.size} {lesion.organ}", {"type": lesion.type})


def _report(scene: Scene, stream: Stream, want: float) -> _Picked:
    indices = tuple(range(len(scene.lesions)))
    organs = () if indices else _all_organs(scene)
    return _Picked(report(scene), organs=organs, lesions=indices)


def report(scene: Scene) -> str:
    """Return a short report: the region, then every organ in order with what is in it."""
    sentences = [scene.region]
    sentences += [f"{organ.name} {finding(scene, organ.name)}" for organ in scene.organs]
    return " . ".join(sentences) + " ."


def finding(scene: Scene, organ: str) -> str:
    """Return what a report says of an organ: "normal", or the lesion's size and type."""
    index = scene.lesion_in(organ)
    return "normal" if index is None else f"{scene.lesions[index].size} {scene.lesions[index].type}"


_PICKERS: dict[str, Callable[[Scene, Stream, float], _Picked | None]] = {
    "exist": _exist,
    "organ": _organ,
    "normal": _normal,
    "any": _any,
    "region": _region,
    "what": _what,
    "where": _where,
    "size": _size,
    "type_size": _type_size,
    "count": _count,
    "choice": _choice,
    "height": _height,
    "report": _report,
    "finding": _finding,
    "place": _place,
}
