"""Translation with a trained network or an ensemble."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from unrolled.checkpoint import Bundle
from unrolled.deployment.chunks import Piece, pieces
from unrolled.deployment.decoding import (
    Attended,
    Candidate,
    attended,
    batched_by_length,
    best_candidate,
    candidates,
    ensemble_members,
    search,
    start_decoding,
)
from unrolled.generation.beam import Hypotheses
from unrolled.generation.limits import RowError, whole
from unrolled.generation.search import Search
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.processing.text.base import Tokenizer


class Translation(NamedTuple):
    """A translated line.

    Attributes:
        candidates: its translations, the best first; empty if the options allow none.
        pieces: what was found for each piece that the line was split into, but for those without a token.
    """

    candidates: list[Candidate]
    pieces: list[Attended]


def translate(
    bundles: Bundle | Sequence[Bundle],
    lines: Iterable[str],
    *,
    options: Search = Search(),  # immutable
    batch_tokens: int = 2048,
    ahead: int = 512,
    max_length: int = 128,
    generator: torch.Generator | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[str]:
    """Yield the translation of each line, in order; the translation of an empty line is empty.

    Args:
        bundles: a translation network from `load_bundle`, or several with the same processor, used as an ensemble.
        lines: sources, with or without a line end.
        options: search options.
        batch_tokens: number of source tokens in a batch, including padding.
        ahead: number of lines that are read before the first translation, to batch lines of similar length.
        max_length: maximum number of source tokens; the default is that of training pairs. A longer line is split at
            the ends of sentences, or else of clauses or words, and the translations of the pieces are joined.
        generator: random number generator for options.temperature.
        notice: called with a message for each line that is split.
        progress: called regularly with the numbers of translated lines and of lines that were read.

    Raises:
        ValueError: networks of another kind, or with different codecs; invalid options, or options that allow no text.
    """
    how: dict[str, Any] = {"batch_tokens": batch_tokens, "ahead": ahead, "max_length": max_length}
    how |= {"generator": generator, "notice": notice, "progress": progress}
    found = alternatives(bundles, lines, options=options._replace(n_best=1), **how)
    return (best_candidate(f"line {number}", row).text for number, row in enumerate(found, start=1))


def alternatives(
    bundles: Bundle | Sequence[Bundle],
    lines: Iterable[str],
    *,
    options: Search = Search(),  # immutable
    batch_tokens: int = 2048,
    ahead: int = 512,
    max_length: int = 128,
    generator: torch.Generator | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[list[Candidate]]:
    """Yield the `options.n_best` translations of each line, the best first. Arguments are those of `translate`.

    The n-th alternative of a split line joins the n-th alternatives of its pieces.

    Raises:
        ValueError: see `translate`.
    """
    networks, processor = ensemble_members(bundles, Tokenizer, "translates")
    reads, writes = cast("tuple[Tokenizer, Tokenizer]", processor)
    options.checked()
    if min(batch_tokens, ahead, max_length) < 1:
        raise ValueError(f"batch_tokens={batch_tokens}, ahead={ahead}, max_length={max_length}: expected 1 or more")

    def search_for(sources: Sequence[list[int]]) -> list[list[Candidate]]:
        return candidates(_search(sources, networks, writes, options, generator), writes)

    cut = (
        _pieces(line.rstrip("\r\n"), number, reads, max_length, notice) for number, line in enumerate(lines, start=1)
    )
    return _stream(cut, search_for, batch_tokens, ahead, progress)


def translate_attended(
    bundles: Bundle | Sequence[Bundle],
    line: str,
    *,
    options: Search = Search(),  # immutable
    max_length: int = 128,
    generator: torch.Generator | None = None,
) -> Translation:
    """Return the translations of a line, with the attention of each piece that it is split into.

    Args:
        bundles: see `translate` for this and the other arguments.
        line: a source.
        options: see `translate`; sampling with a temperature tells no attention.
        max_length: see `translate`.
        generator: see `translate`.

    Raises:
        ValueError: see `translate`.
    """
    networks, processor = ensemble_members(bundles, Tokenizer, "translates")
    reads, writes = cast("tuple[Tokenizer, Tokenizer]", processor)
    options.checked()
    whole(1, max_length=max_length)
    line_pieces = pieces(line, reads.encode, max_length)
    sources = [piece.ids for piece in line_pieces if piece.ids]
    try:
        hypotheses = _search(sources, networks, writes, options, generator) if sources else None
    except RowError as error:
        raise ValueError(error.reason) from None
    symbols = [reads.symbols(ids) for ids in sources]
    found = [] if hypotheses is None else attended(hypotheses, writes, symbols)
    texts = iter(found)
    of_pieces = [next(texts).candidates if piece.ids else [Candidate("", 0.0, 0.0)] for piece in line_pieces]
    return Translation(_joined(of_pieces, line_pieces), found)


def _pieces(
    line: str, number: int, tokenizer: Tokenizer, max_length: int, notice: Callable[[str], None] | None
) -> list[Piece]:
    found = pieces(line, tokenizer.encode, max_length)
    if len(found) > 1 and notice is not None:
        tokens = sum(len(piece.ids) for piece in found)
        notice(
            f"line {number} has {tokens:,} {tokenizer.unit}s, more than max_length={max_length}: "
            f"it is translated in {len(found):,} pieces"
        )
    return found


def _stream(
    lines: Iterator[list[Piece]],
    search_for: Callable[[Sequence[list[int]]], list[list[Candidate]]],
    batch_tokens: int,
    ahead: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[list[Candidate]]:
    """Yield the candidates of each line in order, as soon as they exist; short lines are translated first."""
    done = 0
    while chunk := list(islice(lines, ahead)):
        # A source without tokens has an empty translation.
        found = [[[Candidate("", 0.0, 0.0)] for _ in line] for line in chunk]
        places = [(row, column) for row, line in enumerate(chunk) for column, piece in enumerate(line) if piece.ids]
        left = [sum(bool(piece.ids) for piece in line) for line in chunk]
        given = 0
        if progress is not None:
            progress(done, done + len(chunk))
        for positions in reversed(batched_by_length([len(chunk[r][c].ids) for r, c in places], batch_tokens)):
            batch = [places[position] for position in positions]
            try:
                texts = search_for([chunk[row][column].ids for row, column in batch])
            except RowError as error:
                raise ValueError(f"line {done + batch[error.row][0] + 1}: {error.reason}") from None
            for (row, column), some in zip(batch, texts, strict=True):
                found[row][column] = some
                left[row] -= 1
            if progress is not None:
                progress(done + left.count(0), done + len(chunk))
            while given < len(chunk) and not left[given]:
                yield _joined(found[given], chunk[given])
                given += 1
        yield from map(_joined, found[given:], chunk[given:])
        done += len(chunk)


def _joined(found: Sequence[list[Candidate]], line: Sequence[Piece]) -> list[Candidate]:
    """Return the candidates of a line from those of its pieces; none if a piece has none."""
    if len(found) == 1 or not all(found):
        return found[0] if len(found) == 1 else []
    ends = [" " if piece.blank else "" for piece in line[:-1]] + [""]
    joined: list[Candidate] = []
    for rank in range(max(map(len, found))):
        chosen = [row[min(rank, len(row) - 1)] for row in found]
        text = "".join(one.text + end for one, end in zip(chosen, ends, strict=True))
        score = sum(one.score for one in chosen) / len(chosen)
        joined.append(Candidate(text, score, sum(one.log_probability for one in chosen)))
    return joined


def _search(
    sources: Sequence[list[int]],
    networks: Sequence[EncoderDecoder],
    tokenizer: Tokenizer,
    options: Search,
    generator: torch.Generator | None,
) -> Hypotheses:
    device = next(networks[0].parameters()).device
    tensors = [torch.tensor(source) for source in sources]
    source = nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(device)
    lengths = torch.tensor([len(row) for row in sources], device=device)
    with torch.no_grad():
        decoder, state, memory = start_decoding(networks, source, lengths)
        return search(decoder, state, memory, tokenizer, lengths, options, generator)
