"""Recordings changed at random: by how much, and where."""

import math

import pytest
import torch
from torch import Tensor

from unrolled import AudioFeatures
from unrolled.processing.audio.augmentation import AudioAugmentation

RATE = 8000


def bands(samples: Tensor, augmentation: AudioAugmentation | None = None, seed: int = 0) -> Tensor:
    """Decibels of each of 20 bands, in the mean over time."""
    features = AudioFeatures(RATE, num_mels=20, normalization="none")
    frames = features(samples) if augmentation is None else augmentation([samples], features, [seed])[0]
    return frames.mean(0) * 10 / math.log(10)


def hiss() -> Tensor:
    return 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))


def test_a_tilt_is_a_slope_over_the_bands() -> None:
    moved = [bands(hiss(), AudioAugmentation(tilt=12.0), seed) - bands(hiss()) for seed in range(20)]

    slopes = torch.stack([(each[-1] - each[0]) for each in moved])
    assert 6 < float(slopes.abs().max()) <= 12
    assert float(slopes.min()) < 0 < float(slopes.max())
    for each in moved:
        assert bool((each.diff() * each.diff().sum().sign() > -0.2).all())  # always the same way


def test_an_equalizer_goes_no_further_than_it_may_and_draws_anew_for_each() -> None:
    moved = torch.stack([bands(hiss(), AudioAugmentation(equalizer=9.0), seed) - bands(hiss()) for seed in range(40)])

    assert 6 < float(moved.abs().max()) < 9.2
    spread = moved.std(0)
    assert bool((spread > 2).all())  # all bands are moved
    ends = torch.corrcoef(moved[:, [0, -1]].T)[0, 1]
    assert abs(float(ends)) < 0.5  # the lowest and the highest each by itself
    assert torch.equal(
        bands(hiss(), AudioAugmentation(equalizer=9.0), 3), bands(hiss(), AudioAugmentation(equalizer=9.0), 3)
    )


def test_a_filter_moves_nothing_in_time() -> None:
    click = torch.zeros(4000)
    click[1000] = 1.0
    changed = AudioAugmentation(equalizer=9.0, tilt=6.0)._sound(click, RATE, torch.Generator().manual_seed(1))

    assert len(changed) == 4000
    assert int(changed.abs().argmax()) == 1000
    assert float(changed[1200:].abs().max()) < 0.02 * float(changed.abs().max())


def test_silence_is_added_at_both_ends_each_by_itself() -> None:
    augmentation = AudioAugmentation(padding=0.1)
    found = []
    for seed in range(30):
        changed = augmentation._sound(torch.ones(1000), RATE, torch.Generator().manual_seed(seed))
        assert float(changed.sum()) == 1000
        before = int(changed.argmax())
        found.append([before, len(changed) - 1000 - before])

    ends = torch.tensor(found, dtype=torch.float32)
    assert bool((ends.amax(0) > 600).all())
    assert float(ends.max()) <= 800
    assert abs(float(torch.corrcoef(ends.T)[0, 1])) < 0.5


def test_quiet_ends_are_cut_off_and_nothing_between() -> None:
    """Steps of 10 decibels up to a loud middle and down again, with a gap in it."""
    decibels = [-40, -30, -20, -10, 0, -60, 0, -10, -20, -30, -40]
    steps = torch.cat([torch.full((480,), 10 ** (each / 20)) for each in decibels])

    for depth, cut in ((5.0, 4), (15.0, 3), (25.0, 2), (45.0, 0)):
        augmentation = AudioAugmentation(trim=1.0, min_trim=depth, max_trim=depth)
        changed = augmentation._sound(steps, RATE, torch.Generator().manual_seed(0))
        assert torch.equal(changed, steps[480 * cut : len(steps) - 480 * cut])

    ragged = torch.cat([torch.zeros(1000), torch.ones(50)])  # what is over when frames are counted belongs to the last
    assert torch.equal(AudioAugmentation(trim=1.0)._sound(ragged, RATE, torch.Generator().manual_seed(0)), ragged[960:])
    silence = torch.zeros(7)
    assert torch.equal(AudioAugmentation(trim=1.0)._sound(silence, RATE, torch.Generator().manual_seed(0)), silence)


def test_ends_are_cut_off_as_often_as_asked_by_a_depth_drawn_for_each() -> None:
    fading = 0.5 ** (torch.arange(8000) / 400)
    augmentation = AudioAugmentation(trim=0.5, min_trim=10.0, max_trim=50.0)
    lengths = [len(augmentation._sound(fading, RATE, torch.Generator().manual_seed(seed))) for seed in range(100)]

    cut = [length for length in lengths if length < 8000]
    assert 35 < len(cut) < 65
    assert len(set(cut)) > 15
    least, most = (400 * decibels / (20 * math.log10(2)) for decibels in (10, 50))
    assert least - 160 <= min(cut) < least + 400
    assert most - 400 < max(cut) <= most + 160


def test_noise_is_as_far_below_as_asked() -> None:
    tone = torch.sin(torch.arange(8000) / 3)
    for decibels in (0.0, 20.0):
        augmentation = AudioAugmentation(noise=1.0, min_snr=decibels, max_snr=decibels)
        added = augmentation._sound(tone, RATE, torch.Generator().manual_seed(0)) - tone
        found = 10 * math.log10(float(tone.square().mean() / added.square().mean()))
        assert found == pytest.approx(decibels, abs=0.01)


@pytest.mark.parametrize(
    "options", [{"equalizer": -1.0}, {"padding": -0.1}, {"tilt": -3.0}, {"noise": 1.2}, {"trim": 1.1}, {"speed": 1.0}]
)
def test_impossible_changes_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"augmentation: {next(iter(options))}="):
        AudioAugmentation(**options)


@pytest.mark.parametrize("name", ["snr", "trim"])
def test_the_least_is_not_above_the_most(name: str) -> None:
    with pytest.raises(ValueError, match=rf"min_{name}=50.0 is above max_{name}="):
        AudioAugmentation(**{f"min_{name}": 50.0})
