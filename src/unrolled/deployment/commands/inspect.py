"""The command inspect: writes a report on what happens inside a network."""

import argparse
from pathlib import Path
from typing import Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common
from unrolled.deployment.commands.running import generator_of, load
from unrolled.deployment.progress import Progress


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "inspect",
        _run,
        about="write a report on what happens inside a network",
        description="Run a network on one source, and write its gates, gradients and memory as one HTML page.",
        example='python -m unrolled inspect best.ckpt --text "It rains ." --out report.html',
    )
    add_checkpoint(command)
    command.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="what the network reads: a text, a recording, an image, or a series as .csv or .tsv with a row for each "
        "step (default for a language model: a sample)",
    )
    command.add_argument("--text", help="what the network reads, instead of FILE")
    command.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: %(default)s)")
    command.add_argument(
        "--find",
        action="append",
        default=[],
        metavar="REGEX",
        help="search for units that are active where this matches the text (repeatable)",
    )
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled import durable
    from unrolled.deployment.inspecting.report import inspection_report
    from unrolled.deployment.inspecting.sources import open_source

    if options.file is not None and options.text is not None:
        raise ValueError(f"--text and {options.file}: pass one of both")
    generator = generator_of(options)
    bundle = load(options, options.checkpoint)
    source = options.text if options.file is None else open_source(bundle, options.file)
    with Progress("inspect") as progress:
        progress.at("the network is being inspected")
        name = str(options.checkpoint)
        written = inspection_report(bundle, source, find=options.find, name=name, generator=generator)
    durable.replace(options.out, lambda partial: partial.write_text(written, encoding="utf-8"))
    print(f"{options.out}: {written.count('<figure')} figures")
