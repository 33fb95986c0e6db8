"""Continuation of music with a trained network."""

from typing import NamedTuple

import torch

from unrolled.checkpoint import Bundle
from unrolled.generation.limits import whole
from unrolled.generation.sampling import sample
from unrolled.models.decoders.base import Decoder
from unrolled.processing.notes.roll import Frames, PianoRoll
from unrolled.wording import article


class Composed(NamedTuple):
    """A piece that a network has continued."""

    frames: list[list[int]]  # MIDI pitches of each frame, those that were given first
    given: int  # number of these
    steps_per_beat: int  # number of frames of a quarter note
    log_probability: float  # of the frames that the network wrote, in nats


def compose(
    bundle: Bundle,
    prime: Frames = (),
    *,
    frames: int = 64,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Composed:
    """Continue a piece, or begin one.

    Args:
        bundle: a network of `task=music` from `load_bundle`.
        prime: the pitches of the first frames; may be empty.
        frames: number of frames to write.
        temperature: 1 for the network's distribution, less for more probable notes, 0 for those above one half.
        generator: random number generator on the network's device; None for torch's global generator.

    Raises:
        ValueError: a network of another kind, pitches out of its range, a negative number of frames or temperature.
    """
    decoder, roll = composer_of(bundle)
    return continue_piece(decoder, roll, prime, frames=frames, temperature=temperature, generator=generator)


def composer_of(bundle: Bundle) -> tuple[Decoder, PianoRoll]:
    """Return the network of a model of music, and its piano roll.

    Raises:
        ValueError: the bundle contains another network.
    """
    roll, target = bundle.processor
    if not isinstance(bundle.network, Decoder) or not isinstance(roll, PianoRoll) or target is not None:
        raise ValueError(f"composing needs a decoder of a piano roll; this is {article(type(bundle.network).__name__)}")
    return bundle.network, roll


def continue_piece(
    decoder: Decoder,
    roll: PianoRoll,
    prime: Frames,
    *,
    frames: int,
    temperature: float,
    generator: torch.Generator | None = None,
) -> Composed:
    """Continue a piece as `compose` does, with a decoder and a piano roll, such as those in training."""
    whole(0, frames=frames)
    given = roll.encode(list(prime)) if len(prime) else torch.zeros(0, roll.size)
    device = next(decoder.parameters()).device
    read = torch.cat([torch.zeros(1, roll.size), given]).unsqueeze(0).to(device)  # a silent frame before the first
    training = decoder.training
    decoder.eval()
    try:
        with torch.no_grad():
            state, memory = decoder.start(1)
            if read.shape[1] > 1:
                state = decoder(read[:, :-1], state, memory).state
            written = sample(
                decoder,
                state,
                memory,
                start=read[:, -1],
                max_length=frames,
                temperature=temperature,
                generator=generator,
            )
    finally:
        decoder.train(training)
    notes = [*roll.decode(given), *roll.decode(written.values[0])]
    return Composed(notes, len(given), roll.steps_per_beat, float(written.log_probability[0]))
