"""Translations by a trained network, or by several that decode as one."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import nn

from unrolled.checkpoint import Bundle
from unrolled.codecs.pair import PairCodec
from unrolled.inference.writing import Candidate, Search, batched_by_length, begin, best, candidates, search, writers
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
    return (best(f"line {number}", row).text for number, row in enumerate(found, start=1))


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
    networks, codec = writers(bundles, PairCodec, "translates")
    options.checked()
    if batch_tokens < 1 or ahead < 1:
        raise ValueError(f"batch_tokens={batch_tokens} and ahead={ahead} are 1 or more")
    return _stream(networks, codec, iter(lines), options, batch_tokens, ahead, generator)


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
