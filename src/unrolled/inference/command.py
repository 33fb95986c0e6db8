"""python -m unrolled: trained networks from the command line, with torch alone."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status: 0, or 2 when what was asked for cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ValueError as error:
        print(f"unrolled {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stderr.close()
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m unrolled", description="Use a trained recurrent network.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_sample(commands)
    return parser


def _add_sample(commands: Any) -> None:
    sample = commands.add_parser(
        "sample",
        help="write text with a language model",
        description="Write text with a language model that train.py trained.",
        epilog='example: python -m unrolled sample best.ckpt --prompt "ROMEO:" --length 400 --temperature 0.8',
    )
    sample.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .ckpt file written by train.py")
    sample.add_argument("--prompt", default="", help="what the text begins with (default: nothing)")
    sample.add_argument("--length", type=int, default=400, help="symbols to write (default: %(default)s)")
    sample.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="1: the model's own odds, 0: the likeliest (default: %(default)s)",
    )
    sample.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest symbols only")
    sample.add_argument(
        "--top-p", type=float, metavar="P", help="draw among the likeliest with this probability together"
    )
    sample.add_argument("--count", type=int, default=1, help="how many texts to write (default: %(default)s)")
    sample.add_argument("--seed", type=int, help="makes the text repeatable (default: another text each time)")
    sample.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps … (default: %(default)s)")
    sample.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="let the file name classes of this package too, for cells of your own (repeatable)",
    )
    sample.set_defaults(run=_sample)


def _sample(options: argparse.Namespace) -> None:
    # Imported here, so that --help and a misspelt option answer before torch is loaded.
    import torch

    from unrolled.checkpoint import TRUSTED, load_bundle
    from unrolled.inference.sampling import sample_text

    if options.count < 1:
        raise ValueError(f"--count {options.count}: 1 or more")
    try:
        device = torch.device(options.device)
        generator = torch.Generator(device)
    except RuntimeError as error:
        raise ValueError(f"--device {options.device}: {str(error).splitlines()[0]}") from None
    generator.seed() if options.seed is None else generator.manual_seed(options.seed)
    trusted = (*TRUSTED, *(f"{package.rstrip('.')}." for package in options.trust))
    bundle = load_bundle(options.checkpoint, trusted=trusted, device=device)
    for number in range(options.count):
        if number:
            print("\n" + "─" * 40 + "\n")
        print(
            sample_text(
                bundle,
                options.prompt,
                length=options.length,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                generator=generator,
            )
        )
