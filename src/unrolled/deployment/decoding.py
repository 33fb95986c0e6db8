"""Decoding of text from encoded sources, with one network or an ensemble."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.generation.beam import Hypotheses, beam_search
from unrolled.generation.ensemble import EnsembleDecoder
from unrolled.generation.sampling import sample
from unrolled.generation.search import Search
from unrolled.layers.encoded import Encoded
from unrolled.models.decoders.base import Decoder, DecoderState
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Processor, Transform
from unrolled.wording import article


class Candidate(NamedTuple):
    """A text found by a search."""

    text: str
    score: float  # normalized by length, with the coverage penalty; alternatives are sorted by it
    log_probability: float  # of the text and the stop symbol, in nats


class Attended(NamedTuple):
    """Texts that were found for a source, and where the best one comes from.

    Attributes:
        candidates: the texts, the best first.
        source: the symbols of the source; empty for an image.
        written: the symbols of the best text.
        weights: (written + 1, source) attention at each symbol and at the end; None for a network without attention, or
            for a sampled text.
    """

    candidates: list[Candidate]
    source: list[str]
    written: list[str]
    weights: Tensor | None


def search(
    decoder: Decoder,
    state: DecoderState,
    memory: Any,
    tokenizer: Tokenizer,
    source_lengths: Tensor,
    options: Search,
    generator: torch.Generator | None = None,
) -> Hypotheses:
    """Search for the texts of a batch, or sample them if options.temperature is set.

    Args:
        decoder: the decoder in evaluation mode.
        state: the decoder's state before the first token.
        memory: the memory that `Decoder.start` returned.
        tokenizer: tokenizer of the texts. Its `start` starts and ends a text, its `unknown` is never generated.
        source_lengths: (batch,) numbers of source tokens, for the bounds of the text length.
        options: search options.
        generator: random number generator for options.temperature.

    Raises:
        ValueError: invalid options.
    """
    options.checked()
    start = torch.full_like(source_lengths, tokenizer.start)
    most = (source_lengths * options.max_ratio).ceil().long() + options.max_extra
    least = (source_lengths * options.min_ratio).long()
    forbidden = [] if tokenizer.unknown is None else [tokenizer.unknown]
    if options.temperature is not None:
        drawn = sample(
            decoder,
            state,
            memory,
            start=start,
            stop=tokenizer.start,
            max_length=most,
            min_length=least,
            temperature=options.temperature,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            forbidden=forbidden,
            generator=generator,
        )
        log_probability = drawn.log_probability[:, None]
        return Hypotheses(drawn.values[:, None], drawn.lengths[:, None], log_probability, log_probability, None)
    return beam_search(
        decoder,
        state,
        memory,
        start=start,
        stop=tokenizer.start,
        num_beams=options.num_beams,
        max_length=most,
        min_length=least,
        length_penalty=options.length_penalty,
        coverage_penalty=options.coverage_penalty,
        n_best=options.n_best,
        num_beam_groups=options.num_beam_groups,
        diversity_penalty=options.diversity_penalty,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        forbidden=forbidden,
    )


def candidates(found: Hypotheses, tokenizer: Tokenizer) -> list[list[Candidate]]:
    """Return the texts of each row, the best first."""
    rows = zip(
        found.tokens.tolist(),
        found.lengths.tolist(),
        found.scores.tolist(),
        found.log_probability.tolist(),
        strict=True,
    )
    return [
        [
            Candidate(tokenizer.decode(tokens[:length]), score, log_probability)
            for tokens, length, score, log_probability in zip(*row, strict=True)
            if score > -float("inf")  # there may be fewer than n_best texts
        ]
        for row in rows
    ]


def attended(found: Hypotheses, tokenizer: Tokenizer, sources: Sequence[Sequence[str]]) -> list[Attended]:
    """Return the texts of each row, with the symbols of its source and the attention of the best text.

    Args:
        found: what a search found.
        tokenizer: tokenizer of the texts.
        sources: the symbols of each source; empty for an image.
    """
    rows: list[Attended] = []
    for row, (texts, source) in enumerate(zip(candidates(found, tokenizer), sources, strict=True)):
        written = tokenizer.symbols(found.tokens[row, 0, : int(found.lengths[row, 0])].tolist()) if texts else []
        weights = None
        if found.weights is not None and texts:
            weights = found.weights[row, 0, : len(written) + 1, : len(source) or None].cpu()
        rows.append(Attended(texts, list(source), written, weights))
    return rows


def batched_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group indices into batches of similar length, of at most `batch_tokens` (rows × maximum length) or one row."""
    batches: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda p: (-lengths[p], p)):
        if batches and (len(batches[-1]) + 1) * max(lengths[batches[-1][0]], 1) <= batch_tokens:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def best_candidate(place: str, row: Sequence[Candidate]) -> Candidate:
    """Return the best text of a source.

    Raises:
        ValueError: the options allow no text; the message starts with `place`.
    """
    if not row:
        raise ValueError(f"{place}: no text is allowed; set no_repeat_ngram_size to 0, or lower min_ratio")
    return row[0]


def start_decoding(
    networks: Sequence[EncoderDecoder], source: Tensor, lengths: Tensor | None = None
) -> tuple[Decoder, DecoderState, object]:
    """Encode a source, and return the decoder, state and memory of one network or of an ensemble."""
    encoded: list[Encoded] = [network.encode(source, lengths) for network in networks]
    if len(networks) == 1:
        return networks[0].decoder, *networks[0].decoder.start(len(source), encoded[0])
    ensemble = EnsembleDecoder([network.decoder for network in networks])
    ensemble.eval()
    return ensemble, *ensemble.start(len(source), encoded)


def ensemble_members(
    bundles: Bundle | Sequence[Bundle], reads: type[Transform], does: str
) -> tuple[list[EncoderDecoder], Processor]:
    """Return the networks of one or several bundles that generate text, and their common processor.

    Args:
        bundles: bundles from `load_bundle`.
        reads: required class of the source's transform.
        does: verb for error messages, such as "translates".

    Raises:
        ValueError: no bundle, a network or transform of another class, or different processors.
    """
    listed = [bundles] if isinstance(bundles, Bundle) else list(bundles)
    if not listed:
        raise ValueError("no checkpoint: pass one, or several for an ensemble")
    processor = listed[0].processor
    networks: list[EncoderDecoder] = []
    for bundle in listed:
        source, target = bundle.processor
        if not (
            isinstance(bundle.network, EncoderDecoder) and isinstance(source, reads) and isinstance(target, Tokenizer)
        ):
            raise ValueError(
                f"only an EncoderDecoder from {article(reads.__name__)} to a Tokenizer {does}; this checkpoint "
                f"contains {article(type(bundle.network).__name__)} from {article(type(source).__name__)} to "
                f"{'nothing' if target is None else article(type(target).__name__)}"
            )
        if bundle.processor.to_dict() != processor.to_dict():
            raise ValueError(
                "an ensemble needs networks with the same processor; these were trained with different ones"
            )
        networks.append(bundle.network.eval())
    return networks, processor
