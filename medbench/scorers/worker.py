"""Another process, maybe of another Python, that is asked for values and can be given up.

So a package that hangs, eats all memory, prints or changes other packages does so elsewhere, and a
metric can be computed by an interpreter that has its packages where this one has not.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import medbench
from medbench.errors import UnavailableError, UserError
from medbench.scorers import remote

# Loading a model from a slow disk, and importing its packages for the first time.
_START_SECONDS, LOAD_SECONDS = 120.0, 1800.0
# For its pipes to be closed once it is gone, on a machine that is busy.
_END_SECONDS = 10.0
_OLDEST = (3, 11)
# What is not on this machine is not fetched on the way, and tokenizers start no threads of theirs.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class GaveUpError(Exception):
    """A request took too long, or the process ended over it."""


class FailedError(Exception):
    """A request raised something that is no user's mistake.

    Attributes:
        kind: name of the exception's class.
        trace: its traceback.
    """

    def __init__(self, kind: str, message: str, trace: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.trace = trace


class Worker:
    """A process that answers requests, one after the other (`medbench.scorers.remote`).

    Args:
        python: its interpreter; "" for this one.

    Raises:
        UserError: the interpreter cannot be started, or is too old.
    """

    def __init__(self, python: str = "") -> None:
        import execnet

        self.python = find_python(python)
        self._group = execnet.Group()
        self._log = tempfile.NamedTemporaryFile(prefix="medbench-", suffix=".log")  # noqa: SIM115
        self._process = 0
        try:
            gateway = self._group.makegateway(f"popen//python={_quoted(self.python)}")
            self._channel = gateway.remote_exec(remote)
            self._channel.send((self._log.name, _ENVIRONMENT))
            self._process = self._channel.receive(_START_SECONDS)
        except (OSError, EOFError, execnet.HostNotFound, self._timeout()) as error:
            self.close()
            raise _no_start(self.python, f"{type(error).__name__}: {error}") from error
        self._channel.send(os.fspath(Path(medbench.__file__).resolve().parent))

    def ask(self, request: str, *arguments: Any, seconds: float) -> Any:
        """Return the answer to a request; the process is gone when this raises GaveUpError.

        Raises:
            UserError: the engine refuses, in its own words.
            FailedError: anything else went wrong in it.
            GaveUpError: no answer came in time, or the process ended.
        """
        import execnet

        try:
            self._channel.send((request, arguments))
            state, *answer = self._channel.receive(seconds)
        except (OSError, EOFError, execnet.RemoteError, self._timeout()) as error:
            why = "took too long" if isinstance(error, self._timeout()) else "ended"
            self.close()
            raise GaveUpError(why) from error
        except BaseException:  # an interrupt must not leave it at work
            self.close()
            raise
        if state == remote.REFUSED:
            kind, *lines = answer
            raise (UnavailableError if kind == "unavailable" else UserError)(*lines)
        if state == remote.FAILED:
            raise FailedError(*answer)
        return answer[0]

    def close(self) -> None:
        """End the process and all that it started."""
        if self._process and hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process, signal.SIGKILL)
            self._process = 0
        self._group.terminate(timeout=_END_SECONDS)
        self._log.close()

    def __enter__(self) -> Worker:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the process."""
        self.close()

    @staticmethod
    def _timeout() -> type[Exception]:
        from execnet.gateway_base import TimeoutError as Timeout

        return Timeout


def find_python(python: str) -> str:
    """Return the path of an interpreter, given as a path or as a name to look up.

    Raises:
        UserError: there is no such program, it is no Python, or it is too old.
    """
    if not python:
        return sys.executable
    found = shutil.which(Path(python).expanduser())
    if found is None:
        raise UserError(
            f"no Python at {python}",
            "It is no program that can be run.",
            "Name the program, such as /path/to/venv/bin/python.",
        )
    path = os.path.abspath(found)  # noqa: PTH100 (a virtual environment's is a link: not followed)
    version = _version(path)
    if version < _OLDEST:
        raise UserError(
            f"{path} is a Python {'.'.join(map(str, version))}",
            f"medbench's part of the work needs {'.'.join(map(str, _OLDEST))} or newer.",
            "Make an environment of a newer Python for it.",
        )
    return path


def _version(path: str) -> tuple[int, ...]:
    """Return the version that an interpreter says it has."""
    command = [path, "-c", "import sys; print(*sys.version_info[:3])"]
    try:
        said = subprocess.run(
            command,
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=_START_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _no_start(path, str(error)) from error
    numbers = said.stdout.split()
    if len(numbers) != 3 or not all(map(bytes.isdigit, numbers)):
        raise _no_start(path, "It does not say which version of Python it is.")
    return tuple(map(int, numbers))


def _no_start(path: str, why: str) -> UserError:
    return UserError(
        f"{path} does not start as a Python",
        why.splitlines()[0],
        "Name the program, such as /path/to/venv/bin/python.",
    )


def _quoted(path: str) -> str:
    import shlex

    return path if os.name == "nt" else shlex.quote(path)
