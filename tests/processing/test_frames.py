"""Series are normalized as numpy does it in float64, however far from zero they lie."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from unrolled import FeatureEncoder, GRUCell, LastPooling, NumbersHead, Processor, Recurrent, Scaler, SequenceClassifier
from unrolled.checkpoint import Bundle
from unrolled.deployment import Session, classify
from unrolled.descriptions import build
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.frames import SeriesScaler

CORE = partial(Recurrent, GRUCell, hidden_size=8)


def waves(offset: float, size: float = 1.0) -> list[np.ndarray]:
    return [offset + size * np.sin(0.3 * np.arange(40)[:, None] + [n, 2 * n]) for n in range(5)]


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize("offset", [0.0, -3.0, 1e4, 1e8, -1e10])
def test_standardised_series_are_numpys(offset: float, size: float) -> None:
    series = waves(offset, size)
    joined = np.concatenate(series)
    expected = [(one - joined.mean(0)) / joined.std(0) for one in series]

    reader = SeriesScaler.fit([torch.from_numpy(one) for one in series], ["x", "y"])
    restored = build(reader.to_dict())

    # What the numbers themselves have lost to the offset, and the rounding of a float32.
    bound = 4 * np.spacing(abs(offset) + size) / size + 1e-6
    for one, right in zip(series, expected, strict=True):
        for each in (reader, restored):
            frames = each(torch.from_numpy(one))
            assert frames.dtype == torch.float32
            np.testing.assert_allclose(frames.numpy(), right, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.int16, torch.float16])
def test_any_kind_of_number_is_standardised_as_numpy_does_it(dtype: torch.dtype) -> None:
    series = torch.randint(-500, 500, (50, 2), generator=torch.Generator().manual_seed(3)).to(dtype)
    wide = series.numpy().astype(np.float64)

    frames = SeriesScaler.fit([series], ["x", "y"])(series)

    np.testing.assert_allclose(frames.numpy(), (wide - wide.mean(0)) / wide.std(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e8, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_varies_by_rounding_alone_is_constant(value: float, dtype: torch.dtype) -> None:
    series = torch.full((1000, 1), value, dtype=dtype)
    series[::3] = torch.nextafter(series[::3], torch.zeros_like(series[::3]))

    reader = SeriesScaler.fit([series[:700], series[700:]], ["x"])

    assert reader.scales.tolist() == [1.0]
    assert float(reader(series[:1]).abs()) <= 1e-7 * abs(float(series[0, 0]))


def test_what_float32_cannot_hold_is_named() -> None:
    reader = SeriesScaler(["x", "y"], [0.0, 0.0], [1.0, 1e-300])

    with pytest.raises(ValueError, match=r"step 1 .*channel 'y' is 5.0, one of 1 values that are too large"):
        reader(torch.tensor([[1e30, 0.0], [1.0, 5.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"step 0 .*channel 'x' is nan, one of 1 values that are not finite"):
        reader(torch.tensor([[torch.nan, 0.0]]))
    with pytest.raises(ValueError, match="the values are not finite, or too large for a mean"):
        SeriesScaler.fit([torch.tensor([[1e300], [-1e300]], dtype=torch.float64)], ["x"])


def numbers_bundle(reader: Any, center: float, scale: float) -> Bundle:
    torch.manual_seed(1)
    processor = Processor(reader, Scaler(["y"], [center], [scale]))
    encoder = FeatureEncoder(reader.output_size, CORE, bidirectional=False)
    return Bundle(SequenceClassifier(encoder, partial(NumbersHead, num_outputs=1), LastPooling).eval(), processor, {})


@pytest.mark.parametrize("as_array", [True, False])
def test_predictions_do_not_depend_on_where_zero_lies(as_array: bool) -> None:
    near, far = waves(0.0), waves(1e8)

    def said(series: list[np.ndarray], center: float) -> np.ndarray:
        reader = SeriesScaler.fit([torch.from_numpy(one) for one in series], ["x", "y"])
        sources = series if as_array else [torch.from_numpy(one) for one in series]
        return np.array([one.values["y"] for one in classify(numbers_bundle(reader, center, 2.0), sources)])

    np.testing.assert_allclose(said(far, 1e9) - 1e9, said(near, 0.0), rtol=0, atol=1e-5)


def test_a_listener_answers_with_numbers_far_from_zero() -> None:
    features = AudioFeatures(8000, num_mels=8, normalization="none")
    samples = 0.1 * np.sin(np.arange(2000))

    near, far = (Session(numbers_bundle(features, c, 1.0), rate=8000).feed(samples) for c in (0.0, 1e8))

    assert near is not None
    assert far is not None
    assert far.values["y"] - 1e8 == pytest.approx(near.values["y"], abs=1e-6)


def test_numbers_are_written_with_the_digits_that_vary() -> None:
    scaler = Scaler(["y", "z"], [1e8, 0.0], [0.5, 2.0])

    assert scaler.format([100000000.123456, 1.23456789]) == ["100000000.12346", "1.23457"]
    assert scaler.encode([1e8 + 0.25, 3.0]) == [0.5, 1.5]


@pytest.mark.parametrize("source", [np.array([["a"]]), np.array([[{}]], dtype=object), np.ones((3, 1), dtype=complex)])
def test_arrays_of_other_things_than_numbers_are_refused(source: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"source 1: it (is|has)"):
        list(classify(numbers_bundle(SeriesScaler(["x"], [0.0], [1.0]), 0.0, 1.0), [source]))
