"""Arguments that several commands have."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKPOINT_HELP = (
    "a .ckpt file from training, the folder of a run, a folder of the command share, or a repository of the Hugging "
    "Face Hub, OWNER/NAME[@REVISION]"
)


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], *, about: str, description: str, example: str
) -> Any:
    """Add a command and return its parser.

    Args:
        commands: argparse's commands.
        name: name of the command.
        run: runs it with its options.
        about: what it does, for the list of commands.
        description: what it does, for its own help.
        example: a command line.
    """
    command = commands.add_parser(name, help=about, description=description, epilog=f"example: {example}")
    command.set_defaults(run=run)
    return command


def add_checkpoint(command: Any) -> None:
    """Add the checkpoint."""
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help=CHECKPOINT_HELP)


def add_on_error(command: Any, what: str) -> None:
    """Add what happens to unreadable sources, such as images."""
    command.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help=f"skip: skip unreadable {what}, and report them"
    )


def add_search(command: Any) -> None:
    """Add the options of a search."""
    command.add_argument(
        "--num-beams", type=int, default=5, help="beam size; 1 for greedy search (default: %(default)s)"
    )
    command.add_argument(
        "--length-penalty", type=float, default=1.0, help="0 favors short texts (default: %(default)s)"
    )
    command.add_argument(
        "--coverage-penalty", type=float, default=0.0, help="penalty of untranslated words (default: %(default)s)"
    )
    command.add_argument("--no-repeat-ngram-size", type=int, default=0, metavar="N", help="never repeat an N-gram")
    command.add_argument("--num-beam-groups", type=int, default=1, help="groups of a diverse beam search")
    command.add_argument("--diversity-penalty", type=float, default=0.0, help="weight of the difference between groups")
    command.add_argument("--temperature", type=float, help="sample at this temperature instead of searching")


def add_pixels(command: Any) -> None:
    """Add the limit of an image."""
    command.add_argument(
        "--max-pixels",
        type=int,
        default=89_478_485,
        metavar="N",
        help="maximum size of an image (default: %(default)s)",
    )


def add_common(command: Any) -> None:
    """Add the options of every command."""
    command.add_argument("--seed", type=int, help="random seed (default: a new one each time)")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps … (default: %(default)s)")
    command.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="allow classes of this package in the file, for custom cells (repeatable)",
    )
