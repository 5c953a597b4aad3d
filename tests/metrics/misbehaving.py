"""An engine that does whatever a text tells it to: sleeps, dies, raises, prints, forgets."""

import os
import subprocess
import sys
import time
from pathlib import Path

from medbench.errors import UnavailableError, UserError


def describe(settings):
    if settings.get("lacks"):
        raise UnavailableError("it lacks something", "It is not here.", "Get it.")
    return {"version": settings.get("version", 1)}


def load(settings, device):
    if settings.get("dies_loading"):
        os._exit(9)

    def write(line):
        with Path(settings["log"]).open("a") as log:
            log.write(f"{line}\n")

    write(f"loaded {os.getpid()} {device}")

    def values(texts):
        write("\t".join(["asked", *("|".join(text) for text in texts)]))
        return [value for text in texts if (value := answer(text)) is not Ellipsis]

    def answer(text):
        first = text[0]
        if first == "start":
            write(f"started {subprocess.Popen(['sleep', '600']).pid}")
        if first in ("sleep", "start"):
            time.sleep(600)
        if first == "die":
            os._exit(1)
        if first == "raise":
            raise ValueError("no such thing")
        if first == "refuse":
            raise UserError("this text is refused", "It is so.", "Take another.")
        if first == "forget":
            return ...
        if first == "print":
            sys.stderr.write("from Python\n")
            os.write(1, b"from below Python\n")
        return {"length": len(first), "python": sys.executable}

    return values
