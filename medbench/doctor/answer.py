"""Known answers: tiny models written, loaded and asked here must say what they said elsewhere."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medbench.counting import counted
from medbench.doctor.finding import Finding, one_line, refused, size
from medbench.errors import UserError
from medbench.plugins import Plugin
from medbench.spec import Spec

if TYPE_CHECKING:
    from PIL.Image import Image

    from medbench.cell import Request
    from medbench.decoding.answer import Answer

SECTION = "known answers"
QUESTION = "Describe the image."
TOKENS = 8
# By backbone, the tokens that greedy decoding gives in float32. At every step the best token is
# ahead of the second by 0.03 or more. Another machine's rounding moves a score by 1e-5; one whose
# processor draws the weights otherwise in their last digit, by 0.003.
KNOWN: dict[str, tuple[int, ...]] = {
    "toy": (10, 78, 76, 90, 10, 52, 39, 52),
    "phantom": (20, 6, 62, 46, 68, 33, 6, 40),
    "llava_hf": (20, 6, 62, 46, 68, 33, 6, 40),
    "llava_med": (14, 161, 10, 98, 327, 190, 169, 277),
    "llava_med_1.5": (25, 211, 283, 62, 211, 306, 213, 62),
    "huatuogpt_vision_7b": (158, 183, 10, 88, 185, 2, 106, 127),
}
_FORMATS: dict[str, Literal["llava", "llava_mistral", "llava_qwen2"]] = {
    "llava_med": "llava",
    "llava_med_1.5": "llava_mistral",
    "huatuogpt_vision_7b": "llava_qwen2",
}
_LONGEST = 32


def check_known_answers() -> Iterator[Finding]:
    """Ask each kind of backbone's tiny model the same question, and compare its tokens."""
    good: list[str] = []
    begin = time.perf_counter()
    for name, expected in KNOWN.items():
        try:
            with tempfile.TemporaryDirectory() as folder:
                tokens = tuple(answer_of_tiny(name, Path(folder)).token_ids)
        except UserError as error:
            yield refused(SECTION, error)
            continue
        # Whatever is wrong with a package comes out here.
        except Exception as error:
            what = f"the tiny {name} cannot be asked. {one_line(error)}"
            yield Finding(SECTION, "problem", what, "Install medbench anew, with its packages.")
            continue
        if tokens == expected:
            good.append(name)
            continue
        what = f"the tiny {name} answers {list(tokens)} instead of {list(expected)}"
        do = "Install the versions in constraints.txt; with others, scores may be others too."
        yield Finding(SECTION, "problem", what, do)
    if good:
        seconds = time.perf_counter() - begin
        what = f"as elsewhere, in {seconds:.0f} s: the tiny models of {', '.join(good)}"
        yield Finding(SECTION, "good", what)


def answer_of_tiny(name: str, folder: Path) -> Answer:
    """Return the answer of a kind's tiny model in float32 on the CPU, with the scores it had.

    Args:
        folder: an empty one, where a checkpoint of the kind's own format is written.
    """
    from medbench.decoding.generate import generate
    from medbench.model.load import load_backbone

    backbone = load_backbone(_tiny(name, folder), device="cpu", dtype="float32")
    (answer,) = generate(
        backbone,
        images=[drawn()],
        prompts=[QUESTION],
        max_new_tokens=TOKENS,
        record_scores=TOKENS,
    )
    return answer


def drawn() -> Image:
    """Return an image made by arithmetic alone, which no version of a library draws otherwise."""
    from PIL import Image

    width, height = 48, 36
    shades = bytes(
        (7 * x + 5 * (band + 1) * y + (3 - band) * x * y) % 256
        for y in range(height)
        for x in range(width)
        for band in range(3)
    )
    return Image.frombytes("RGB", (width, height), shades)


def ask_for_real(plugin: Plugin, spec: Spec, request: Request) -> Iterator[Finding]:
    """Load a backbone with its weights, as a run does, and tell what it answers.

    There is nothing to compare it with: weights, device and type are the user's own.
    """
    import torch

    from medbench.decoding.generate import generate
    from medbench.loading import load_task
    from medbench.model.load import load_backbone, resolve_device

    heading = f"backbone {plugin.name}"
    sample = next(iter(load_task("phantom").samples("test")))
    assert isinstance(sample.image, Callable)
    try:
        device, dtype = resolve_device(request.device, request.dtype)
        begin = time.perf_counter()
        backbone = load_backbone(str(spec), device=device, dtype=dtype)
        loaded = time.perf_counter()
        (answer,) = generate(
            backbone,
            images=[sample.image()],
            prompts=[sample.question],
            max_new_tokens=_LONGEST,
        )
    except UserError as error:
        yield refused(heading, error)
        return
    end = time.perf_counter()
    if device.startswith("cuda"):
        memory = f"{size(torch.cuda.max_memory_allocated(device))} on {device}"
    else:
        memory = f"{size(_most_memory())} of main memory"
    what = (
        f"asked of a drawn image {sample.question!r}, it answers {answer.text!r} in {dtype}: "
        f"loaded in {loaded - begin:.1f} s, {counted(len(answer.token_ids), 'token')} in "
        f"{end - loaded:.1f} s, at most {memory}; there is nothing to compare this with"
    )
    yield Finding(heading, "good", what)


def _tiny(name: str, folder: Path) -> str:
    """Return the spec of a kind's tiny model, written into a folder if it does not ship."""
    if name == "llava_hf":
        import medbench.phantom

        shipped = Path(medbench.phantom.__file__).with_name("weights")
        return str(Spec(name, (("weights", str(shipped)),)))
    if name not in _FORMATS:
        return name
    from medbench.model.tiny_original import TOWERS, write_tiny

    checkpoint = write_tiny(_FORMATS[name], folder)
    tower = TOWERS[_FORMATS[name]]
    # The others find the tower within the checkpoint.
    given = () if (checkpoint / tower).is_dir() else (("vision", str(folder / tower)),)
    return str(Spec(name, (("weights", str(checkpoint)), *given)))


def _most_memory() -> int:
    """Return the most bytes of main memory that this process has held."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().rss)
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
