"""The packages that medbench asks for: which are installed, and in versions that fit."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import medbench
from medbench import provenance
from medbench.doctor.finding import Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_SECTION = "installation"
# Extras of those who develop medbench.
_DEVELOPERS = ("test", "lint")
# Asked for by transformers and not by medbench; a question about answers needs their versions.
_TELLING = ("tokenizers", "huggingface_hub")


@dataclass(frozen=True)
class Declared:
    """What the project says it needs: a range of Pythons, and requirements as in pip's files."""

    python: str
    required: tuple[str, ...]
    extras: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Package:
    """A package asked for.

    Attributes:
        asked: name and range, as pip takes it; range: the range alone, "" for any.
        found: the version that is installed; None if none is.
        fits: whether that version lies in the range.
    """

    name: str
    asked: str
    range: str
    found: str | None
    fits: bool


def check_packages() -> Iterator[Finding]:
    """Compare Python and the installed packages with what the project declares."""
    yield Finding(_SECTION, "good", _medbench())
    if importlib.util.find_spec("packaging") is None:
        what = "packaging is not installed, so that no version can be compared"
        yield Finding(_SECTION, "problem", what, "transformers brings it: pip install transformers")
        return
    declared = read_declared()
    if declared is None:
        what = "medbench is no installed distribution, so that no version can be compared"
        yield Finding(_SECTION, "note", what, "Install it: pip install -e CHECKOUT")
        return
    yield _python(declared.python)
    required = list(look_up(declared.required))
    fitting = [f"{one.name} {one.found}" for one in required if one.fits]
    fitting += [f"{name} {found}" for name in _TELLING if (found := _version(name))]
    yield Finding(_SECTION, "good", ", ".join(fitting))
    for one in required:
        if not one.fits:
            yield _unfit(one)
    yield from _extras(declared.extras)


def missing_of(extra: str) -> list[str]:
    """Return what of an extra is not installed or does not fit, as pip takes it."""
    declared = read_declared()
    wanted = declared.extras.get(extra, ()) if declared else ()
    return [one.asked for one in look_up(wanted) if not one.fits]


def look_up(requirements: Iterable[str]) -> Iterator[Package]:
    """Yield what is installed of requirements; those for other systems are passed over."""
    from packaging.requirements import Requirement

    for text in requirements:
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        found = _version(one.name)
        fits = found is not None and one.specifier.contains(found, prereleases=True)
        yield Package(one.name, _unmarked(one), str(one.specifier), found, fits)


def read_declared() -> Declared | None:
    """Read what is declared: a checkout's pyproject.toml, else the distribution's metadata.

    A checkout comes first, since what an editable install has noted of it grows old.
    """
    file = Path(medbench.__file__).resolve().parent.parent / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == "medbench":
            extras = cast("dict[str, list[str]]", project["optional-dependencies"])
            return Declared(
                project["requires-python"],
                tuple(project["dependencies"]),
                {name: tuple(asked) for name, asked in extras.items()},
            )
    try:
        about = importlib.metadata.metadata("medbench")
    except importlib.metadata.PackageNotFoundError:
        return None
    from packaging.requirements import Requirement

    every = [Requirement(text) for text in about.get_all("Requires-Dist") or ()]
    names = about.get_all("Provides-Extra") or ()
    return Declared(
        "".join(about.get_all("Requires-Python") or ()),
        tuple(str(one) for one in every if not _of_extra(one, names)),
        {name: tuple(_unmarked(one) for one in every if _of_extra(one, [name])) for name in names},
    )


def _of_extra(one: Requirement, extras: Iterable[str]) -> bool:
    """Say whether a requirement counts with one of these extras and not without."""
    marker = one.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return False
    return any(marker.evaluate({"extra": name}) for name in extras)


def _unmarked(one: Requirement) -> str:
    """Return a requirement without the marker that says when it counts."""
    extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
    return f"{one.name}{extras}{one.specifier}"


def _medbench() -> str:
    state = provenance.git_state()
    commit = f", commit {state['commit'][:10]}" if state else ""
    changed = " with changes" if state.get("dirty") else ""
    where = Path(medbench.__file__).parent
    return f"medbench {medbench.__version__}{commit}{changed}, in {where}"


def _python(wanted: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    here = platform.python_version()
    what = f"Python {here} in {sys.prefix}"
    if SpecifierSet(wanted).contains(here, prereleases=True):
        return Finding(_SECTION, "good", what)
    do = f"Make a new environment with a Python {wanted}."
    return Finding(_SECTION, "problem", f"{what}; medbench needs {wanted}", do)


def _unfit(one: Package) -> Finding:
    what = (
        f"{one.name} is not installed"
        if one.found is None
        else f"{one.name} {one.found} is installed; medbench needs {one.range}"
    )
    return Finding(_SECTION, "problem", what, f'pip install "{one.asked}"')


def _extras(extras: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Yield which extras are complete, and how the others become so."""
    for name, wanted in extras.items():
        if name in _DEVELOPERS or _is_bundle(wanted):
            continue
        lacking = [one.asked for one in look_up(wanted) if not one.fits]
        if lacking:
            what = f"medbench[{name}] lacks {', '.join(lacking)}; only some runs need it"
            yield Finding(_SECTION, "note", what, f'pip install "medbench[{name}]"')
        else:
            yield Finding(_SECTION, "good", f"medbench[{name}] is complete")


def _is_bundle(wanted: Iterable[str]) -> bool:
    """Say whether an extra asks for nothing but other extras, which are looked at by themselves."""
    from packaging.requirements import Requirement

    return all(Requirement(text).name == "medbench" for text in wanted)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
