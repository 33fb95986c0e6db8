"""The command classify: classifies recordings, images, series and lines of text."""

import argparse
import json
import sys
from functools import partial
from itertools import tee
from typing import Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common, add_on_error, add_pixels
from unrolled.deployment.commands.running import load, report, report_skipped, utf8_lines
from unrolled.deployment.progress import Progress


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "classify",
        _run,
        about="classify recordings, images, series or lines of text",
        description="Classify files, or standard input line by line. Prints source, label and probability.",
        example="python -m unrolled classify best.ckpt one.wav two.flac",
    )
    add_checkpoint(command)
    command.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="recordings, images, series (.csv); default: lines of standard input",
    )
    command.add_argument("--json", action="store_true", help="print JSON lines with all probabilities")
    command.add_argument(
        "--ahead", type=int, default=256, help="sources read before the first output; 1 for interactive use"
    )
    add_on_error(command, "sources")
    add_pixels(command)
    command.add_argument(
        "--max-length", type=int, default=10_000, metavar="N", help="maximum steps of a text (default: %(default)s)"
    )
    command.add_argument(
        "--max-seconds",
        type=float,
        default=3600.0,
        metavar="S",
        help="maximum length of a recording (default: %(default)g)",
    )
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled.deployment.classification import predicting, reads
    from unrolled.deployment.reading import Limits, read_in_batches
    from unrolled.processing.numbers import Scaler

    bundle = load(options, options.checkpoint)
    wanted = reads(bundle)
    if wanted == "text" and options.files:
        raise ValueError(f"this network classifies text, not files; use: … classify {options.checkpoint} < texts.txt")
    if wanted != "text" and not options.files:
        kind = {"sound": "recordings", "pictures": "pictures"}.get(wanted, "series (.csv files)")
        raise ValueError(f"pass {kind} to classify")
    # `tee` reads line by line, so that interactive use gets each output before the next line.
    names, sources = tee(options.files or utf8_lines(sys.stdin, "standard input"))
    skipped: list[ValueError] = []
    skip = skipped.append if options.on_error == "skip" else None
    how: dict[str, Any] = {"ahead": options.ahead, "notice": partial(report, "classify"), "on_error": skip}
    how["limits"] = Limits(options.max_pixels, options.max_seconds, options.max_length)
    num_classified = 0
    with Progress("classify") as progress:
        how["progress"] = partial(progress.counted, "sources are classified")
        found = read_in_batches(*predicting(bundle), sources, **how)
        for prediction, name in zip(found, names, strict=False):
            if prediction is None:
                continue
            num_classified += 1
            shown = " ".join(name.split())
            if options.json:
                content = {
                    "source": shown,
                    **({"label": prediction.label} if prediction.label else {}),
                    "values": prediction.values,
                }
                print(json.dumps(content, ensure_ascii=False), flush=True)
            elif isinstance(bundle.processor.target, Scaler):
                print(shown, *bundle.processor.target.format(list(prediction.values.values())), sep="\t", flush=True)
            else:
                print(shown, prediction.label, f"{prediction.probability:.4f}", sep="\t", flush=True)
    report_skipped(skipped, f"{num_classified + len(skipped)} sources", options)
