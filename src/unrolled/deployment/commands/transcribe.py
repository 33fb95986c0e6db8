"""The command transcribe: transcribes images of text lines and recordings."""

import argparse
import json
import sys
from functools import partial
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common, add_on_error, add_pixels
from unrolled.deployment.commands.running import load, report, report_skipped
from unrolled.deployment.progress import Progress

if TYPE_CHECKING:
    from unrolled.checkpoint import Bundle

_PIECE = 1600  # bytes of a stream that are read at a time


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "transcribe",
        _run,
        about="transcribe images of text lines or recordings",
        description="Transcribe files. Prints the file and its transcript, tab-separated.",
        example="python -m unrolled transcribe best.ckpt one.png two.png",
    )
    add_checkpoint(command)
    command.add_argument("files", nargs="*", metavar="FILE", help="images of text lines, or recordings")
    command.add_argument(
        "--num-beams",
        "--beam",
        type=int,
        metavar="N",
        help="transcripts kept at each frame; 1 for greedy search (default: 1, and 10 with --lm)",
    )
    command.add_argument("--lm", type=Path, metavar="CHECKPOINT", help="a language model with the same labels")
    command.add_argument("--lm-weight", type=float, default=0.5, help="of its log probability (default: %(default)s)")
    command.add_argument(
        "--insertion-bonus", type=float, default=0.0, help="added to the score for each label (default: %(default)s)"
    )
    command.add_argument(
        "--stream",
        type=int,
        metavar="RATE",
        help="transcribe 16-bit samples of one channel from standard input while they arrive, at RATE hertz",
    )
    command.add_argument(
        "--json", action="store_true", help="print JSON lines with log probability and the frame of each label"
    )
    command.add_argument(
        "--ahead", type=int, default=64, help="files read before the first output; 1 for interactive use"
    )
    add_on_error(command, "files")
    add_pixels(command)
    command.add_argument(
        "--max-seconds",
        type=float,
        default=3600.0,
        metavar="S",
        help="maximum length of a recording (default: %(default)g)",
    )
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    if bool(options.files) == (options.stream is not None):
        raise ValueError("pass files to transcribe, or --stream RATE to read samples from standard input")
    if options.stream is not None and (options.lm or options.json or options.num_beams not in (None, 1)):
        raise ValueError("--stream is a greedy search; leave --lm, --num-beams and --json out")
    bundle = load(options, options.checkpoint)
    if options.stream is None:
        _transcribe(options, bundle)
    else:
        _stream(options.stream, bundle)


def _transcribe(options: argparse.Namespace, bundle: "Bundle") -> None:
    from unrolled.deployment.reading import Limits, read_in_batches
    from unrolled.deployment.transcription import TranscriptSearch, transcribing

    model = None if options.lm is None else load(options, options.lm)
    beams = (1 if model is None else 10) if options.num_beams is None else options.num_beams
    names, sources = tee(options.files)
    skipped: list[ValueError] = []
    search = TranscriptSearch(beams, options.lm_weight, options.insertion_bonus)
    how: dict[str, Any] = {
        "batch_size": 16,
        "ahead": options.ahead,
        "limits": Limits(pixels=options.max_pixels, seconds=options.max_seconds),
        "notice": partial(report, "transcribe"),
        "on_error": skipped.append if options.on_error == "skip" else None,
    }
    with Progress("transcribe") as progress:
        how["progress"] = partial(progress.counted, "files are transcribed")
        results = read_in_batches(*transcribing(bundle, search, model), sources, **how)
        for found, name in zip(results, names, strict=False):
            if found is None:
                continue
            if options.json:
                labels = [each._asdict() for each in found.labels]
                content = {"source": name, "text": found.text, "log_probability": found.log_probability}
                print(json.dumps({**content, "labels": labels}, ensure_ascii=False), flush=True)
            else:
                print(" ".join(name.split()), found.text, sep="\t", flush=True)
    report_skipped(skipped, f"{len(options.files)} files", options)


def _stream(rate: int, bundle: "Bundle") -> None:
    import torch

    from unrolled.deployment.streaming.session import Session

    transcriber = Session(bundle, rate=rate)
    held = b""
    stream: Any = sys.stdin.buffer
    while piece := stream.read1(_PIECE):
        held += piece
        whole = len(held) // 2 * 2
        if whole:
            samples = torch.frombuffer(bytearray(held[:whole]), dtype=torch.int16).float() / 32768
            print(transcriber.feed(samples), end="", flush=True)
        held = held[whole:]
    print(transcriber.finish(), flush=True)
