"""Runs in a process of its own: answers what an engine is asked, one request after the other.

This file is sent to the other interpreter as text; only there does it find medbench, by the folder
that it is told, and nothing else of that folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

REFUSED, FAILED, DONE = "refused", "failed", "done"
_LOOK_SECONDS = 1.0


def serve(channel: Any) -> None:
    """Answer (request, arguments) pairs until the channel is closed.

    Requests: "describe" (module, settings), "load" (module, settings, device), "values" (texts).
    """
    log, environment = channel.receive()
    os.environ.update(environment)
    _say_nothing(log)
    if hasattr(os, "setsid"):
        # Of the terminal's signals only the asking process hears, and ends this one.
        os.setsid()
        threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    channel.send(os.getpid())
    _find(channel.receive())
    loaded: Any = None
    for request, arguments in channel:
        try:
            if request == "values":
                answer = loaded([tuple(text) for text in arguments[0]])
            else:
                module = importlib.import_module(arguments[0])
                answer = getattr(module, request)(*arguments[1:])
            if request == "load":
                loaded, answer = answer, None
            channel.send((DONE, answer))
        except Exception as error:
            channel.send(_told(error))


def _follow(parent: int) -> None:
    """End this process and all that it started, Java too, once the asking process is gone."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _told(error: Exception) -> tuple[str, ...]:
    from medbench.errors import UnavailableError, UserError

    if isinstance(error, UserError):
        kind = "unavailable" if isinstance(error, UnavailableError) else "user"
        return (REFUSED, kind, error.what, error.why, error.do)
    return (FAILED, type(error).__name__, str(error), traceback.format_exc())


def _say_nothing(log: str) -> None:
    """Send to a file what packages print, below Python too: Java and native code print as well."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _find(package: str) -> None:
    """Make `import medbench` find the asking process's medbench, and nothing beside it."""
    spec = importlib.util.spec_from_file_location(
        "medbench", f"{package}/__init__.py", submodule_search_locations=[package]
    )
    assert spec is not None and spec.loader is not None, "a package's file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules["medbench"] = module
    spec.loader.exec_module(module)


if __name__ == "__channelexec__":
    serve(globals()["channel"])
