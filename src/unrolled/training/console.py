"""Where the text of a run goes: a terminal that can draw, or a log that keeps every byte."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich import get_console
from rich.console import Console
from rich.progress import track
from rich.text import Text

T = TypeVar("T")


def draws() -> bool:
    """Whether standard output is a terminal (or a notebook) that takes colours and moving bars.

    A file, a pipe, a cluster's log and TERM=dumb are not, even where FORCE_COLOR tells rich otherwise.
    """
    if get_console().is_jupyter:
        return True
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def print_rows(*rows: tuple[str, str]) -> None:
    """Names and values in two columns; long values are left to the terminal, so that a command can be copied whole."""
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        console.print(Text.assemble((name.ljust(width), "bold"), value))


def waiting(items: Sequence[T], doing: str) -> Iterable[T]:
    """The same items, with a bar of how many are done and how long the rest takes, where a bar can be drawn."""
    return track(items, doing, transient=True, disable=not draws())
