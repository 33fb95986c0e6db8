"""Features of sound: librosa's numbers, and the same frames whether the whole is there or samples arrive."""

import io
import json
import math
import struct
import wave
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AudioFeatures,
    CategoricalHead,
    FeatureEncoder,
    GRUCell,
    MeanPooling,
    Recurrent,
    SequenceClassifier,
    build,
)
from unrolled.processing.audio.recordings import CutOffError, Recording, read_recording, resample
from unrolled.processing.audio.spectra import delta, mel_filter_bank, power_spectrum

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "audio.json").read_text())
RATE = 8000


def sound() -> Tensor:
    """As in golden/make_audio.py."""
    time = torch.arange(1200, dtype=torch.float64) / RATE
    noise = torch.tensor([((n * 1103515245 + 12345) % 65536) / 65536 - 0.5 for n in range(1200)], dtype=torch.float64)
    tones = [torch.sin(2 * math.pi * k * (200 * time + 800 * time**2)) / k for k in (1, 2, 3)]
    return 0.3 * torch.stack(tones).sum(0) + 0.05 * noise


def features(**options: Any) -> AudioFeatures:
    return AudioFeatures(RATE, **{"num_mels": 20, "normalization": "none", "floor": 1e-12, **options}).double()


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


@pytest.mark.parametrize("normalize", ["none", "mean", "utterance", "level", "fitted", "running"])
@pytest.mark.parametrize("deltas", [0, 2])
def test_padding_and_neighbours_never_matter(normalize: str, deltas: int) -> None:
    one, other = sound(), 0.1 * sound()[:500]
    reader = features(normalization=normalize, deltas=deltas)
    if reader.needs_fit:
        reader = reader.fit([one.float(), other.float()]).double()
    padded = torch.full((2, 1200), torch.nan, dtype=torch.float64)
    padded[0], padded[1, :500] = one, other

    both = reader.features(padded, torch.tensor([1200, 500]))

    assert both.lengths.tolist() == [13, 4]
    torch.testing.assert_close(both.values[0], reader(one), rtol=0, atol=1e-9)
    torch.testing.assert_close(both.values[1, :4], reader(other), rtol=0, atol=1e-9)
    assert not both.values[1, 4:].any()


@pytest.mark.parametrize("normalize", ["none", "fitted", "running"])
@pytest.mark.parametrize("pieces", [[1200], [1] * 7 + [350, 3, 840], [80] * 15])
def test_frames_of_arriving_samples_are_those_of_the_whole(normalize: str, pieces: list[int]) -> None:
    reader = features(normalization=normalize, preemphasis=0.9).fit([0.5 * sound().float()]).double()
    state = reader.initial_state(1, like=sound())
    heard: list[Tensor] = []
    for piece in sound().split(pieces):
        frames, state = reader.step(piece.unsqueeze(0), state)
        heard.append(frames[0])

    torch.testing.assert_close(torch.cat(heard), reader(sound()), rtol=0, atol=1e-9)
    assert state.samples.shape[1] < reader.window_samples


def test_a_microphone_hears_what_the_whole_recording_says() -> None:
    torch.manual_seed(0)
    reader = features(normalization="running").fit([sound().float()]).double()
    encoder = FeatureEncoder(20, lambda **sizes: Recurrent(GRUCell, hidden_size=6, **sizes), bidirectional=False)
    network = SequenceClassifier(encoder, partial(CategoricalHead, num_classes=3), MeanPooling).double().eval()
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
        {"normalization": "utterance"},
        {"normalization": "mean"},
        {"deltas": 1},
        {"depth": 60},
        {"trim": 30},
        {"normalization": "level"},
    ],
)
def test_what_needs_the_end_cannot_hear_as_samples_arrive(options: dict[str, Any]) -> None:
    reader = features(**options)

    assert not reader.streams
    with pytest.raises(ValueError, match="normalization=running"):
        reader.initial_state(1, like=sound())


def test_frames_that_leave_samples_out_cannot_be_streamed() -> None:
    reader = features(normalization="none", window=0.02, hop=0.03)

    assert not reader.streams
    with pytest.raises(ValueError, match=r"hop=0.03 is longer than window=0.02"):
        reader.initial_state(1, like=sound())
    assert features(normalization="none", window=0.02, hop=0.02).streams


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
    level = features(normalization="level", **fitted)

    moved = level(sound()) - features()(sound())

    torch.testing.assert_close(moved, torch.full_like(moved, float(moved[0, 0])), rtol=0, atol=1e-9)
    torch.testing.assert_close(level(0.01 * sound()), level(sound()), rtol=0, atol=1e-6)
    assert float(level(sound()).exp().mean(1).max()) == pytest.approx(1.0)  # the loudest frame


def test_silence_and_the_shortest_sounds_are_finite() -> None:
    for normalize in ("none", "mean", "utterance"):
        for samples in (torch.zeros(900), torch.zeros(1), torch.ones(3)):
            assert bool(AudioFeatures(RATE, normalization=normalize, deltas=1)(samples).isfinite().all())
    with pytest.raises(ValueError, match="without a sample"):
        AudioFeatures(RATE)(torch.zeros(0))


def test_the_features_come_back_from_plain_data() -> None:
    reader = AudioFeatures(RATE, normalization="running", num_mels=12, high=3500.0, prior=9, trim=20.0, depth=50.0).fit(
        [sound().float()]
    )

    again = build(json.loads(json.dumps(reader.to_dict())), trusted=("unrolled.",))

    torch.testing.assert_close(again(sound().float()), reader(sound().float()), rtol=0, atol=0)


@pytest.mark.parametrize(("normalize", "trim"), [("fitted", None), ("fitted", 6.0), ("level", None), ("level", 6.0)])
def test_fitted_features_have_mean_zero_and_deviation_one(normalize: str, trim: float | None) -> None:
    # Noise that swells: every band varies, so that none has its scale from the floor.
    swelling = torch.linspace(0.1, 1.0, 4000) * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    recordings = [swelling, 0.3 * swelling[:2000]]

    reader = AudioFeatures(RATE, normalization=normalize, trim=trim, num_mels=12).fit(recordings)

    values = torch.cat([reader(recording) for recording in recordings])
    torch.testing.assert_close(values.mean(0), torch.zeros(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(values.std(0, unbiased=False), torch.ones(12), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="call fit"):
        AudioFeatures(RATE, normalization="fitted")(sound().float())


def test_a_band_that_hardly_varied_in_training_is_not_blown_up() -> None:
    reader = AudioFeatures(RATE, normalization="level", num_mels=12, deltas=1, low=200.0, depth=30.0)
    tone = 0.5 * torch.sin(2 * math.pi * 250 * torch.arange(8000) / RATE)
    swelling = tone * torch.linspace(0.1, 1.0, 8000)  # far from the tone all lies at the depth, always
    trained = reader.fit([swelling, 0.7 * swelling + 1e-4 * sound().float().repeat(7)[:8000]])

    for first in range(0, len(trained.scales), 12):
        block = trained.scales[first : first + 12]
        assert float(block.min()) >= 0.099 * float(block.median())


def test_a_warp_moves_a_tone_to_another_band_and_keeps_the_ends() -> None:
    time = torch.arange(1600) / RATE
    tone = torch.sin(2 * math.pi * 1000 * time).unsqueeze(0).repeat(3, 1)
    reader = AudioFeatures(RATE, normalization="none")

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
        ({"normalization": "batch"}, "normalization='batch'"),
        ({"high": 9000.0}, "high=9000.0"),
        ({"hop": 0.0}, "hop=0.0"),
        ({"deltas": 3}, "deltas=3"),
        ({"kind": "mfcc", "num_coefficients": 21}, "num_coefficients=21"),
        ({"centers": [0.0]}, "centers has 1 number,"),
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
    with pytest.raises(ValueError, match=r"empty\.wav has no samples"):
        read_recording(wav([]), "empty.wav")
    with pytest.raises(ValueError, match=r"noise\.wav cannot be read as audio"):
        read_recording(io.BytesIO(b"no sound at all"), "noise.wav")
    with pytest.raises(ValueError, match=r"nowhere\.wav: no such file"):
        read_recording("nowhere.wav")


# Files that lie -----------------------------------------------------------------------------------------------------


def written(path: Path, seconds: float = 2.0, **options: Any) -> bytes:
    soundfile = pytest.importorskip("soundfile")
    time = torch.arange(round(seconds * RATE)) / RATE
    soundfile.write(path, (0.3 * torch.sin(2 * math.pi * (300 + 200 * time) * time)).numpy(), RATE, **options)
    return path.read_bytes()


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_a_recording_that_is_cut_off_is_named_or_read_as_far_as_it_goes(
    tmp_path: Path, kind: str, share: float, as_bytes: bool
) -> None:
    path = tmp_path / f"a.{kind}"
    content = written(path, 20.0)
    whole = read_recording(path)
    path.write_bytes(content[: round(share * len(content))])

    def read(**options: Any) -> Recording:
        return read_recording(io.BytesIO(path.read_bytes()) if as_bytes else path, str(path), **options)

    assert not whole.cut_off
    with pytest.raises(CutOffError, match=rf"a\.{kind} is cut off: "):
        read()
    found = read(partial=True)
    assert found.cut_off
    assert 0.2 * share * len(whole.samples) < len(found.samples) < len(whole.samples)
    torch.testing.assert_close(found.samples[:1000], whole.samples[:1000], rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_stream_of_unknown_length_is_whole(size: int) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setparams((1, 2, RATE, 0, "NONE", ""))
        opened.writeframes(bytes(2000))
    content = bytearray(file.getvalue())
    content[40:44] = size.to_bytes(4, "little")

    found = read_recording(io.BytesIO(content))

    assert (len(found.samples), found.cut_off) == (1000, "")


def test_an_mp3_file_without_its_length_is_whole(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    drawn = torch.randn(60000, generator=torch.Generator().manual_seed(7)) * 0.2
    samples = torch.cat([torch.zeros(30000), drawn, torch.sin(torch.arange(60000) / 20) * 0.2])
    soundfile.write(tmp_path / "a.mp3", samples.numpy(), 16000, bitrate_mode="VARIABLE", compression_level=0.5)
    content = (tmp_path / "a.mp3").read_bytes()
    # Without its first frame, which says how many there are, the length is a guess, here twice of what it is.
    (tmp_path / "a.mp3").write_bytes(content[content.index(content[:2], 200) :])

    found = read_recording(tmp_path / "a.mp3", max_seconds=11)

    assert soundfile.info(tmp_path / "a.mp3").duration > 11
    assert (found.cut_off, len(found.samples)) == ("", pytest.approx(len(samples), rel=0.02))


def claiming(path: Path, samples: int, rate: int = RATE) -> Path:
    """A FLAC file whose header tells of so many samples."""
    content = bytearray(written(path, 0.5))
    about = int.from_bytes(content[18:26], "big")
    about = (rate << 44) | (about & ((1 << 44) - (1 << 36))) | samples
    content[18:26] = about.to_bytes(8, "big")
    path.write_bytes(content)
    return path


def test_a_header_that_claims_too_much_takes_neither_time_nor_memory(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    huge, large = claiming(tmp_path / "huge.flac", (1 << 36) - 1), claiming(tmp_path / "large.flac", 3000 * RATE)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"huge\.flac is 8,589,935 s long or more, and max_seconds=3600: .* raise"):
        read_recording(huge)
    with pytest.raises(ValueError, match=r"large\.flac "):
        read_recording(large)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB


def test_the_longest_recording_is_asked_for(tmp_path: Path) -> None:
    written(tmp_path / "a.wav", 3.0)
    written(tmp_path / "a.mp3", 3.0)

    for name in ("a.wav", "a.mp3"):
        assert len(read_recording(tmp_path / name, max_seconds=3.1).samples) == 3 * RATE
        with pytest.raises(ValueError, match=r"max_seconds=2\.5"):
            read_recording(tmp_path / name, max_seconds=2.5)
    with pytest.raises(ValueError, match="max_seconds is 0, expected a value above 0"):
        read_recording(tmp_path / "a.wav", max_seconds=0)


def test_rates_that_take_too_many_filters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the rates 44101 and 16000 .* common rate"):
        resample(torch.zeros(100), 44101, 16000)
