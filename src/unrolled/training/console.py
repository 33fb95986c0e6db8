"""Where the text of a run goes: a terminal that can draw, or a log that keeps every byte."""

import os
import sys

from rich import get_console


def draws() -> bool:
    """Whether standard output is a terminal (or a notebook) that takes colours and moving bars.

    A file, a pipe, a cluster's log and TERM=dumb are not, even where FORCE_COLOR tells rich otherwise.
    """
    if get_console().is_jupyter:
        return True
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
