"""The command translate: translates lines of text."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from unrolled.deployment.commands.arguments import add_command, add_common, add_search
from unrolled.deployment.commands.running import generator_of, load, one_line, report, utf8_lines
from unrolled.deployment.progress import Progress


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "translate",
        _run,
        about="translate lines of text",
        description="Translate standard input to standard output, line by line and in order.",
        example="python -m unrolled translate best.ckpt < in.txt > out.txt",
    )
    command.add_argument(
        "checkpoint", type=Path, nargs="+", metavar="CHECKPOINT", help="a .ckpt file, or several for an ensemble"
    )
    add_search(command)
    command.add_argument(
        "--max-ratio", type=float, default=2.0, help="maximum tokens per source token (default: %(default)s)"
    )
    command.add_argument("--max-extra", type=int, default=10, help="added to the maximum (default: %(default)s)")
    command.add_argument("--min-ratio", type=float, default=0.0, help="minimum tokens per source token")
    command.add_argument(
        "--n-best", type=int, metavar="N", help="print N alternatives: line number, score and text, tab-separated"
    )
    command.add_argument(
        "--ahead",
        type=int,
        default=512,
        help="lines read before the first output; 1 for interactive use (default: %(default)s)",
    )
    command.add_argument(
        "--max-length",
        type=int,
        default=128,
        metavar="N",
        help="maximum source tokens; longer lines are split at sentence ends (default: %(default)s)",
    )
    command.add_argument(
        "--batch-tokens", type=int, default=2048, help="source tokens in a batch (default: %(default)s)"
    )
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled.deployment.translation import alternatives, translate
    from unrolled.generation.search import Search

    named = {name: getattr(options, name) for name in Search._fields if name != "n_best"}
    search = Search(**named, n_best=1 if options.n_best is None else options.n_best).checked()
    generator = generator_of(options)
    bundles = [load(options, path) for path in options.checkpoint]
    lines = utf8_lines(sys.stdin, "standard input")
    how: dict[str, Any] = {name: getattr(options, name) for name in ("batch_tokens", "ahead", "max_length")}
    with Progress("translate") as progress:
        how |= {"generator": generator, "notice": partial(report, "translate")}
        how["progress"] = partial(progress.counted, "lines are translated")
        if options.n_best is None:
            for text in translate(bundles, lines, options=search, **how):
                print(one_line(text), flush=True)
            return
        for number, row in enumerate(alternatives(bundles, lines, options=search, **how), start=1):
            for candidate in row:
                print(number, f"{candidate.score:.4f}", one_line(candidate.text), sep="\t", flush=True)
