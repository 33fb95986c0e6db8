"""The command export: writes a trained network for other programs."""

import argparse
from pathlib import Path
from typing import Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common
from unrolled.deployment.commands.running import load
from unrolled.deployment.export.targets import TARGETS, export
from unrolled.deployment.progress import Progress

OPTIONS = {"int8": "store weights as 8-bit integers, and print what that costs"}


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "export",
        _run,
        about="write a network for other programs",
        description="Write a trained network as files that run without this package, and print their paths and sizes. "
        + " ".join(f"{name}: {target.about}." for name, target in TARGETS.items()),
        example=f"python -m unrolled export best.ckpt --to {next(iter(TARGETS))} --output exported",
    )
    add_checkpoint(command)
    command.add_argument("--to", required=True, choices=tuple(TARGETS), help="what to write")
    command.add_argument(
        "--output", type=Path, default=Path("exported"), metavar="FOLDER", help="its folder (default: %(default)s)"
    )
    for name, about in OPTIONS.items():
        having = [target for target, each in TARGETS.items() if name in each.options]
        if having:
            command.add_argument(f"--{name}", action="store_true", help=f"{about} ({', '.join(having)})")
    naming = [target for target, each in TARGETS.items() if "name" in each.options]
    if naming:
        command.add_argument("--name", help=f"name of the files, and of what is in them ({', '.join(naming)})")
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    if options.output.exists() and not options.output.is_dir():
        raise ValueError(f"--output {options.output}: this is a file; name a folder")
    bundle = load(options, options.checkpoint)
    with Progress("export") as progress:
        progress.at(f"the network is being exported to {options.to}")
        given = {name: getattr(options, name, None) for name in (*OPTIONS, "name")}
        exported = export(bundle, options.to, **given)
    for path in exported.write(options.output):
        print(f"{path}\t{path.stat().st_size:,} bytes")
    for note in exported.notes:
        print(note)
