"""Where the text of a run goes: a terminal that can draw, or a log that keeps every byte."""

import logging
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_only
from rich import get_console
from rich.console import Console
from rich.progress import track
from rich.text import Text

T = TypeVar("T")

_log = logging.getLogger(__name__)


def draws() -> bool:
    """Whether standard output is a terminal (or a notebook) that takes colors and moving bars.

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


def from_here(path: str | Path) -> str:
    """A path relative to the working directory if it lies below, or else an absolute one."""
    absolute, here = Path(path).resolve(), Path.cwd().resolve()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def shown(path: str | Path) -> str:
    """A path as one would type it from here."""
    return shlex.quote(from_here(path))


def piped(line: str) -> str:
    """The beginning of a pipe that this line of text goes into."""
    changed = "\\" in line or line.startswith("-")  # by some shells' echo
    return " ".join(["printf '%s\\n'" if changed else "echo", shlex.quote(line)])


def leave_out(callback: Callback, why: str) -> None:
    """Says that a callback does nothing in this run."""
    rank_zero_only(_log.warning)("%s is left out: %s", type(callback).__name__, why)


def waiting(items: Sequence[T], doing: str) -> Iterable[T]:
    """The same items, with a bar of how many are done and how long the rest takes, where a bar can be drawn."""
    return track(items, doing, transient=True, disable=not draws())
