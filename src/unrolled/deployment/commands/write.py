"""The command write: writes a text by hand."""

import argparse
from pathlib import Path
from typing import Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common
from unrolled.deployment.commands.running import generator_of, load


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "write",
        _run,
        about="write a text by hand",
        description="Write a text by hand, as an SVG picture. A network without a text draws what looks like writing.",
        example='python -m unrolled write best.ckpt "a text to write" --bias 1 --out page.svg',
    )
    add_checkpoint(command)
    command.add_argument("text", nargs="?", help="the text; omitted for a network of data.mode=prediction")
    command.add_argument("--out", required=True, metavar="FILE", help="the picture, an .svg file")
    command.add_argument(
        "--bias",
        type=float,
        default=0.5,
        metavar="B",
        help="neatness: 0 for the variety of the training lines, 1 or 2 for clearer letters (default: %(default)s)",
    )
    command.add_argument(
        "--line-length",
        type=int,
        default=20,
        metavar="N",
        help="characters of a line, unless a word is longer; those of training are best (default: %(default)s)",
    )
    command.add_argument(
        "--prime",
        metavar="FILE",
        help='continue the style of the first line of FILE: {"text": "…", "strokes": [[[x, y], …], …]}',
    )
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled import durable
    from unrolled.deployment.handwriting import continue_strokes, write
    from unrolled.deployment.page import break_lines, read_primer, to_svg

    out = Path(options.out)
    if out.suffix.lower() != ".svg":
        raise ValueError(f"--out {options.out}: the picture is SVG; name it like page.svg")
    generator = generator_of(options)
    primer = None if options.prime is None else read_primer(Path(options.prime))
    bundle = load(options, options.checkpoint)
    how: dict[str, Any] = {"bias": options.bias, "primer": primer, "generator": generator}
    if options.text is None:
        lines = continue_strokes(bundle, 1, **how)
        unfinished = []
    else:
        written = write(bundle, break_lines(options.text, options.line_length), **how)
        lines = [one.strokes for one in written]
        unfinished = [one.text for one in written if not one.finished]
    picture = to_svg(lines)
    durable.replace(out, lambda partial: partial.write_text(picture, encoding="utf-8"))
    print(out)
    for text in unfinished:
        print(f"the network didn't come to the end of {text!r}; try another --seed or a greater --bias")
