"""The pictures of a download: missing, broken or odd ones, and regions that do not fit them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from medbench.data.audit_finding import Finding
from medbench.data.audit_splits import Region, Split
from medbench.data.look import Look, Picture, in_parallel, look_at
from medbench.data.pictures import FORMATS, archives_beside
from medbench.task import Task

Progress = Callable[[str, int, int], object]
Verdict = Literal["fits", "unreadable", "empty", "other size"]

_HUGE_MEGAPIXELS = 50


@dataclass(frozen=True)
class Pictures:
    """The different pictures of all splits by key, in the order of the questions.

    Attributes:
        names: what to call them; looks: what they turned out to be.
    """

    sources: Mapping[Hashable, Picture]
    names: Mapping[Hashable, str]
    looks: Mapping[Hashable, Look]

    def open_well(self, key: Hashable) -> bool:
        """Say whether a picture is there and can be opened."""
        return not (self.looks[key].missing or self.looks[key].error)


def look_at_pictures(task: Task, splits: Sequence[Split], progress: Progress) -> Pictures:
    """Open every picture of the splits, once each."""
    sources: dict[Hashable, Picture] = {}
    names: dict[Hashable, str] = {}
    for split in splits:
        for key, source in split.sources.items():
            if key not in sources:
                sources[key] = source
                stored = f"the image of {split.first[key]}"
                names[key] = _shown(task, source) if isinstance(source, Path) else stored
    looks = look_at(list(sources.values()), lambda done: progress("images", done, len(sources)))
    return Pictures(sources, names, dict(zip(sources, looks, strict=True)))


def list_unusable(task: Task, splits: Sequence[Split], pictures: Pictures) -> Iterator[Finding]:
    """Yield what is wrong with images that are missing or cannot be opened."""
    total = len(pictures.looks)
    missing = [key for key, look in pictures.looks.items() if look.missing]
    if missing:
        lost = set(missing)
        without = sum(key in lost for split in splits for key in split.pictures)
        questions = sum(split.rows for split in splits)
        source = pictures.sources[missing[0]]
        packed = archives_beside(source) if isinstance(source, Path) else ""
        if task.restricted:
            packed = ""  # it names folders that may be a patient's
        yield Finding(
            "missing images",
            len(missing),
            f"{_part(len(missing), total)} missing, which {without} of {questions} questions ask "
            "about.",
            packed or _get(task, len(missing) < total),
            first=_first(task, pictures.names[missing[0]]),
        )
    corrupt = [key for key, look in pictures.looks.items() if look.error]
    if corrupt:
        first = f"{pictures.names[corrupt[0]]}: {pictures.looks[corrupt[0]].error}"
        yield Finding(
            "corrupt images",
            len(corrupt),
            f"{_part(len(corrupt), total)} cut off, damaged, or no image.",
            f"Delete them and unpack the archive again, or get them from {task.source}.",
            first=_first(task, first),
        )


def _get(task: Task, some: bool) -> str:
    without = "; as it is, runs need --allow-missing-images" if some else ""
    return f"Get them from {task.source}{without}."


def list_odd(task: Task, splits: Sequence[Split], pictures: Pictures) -> Iterator[Finding]:
    """Yield what is unusual about images that open."""
    for kind, applies, what, do in _ODD:
        odd = [key for key in pictures.looks if applies(pictures.looks[key], pictures.sources[key])]
        if odd:
            first = _first(task, pictures.names[odd[0]])
            yield Finding(kind, len(odd), what.format(_images(len(odd))), do, first=first)
    yield from _list_duplicates(task, splits, pictures)


_ODD: tuple[tuple[str, Callable[[Look, Picture], bool], str, str], ...] = (
    (
        "cmyk",
        lambda look, _: look.mode == "CMYK",
        "{} stored as CMYK.",
        "They open in their right colours here; other programs may show them inverted.",
    ),
    (
        "more than 8 bits",
        lambda look, _: look.mode.startswith(("I", "F")),
        "{} grey of more than 8 bits.",
        "Each is brought to 8 bits over its own range.",
    ),
    (
        "other format",
        lambda look, source: (
            bool(look.format)
            and isinstance(source, Path)
            and look.format not in FORMATS.get(source.suffix.lower(), (look.format,))
        ),
        "{} of another format than the name says.",
        "They are opened by their content.",
    ),
    (
        "turned",
        lambda look, _: look.orientation in range(2, 9),
        "{} marked as to be turned or mirrored (EXIF).",
        "They are taken as they are stored, as in the published code.",
    ),
    (
        "huge",
        lambda look, _: look.width * look.height > _HUGE_MEGAPIXELS * 10**6,
        f"{{}} larger than {_HUGE_MEGAPIXELS} megapixels.",
        "They take long and much memory to open.",
    ),
)


def _list_duplicates(task: Task, splits: Sequence[Split], pictures: Pictures) -> Iterator[Finding]:
    """Yield the files that have the bytes of another file; a table's cells have no names."""
    names: dict[str, list[Hashable]] = defaultdict(list)
    for key, look in pictures.looks.items():
        if look.content and isinstance(pictures.sources[key], Path):
            names[look.content].append(key)
    groups = [keys for keys in names.values() if len(keys) > 1]
    if not groups:
        return
    places: list[str] = []
    for split in splits:
        own = [sum(key in split.sources for key in keys) for keys in groups]
        if within := sum(number - 1 for number in own if number > 1):
            places.append(f"{within} within {split.name}")
    for one, other in combinations(splits, 2):
        across = sum(
            any(a in one.sources and b in other.sources and a != b for a in keys for b in keys)
            for keys in groups
        )
        if across:
            places.append(f"{across} across {one.name} and {other.name}")
    count = sum(len(keys) - 1 for keys in groups)
    first = f"{pictures.names[groups[0][1]]} is {pictures.names[groups[0][0]]}"
    yield Finding(
        "duplicates",
        count,
        f"{count} {'image has' if count == 1 else 'images have'} the bytes of one of another name "
        f"({', '.join(places)}).",
        "Intervals take them for different images.",
        first=_first(task, first),
    )


def check_regions(
    task: Task, splits: Sequence[Split], pictures: Pictures, progress: Progress
) -> tuple[int, list[Finding], list[Finding]]:
    """Compute every region whose image opens.

    Returns:
        How many there were, what is wrong with them, and what is unusual about them.
    """
    regions = [
        region for split in splits for region in split.regions if pictures.open_well(region.picture)
    ]
    masks = list(
        dict.fromkeys(
            path for one in regions for path in one.files if path.suffix.lower() in FORMATS
        )
    )
    total = len(masks) + len(regions)
    looked = look_at(masks, lambda done: progress("regions", done, total))
    looks = dict(zip(masks, looked, strict=True))
    verdicts: list[Verdict] = []

    def judge(region: Region) -> Verdict:
        return _judge(region, pictures.looks[region.picture], looks)

    with closing(in_parallel(judge, regions)) as judged:
        for verdict in judged:
            verdicts.append(verdict)
            progress("regions", len(masks) + len(verdicts), total)

    def listed(verdict: Verdict, what: str, do: str) -> list[Finding]:
        found = [one for one, how in zip(regions, verdicts, strict=True) if how == verdict]
        if not found:
            return []
        count = f"{len(found)} of {len(regions)} regions {'is' if len(found) == 1 else 'are'}"
        first = _first(task, f"that of {found[0].sample}")
        return [Finding(f"{verdict} regions", len(found), f"{count} {what}", do, first=first)]

    again = f"Unpack the archive again, or get the annotation from {task.source}."
    problems = listed("unreadable", "unreadable.", again)
    warnings = listed("empty", "empty.", "Scores of attention leave them out.")
    warnings += listed(
        "other size",
        "of another size than the image.",
        "They are stretched to it.",
    )
    return len(regions), problems, warnings


def _judge(region: Region, picture: Look, masks: Mapping[Path, Look]) -> Verdict:
    own = [masks[path] for path in region.files if path in masks]
    if any(mask.missing or mask.error for mask in own):
        return "unreadable"
    try:
        computed = region.compute()
    # A task's own code over files of any kind.
    except Exception:
        return "unreadable"
    if not computed.any():
        return "empty"
    size = (picture.width, picture.height)
    same = computed.shape == (picture.height, picture.width)
    return "fits" if same and all((m.width, m.height) == size for m in own) else "other size"


def _shown(task: Task, path: Path) -> str:
    """Return a path as short as it can be found in the data folder."""
    folder = Path(task.data).expanduser()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _first(task: Task, name: str) -> str:
    return "" if task.restricted else name


def _part(count: int, total: int) -> str:
    return f"{count} of {total} images {'is' if count == 1 else 'are'}"


def _images(count: int) -> str:
    return f"{count} {'image is' if count == 1 else 'images are'}"
