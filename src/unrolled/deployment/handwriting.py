"""Handwriting by a trained network: lines of text as strokes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.sampling import encode_prompt
from unrolled.generation.limits import whole
from unrolled.generation.sampling import Generated, sample
from unrolled.layers.window_attention import WindowAttention, WindowState
from unrolled.models.decoders.base import Decoder, DecoderState
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.processing.strokes import Strokes, StrokeTransform
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Processor
from unrolled.wording import article


class Written(NamedTuple):
    """A written line.

    Attributes:
        text: the text.
        strokes: what the pen drew, from the origin; y increases downwards.
        finished: whether the window has passed the text's end; if not, max_points ended the line.
        weights: (points, characters) of the window, also of the primer's.
    """

    text: str
    strokes: Strokes
    finished: bool
    weights: Tensor


class Primer(NamedTuple):
    """A line that the network reads before it writes, whose style it then continues (Graves 2013, section 5.5)."""

    text: str
    strokes: Strokes


def write(
    bundle: Bundle,
    texts: Sequence[str],
    *,
    bias: float = 0.0,
    primer: Primer | None = None,
    max_points: int = 60,
    generator: torch.Generator | None = None,
) -> list[Written]:
    """Write lines of text by hand.

    Args:
        bundle: a synthesis network from `load_bundle`.
        texts: one text for each line.
        bias: neatness b: each standard deviation is multiplied by exp(−b), and likely components become likelier
            (Graves 2013, section 5.4). 0 for the network's distribution.
        primer: a line whose style is continued; None for a random style.
        max_points: number of points for each character after which a line ends.
        generator: random number generator on the network's device; None for torch's global generator.

    Raises:
        ValueError: a network of another kind, an empty text, characters that the network has never seen, a bias below
            0, max_points below 1.
    """
    return write_with(
        bundle.network,
        bundle.processor,
        texts,
        bias=bias,
        primer=primer,
        max_points=max_points,
        generator=generator,
    )


def write_with(
    network: Any,
    processor: Processor,
    texts: Sequence[str],
    *,
    bias: float = 0.0,
    primer: Primer | None = None,
    max_points: int = 60,
    generator: torch.Generator | None = None,
) -> list[Written]:
    """Write lines as `write` does, with a network and a processor, such as those in training."""
    tokenizer, transform = processor
    if not isinstance(tokenizer, Tokenizer) or not isinstance(transform, StrokeTransform) or not _writes(network):
        raise ValueError(
            "writing needs an EncoderDecoder of strokes with WindowAttention; this checkpoint has "
            f"{article(type(network).__name__)}"
        )
    if not texts or not all(texts):
        raise ValueError("there is nothing to write: a text is empty")
    whole(1, max_points=max_points)
    _check_bias(bias)
    if primer is not None and not primer.text:
        raise ValueError("the primer has no text, which says what its strokes have written")
    beginning = "" if primer is None else f"{primer.text} "
    ids = [encode_prompt(tokenizer, beginning + text, "the text") for text in texts]
    like = network.decoder.head.linear.weight
    source, lengths = (each.to(like.device) for each in tokenizer.collate(ids))
    read = like.new_zeros(1, 3) if primer is None else transform.encode(primer.strokes).to(like)
    read = read.expand(len(texts), -1, -1)
    most = torch.tensor([max_points * len(text) for text in texts], device=like.device)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            state, memory = network.start(source, lengths)
            if read.shape[1] > 1:
                state = network.decoder(read[:, :-1], state, memory).state
            drawn = _sampled(network.decoder, state, memory, read[:, -1], most, bias, generator)
            frames = torch.cat([read, drawn.values], dim=1)
            decoded = network(source, lengths, frames[:, :-1])
    finally:
        network.train(training)
    found: list[Written] = []
    for row, (text, of_text, count) in enumerate(zip(texts, ids, drawn.lengths.tolist(), strict=True)):
        own = drawn.values[row, :count].cpu()
        own = torch.cat([own.new_zeros(1, 3), own]) if primer is None else own
        own[:1, :2] = 0.0  # the way from the primer is no part of the line
        weights = decoded.weights[row, : read.shape[1] - 1 + count, : len(of_text)].cpu()
        found.append(Written(text, transform.decode(own), count < int(most[row]), weights))
    return found


def continue_strokes(
    bundle: Bundle,
    count: int,
    *,
    num_points: int = 700,
    bias: float = 0.0,
    primer: Primer | None = None,
    generator: torch.Generator | None = None,
) -> list[Strokes]:
    """Draw lines that look like handwriting, with a network that predicts strokes without a text.

    Args:
        bundle: a prediction network from `load_bundle`.
        count: number of lines.
        num_points: number of points of each.
        bias: see `write`.
        primer: strokes that are continued; its text is ignored.
        generator: see `write`.

    Raises:
        ValueError: a network of another kind, a number below 1, a bias below 0.
    """
    return continue_with(
        bundle.network, bundle.processor, count, num_points=num_points, bias=bias, primer=primer, generator=generator
    )


def continue_with(
    network: Any,
    processor: Processor,
    count: int,
    *,
    num_points: int = 700,
    bias: float = 0.0,
    primer: Primer | None = None,
    generator: torch.Generator | None = None,
) -> list[Strokes]:
    """Draw lines as `continue_strokes` does, with a network and a processor, such as those in training."""
    transform = processor.source
    if not isinstance(transform, StrokeTransform) or not isinstance(network, Decoder):
        raise ValueError(f"drawing needs a Decoder of strokes; this checkpoint has {article(type(network).__name__)}")
    whole(1, count=count, num_points=num_points)
    _check_bias(bias)
    like = network.head.linear.weight
    read = like.new_zeros(1, 3) if primer is None else transform.encode(primer.strokes).to(like)
    read = read.expand(count, -1, -1)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            state, _ = network.start(count)
            if read.shape[1] > 1:
                state = network(read[:, :-1], state).state
            most = torch.full((count,), num_points, device=like.device)
            drawn = _sampled(network, state, None, read[:, -1], most, bias, generator).values
    finally:
        network.train(training)
    frames = torch.cat([drawn.new_zeros(count, 1, 3), drawn], dim=1)
    return [transform.decode(row) for row in frames.cpu()]


def writer_of(bundle: Bundle) -> StrokeTransform:
    """Return the transform of the strokes of a network that writes by hand, with a text or without.

    Raises:
        ValueError: the bundle contains another network.
    """
    network, (source, target) = bundle.network, bundle.processor
    if isinstance(source, StrokeTransform) and isinstance(network, Decoder):
        return source
    if isinstance(source, Tokenizer) and isinstance(target, StrokeTransform) and _writes(network):
        return target
    raise ValueError(f"handwriting needs a network of strokes; this checkpoint has {article(type(network).__name__)}")


def _sampled(
    decoder: Decoder,
    state: DecoderState,
    memory: Any,
    start: Tensor,
    most: Tensor,
    bias: float,
    generator: torch.Generator | None,
) -> Generated:
    def beyond(step: int, state: DecoderState, drawn: Tensor) -> Tensor:
        window: WindowState = state.attention
        return window.beyond > 0

    return sample(
        decoder,
        state,
        memory,
        start=start,
        stop=None if memory is None else beyond,
        max_length=most,
        temperature=1.0 / (1.0 + bias),
        generator=generator,
    )


def _writes(network: Any) -> bool:
    return isinstance(network, EncoderDecoder) and isinstance(
        getattr(network.decoder, "attention", None), WindowAttention
    )


def _check_bias(bias: float) -> None:
    if not 0.0 <= bias < float("inf"):
        raise ValueError(f"bias={bias}: expected a number of 0 or more")
