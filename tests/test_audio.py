"""Features of sound: librosa's numbers, and the same frames whether the whole is there or samples arrive."""

import io
import json
import math
import struct
import wave
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import AudioFeatures, FeatureEncoder, GRUCell, MeanPooling, Recurrent, SequenceClassifier, build
from unrolled.audio import delta, mel_filter_bank, power_spectrum, read_recording, resample

GOLDEN = json.loads((Path(__file__).parent / "golden" / "audio.json").read_text())
RATE = 8000


def sound() -> Tensor:
    """As in golden/make_audio.py."""
    time = torch.arange(1200, dtype=torch.float64) / RATE
    noise = torch.tensor([((n * 1103515245 + 12345) % 65536) / 65536 - 0.5 for n in range(1200)], dtype=torch.float64)
    tones = [torch.sin(2 * math.pi * k * (200 * time + 800 * time**2)) / k for k in (1, 2, 3)]
    return 0.3 * torch.stack(tones).sum(0) + 0.05 * noise


def features(**options: Any) -> AudioFeatures:
    return AudioFeatures(RATE, **{"num_mels": 20, "normalise": "none", "floor": 1e-12, **options}).double()


def close(found: Tensor, expected: Any, *, atol: float) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=atol)


def test_power_and_mel_bands_are_librosas() -> None:
    frames = sound().unfold(0, 200, 80) * torch.hann_window(200, dtype=torch.float64)

    close(power_spectrum(frames, 256)[::4, ::16], GOLDEN["power"], atol=1e-5)
    close(mel_filter_bank(20, 256, RATE, 20.0, 4000.0)[::8], GOLDEN["bank"], atol=1e-6)


def test_log_mels_cepstra_and_deltas_are_librosas() -> None:
    in_decibels = 10 / math.log(10)
    # Ours are relative to the window's length, librosa's are not; that moves all bands, and the first cepstrum.
    level = 10 * math.log10(200)
    log_mels = features()(sound()) * in_decibels + level
    cepstra = features(kind="mfcc", deltas=2)(sound()) * in_decibels

    close(log_mels, GOLDEN["decibels"], atol=1e-3)
    first = torch.zeros(13, dtype=torch.float64)
    first[0] = level * math.sqrt(20)
    close(cepstra[:, :13] + first, GOLDEN["cepstra"], atol=1e-3)
    close(cepstra[:, 13:26], GOLDEN["delta"], atol=1e-3)
    close(cepstra[:, 26:], GOLDEN["delta_of_delta"], atol=1e-3)


@pytest.mark.parametrize("normalise", ["none", "mean", "utterance", "level", "fitted", "running"])
@pytest.mark.parametrize("deltas", [0, 2])
def test_padding_and_neighbours_never_matter(normalise: str, deltas: int) -> None:
    one, other = sound(), 0.1 * sound()[:500]
    reader = features(normalise=normalise, deltas=deltas)
    if reader.needs_fit:
        reader = reader.fit([one.float(), other.float()]).double()
    padded = torch.full((2, 1200), torch.nan, dtype=torch.float64)
    padded[0], padded[1, :500] = one, other

    both = reader.features(padded, torch.tensor([1200, 500]))

    assert both.lengths.tolist() == [13, 4]
    torch.testing.assert_close(both.values[0], reader(one), rtol=0, atol=1e-9)
    torch.testing.assert_close(both.values[1, :4], reader(other), rtol=0, atol=1e-9)
    assert not both.values[1, 4:].any()


@pytest.mark.parametrize("normalise", ["none", "fitted", "running"])
@pytest.mark.parametrize("pieces", [[1200], [1] * 7 + [350, 3, 840], [80] * 15])
def test_frames_of_arriving_samples_are_those_of_the_whole(normalise: str, pieces: list[int]) -> None:
    reader = features(normalise=normalise, emphasis=0.9).fit([0.5 * sound().float()]).double()
    state = reader.initial_state(1, like=sound())
    heard: list[Tensor] = []
    for piece in sound().split(pieces):
        frames, state = reader.step(piece.unsqueeze(0), state)
        heard.append(frames[0])

    torch.testing.assert_close(torch.cat(heard), reader(sound()), rtol=0, atol=1e-9)
    assert state.samples.shape[1] < reader.window_samples


def test_a_microphone_hears_what_the_whole_recording_says() -> None:
    torch.manual_seed(0)
    reader = features(normalise="running").fit([sound().float()]).double()
    encoder = FeatureEncoder(20, lambda **sizes: Recurrent(GRUCell, hidden_size=6, **sizes), bidirectional=False)
    network = SequenceClassifier(encoder, 3, MeanPooling).double().eval()
    ears, memory = reader.initial_state(1, like=sound()), network.initial_state(1)
    logits = torch.zeros(0)

    for samples in sound().split(100):
        frames, ears = reader.step(samples.unsqueeze(0), ears)
        for frame in frames.unbind(1):
            logits, memory = network.step(frame, memory)

    torch.testing.assert_close(logits, network(reader(sound()).unsqueeze(0)), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"normalise": "utterance"},
        {"normalise": "mean"},
        {"deltas": 1},
        {"depth": 60},
        {"trim": 30},
        {"normalise": "level"},
    ],
)
def test_what_needs_the_end_cannot_hear_as_samples_arrive(options: dict[str, Any]) -> None:
    reader = features(**options)

    assert not reader.streams
    with pytest.raises(ValueError, match="normalise=running"):
        reader.initial_state(1, like=sound())


def test_nothing_is_told_apart_below_the_depth() -> None:
    plain, deep = features()(sound()), features(depth=20.0)(sound())

    limit = plain.max() - 20 * math.log(10) / 10
    assert 0 < int((plain < limit).sum()) < plain.numel()
    torch.testing.assert_close(deep, plain.clamp(min=limit), rtol=0, atol=1e-9)
    both = features(depth=20.0).features(torch.stack([sound(), 1e-3 * sound()]), torch.tensor([1200, 700]))
    torch.testing.assert_close(both.values[1, :7], features(depth=20.0)(1e-3 * sound()[:700]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("trim", [10.0, 30.0])
def test_what_is_quiet_at_either_end_is_left_out(trim: float) -> None:
    recording = torch.cat([1e-4 * sound(), 1e-2 * sound(), sound(), 0 * sound(), 0.5 * sound(), 1e-3 * sound()])
    whole = features()(recording)
    power = [float(frame.exp().sum()) for frame in whole]
    loud = [n for n, each in enumerate(power) if each >= max(power) / 10 ** (trim / 10)]

    found = features(trim=trim)(recording)

    assert 25 < loud[0] - 1 < loud[-1] + 2 < len(whole) - 10
    torch.testing.assert_close(found, whole[loud[0] - 1 : loud[-1] + 2], rtol=0, atol=1e-9)
    other = sound()[:700]
    padded = torch.full((2, len(recording)), torch.nan, dtype=torch.float64)
    padded[0], padded[1, :700] = recording, other
    both = features(trim=trim, deltas=1).features(padded, torch.tensor([len(recording), 700]))
    alone = features(trim=trim, deltas=1)(other)
    assert both.lengths.tolist() == [len(found), len(alone)]
    torch.testing.assert_close(both.values[0], features(trim=trim, deltas=1)(recording), rtol=0, atol=1e-9)
    torch.testing.assert_close(both.values[1, : len(alone)], alone, rtol=0, atol=1e-9)
    assert not both.values[1, len(alone) :].any()


def test_silence_is_not_trimmed_away() -> None:
    assert len(features(trim=30.0)(0 * sound())) == 13
    assert len(features(trim=30.0)(torch.zeros(1, dtype=torch.float64))) == 1


def test_a_level_is_one_number_for_all_bands_and_frames() -> None:
    fitted = {"centers": [0.0] * 20, "scales": [1.0] * 20}
    level = features(normalise="level", **fitted)

    moved = level(sound()) - features()(sound())

    torch.testing.assert_close(moved, torch.full_like(moved, float(moved[0, 0])), rtol=0, atol=1e-9)
    torch.testing.assert_close(level(0.01 * sound()), level(sound()), rtol=0, atol=1e-6)
    assert float(level(sound()).exp().mean(1).max()) == pytest.approx(1.0)  # the loudest frame


def test_silence_and_the_shortest_sounds_are_finite() -> None:
    for normalise in ("none", "mean", "utterance"):
        for samples in (torch.zeros(900), torch.zeros(1), torch.ones(3)):
            assert bool(AudioFeatures(RATE, normalise=normalise, deltas=1)(samples).isfinite().all())
    with pytest.raises(ValueError, match="without a sample"):
        AudioFeatures(RATE)(torch.zeros(0))


def test_the_features_come_back_from_plain_data() -> None:
    reader = AudioFeatures(RATE, normalise="running", num_mels=12, high=3500.0, prior=9, trim=20.0, depth=50.0).fit(
        [sound().float()]
    )

    again = build(json.loads(json.dumps(reader.to_dict())), trusted=("unrolled.",))

    torch.testing.assert_close(again(sound().float()), reader(sound().float()), rtol=0, atol=0)


@pytest.mark.parametrize(("normalise", "trim"), [("fitted", None), ("fitted", 6.0), ("level", None), ("level", 6.0)])
def test_fitted_features_have_mean_zero_and_deviation_one(normalise: str, trim: float | None) -> None:
    # Noise that swells: every band varies, so that none has its scale from the floor.
    swelling = torch.linspace(0.1, 1.0, 4000) * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    recordings = [swelling, 0.3 * swelling[:2000]]

    reader = AudioFeatures(RATE, normalise=normalise, trim=trim, num_mels=12).fit(recordings)

    values = torch.cat([reader(recording) for recording in recordings])
    torch.testing.assert_close(values.mean(0), torch.zeros(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(values.std(0, unbiased=False), torch.ones(12), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="call fit"):
        AudioFeatures(RATE, normalise="fitted")(sound().float())


def test_a_band_that_hardly_varied_in_training_is_not_blown_up() -> None:
    reader = AudioFeatures(RATE, normalise="level", num_mels=12, deltas=1, low=200.0, depth=30.0)
    tone = 0.5 * torch.sin(2 * math.pi * 250 * torch.arange(8000) / RATE)
    swelling = tone * torch.linspace(0.1, 1.0, 8000)  # far from the tone all lies at the depth, always
    trained = reader.fit([swelling, 0.7 * swelling + 1e-4 * sound().float().repeat(7)[:8000]])

    for first in range(0, len(trained.scales), 12):
        block = trained.scales[first : first + 12]
        assert float(block.min()) >= 0.099 * float(block.median())


def test_a_warp_moves_a_tone_to_another_band_and_keeps_the_ends() -> None:
    time = torch.arange(1600) / RATE
    tone = torch.sin(2 * math.pi * 1000 * time).unsqueeze(0).repeat(3, 1)
    reader = AudioFeatures(RATE, normalise="none")

    peaks = reader.features(tone, torch.tensor([1600] * 3), [0.8, 1.0, 1.2]).values.mean(1).argmax(-1).tolist()

    assert peaks[0] > peaks[1] > peaks[2]  # bands at lower places hear the same tone further up
    for warp in (0.8, 1.2):
        bank = mel_filter_bank(20, 256, RATE, 0.0, None, warp)
        assert bool((bank >= 0).all())
        assert bool((bank.sum(0) > 0).all())


@pytest.mark.parametrize(("rate", "new"), [(8000, 16000), (44100, 8000), (16000, 44100), (22050, 16000)])
def test_resampling_keeps_a_tone(rate: int, new: int) -> None:
    def tone(at: int) -> Tensor:
        return torch.sin(2 * math.pi * 440 * torch.arange(at // 4, dtype=torch.float64) / at)

    found = resample(tone(rate), rate, new)

    assert len(found) == math.ceil(rate // 4 * new / rate)
    middle = slice(new // 50, new // 5)
    torch.testing.assert_close(found[middle], tone(new)[middle], rtol=0, atol=2e-3)


def test_resampling_takes_out_what_the_lower_rate_cannot_hold() -> None:
    high = torch.sin(2 * math.pi * 6000 * torch.arange(8000, dtype=torch.float64) / 16000)

    assert float(resample(high, 16000, 8000)[200:-200].abs().max()) < 0.01


def test_deltas_are_slopes() -> None:
    line = (3.0 * torch.arange(9.0)).view(1, 9, 1)

    torch.testing.assert_close(delta(line)[0, 2:7, 0], torch.full((5,), 3.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "spectrum"}, "kind='spectrum'"),
        ({"normalise": "batch"}, "normalise='batch'"),
        ({"high": 9000.0}, "high=9000.0"),
        ({"hop": 0.0}, "hop=0.0"),
        ({"deltas": 3}, "deltas=3"),
        ({"kind": "mfcc", "num_coefficients": 21}, "not 21"),
        ({"centers": [0.0]}, "centers has 1 numbers"),
    ],
)
def test_impossible_features_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features(**options)


def wav(samples: list[tuple[int, ...]], rate: int = RATE) -> io.BytesIO:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(len(samples[0]) if samples else 1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(struct.pack(f"<{len(s)}h", *s) for s in samples))
    held.seek(0)
    return held


def test_recordings_are_read_and_mixed() -> None:
    pytest.importorskip("soundfile")

    recording = read_recording(wav([(16384, 0), (-16384, -16384)]), "stereo.wav")

    assert (recording.rate, recording.channels) == (RATE, 2)
    torch.testing.assert_close(recording.samples, torch.tensor([0.25, -0.5]))
    with pytest.raises(ValueError, match=r"empty\.wav holds no sample"):
        read_recording(wav([]), "empty.wav")
    with pytest.raises(ValueError, match=r"noise\.wav cannot be read as sound"):
        read_recording(io.BytesIO(b"no sound at all"), "noise.wav")
    with pytest.raises(ValueError, match=r"nowhere\.wav: no such file"):
        read_recording("nowhere.wav")
