"""Room: what a run will take of memory and disk, against what is free."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medbench.backbone import LargeCheckpoint
from medbench.cell import EXACT_BATCH, SAFE_BATCH
from medbench.doctor import estimate
from medbench.doctor.asked import Asked
from medbench.doctor.backbone import Looked
from medbench.doctor.finding import Finding, one_line, refused, size
from medbench.doctor.lengths import longest_example, longest_prompt, rows_of
from medbench.doctor.machine import existing, free_memory
from medbench.doctor.method import Chain
from medbench.doctor.task import Read
from medbench.errors import UserError
from medbench.method import Decoder, Tuner
from medbench.task import Task

if TYPE_CHECKING:
    from medbench.model.llava import Backbone

_SECTION = "memory and disk"
# Weak labels, or an expert's view, of one picture.
_TARGET_BYTES = 512 * 2**10


@dataclass(frozen=True)
class _Place:
    """Where a model is to lie: a device and type, what is free there, and its name in words."""

    device: str
    dtype: str
    free: int
    name: str


def check_room(
    asked: Asked, looked: Looked, read: Read | None, chain: Chain | None
) -> Iterator[Finding]:
    """Estimate what answering and training take, and compare it with what is free.

    The estimates are upper ones (`medbench.doctor.estimate`). It is a problem where what is sure
    to be taken does not fit, and a note where only all of it does not.
    """
    skeleton = looked.skeleton
    assert skeleton is not None
    try:
        place = _place(asked, looked)
    except UserError as error:
        yield refused(_SECTION, error)
        return
    if place is None:
        yield Finding(_SECTION, "note", "how much memory is free is not known: psutil is missing")
        return
    import torch

    four_bits = getattr(looked.checkpoint, "quantize", "none") == "4bit"
    model = estimate.sizes(skeleton, getattr(torch, place.dtype), four_bits=four_bits)
    trained = 0
    if chain and chain.tuner:
        trained = yield from _count_trained(skeleton, chain.tuner)
    training = chain is not None and chain.tuner is not None and not chain.trained
    if chain and chain.tuner and training:
        yield _training(place, model, skeleton, tuner=chain.tuner, trained=trained, read=read)
    decoder = chain.decoder if chain else Decoder()
    yield _answering(place, model, asked, looked, decoder=decoder, trained=trained, read=read)
    if read:
        yield _disk(asked, read, chain, trained if training else 0)


def _place(asked: Asked, looked: Looked) -> _Place | None:
    """Return where the model goes.

    Raises:
        UserError: there is no such device.
    """
    import torch

    from medbench.model.load import resolve_device

    device, dtype = resolve_device(asked.request.device, asked.request.dtype)
    memory = free_memory()
    if not device.startswith("cuda"):
        return None if memory is None else _Place(device, dtype, memory, "in main memory")
    if getattr(looked.checkpoint, "device_map", "none") == "none":
        free = torch.cuda.mem_get_info(device)[0]
        return _Place(device, dtype, free, f"on {device}")
    cards = [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]
    return _Place(device, dtype, sum(cards) + (memory or 0), "on all cards and in main memory")


def _count_trained(skeleton: Backbone, tuner: Tuner) -> Generator[Finding, None, int]:
    """Return how many weights a tuner trains, counted on the model without values."""
    from medbench.tuning.adapter import attached

    try:
        with attached(skeleton, tuner) as adapter:
            return sum(weight.nelement() for weight in adapter.trainable().values())
    except UserError as error:
        yield refused(_SECTION, error)
    except Exception as error:  # a tuner's own parts need not work without values
        what = f"the weights that {tuner.name} trains cannot be counted. {one_line(error)}"
        yield Finding(_SECTION, "note", what)
    return 0


def _answering(
    place: _Place,
    model: estimate.Sizes,
    asked: Asked,
    looked: Looked,
    *,
    decoder: Decoder,
    trained: int,
    read: Read | None,
) -> Finding:
    from medbench.images import LIMIT_BYTES

    assert looked.skeleton is not None
    usual = EXACT_BATCH if place.dtype == "float32" else SAFE_BATCH
    asked_for = asked.request.batch_size or usual
    batch = 1 if decoder.schedule else asked_for
    each = rows_of(decoder)
    new = read.task.max_new_tokens if read else Task.max_new_tokens
    test = read.splits.get("test", ()) if read else ()
    prompt = longest_prompt(looked.skeleton, read.task if read else None, test)
    fixed = model.weights + 4 * trained

    def whole(samples: int) -> float:
        rows = each * samples
        return (
            fixed
            + LIMIT_BYTES
            + estimate.cache_bytes(model, rows=rows, prompt=prompt, new=new)
            + estimate.answer_bytes(model, rows=rows, prompt=prompt)
        )

    rows = each * batch
    cache = estimate.cache_bytes(model, rows=rows, prompt=prompt, new=new)
    what = (
        f"answering in {place.dtype}: weights {size(fixed)}; keys and values {size(cache)} "
        f"({batch} x {each} rows of {prompt} + {new} tokens); with images and one pass at most "
        f"{size(whole(batch))}"
    )
    if each == 1 and decoder.extra_memory != "none":
        what += f", without {decoder.name}'s {decoder.extra_memory}"
    sure = fixed + estimate.cache_bytes(model, rows=rows, prompt=prompt, new=0)
    fitting = next((count for count in range(batch, 0, -1) if whole(count) <= place.free), 0)
    fewer = f"--batch-size {fitting}" if 0 < fitting < batch else ""
    return _verdict(what, sure, whole(batch), place, fewer or _smaller(place, looked))


def _training(
    place: _Place,
    model: estimate.Sizes,
    skeleton: Backbone,
    *,
    tuner: Tuner,
    trained: int,
    read: Read | None,
) -> Finding:
    from medbench.images import LIMIT_BYTES

    train = read.splits.get("train", ()) if read else ()
    length, answer = longest_example(skeleton, read.task if read else None, train)
    fixed = model.weights + estimate.TRAINED_BYTES * trained

    def whole(rows: int, checkpointing: bool) -> float:
        kept = estimate.training_bytes(
            model,
            rows=rows,
            length=length,
            answer=answer,
            rank=tuner.rank,
            checkpointing=checkpointing,
        )
        return fixed + LIMIT_BYTES + kept

    asked_for = tuner.micro_batch, tuner.gradient_checkpointing
    what = (
        f"training: {trained:,} weights; frozen and trained weights, gradients and optimiser "
        f"{size(fixed)}; with images and {tuner.micro_batch} samples of {length} tokens about "
        f"{size(whole(*asked_for))}, without what losses on attention keep"
    )
    smaller = [
        (rows, checkpointing)
        for checkpointing in (tuner.gradient_checkpointing, True)
        for rows in range(tuner.micro_batch, 0, -1)
        if whole(rows, checkpointing) <= place.free
    ]
    do = "Take a device with more memory."
    if smaller:
        rows, checkpointing = smaller[0]
        also = ",gradient_checkpointing=true" if checkpointing else ""
        do = f'Write "{tuner.name}[micro_batch={rows}{also}]".'
    return _verdict(what, fixed, whole(*asked_for), place, do)


def _verdict(what: str, sure: float, whole: float, place: _Place, do: str) -> Finding:
    what += f"; {size(place.free)} free {place.name}"
    if whole <= place.free:
        return Finding(_SECTION, "good", what)
    if sure <= place.free:
        return Finding(_SECTION, "note", f"{what}: it may not fit", do)
    return Finding(_SECTION, "problem", f"{what}: it does not fit", do)


def _smaller(place: _Place, looked: Looked) -> str:
    """Return what makes a model smaller or gives it more room."""
    ways: list[str] = []
    if place.dtype == "float32":
        ways.append("--dtype bfloat16")
    if isinstance(looked.checkpoint, LargeCheckpoint):
        named = looked.checkpoint.name
        if looked.checkpoint.quantize == "none" and place.device.startswith("cuda"):
            ways.append(f'"{named}[quantize=4bit]"')
        if looked.checkpoint.device_map == "none" and place.device.startswith("cuda"):
            ways.append(f'"{named}[device_map=auto]"')
    return f"Take {', or '.join([*ways, 'a device with more memory'])}."


def _disk(asked: Asked, read: Read, chain: Chain | None, trained: int) -> Finding:
    """Compare what a run writes with what is free where results go."""
    from medbench.expert.settings import ClipExpert
    from medbench.labels.settings import Ranking

    test, train = (read.splits.get(split, ()) for split in ("test", "train"))
    computed = sum(
        isinstance(provider, Ranking | ClipExpert)
        for provider in (chain.providers.values() if chain else ())
    )
    parts = {
        "answers": estimate.rows_bytes(len(test), new=read.task.max_new_tokens),
        "the adapter while it trains": estimate.adapter_bytes(trained),
        "targets": computed * _TARGET_BYTES * len({sample.group for sample in train}),
    }
    whole = sum(parts.values())
    free = shutil.disk_usage(existing(asked.request.out)).free
    named = ", ".join(f"{name} {size(part)}" for name, part in parts.items() if part)
    what = f"disk: at most {size(whole)}{f' ({named})' if named else ''}, {size(free)} free"
    if whole <= free:
        return Finding(_SECTION, "good", what)
    return Finding(_SECTION, "problem", what, "Make room, or take another disk: --out DIR")
