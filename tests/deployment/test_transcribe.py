"""Transcripts of a network: against the search itself, with a language model, and of a stream."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unrolled import (
    AudioFeatures,
    AutoregressiveDecoder,
    ByteTokenizer,
    CharacterTokenizer,
    CTCHead,
    FeatureEncoder,
    GRUCell,
    LineColumns,
    Processor,
    Recurrent,
    SentenceTokenizer,
    SequenceTagger,
    ctc_alignment,
    ctc_beam_search,
)
from unrolled.checkpoint import Bundle
from unrolled.deployment import Session, Transcript, TranscriptSearch, classify, transcribe
from unrolled.deployment.transcription import language_model_of

CORE = partial(Recurrent, GRUCell, hidden_size=8)


def bundle(source: Any, target: Any, *, bidirectional: bool = True) -> Bundle:
    """A network with random weights that are large enough for varied transcripts."""
    torch.manual_seed(1)
    encoder = FeatureEncoder(source.output_size, CORE, bidirectional=bidirectional)
    network = SequenceTagger(encoder, partial(CTCHead, num_classes=target.size)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=1.0)
    return Bundle(network, Processor(source, target), {})


def language_model(tokenizer: Any) -> Bundle:
    torch.manual_seed(2)
    decoder = AutoregressiveDecoder.of_tokens(tokenizer.size, 5, CORE).eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=1.0)
    return Bundle(decoder, Processor(tokenizer), {})


LETTERS = CharacterTokenizer("abc")
READER = bundle(LineColumns(8, 2, 2), LETTERS)
LINES = [torch.rand(1, 8, width, generator=torch.Generator().manual_seed(width)) for width in (30, 12, 21, 40)]


def parameters_of(made: Bundle, source: Tensor) -> Tensor:
    transform: Any = made.processor.source
    with torch.no_grad():
        return made.network(transform(source).unsqueeze(0))


def check(found: Transcript, ids: list[int], parameters: Tensor) -> None:
    labels = torch.tensor(ids, dtype=torch.int64)
    assert found.text == LETTERS.decode(ids)
    sizes = torch.tensor([parameters.shape[1]]), torch.tensor([len(ids)])
    scores = parameters.log_softmax(-1).transpose(0, 1)
    loss = nn.functional.ctc_loss(scores, labels[None], *sizes, reduction="sum")
    assert found.log_probability == pytest.approx(-float(loss), rel=1e-5)
    assert [each.label for each in found.labels] == LETTERS.symbols(ids)
    assert [each.frame for each in found.labels] == ctc_alignment(parameters[0], labels).tolist()


def test_a_greedy_transcript_is_the_heads_prediction() -> None:
    head: Any = READER.network.head
    for source, found in zip(LINES, transcribe(READER, LINES, batch_size=3), strict=True):
        parameters = parameters_of(READER, source)
        check(found, [label for label in head.predict(parameters)[0].tolist() if label >= 0], parameters)


@pytest.mark.parametrize("characters", ["abc\n", "cab"])
def test_a_beam_and_a_language_model_are_those_of_the_search(characters: str) -> None:
    tokenizer = CharacterTokenizer(characters)
    model = language_model(tokenizer)
    options = TranscriptSearch(num_beams=5, lm_weight=0.8, insertion_bonus=0.3)

    found = list(transcribe(READER, LINES, options=options, language_model=model))

    used = language_model_of(model, LETTERS, 0.8)
    assert used.tokens.tolist()[2:] == tokenizer.encode("abc")
    assert used.start == (tokenizer.encode("\n")[0] if "\n" in characters else tokenizer.start)
    for source, one in zip(LINES, found, strict=True):
        parameters = parameters_of(READER, source)
        best = ctc_beam_search(parameters, num_beams=5, language_model=used, insertion_bonus=0.3)
        check(one, best.tokens[0, 0, : int(best.lengths[0, 0])].tolist(), parameters)
    assert [one.text for one in found] != [one.text for one in transcribe(READER, LINES)]


def test_other_networks_and_language_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"transcription needs a SequenceTagger with a CTCHead; .* a GRUCell"):
        transcribe(Bundle(GRUCell(2, 3), READER.processor, {}), LINES)
    with pytest.raises(ValueError, match="classification needs a SequenceClassifier"):
        list(classify(READER, LINES))
    with pytest.raises(ValueError, match="the language model's checkpoint contains a SequenceTagger, not a Decoder"):
        transcribe(READER, LINES, language_model=READER)
    accents = bundle(LineColumns(8, 2, 2), CharacterTokenizer("aé"))
    with pytest.raises(ValueError, match="the label 'é' is 2 bytes of the language model, and must be one"):
        transcribe(accents, LINES, language_model=language_model(ByteTokenizer()))
    with pytest.raises(ValueError, match="num_beams=0"):
        list(transcribe(READER, LINES, options=TranscriptSearch(num_beams=0)))
    with pytest.raises(ValueError, match="no such file"):
        list(transcribe(READER, [tmp_path / "none.png"]))
    with pytest.raises(ValueError, match="expected a list of sources"):
        transcribe(READER, "line.png")


def ears(target: Any, normalization: str = "none", *, bidirectional: bool = False) -> Bundle:
    return bundle(AudioFeatures(8000, num_mels=8, normalization=normalization), target, bidirectional=bidirectional)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.lists(st.integers(0, 3000), max_size=5), st.sampled_from([8000, 11025]))
def test_the_texts_of_a_stream_are_the_transcript_of_the_whole(seed: int, cuts: list[int], rate: int) -> None:
    samples = torch.randn(3000, generator=torch.Generator().manual_seed(seed)) * 0.3
    for target in (LETTERS, SentenceTokenizer(["one", "two", "six"])):
        made = ears(target)
        (whole,) = transcribe(made, [(samples, rate)])
        transcriber = Session(made, rate=rate)
        places = [0, *sorted(cuts), len(samples)]
        for _ in range(2):  # it can be used again
            pieces = [transcriber.feed(samples[a:b]) for a, b in itertools.pairwise(places) if b > a]
            assert "".join([*pieces, transcriber.finish()]) == whole.text


def test_a_stream_of_nothing_has_no_text_and_a_short_one_is_padded() -> None:
    made = ears(LETTERS)
    transcriber = Session(made, rate=8000)
    assert transcriber.finish() == ""
    assert transcriber.feed(torch.ones(50) * 0.1) == ""
    assert transcriber.finish() == next(iter(transcribe(made, [(torch.ones(50) * 0.1, 8000)]))).text


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (READER, "read as a whole by a LineColumns"),
        (
            ears(LETTERS, bidirectional=True),
            "bidirectional; for streaming, train it with network.encoder.bidirectional",
        ),
        (ears(LETTERS, "utterance"), "normalization=utterance"),
    ],
)
def test_what_needs_whole_recordings_is_refused(made: Bundle, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Session(made, rate=8000)
