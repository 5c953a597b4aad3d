"""Several processes that train one adapter together, as accelerate or torchrun starts them.

    accelerate launch -m medbench run --method a3tune ...

The leading process holds the locks, labels, writes the files, shows progress, and answers; the
others take their shares of the training steps and end. Gradients are summed here and not by a
wrapper around the model (DistributedDataParallel): hooks on projections, arguments that reach into
attention, steps in which a process has no sample, and weights that no loss reaches would each be a
special case there; once the backward passes are through, none of them is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from medbench.errors import ToldError, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
# The others wait while the first one labels a data set, or answers between two trainings.
_PATIENCE = timedelta(days=60)
# Gradients travel in pieces of about this many values: few messages, and little held twice.
_PIECE = 2**24


@dataclass(frozen=True)
class Team:
    """The processes of one command; by default this one alone.

    Everything that tells or asks is to be called by all of them in the same order.

    Attributes:
        index: of this process, from 0, the leading one; count: of all.
        cpu: whether they run on CPUs.
    """

    index: int = 0
    count: int = 1
    cpu: bool = True

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes, shows and answers."""
        return not self.index

    def share(self, items: Sequence[T]) -> list[T]:
        """Return this process's part; with more processes than items some have nothing."""
        return list(items[self.index :: self.count])

    def exchange(self, compute: Callable[[], T]) -> list[T]:
        """Run a function in every process; return what all of them returned, in their order.

        Raises:
            UserError: it failed in one of them; then it is raised in all.
        """
        if self.count == 1:
            return [compute()]
        among = self._join()
        sent: tuple[T | None, tuple[str, str, str] | None]
        raised = None
        try:
            sent = (compute(), None)
        except Exception as error:
            raised, sent = error, (None, self._words(error))
        found = cast("list[tuple[T, Any]]", among.gather_object([sent]))
        failed = next((words for _, words in found if words), None)
        if failed is None:
            return [value for value, _ in found]
        if raised is not None and not isinstance(raised, UserError):
            raise raised
        # One of them is enough to tell the user.
        raise (UserError if self.leads else ToldError)(*failed) from raised

    def together(self, compute: Callable[[], T]) -> T:
        """Run a function in every process and return this one's result, which stays here."""
        made: list[T] = []
        self.exchange(lambda: made.append(compute()))
        return made[0]

    def first(self, compute: Callable[[], T]) -> T:
        """Run a function in the leading process, then in the others: they find its files."""
        if self.count == 1:
            return compute()
        made: list[T] = []
        self.exchange(lambda: made.append(compute()) if self.leads else None)
        return made[0] if made else compute()

    @contextmanager
    def telling(self) -> Generator[Callable[[bool], None]]:
        """Yield what tells the others whether there is something to do; for the leading process.

        Where the block ends and has told them nothing, they hear "no"; where it fails before, they
        fail as well.
        """
        told = False

        def tell(what: bool) -> None:
            nonlocal told
            told = True
            self.exchange(lambda: what)

        def fail(error: Exception) -> bool:
            raise error

        try:
            yield tell
        except Exception as error:
            if not told:
                self.exchange(lambda error=error: fail(error))
            raise
        if not told:
            tell(False)

    def hear(self) -> bool:
        """Return what the leading process tells."""
        return self.exchange(lambda: False)[0]

    def copy(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the values of the leading one."""
        if self.count == 1:
            return
        among = self._join()
        for tensor in tensors:
            tensor.copy_(among.broadcast(tensor))

    def add_up(self, weights: Sequence[nn.Parameter], reached: Sequence[bool]) -> None:
        """Give every process the sum of all gradients.

        Args:
            reached: which weights have a gradient in any process; the others keep none, as they
                would in a single process.
        """
        if self.count == 1:
            return
        import torch

        among = self._join()
        touched = [weight for weight, one in zip(weights, reached, strict=True) if one]
        for piece in _pieces(touched):
            flat = torch.cat([_gradient(weight).flatten() for weight in piece])
            summed = cast("Tensor", among.reduce(flat, "sum"))
            parts = summed.split([weight.nelement() for weight in piece])
            for weight, part in zip(piece, parts, strict=True):
                weight.grad = part.view_as(weight)

    def _join(self) -> Any:
        """Find the other processes; return accelerate's operations among them."""
        from accelerate import PartialState, utils  # pyright: ignore[reportMissingTypeStubs]

        # Not an Accelerator: nothing is wrapped. The state belongs to accelerate, and is made once.
        PartialState(cpu=self.cpu, timeout=_PATIENCE)
        return utils

    def _words(self, error: Exception) -> tuple[str, str, str]:
        if isinstance(error, UserError):
            return error.what, error.why, error.do
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return f"process {self.index} of {self.count} failed", reason, "It says more itself."


def team(device: str) -> Team:
    """Return the processes that were started together, to train on such a device."""
    return Team(_number("RANK", 0), count(), cpu=not device.startswith("cuda"))


def count() -> int:
    """Return how many processes were started together; 1 where no launcher was."""
    launched = all(name in os.environ for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"))
    return max(1, _number("WORLD_SIZE", 1)) if launched else 1


def leads() -> bool:
    """Say whether this is the process that writes and shows; the only one mostly is."""
    return count() == 1 or not _number("RANK", 0)


def local_index() -> int:
    """Return the place of this process among those of its machine."""
    return _number("LOCAL_RANK", 0)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def _gradient(weight: nn.Parameter) -> Tensor:
    import torch

    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _pieces(weights: Sequence[nn.Parameter]) -> Generator[list[nn.Parameter]]:
    piece: list[nn.Parameter] = []
    for weight in weights:
        piece.append(weight)
        if sum(one.nelement() for one in piece) >= _PIECE:
            yield piece
            piece = []
    if piece:
        yield piece
