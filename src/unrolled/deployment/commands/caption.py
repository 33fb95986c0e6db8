"""The command caption: describes images."""

import argparse
from pathlib import Path
from typing import Any

from unrolled.deployment.commands.arguments import (
    add_checkpoint,
    add_command,
    add_common,
    add_on_error,
    add_pixels,
    add_search,
)
from unrolled.deployment.commands.running import generator_of, load, one_line, report_skipped
from unrolled.deployment.progress import Progress
from unrolled.wording import counted


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "caption",
        _run,
        about="describe images",
        description="Print a line for each image: its path and a caption, tab-separated.",
        example="python -m unrolled caption best.ckpt photo.jpg other.png",
    )
    add_checkpoint(command)
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    command.add_argument(
        "--with",
        dest="others",
        type=Path,
        action="append",
        default=[],
        metavar="CHECKPOINT",
        help="another checkpoint for an ensemble (repeatable)",
    )
    add_search(command)
    command.add_argument("--max-length", type=int, default=30, help="maximum number of tokens (default: %(default)s)")
    command.add_argument(
        "--n-best", type=int, metavar="N", help="print N alternatives: path, score and text, tab-separated"
    )
    command.add_argument("--batch-size", type=int, default=16, help="images in a batch (default: %(default)s)")
    add_on_error(command, "images")
    add_pixels(command)
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled.deployment.captioning import CAPTIONS, captions
    from unrolled.deployment.decoding import best_candidate

    if options.max_length < 1:
        raise ValueError(f"--max-length {options.max_length}: expected 1 or more")
    named = {name: getattr(options, name) for name in CAPTIONS._fields if hasattr(options, name) and name != "n_best"}
    search = CAPTIONS._replace(
        **named, n_best=1 if options.n_best is None else options.n_best, max_extra=options.max_length
    ).checked()
    generator = generator_of(options)
    bundles = [load(options, path) for path in (options.checkpoint, *options.others)]
    skipped: list[ValueError] = []
    of = len(options.images)
    with Progress("caption") as progress:
        progress.counted("images have captions", 0, of)
        found = captions(
            bundles,
            options.images,
            options=search,
            batch_size=options.batch_size,
            generator=generator,
            max_pixels=options.max_pixels,
            on_error=skipped.append if options.on_error == "skip" else None,
            progress=lambda done: progress.counted("images have captions", done, of),
        )
        for path, row in zip(options.images, found, strict=True):
            shown = [] if row is None else row if options.n_best else [best_candidate(str(path), row)]
            for candidate in shown:
                score = (f"{candidate.score:.4f}",) if options.n_best else ()
                print(path, *score, one_line(candidate.text), sep="\t", flush=True)
    report_skipped(skipped, counted(len(options.images), "image"), options)
