"""What commands do alike when they run: read lines, load a network, report. Torch is imported when it is needed."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import torch

    from unrolled.checkpoint import Bundle


def report(command: str, text: str) -> None:
    """Print a message to standard error."""
    print(f"unrolled {command}: {text}", file=sys.stderr)


def report_skipped(skipped: Sequence[ValueError], of: str, options: argparse.Namespace) -> None:
    """Print the sources that were skipped."""
    for error in skipped:
        report(options.command, f"skipped: {error}")
    if skipped:
        report(options.command, f"{len(skipped)} of {of} skipped")


def one_line(text: str) -> str:
    """Return a text in one line."""
    return " ".join(text.splitlines())


def utf8_lines(stream: TextIO, name: str) -> Iterator[str]:
    """Yield the lines of a stream, split at line feeds only, as wc counts them.

    Raises:
        ValueError: invalid UTF-8, with the line.
    """
    for number, line in enumerate(stream.buffer, start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 ({error.reason} at byte {error.start})") from None


def generator_of(options: argparse.Namespace) -> "torch.Generator":
    """Return the random number generator of --device and --seed.

    Raises:
        ValueError: no such device.
    """
    import torch

    try:
        generator = torch.Generator(torch.device(options.device))
    except RuntimeError as error:
        raise ValueError(f"--device {options.device}: {str(error).splitlines()[0]}") from None
    generator.seed() if options.seed is None else generator.manual_seed(options.seed)
    return generator


def load(options: argparse.Namespace, path: Path) -> "Bundle":
    """Return a network from its checkpoint, on --device and with --trust."""
    from unrolled.checkpoint import load_bundle
    from unrolled.descriptions import TRUSTED

    trusted = (*TRUSTED, *(f"{package.rstrip('.')}." for package in options.trust))
    return load_bundle(path, trusted=trusted, device=options.device)
