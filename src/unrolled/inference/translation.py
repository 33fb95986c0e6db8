"""Translations by a trained network, or by several that decode as one."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import nn

from unrolled.checkpoint import Bundle
from unrolled.codecs.pair import PairCodec
from unrolled.decoders.base import Decoder, DecoderState
from unrolled.encoders import Encoded
from unrolled.generation.ensemble import EnsembleDecoder
from unrolled.inference.writing import Candidate, Search, batched_by_length, candidates, search
from unrolled.networks import EncoderDecoder


def translate(
    bundles: Bundle | Sequence[Bundle],
    lines: Iterable[str],
    *,
    options: Search = Search(),  # noqa: B008  # immutable
    batch_tokens: int = 2048,
    ahead: int = 512,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """One translation for each line, in order; an empty line stays empty.

    Args:
        bundles: a translator from `load_bundle`, or several with the same codec, which decode as one.
        lines: sources; a line end at the end doesn't matter.
        options: how to search.
        batch_tokens: source tokens that are translated at once, padding included.
        ahead: lines read before the first of them is given out, so that lines of similar length go together.
        generator: source of randomness for options.temperature.

    Raises:
        ValueError: networks that do not translate, or whose codecs differ; options that no search takes, or that no
            text can satisfy.
    """
    found = alternatives(
        bundles, lines, options=options._replace(n_best=1), batch_tokens=batch_tokens, ahead=ahead, generator=generator
    )
    return (_best(number, row).text for number, row in enumerate(found, start=1))


def alternatives(
    bundles: Bundle | Sequence[Bundle],
    lines: Iterable[str],
    *,
    options: Search = Search(),  # noqa: B008  # immutable
    batch_tokens: int = 2048,
    ahead: int = 512,
    generator: torch.Generator | None = None,
) -> Iterator[list[Candidate]]:
    """The `options.n_best` translations of each line, the best first; arguments are those of `translate`.

    Raises:
        ValueError: see `translate`.
    """
    networks, codec = _translators([bundles] if isinstance(bundles, Bundle) else list(bundles))
    options.checked()
    if batch_tokens < 1 or ahead < 1:
        raise ValueError(f"batch_tokens={batch_tokens} and ahead={ahead} are 1 or more")
    return _stream(networks, codec, iter(lines), options, batch_tokens, ahead, generator)


def _best(number: int, row: Sequence[Candidate]) -> Candidate:
    if not row:
        raise ValueError(f"line {number}: no text is allowed; lower no_repeat or min_ratio")
    return row[0]


def begin(
    networks: Sequence[EncoderDecoder], source: torch.Tensor, lengths: torch.Tensor
) -> tuple[Decoder, DecoderState, object]:
    """Decoder, state and memory of one network, or of several as one."""
    encoded: list[Encoded] = [network.encode(source, lengths) for network in networks]
    if len(networks) == 1:
        return networks[0].decoder, *networks[0].decoder.start(len(source), encoded[0])
    ensemble = EnsembleDecoder([network.decoder for network in networks])
    ensemble.eval()
    return ensemble, *ensemble.start(len(source), encoded)


def _stream(
    networks: Sequence[EncoderDecoder],
    codec: PairCodec,
    lines: Iterator[str],
    options: Search,
    batch_tokens: int,
    ahead: int,
    generator: torch.Generator | None,
) -> Iterator[list[Candidate]]:
    while chunk := list(islice(lines, ahead)):
        sources = [codec.encode(line.rstrip("\r\n")) for line in chunk]
        # What has no token has nothing to be translated.
        answers: list[list[Candidate]] = [[Candidate("", 0.0, 0.0)] for _ in sources]
        full = [number for number, source in enumerate(sources) if source]
        for positions in batched_by_length([len(sources[number]) for number in full], batch_tokens):
            numbers = [full[position] for position in positions]
            found = _translate([sources[number] for number in numbers], networks, codec, options, generator)
            for number, row in zip(numbers, found, strict=True):
                answers[number] = row
        yield from answers


def _translate(
    sources: Sequence[list[int]],
    networks: Sequence[EncoderDecoder],
    codec: PairCodec,
    options: Search,
    generator: torch.Generator | None,
) -> list[list[Candidate]]:
    device = next(networks[0].parameters()).device
    tensors = [torch.tensor(source) for source in sources]
    source = nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(device)
    lengths = torch.tensor([len(row) for row in sources], device=device)
    with torch.no_grad():
        decoder, state, memory = begin(networks, source, lengths)
        return candidates(search(decoder, state, memory, codec.target, lengths, options, generator), codec)


def _translators(bundles: Sequence[Bundle]) -> tuple[list[EncoderDecoder], PairCodec]:
    if not bundles:
        raise ValueError("no checkpoint to translate with")
    networks: list[EncoderDecoder] = []
    codec = bundles[0].codec
    for bundle in bundles:
        if not isinstance(bundle.network, EncoderDecoder) or not isinstance(bundle.codec, PairCodec):
            raise ValueError(
                f"only an encoder-decoder with a pair of codecs translates; this checkpoint holds a "
                f"{type(bundle.network).__name__} with a {type(bundle.codec).__name__}"
            )
        if bundle.codec.to_dict() != codec.to_dict():
            raise ValueError("networks decode as one only with the same codec; these were trained with different ones")
        networks.append(bundle.network.eval())
    if not isinstance(codec, PairCodec):
        raise ValueError(f"a translator has a pair of codecs, not a {type(codec).__name__}")
    return networks, codec
