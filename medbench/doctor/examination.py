"""The whole examination, one part after the other; none of them keeps the next from its turn."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeVar

from medbench import plugins, supervise
from medbench.backbone import Checkpoint
from medbench.doctor.answer import SECTION as ANSWERS
from medbench.doctor.answer import ask_for_real, check_known_answers
from medbench.doctor.asked import Asked
from medbench.doctor.backbone import check_backbone
from medbench.doctor.backbone import section as of_backbone
from medbench.doctor.fetch import SECTION as FETCHING
from medbench.doctor.fetch import fetch_checkpoint, fetch_provider
from medbench.doctor.finding import Finding, one_line, refused
from medbench.doctor.machine import check_machine, check_plugins
from medbench.doctor.method import check_method
from medbench.doctor.method import section as of_method
from medbench.doctor.metrics import HEADING as METRICS
from medbench.doctor.metrics import check_metrics, fetch_metrics
from medbench.doctor.packages import check_packages
from medbench.doctor.room import check_room
from medbench.doctor.task import check_task
from medbench.doctor.task import section as of_task
from medbench.doctor.torches import check_torch
from medbench.errors import UserError
from medbench.metric import Setting
from medbench.model.load import resolve_device

T = TypeVar("T")


def examine(asked: Asked, *, fetch: bool = False, answer: bool = False) -> Iterator[Finding]:
    """Yield what is found out about an installation and what was asked about, as it is found.

    Args:
        fetch: download what the specs name of the hub and is not here.
        answer: load the backbone with its weights and ask it something.
    """
    yield from _guarded("installation", check_packages())
    yield from _guarded("installation", check_torch())
    yield from _guarded("machine", check_machine(asked.request.out))
    yield from _guarded("machine", check_plugins())
    if fetch:
        yield from _guarded(FETCHING, _fetch(asked))
    looked = read = chain = None
    if asked.backbone is not None:
        plugin, spec = asked.backbone
        looked = yield from _guarded(of_backbone(plugin), check_backbone(plugin, spec))
    if asked.task is not None:
        plugin, spec = asked.task
        trains = any(one.role == "tuner" for one, _ in asked.methods)
        splits = ("train", "test") if trains else ("test",)
        checked = check_task(plugin, spec, data=asked.request.data, splits=splits)
        read = yield from _guarded(of_task(plugin), checked)
    if asked.metrics:
        device, _ = resolve_device(asked.request.device, "auto")
        checked = check_metrics(asked.metrics, Setting(device, asked.python))
        yield from _guarded(METRICS, checked)
    if asked.methods:
        checked = check_method(asked, looked, read)
        chain = yield from _guarded(of_method(asked), checked, withheld=_is_restricted(asked))
    if looked and looked.skeleton:
        room = check_room(asked, looked, read, chain)
        yield from _guarded("memory and disk", room, withheld=_is_restricted(asked))
        if answer and asked.backbone is not None:
            real = ask_for_real(*asked.backbone, asked.request)
            yield from _guarded(of_backbone(asked.backbone[0]), real)
    yield from _guarded(ANSWERS, check_known_answers())


def _fetch(asked: Asked) -> Iterator[Finding]:
    if asked.backbone is not None:
        checkpoint: Checkpoint = plugins.create("backbone", asked.backbone[1])[1]
        yield from fetch_checkpoint(checkpoint)
    attributes = asked.task[0].attributes if asked.task else {}
    for plugin, spec in asked.methods:
        if plugin.role == "tuner":
            tuner = plugins.create("method", spec, asked.tuning)[1]
            for parameter in tuner.supervised():
                _, provider = supervise.create_one(getattr(tuner, parameter), attributes)
                yield from fetch_provider(provider)
    yield from fetch_metrics([*asked.metrics, *attributes.get("metrics", ())])


def _is_restricted(asked: Asked) -> bool:
    return asked.task is not None and bool(asked.task[0].attributes.get("restricted"))


def _guarded(
    section: str, part: Generator[Finding, None, T] | Iterator[Finding], *, withheld: bool = False
) -> Generator[Finding, None, T | None]:
    """Turn what goes wrong in a part into a finding; return what the part returns.

    Args:
        withheld: whether the words of an unexpected error may tell of a restricted task's data.
    """
    try:
        return (yield from part)  # pyright: ignore[reportReturnType]
    except UserError as error:
        yield refused(section, error)
    except Exception as error:
        why = type(error).__name__ if withheld else one_line(error)
        what = f"this could not be looked at. {why}"
        yield Finding(section, "problem", what, "It may be a fault of medbench: report this line.")
    return None
