"""Restricted tasks: what of their samples an error may tell, and folders that hold some of them.

Such a task's texts, image paths and ids stay out of messages. There a sample is called by where it
stands in its split: `test[17]` is the one that its user finds as

    list(medbench.load_task("mimic_cxr", data=DIR).samples("test"))[17]
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from medbench.errors import ToldError, UnavailableError, UserError
from medbench.task import Sample, Task

# Shorter ids would be taken for other words and numbers of a message; they tell of nobody.
_SHORTEST = 4
# How messages quote what Python or a library said, which may be anything.
_QUOTED = re.compile(r"(\w+): .*", re.DOTALL)
_IGNORED = "# Made from a restricted task's data: to be shared under their licence only.\n*\n"


class WithheldError(RuntimeError):
    """Stands for an unexpected error whose words may tell of a restricted task's data."""


def read_split(task: Task, split: str) -> list[Sample]:
    """Return a split's samples in the files' order; restricted ones know their alias.

    Raises:
        UserError: the files cannot be read; tells nothing of a restricted task's data.
    """
    samples: list[Sample] = []
    with withholding(task, samples):
        samples += _numbered(task, split, task.samples(split))
    return samples


def _numbered(task: Task, split: str, samples: Iterable[Sample]) -> Iterator[Sample]:
    """Yield a split's samples, given in the files' order; restricted ones learn their alias."""
    for number, sample in enumerate(samples):
        yield replace(sample, alias=f"{split}[{number}]") if task.restricted else sample


@contextmanager
def withholding(task: Task, samples: Collection[Sample]) -> Generator[None]:
    """Keep a restricted task's data out of the errors that leave the block; leave others alone.

    A `UserError` loses paths and ids of samples, and what libraries said, and any cause that could
    be printed with it. Of any other error the type and the places in the source remain.

    Args:
        samples: those that the block may be about; looked at only when it fails.
    """
    try:
        yield
    except WithheldError:
        raise
    except Exception as error:
        if not task.restricted:
            raise
        told = _veiled(error, task, samples)
        raise told.with_traceback(error.__traceback__) from None


@contextmanager
def withholding_words(what: str, *, restricted: bool) -> Generator[None]:
    """Keep all words of errors that leave the block, where no samples are at hand to look for.

    Args:
        what: what went wrong, told in place of them.
        restricted: whether the block is about a restricted task's data; else errors pass.
    """
    try:
        yield
    except UnavailableError:  # about this machine alone
        raise
    except Exception as error:
        if not restricted:
            raise
        told = UserError(
            what,
            f"{type(error).__name__}; its words are withheld, since the task is restricted.",
            "Look at the same with a task that is not, or at this run's samples.jsonl.",
        )
        raise told.with_traceback(error.__traceback__) from None


def check_texts(folder: Path, *, withheld: bool, what: str) -> None:
    """Make sure that a run holds its texts: an export of a restricted task's run may not.

    Args:
        folder: of the run.
        withheld: what its run.json says of that.
        what: what needs them, such as "rescore".

    Raises:
        UserError: it does not.
    """
    if withheld:
        raise UserError(
            f"{what} needs texts, and {folder} has none",
            "They were withheld when the run was exported, since its task is restricted.",
            "Do it where the run was made, or ask there for an export with --show-restricted.",
        )


def make_private(folder: Path) -> None:
    """Make a folder that others may not enter and that git leaves out, unless it is there.

    One that is there stays as it is, since its owner may have opened it to others.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / ".gitignore").write_text(_IGNORED, encoding="utf-8")


def _veiled(error: Exception, task: Task, samples: Collection[Sample]) -> Exception:
    because = f"its words are withheld, since {task.name} is restricted"
    if not isinstance(error, UserError):
        return WithheldError(f"{type(error).__name__}; {because}")
    lines = [_without_paths(line, samples) for line in (error.what, error.why, error.do)]
    what, why, do = (_without_ids(line, samples) for line in lines)
    quoted = _QUOTED.fullmatch(why)
    if quoted:
        why = f"{quoted[1]}; {because}."
    return (ToldError if isinstance(error, ToldError) else UserError)(what, why, do)


def _without_paths(line: str, samples: Collection[Sample]) -> str:
    """Cut a line off where it names a sample's file: what follows may be a name beside it."""
    aliases = {str(path): one.alias for one in samples for path in _files(one)}
    named = max((path for path in aliases if path in line), key=len, default=None)
    if named is None:
        return line
    return f"{line.partition(named)[0]}(a file of sample {aliases[named]})"


def _without_ids(line: str, samples: Collection[Sample]) -> str:
    aliases: dict[str, str] = {}
    for sample in samples:
        for name in (sample.id, str(sample.meta.get("native_id", ""))):
            if len(name) >= _SHORTEST and name in line:
                aliases.setdefault(name, sample.alias)
    if not aliases:
        return line
    longest_first = sorted(aliases, key=len, reverse=True)
    either = "|".join(map(re.escape, longest_first))
    return re.sub(rf"(?<![\w-])(?:{either})(?![\w-])", lambda found: aliases[found[0]], line)


def _files(sample: Sample) -> list[Path]:
    image = [sample.image] if isinstance(sample.image, Path) else []
    return [*image, *sample.roi_files]
