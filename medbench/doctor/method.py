"""A method: what it needs against what there is, whom it learns from, and whether it has learnt."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from medbench import plugins
from medbench.adapter_plan import RECORD, AdapterPlan
from medbench.backbone import Depth
from medbench.cell import plan
from medbench.counting import counted
from medbench.doctor.asked import Asked
from medbench.doctor.backbone import Looked
from medbench.doctor.finding import Finding, refused
from medbench.doctor.providers import check_providers
from medbench.doctor.task import Read
from medbench.errors import UserError
from medbench.method import Decoder, Method, Tuner
from medbench.needs import check_depth, require
from medbench.provider import Provider
from medbench.spec import parse


@dataclass(frozen=True)
class Chain:
    """A method that was looked at.

    Attributes:
        providers: of the tuner's targets, by its parameter.
        trained: whether the tuner's adapter is there, so that nothing has to be trained.
    """

    tuner: Tuner | None
    decoder: Decoder
    providers: Mapping[str, Provider] = field(default_factory=dict[str, Provider])
    trained: bool = False


def section(asked: Asked) -> str:
    """Return the heading that a method's findings stand under."""
    return f"method {asked.request.method}"


def check_method(
    asked: Asked, looked: Looked | None, read: Read | None
) -> Generator[Finding, None, Chain]:
    """Compare what a chain needs with backbone and task, as far as these are given."""
    heading = section(asked)
    methods: list[Method] = [
        plugins.create("method", one, asked.tuning if plugin.role == "tuner" else {})[1]
        for plugin, one in asked.methods
    ]
    roles = [plugin.role for plugin, _ in asked.methods]
    tuner = methods[0] if isinstance(methods[0], Tuner) else None
    decoder = methods[-1] if isinstance(methods[-1], Decoder) else _greedy()
    named = ", then ".join(
        f"the {role} {method.name}" for role, method in zip(roles, methods, strict=True)
    )
    yield Finding(heading, "good", named)
    yield from _needs(heading, asked, methods)
    depth = _depth(looked)
    for method in methods:
        try:
            check_depth(method, depth)
        except UserError as error:
            yield refused(heading, error)
    test = read.splits.get("test", ()) if read else ()
    if "roi" in decoder.needs and test and not any(sample.roi for sample in test):
        what = f"{decoder.name} needs a region, and none of the {len(test)} questions has one"
        yield Finding(heading, "problem", what, "Complete the files that hold the regions.")
    if tuner is None:
        return Chain(None, decoder)
    if tuner.adapter:
        trained = yield from _given(heading, asked, looked, read)
        return Chain(tuner, decoder, trained=trained)
    if read and tuner.epochs is None:
        what = f"{tuner.name} does not know how long to train; {read.task.name} sets no epochs"
        yield Finding(heading, "problem", what, f'Write "{tuner.name}[epochs=N]".')
    providers = yield from check_providers(heading, asked, tuner, looked, read)
    trained = yield from _adapter(heading, asked, tuner, looked, read)
    return Chain(tuner, decoder, providers, trained)


def _greedy() -> Decoder:
    return plugins.create("method", parse("greedy"))[1]


def _depth(looked: Looked | None) -> Depth | None:
    if looked is None:
        return None
    if looked.skeleton is not None:
        return looked.skeleton.depth
    try:
        return looked.checkpoint.depth()
    except UserError:  # said where the backbone is looked at
        return None


def _needs(heading: str, asked: Asked, methods: Sequence[Method]) -> Iterator[Finding]:
    wanted = list(dict.fromkeys(need for method in methods for need in method.needs))
    offers = asked.offers
    lacking = [need for need in wanted if need not in offers]
    if lacking and not (asked.backbone and asked.task):
        what = f"it needs {', '.join(lacking)}: give backbone and task to compare"
        yield Finding(heading, "note", what, "medbench list shows who offers what.")
        return
    where = f"on {asked.request.task} with {asked.request.backbone}"
    for method in methods:
        try:
            require(method.name, method.needs, offers, where)
        except UserError as error:
            yield refused(heading, error)
    if wanted and not lacking:
        yield Finding(heading, "good", f"what it needs is on offer: {', '.join(wanted)}")


def _given(
    heading: str, asked: Asked, looked: Looked | None, read: Read | None
) -> Generator[Finding, None, bool]:
    """Check the adapter that the user names, as a run does."""
    if not _whole(looked, read):
        what = "the adapter given is compared when backbone and data are there"
        yield Finding(heading, "note", what)
        return False
    adapter = yield from _planned(heading, asked)
    if adapter is None:
        return False
    yield Finding(heading, "good", f"adapter given: {adapter.folder}")
    return True


def _adapter(
    heading: str, asked: Asked, tuner: Tuner, looked: Looked | None, read: Read | None
) -> Generator[Finding, None, bool]:
    """Say whether an adapter of the same key is there.

    A key takes hashes of all weights and images, which is done only where there are adapters.
    """
    train = read.splits.get("train", ()) if read else ()
    if asked.backbone is None or asked.task is None or not train:
        return False
    to_train = f"to be trained on {len(train)} questions for {tuner.epochs} epochs"
    root = asked.request.out.expanduser() / "adapters" / asked.task[0].name
    others = list((root / asked.backbone[0].name / tuner.name).glob(f"*/{RECORD}"))
    if not others:
        yield Finding(heading, "good", f"adapter: {to_train}")
        return False
    if not _whole(looked, read):
        return False
    adapter = yield from _planned(heading, asked)
    if adapter is None:
        return False
    if adapter.ready:
        yield Finding(heading, "good", f"adapter of seed 0: trained, in {adapter.folder}")
        return True
    what = f"adapter: {to_train}; the {counted(len(others), 'adapter')} there are of other settings"
    yield Finding(heading, "good", what)
    return False


def _planned(heading: str, asked: Asked) -> Generator[Finding, None, AdapterPlan | None]:
    """Return the adapter that a run would take or train; None if such a run cannot be planned."""
    try:
        return plan(asked.request).adapter
    except UserError as error:
        yield refused(heading, error)
        return None


def _whole(looked: Looked | None, read: Read | None) -> bool:
    return bool(looked and looked.skeleton and read and "test" in read.splits)
