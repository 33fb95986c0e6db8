"""Where the text of a run goes: a terminal that can draw, or a log that keeps every byte."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich import get_console
from rich.progress import track

T = TypeVar("T")


def draws() -> bool:
    """Whether standard output is a terminal (or a notebook) that takes colours and moving bars.

    A file, a pipe, a cluster's log and TERM=dumb are not, even where FORCE_COLOR tells rich otherwise.
    """
    if get_console().is_jupyter:
        return True
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def waiting(items: Sequence[T], doing: str) -> Iterable[T]:
    """The same items, with a bar of how many are done and how long the rest takes, where a bar can be drawn."""
    return track(items, doing, transient=True, disable=not draws())
