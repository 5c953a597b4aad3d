"""The providers that a tuner learns from: their weights, packages, and what they computed."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from medbench import supervise
from medbench.counting import counted
from medbench.doctor.asked import Asked
from medbench.doctor.backbone import Looked
from medbench.doctor.finding import Finding, refused, size
from medbench.doctor.hub_files import has_config, text_settings_of, text_tower_of
from medbench.doctor.packages import missing_of
from medbench.doctor.task import Read
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.provider import Provider, Surroundings
from medbench.restricted import withholding

# Keys of a text tower's description that open_clip no longer knows, and their names since.
_RENAMED = {"proj": "hf_proj_type", "pooler_type": "hf_pooler_type"}


def check_providers(
    heading: str, asked: Asked, tuner: Tuner, looked: Looked | None, read: Read | None
) -> Generator[Finding, None, dict[str, Provider]]:
    """Look for the files of the providers that a tuner's parameters name."""
    attributes = asked.task[0].attributes if asked.task else {}
    try:
        created = supervise.create(tuner, attributes, asked.offers)
    except UserError as error:
        if asked.task:  # who offers the regions is not known without one
            yield refused(heading, error)
        return {}
    found: dict[str, Provider] = {}
    for parameter, (_, provider) in created.items():
        found[parameter] = provider
        named = f"{parameter}={provider.name}"
        try:
            files = list(provider.files())
            whole = sum(path.stat().st_size for path in files)
        except UserError as error:
            more = "Or run this again with --fetch." if "hf download" in error.do else ""
            yield refused(heading, UserError(f"{named}: {error.what}", error.why, error.do), more)
            continue
        about = f": {counted(len(files), 'file')}, {size(whole)}" if files else " needs no files"
        yield Finding(heading, "good", named + about)
        yield from _text_tower(heading, named, provider)
        yield from _extra(heading, named, provider, looked, read)
    return found


def _text_tower(heading: str, named: str, provider: Provider) -> Iterator[Finding]:
    """Say whether a CLIP's text tower cannot be built: for want of its description, or its age."""
    tower = text_tower_of(provider)
    if tower and not has_config(tower):
        what = f"{named}: its CLIP's text tower is described by {tower}, which is not here"
        do = f"hf download {tower} config.json; or run this again with --fetch."
        yield Finding(heading, "problem", what, do)
    stated = text_settings_of(provider)
    old = [key for key in _RENAMED if key in stated]
    if old:
        what = f"{named}: its CLIP is described for an older open_clip, by {' and '.join(old)}"
        do = f"Fetch it anew, or rename to {' and '.join(_RENAMED[key] for key in old)}."
        yield Finding(heading, "problem", what, do)


def _extra(
    heading: str, named: str, provider: Provider, looked: Looked | None, read: Read | None
) -> Iterator[Finding]:
    """Say whether a provider that computes with packages of an extra can do without them."""
    from medbench.expert.settings import ClipExpert
    from medbench.labels.settings import Ranking

    lacking = missing_of("labels")
    if not lacking or not isinstance(provider, Ranking | ClipExpert):
        return
    train = read.splits.get("train", ()) if read else ()
    fit = looked.skeleton.geometry.fit if looked and looked.skeleton else None
    if not (read and train and fit and any("clip" in package for package in lacking)):
        what = f"{named} computes with {', '.join(lacking)}, which is not installed"
        yield Finding(heading, "problem", what, 'pip install "medbench[labels]"')
        return
    try:
        # Without a CLIP nothing can be computed: this only looks whether all is there.
        with withholding(read.task, train):
            provider.open(train, Surroundings(read.task, fit))
    except UserError as error:
        what = f"{named} has not all targets of the {len(train)} training questions"
        yield refused(heading, UserError(what, error.what, error.do))
        return
    what = f"{named}: all targets are there, so that medbench[labels] is not needed"
    yield Finding(heading, "good", what)
