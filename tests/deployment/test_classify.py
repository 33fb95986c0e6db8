"""Sources as they come to hand: arrays, pictures of any depth, long texts; and what is refused, by its name."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrolled import (
    AudioFeatures,
    CategoricalHead,
    FeatureEncoder,
    GRUCell,
    LabelEncoder,
    MeanPooling,
    Processor,
    Recurrent,
    RecurrentEncoder,
    SequenceClassifier,
)
from unrolled.checkpoint import Bundle
from unrolled.deployment import Session, classify
from unrolled.processing.audio.recordings import StreamingResampler, resample
from unrolled.processing.frames import ImageSequence, SeriesScaler
from unrolled.processing.text.tokenizers import SentenceTokenizer

Image = pytest.importorskip("PIL.Image")
CORE = partial(Recurrent, GRUCell, hidden_size=8)


def bundle(reader: Any, **options: Any) -> Bundle:
    torch.manual_seed(1)
    processor = Processor(reader, LabelEncoder(["a", "b"], **options))
    if isinstance(reader, SentenceTokenizer):
        encoder: Any = RecurrentEncoder.of_tokens(reader.size, 8, CORE)
    else:
        encoder = FeatureEncoder(reader.output_size, CORE, bidirectional=False)
    return Bundle(
        SequenceClassifier(encoder, partial(CategoricalHead, num_classes=2), MeanPooling).eval(), processor, {}
    )


def said(made: Bundle, *sources: Any) -> list[dict[str, float]]:
    return [answer.values for answer in classify(made, sources)]


def test_samples_may_be_an_array_or_a_tensor() -> None:
    ears = bundle(AudioFeatures(8000, num_mels=8))
    samples = torch.randn(2000, generator=torch.Generator().manual_seed(2))

    first, *others = said(ears, (samples, 8000), (samples.numpy(), 8000.0), [samples.double().numpy(), 8000])

    assert all(other == pytest.approx(first, abs=1e-6) for other in others)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((torch.full((2000,), torch.nan), 8000), "source 1: sample 0 of 2000 is not finite"),
        ((torch.full((2000,), 1e30), 8000), "source 1 has numbers that are not finite, or too large"),
        ((torch.zeros(2000, dtype=torch.int16), 8000), r"source 1: samples are \(2000,\) of torch.int16"),
        ((torch.zeros(2, 2000), 8000), r"source 1: samples are \(2, 2000\)"),
        ((torch.zeros(2000), "8000"), "source 1 is neither a path nor a pair"),
        ((torch.zeros(2000), 0), "source 1 is neither a path nor a pair"),
        (([0.1, 0.2], 8000), "source 1: it is a list; samples must be a tensor or an array"),
        (torch.zeros(2), "source 1 is neither a path nor a pair"),
        (torch.zeros(2000), "source 1 is neither a path nor a pair"),
    ],
)
def test_samples_that_are_none_are_refused(source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        said(bundle(AudioFeatures(8000, num_mels=8)), source)


def test_a_listener_refuses_what_it_could_not_forget() -> None:
    listener = Session(bundle(AudioFeatures(8000, num_mels=8, normalization="none")), rate=8000)
    with pytest.raises(ValueError, match="sample 3 of 500 is not finite"):
        listener.feed(np.where(np.arange(500) == 3, np.inf, 0.0))

    answer = listener.feed(np.zeros(2000, dtype=np.float32))

    assert answer is not None
    assert sum(answer.values.values()) == pytest.approx(1)


@pytest.mark.parametrize("normalize", ["none", "fitted", "running"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 6000])
@pytest.mark.parametrize("length", [1, 50, 199, 1000, 4321])
@pytest.mark.parametrize("piece", [1, 37, 10_000])
def test_what_was_heard_and_finished_is_the_whole(normalize: str, rate: int, length: int, piece: int) -> None:
    if piece == 1 and length > 1000:
        piece = 3
    drawn = torch.Generator().manual_seed(length)
    features = AudioFeatures(8000, num_mels=8, normalization=normalize)
    training = [torch.rand(2000, generator=drawn) - 0.5]
    ears = bundle(features.fit(training) if features.needs_fit else features)
    samples = torch.rand(length, generator=drawn) - 0.5
    listener = Session(ears, rate=rate)

    (expected,) = classify(ears, [(samples, rate)])
    for _ in range(2):  # what was finished is forgotten
        for some in samples.split(piece):
            listener.feed(some)
        assert listener.finish().values == pytest.approx(expected.values, abs=1e-5)
    with pytest.raises(ValueError, match="nothing was fed"):
        listener.finish()


def test_a_listener_wants_to_know_the_rate() -> None:
    ears = bundle(AudioFeatures(8000, num_mels=8, normalization="none"))
    for rate, message in ((0, "1 hertz or more"), (8001, "too many filters")):
        with pytest.raises(ValueError, match=message):
            Session(ears, rate=rate)


@pytest.mark.parametrize(("rate", "new"), [(8000, 16000), (44100, 8000), (16000, 44100), (22050, 16000), (8000, 8000)])
@pytest.mark.parametrize("pieces", [[500], [1, 2, 3, 494], [250, 0, 250], [7] * 70 + [10]])
def test_samples_that_arrive_are_resampled_as_the_whole_is(rate: int, new: int, pieces: list[int]) -> None:
    samples = torch.randn(500, generator=torch.Generator().manual_seed(4))
    arriving = StreamingResampler(rate, new)

    found = [arriving.feed(piece) for piece in samples.split(pieces)]

    torch.testing.assert_close(torch.cat([*found, arriving.flush()]), resample(samples, rate, new), rtol=0, atol=1e-6)


def test_pictures_of_every_depth_are_the_same_picture(tmp_path: Path) -> None:
    grey = (np.add.outer(np.arange(8), np.arange(8)) * 17).astype(np.uint8)
    plain = Image.fromarray(grey)
    clear = Image.fromarray(np.stack([np.zeros_like(grey)] * 3 + [255 - grey], axis=-1), "RGBA")  # black on nothing
    turned = plain.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned back
    plain.save(tmp_path / "plain.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    clear.save(tmp_path / "clear.png")
    turned.save(tmp_path / "turned.png", exif=exif)
    paths = [str(tmp_path / f"{name}.png") for name in ("plain", "deep", "clear", "turned")]
    values = torch.from_numpy(grey)[None]

    first, *others = said(bundle(ImageSequence([8, 8])), *paths, plain, grey, values, values / 255)

    assert len(others) == 7
    assert all(other == pytest.approx(first, abs=1e-6) for other in others)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.full((1, 8, 8), 200.0), "source 1: an image's values must be bytes, or from 0 to 1"),
        (torch.full((1, 8, 8), torch.nan), "source 1: an image's values"),
        ("nowhere.png", "nowhere.png: no such file"),
    ],
)
def test_pictures_that_are_none_are_refused(source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        said(bundle(ImageSequence([8, 8])), source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.zeros(0, 2), "source 1 has no steps"),
        ([[1.0, 2.0]], "source 1: it is a list; a SeriesScaler needs a tensor or an array"),
        (np.array([[0.0, 1.0], [np.nan, 1.0]]), r"source 1: step 1 \(the first is 0\), channel 'x' is nan"),
        (torch.zeros(3, 4), "source 1: .*series"),
    ],
)
def test_series_that_are_none_are_refused(source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        said(bundle(SeriesScaler(["x", "y"], [0.0, 0.0], [1.0, 1.0])), source)


def test_texts_are_cut_where_training_cut_them() -> None:
    short, cut, whole = (
        said(bundle(SentenceTokenizer.fit([["a good film and a bad book"]], max_length=most)), text)[0]
        for most, text in ((None, "a good"), (2, "a good film"), (None, "a good film"))
    )

    assert cut == short != whole


def test_one_source_is_no_list_of_letters() -> None:
    with pytest.raises(ValueError, match=r"sources is 'a\.wav', expected a list"):
        classify(bundle(AudioFeatures(8000, num_mels=8)), "a.wav")


def test_a_text_beyond_the_limit_is_cut_and_named() -> None:
    made = bundle(SentenceTokenizer(["good", "bad"]))
    told: list[str] = []

    cut, short = classify(made, ["good bad " * 50, "bad"], max_length=3, notice=told.append)

    assert [cut.values, short.values] == [pytest.approx(one) for one in said(made, "good bad good", "bad")]
    assert told == ["source 1 has 100 words, more than max_length=3: it is truncated"]
    with pytest.raises(ValueError, match=r"steps=0.*: expected 1 or more"):
        classify(made, ["good"], max_length=0)


def test_files_beyond_a_limit_are_refused_by_name(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000), 8000)
    Image.new("L", (40, 30)).save(tmp_path / "large.png")

    with pytest.raises(ValueError, match=r"long\.wav is 2 s long or more, and max_seconds=1\.5"):
        list(classify(bundle(AudioFeatures(8000, num_mels=8)), [str(tmp_path / "long.wav")], max_seconds=1.5))
    with pytest.raises(ValueError, match=r"large\.png: 40 × 30 points, and max_pixels=1199"):
        list(classify(bundle(ImageSequence([4, 4])), [str(tmp_path / "large.png")], max_pixels=1199))
