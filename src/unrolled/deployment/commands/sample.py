"""The command sample: generates text."""

import argparse
from typing import Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common
from unrolled.deployment.commands.running import generator_of, load
from unrolled.deployment.progress import Progress


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "sample",
        _run,
        about="generate text with a language model",
        description="Generate text with a language model.",
        example='python -m unrolled sample best.ckpt --prompt "ROMEO:" --length 400 --temperature 0.8',
    )
    add_checkpoint(command)
    command.add_argument("--prompt", default="", help="the start of the text (default: none)")
    command.add_argument("--length", type=int, default=400, help="number of symbols to generate (default: %(default)s)")
    command.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="divisor of the logits; 0 for the most probable symbol (default: %(default)s)",
    )
    command.add_argument("--top-k", type=int, metavar="K", help="sample from the K most probable symbols")
    command.add_argument(
        "--top-p", type=float, metavar="P", help="sample from the most probable symbols with total probability P"
    )
    command.add_argument("--count", type=int, default=1, help="number of texts (default: %(default)s)")
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled.deployment.sampling import sample_text

    if options.count < 1:
        raise ValueError(f"--count {options.count}: expected 1 or more")
    generator = generator_of(options)
    bundle = load(options, options.checkpoint)
    how = {name: getattr(options, name) for name in ("length", "temperature", "top_k", "top_p")}
    with Progress("sample") as progress:
        for number in range(options.count):
            if number:
                print("\n" + "─" * 40 + "\n")
            progress.at(f"text {number + 1:,} of {options.count:,} is being generated")
            print(sample_text(bundle, options.prompt, generator=generator, **how), flush=True)
