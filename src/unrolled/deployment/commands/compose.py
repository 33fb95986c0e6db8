"""The command compose: writes or continues music."""

import argparse
from pathlib import Path
from typing import Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common
from unrolled.deployment.commands.running import generator_of, load, report


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "compose",
        _run,
        about="write or continue music",
        description="Write or continue a piece of music: as MIDI, sound, a picture of its piano roll, or JSON lines.",
        example="python -m unrolled compose best.ckpt --prime song.mid --frames 64 --out new.mid --out new.wav",
    )
    add_checkpoint(command)
    command.add_argument(
        "--prime", type=Path, metavar="FILE", help="continue this piece: .mid, .mxl, .musicxml, .jsonl"
    )
    command.add_argument("--prime-frames", type=int, metavar="N", help="read its first N frames only (default: all)")
    command.add_argument("--frames", type=int, default=64, help="number of frames to write (default: %(default)s)")
    command.add_argument(
        "--out",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="a file that ends in .mid, .wav, .png or .jsonl (repeatable)",
    )
    command.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="less than 1 for more probable notes; 0 for those above one half (default: %(default)s)",
    )
    command.add_argument("--tempo", type=float, default=90.0, help="quarter notes per minute (default: %(default)s)")
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled.deployment.music import compose
    from unrolled.processing.notes.files import check_written, read_music, write_music
    from unrolled.processing.notes.roll import PianoRoll

    for path in options.out:
        check_written(path)
    if options.prime_frames is not None and (options.prime is None or options.prime_frames < 1):
        raise ValueError(f"--prime-frames {options.prime_frames}: expected 1 or more, with --prime")
    generator = generator_of(options)
    bundle = load(options, options.checkpoint)
    prime: list[list[int]] = []
    if options.prime is not None:
        roll = bundle.processor.source
        steps = roll.steps_per_beat if isinstance(roll, PianoRoll) else 1  # another network is refused below
        prime = read_music(options.prime, steps)[: options.prime_frames]
    piece = compose(bundle, prime, frames=options.frames, temperature=options.temperature, generator=generator)
    for path in options.out:
        write_music(path, piece.frames, piece.steps_per_beat, tempo=options.tempo, given=piece.given)
        report(options.command, f"{path}: {len(piece.frames)} frames, {piece.given} of them given")
