"""The command tag: tags the words of sentences."""

import argparse
import json
import sys
from typing import Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common
from unrolled.deployment.commands.running import load, utf8_lines


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "tag",
        _run,
        about="tag the words of sentences",
        description="Tag the words of standard input: a sentence on each line, with spaces between words.",
        example="echo 'It rains .' | python -m unrolled tag best.ckpt",
    )
    add_checkpoint(command)
    command.add_argument("--json", action="store_true", help="print a JSON object for each sentence")
    command.add_argument(
        "--batch-size", type=int, default=1, help="sentences read before the first output (default: %(default)s)"
    )
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled.deployment.tagging import tag

    bundle = load(options, options.checkpoint)
    for words in tag(bundle, utf8_lines(sys.stdin, "standard input"), batch_size=options.batch_size):
        if options.json:
            columns = {name: [getattr(each, name) for each in words] for name in ("word", "tag", "probability")}
            content = {"words": columns["word"], "tags": columns["tag"], "probabilities": columns["probability"]}
            print(json.dumps(content, ensure_ascii=False), flush=True)
        else:
            print(*(f"{each.word}\t{each.tag}" for each in words), "", sep="\n", flush=True)
