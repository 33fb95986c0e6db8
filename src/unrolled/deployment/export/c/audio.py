"""The features of an audio stream in C: samples in, frames out."""

import math

import torch

from unrolled.deployment.export.c.source import Body, Source, comment, literal
from unrolled.processing.audio.features import AudioFeatures


def write_features(source: Source, features: AudioFeatures) -> str:
    """Write the function that computes frames of samples, and return its declaration.

    Raises:
        ValueError: features that need later samples, or a hop that is longer than the window.
    """
    features.initial_state(1, like=torch.empty(0))  # raises the error for features that cannot be streamed
    window, hop = features.window_samples, features.hop_samples
    samples = source.state(torch.zeros(window), "samples")
    count = source.counter(0, "num_samples")
    _write_frame(source, features)
    body = Body()
    body.add(
        f"while (*num_samples > 0 && {count} < {window}) {{",
        f"  {samples}[{count}++] = *(*samples)++;",
        "  --*num_samples;",
        "}",
        f"if ({count} < {window}) return 0;",
        "$_features(state, frame);",
    )
    if hop < window:
        body.each(window - hop, f"{samples}[j] = {samples}[{hop} + j];")
    body.add(f"{count} = {window - hop};", "return 1;")
    signature = "int $_frame($_state *state, const float **samples, int *num_samples, float *frame)"
    source.function(signature, body)
    about = (
        "Reads samples from -1 to 1 at $$_RATE hertz, up to the next frame of $$_INPUTS features. Returns 1 after a "
        "frame, or 0 if there are too few samples; they are kept for the next call. Moves *samples after what it has "
        "read, and subtracts that from *num_samples: call it until it returns 0."
    )
    return f"{comment(about)}\n{signature};"


def _write_frame(source: Source, features: AudioFeatures) -> None:
    """Write the function that computes the frame of a whole window of samples."""
    window, fft, mels = features.window_samples, features.fft_size, features.num_mels
    body = Body()
    body.array(fft, "windowed")
    body.array(fft // 2 + 1, "power")
    value, share = "state->samples[j]", literal(features.preemphasis)
    if features.preemphasis:
        value = f"({value} - {share} * state->samples[j > 0 ? j - 1 : 0])"
    body.each(window, f"windowed[j] = {value} * {source.vector(features.taper)}[j];")
    if fft > window:
        body.each(fft - window, f"windowed[{window} + j] = 0.0f;")
    angles = torch.arange(fft // 2, dtype=torch.float64) * (2 * math.pi / fft)
    tables = f"{source.vector(angles.cos())}, {source.vector(angles.sin())}"
    body.add(f"$_power_spectrum(windowed, {fft}, {tables}, power);")
    logs = "frame" if features.kind == "log_mel" else body.array(mels, "logs")
    _write_mels(source, features, body, logs)
    if features.kind == "mfcc":
        body.add(source.exact(features.cosines.T, None, logs, "frame"))
    _write_normalization(source, features, body)
    source.function("static void $_features($_state *state, float *frame)", body)


def _write_mels(source: Source, features: AudioFeatures, body: Body, logs: str) -> None:
    """Add the logarithms of the mel bands, each a triangle over some bins of the spectrum."""
    bank = features.bank
    first: list[int] = []
    counts: list[int] = []
    weights: list[torch.Tensor] = []
    for band in bank.unbind(1):
        places = band.nonzero().flatten()
        begin, end = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        first.append(begin)
        counts.append(end - begin)
        weights.append(band[begin:end])
    joined = source.vector(torch.cat(weights) if sum(counts) else torch.zeros(1))
    begin, number, floor = source.integers(first), source.integers(counts), literal(features.floor)
    body.add(f"const float *weights = {joined};")
    body.each(
        features.num_mels,
        "float sum = 0.0f;",
        f"for (int k = 0; k < {number}[j]; k++) sum += power[{begin}[j] + k] * *weights++;",
        f"sum /= {literal(float(features.window_samples))};",
        f"{logs}[j] = logf(sum > {floor} ? sum : {floor});",
    )


def _write_normalization(source: Source, features: AudioFeatures, body: Body) -> None:
    if features.normalization == "none":
        return
    if not features.fitted:
        raise ValueError(f"normalization={features.normalization} needs centers and scales: call fit()")
    size = features.output_size
    center, scale = source.vector(features.centers), source.vector(features.scales)
    body.each(size, f"frame[j] = (frame[j] - {center}[j]) / {scale}[j];")
    if features.normalization == "fitted":
        return
    total, square = source.state(torch.zeros(size), "total"), source.state(torch.zeros(size), "square")
    frames, prior = source.state(torch.zeros(1), "num_frames"), literal(float(features.prior))
    body.add(f"{frames}[0] += 1.0f;", f"const float count = {prior} + {frames}[0];")
    body.each(
        size,
        f"{total}[j] += frame[j];",
        f"{square}[j] += frame[j] * frame[j];",
        f"const float mean = {total}[j] / count;",
        f"frame[j] = (frame[j] - mean) / sqrtf(({prior} + {square}[j]) / count - mean * mean);",
    )
