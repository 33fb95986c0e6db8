"""Printing to a terminal or a log."""

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


def is_interactive() -> bool:
    """Whether standard output is a terminal (or a notebook) that supports colors and progress bars.

    False for a file, a pipe, a cluster's log and TERM=dumb, even if FORCE_COLOR is set for rich.
    """
    if get_console().is_jupyter:
        return True
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def print_rows(*rows: tuple[str, str]) -> None:
    """Prints names and values in two columns. Long values are not wrapped, so that commands can be copied."""
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        console.print(Text.assemble((name.ljust(width), "bold"), value))


def relative_path(path: str | Path) -> str:
    """Returns a path relative to the working directory if it lies below it, otherwise an absolute path."""
    absolute, here = Path(path).resolve(), Path.cwd().resolve()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def quoted_path(path: str | Path) -> str:
    """Returns `relative_path`, quoted for a shell."""
    return shlex.quote(relative_path(path))


def echo_command(line: str) -> str:
    """Returns a shell command that prints a line, such as the first command of a pipe."""
    if "\t" in line:  # which a copied command would lose
        escaped = line.replace("\\", "\\\\").replace("\t", "\\t")
        return f"printf '%b\\n' {shlex.quote(escaped)}"
    changed = "\\" in line or line.startswith("-")  # the echo of some shells changes these
    return " ".join(["printf '%s\\n'" if changed else "echo", shlex.quote(line)])


def warn_disabled(callback: Callback, reason: str) -> None:
    """Warns that a callback does nothing in this run."""
    rank_zero_only(_log.warning)("%s is disabled: %s", type(callback).__name__, reason)


def track_progress(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterates over items, with a progress bar if standard output is interactive."""
    return track(items, description, transient=True, disable=not is_interactive())
