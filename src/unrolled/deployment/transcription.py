"""Transcripts of images of text lines and of recordings, by a trained network."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.reading import Limits, read_in_batches
from unrolled.generation.ctc import LanguageModel, ctc_alignment, ctc_beam_search
from unrolled.heads.ctc import BLANK, CTCHead
from unrolled.models.decoders.base import Decoder
from unrolled.models.tagger import SequenceTagger
from unrolled.processing.frames import FeatureExtractor
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Transform
from unrolled.sequences import mask_from_lengths
from unrolled.wording import article


class TimedLabel(NamedTuple):
    """A label of a transcript, such as a character, and the frame at which it begins in the best alignment."""

    label: str
    frame: int


class Transcript(NamedTuple):
    """What was transcribed of a source.

    Attributes:
        text: the transcript.
        log_probability: log P(text | source), over all alignments, in nats.
        labels: its labels, in order.
    """

    text: str
    log_probability: float
    labels: tuple[TimedLabel, ...]


class TranscriptSearch(NamedTuple):
    """How transcripts are searched for.

    Attributes:
        num_beams: number of transcripts kept at each frame; 1 without a language model for greedy search, the labels of
            the most probable alignment.
        lm_weight: weight of a language model's log probability.
        insertion_bonus: added to the score for each label.
    """

    num_beams: int = 1
    lm_weight: float = 0.5
    insertion_bonus: float = 0.0


def transcriber_of(bundle: Bundle) -> tuple[SequenceTagger, FeatureExtractor, Tokenizer]:
    """Return the network of a transcriber, and the transforms of its sources and transcripts.

    Raises:
        ValueError: the bundle contains another network.
    """
    network, (source, target) = bundle.network, bundle.processor
    if not isinstance(network, SequenceTagger) or not isinstance(network.head, CTCHead):
        raise ValueError(
            f"transcription needs a SequenceTagger with a CTCHead; this checkpoint contains "
            f"{article(type(network).__name__)}"
        )
    if not isinstance(source, FeatureExtractor) or not isinstance(target, Tokenizer):
        raise ValueError("transcription needs a FeatureExtractor of sources and a Tokenizer of transcripts")
    return network, source, target


def language_model_of(bundle: Bundle, target: Tokenizer, weight: float) -> LanguageModel:
    """Return the language model of a bundle, whose tokens are the labels of a transcriber.

    It reads a transcript as the beginning of a line: after a line feed if it knows it, else after its start symbol.

    Args:
        bundle: a language model from `load_bundle`.
        target: the transcriber's tokenizer.
        weight: weight of its log probabilities.

    Raises:
        ValueError: the bundle contains another network, or its tokens are not those of transcripts.
    """
    decoder, tokenizer = bundle.network, bundle.processor.source
    if not isinstance(decoder, Decoder) or not isinstance(tokenizer, Tokenizer):
        raise ValueError(f"the language model's checkpoint contains {article(type(decoder).__name__)}, not a Decoder")
    tokens: list[int] = []
    for number, label in enumerate(target.symbols(range(target.size))):
        # No transcript contains the blank or the unknown label, so their token doesn't matter.
        ids = [tokenizer.start] if number in (BLANK, target.unknown) else tokenizer.encode(label)
        if len(ids) != 1:
            raise ValueError(
                f"the label {label!r} is {len(ids)} {tokenizer.unit}s of the language model, and must be one; train it "
                f"with data.unit={target.unit}"
            )
        tokens += ids
    feed = tokenizer.encode("\n")
    start = feed[0] if len(feed) == 1 and feed[0] != tokenizer.unknown else tokenizer.start
    return LanguageModel(decoder, torch.tensor(tokens), start, weight)


def search(
    head: CTCHead,
    parameters: Tensor,
    lengths: Tensor,
    options: TranscriptSearch = TranscriptSearch(),  # immutable
    language_model: LanguageModel | None = None,
) -> list[list[int]]:
    """Return the labels of the best transcript of each row that a search finds.

    Args:
        head: the network's head.
        parameters: (batch, time, classes) its parameters.
        lengths: (batch,) numbers of frames.
        options: of the search.
        language_model: see `language_model_of`.
    """
    if options.num_beams == 1 and language_model is None and options.insertion_bonus == 0.0:
        found = head.predict(parameters, mask_from_lengths(lengths.to(parameters.device), parameters.shape[1]))
        return [[label for label in row if label >= 0] for row in found.tolist()]
    best = ctc_beam_search(
        parameters,
        lengths,
        num_beams=options.num_beams,
        language_model=language_model,
        insertion_bonus=options.insertion_bonus,
    )
    rows = zip(best.tokens[:, 0].tolist(), best.lengths[:, 0].tolist(), strict=True)
    return [row[:length] for row, length in rows]


def transcribe(
    bundle: Bundle,
    sources: Iterable[Any],
    *,
    options: TranscriptSearch = TranscriptSearch(),  # immutable
    language_model: Bundle | None = None,
    batch_size: int = 16,
    ahead: int = 64,
    limits: Limits = Limits(),  # immutable
    notice: Callable[[str], None] | None = None,
) -> Iterator[Transcript]:
    """Yield the transcript of each source, in order.

    Args:
        bundle: a transcriber from `load_bundle`.
        sources: images of text lines: paths or any form that `processing.images.read_image` supports, or tensors (1,
            height, width); or paths of recordings, or pairs (samples (time,), rate).
        options: of the search.
        language_model: a language model from `load_bundle` whose tokens are the labels.
        batch_size: number of sources in a batch.
        ahead: number of sources that are read before the first transcript, to batch sources of similar length.
        limits: maximum sizes of a source.
        notice: called with a message for the first recording that is resampled, mixed to one channel or silent.

    Raises:
        ValueError: a network of another kind; a source that can't be read; invalid options.
    """
    found = read_in_batches(
        *transcribing(bundle, options, language_model),
        sources,
        batch_size=batch_size,
        ahead=ahead,
        limits=limits,
        notice=notice,
    )
    return (each for each in found if each is not None)


def transcribing(
    bundle: Bundle, options: TranscriptSearch, language_model: Bundle | None = None
) -> tuple[Transform, Callable[[Tensor, Tensor], Sequence[Transcript]]]:
    """Return the transform of a transcriber's sources, and what transcribes a padded batch; see `read_in_batches`.

    Args:
        bundle: see `transcribe`.
        options: see `transcribe`.
        language_model: see `transcribe`.

    Raises:
        ValueError: a bundle contains another network; a language model of other labels.
    """
    network, source, target = transcriber_of(bundle)
    model = None if language_model is None else language_model_of(language_model, target, options.lm_weight)
    return source, partial(_transcribe, network, target, options, model)


@torch.no_grad()
def _transcribe(
    network: Any,
    target: Tokenizer,
    options: TranscriptSearch,
    model: LanguageModel | None,
    padded: Tensor,
    lengths: Tensor,
) -> Sequence[Transcript]:
    parameters = network(padded.to(next(network.parameters()).device), lengths)
    found: list[Transcript] = []
    for row, ids in enumerate(search(network.head, parameters, lengths, options, model)):
        own = parameters[row, : int(lengths[row])]
        labels = torch.tensor(ids, dtype=torch.int64, device=own.device)
        loss = network.head.losses(own.unsqueeze(0), labels.unsqueeze(0))
        frames = ctc_alignment(own, labels).tolist()
        timed = tuple(TimedLabel(*pair) for pair in zip(target.symbols(ids), frames, strict=True))
        found.append(Transcript(target.decode(ids), -float(loss), timed))
    return found
