"""Encoders: what they hand on, and what they drop."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from unrolled import ElmanCell, FeatureEncoder, GRUCell, OneHotEmbedding, Recurrent, RecurrentEncoder


def encoder(**options: Any) -> RecurrentEncoder:
    torch.manual_seed(0)
    return RecurrentEncoder.of_tokens(7, 4, partial(Recurrent, GRUCell, hidden_size=6), **options).double()


def test_the_ids_of_the_source_are_handed_on(generator: torch.Generator) -> None:
    source = torch.randint(7, (3, 5), generator=generator)

    assert encoder()(source, torch.tensor([5, 0, 2])).tokens is source


@pytest.mark.parametrize("variational", [True, False])
def test_input_dropout_is_one_mask_for_all_steps_or_one_for_each(variational: bool) -> None:
    network = encoder(input_dropout=0.5, variational_dropout=variational)
    seen: list[torch.Tensor] = []
    network.core.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    network(torch.full((3, 9), 2))

    dropped = seen[0] == 0
    assert 0 < dropped.double().mean() < 1
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped)) == variational


def test_dropped_tokens_are_read_as_zeros() -> None:
    network = encoder(token_dropout=0.5)
    seen: list[torch.Tensor] = []
    network.core.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    network(torch.full((3, 9), 2))
    network.eval()(torch.full((3, 9), 2))

    missing = (seen[0] == 0).all(-1)
    assert 0 < missing.double().mean() < 1
    assert torch.equal(seen[0][~missing], seen[1][~missing])


def test_output_dropout_acts_on_the_values_and_leaves_the_summary() -> None:
    plain, dropping = encoder().eval(), encoder(output_dropout=0.5, variational_dropout=False)
    source = torch.arange(21).view(3, 7) % 7

    whole, dropped = plain(source), dropping(source)

    kept = dropped.values != 0
    assert 0.3 < kept.double().mean() < 0.7
    torch.testing.assert_close(dropped.values[kept], 2 * whole.values[kept])
    torch.testing.assert_close(dropped.summary, whole.summary)
    torch.testing.assert_close(dropping.eval()(source).values, whole.values)


@pytest.mark.parametrize("length", [0, 1])
def test_the_shortest_sources_are_encoded(length: int) -> None:
    encoded = encoder()(torch.zeros(2, length, dtype=torch.long))

    assert encoded.values.shape == (2, length, 12)
    assert encoded.summary.shape == (2, 12)
    assert bool(encoded.summary.any()) == bool(length)


@pytest.mark.parametrize("bands", [1, 7, 8, 40])
def test_band_filters_find_at_four_bands_further_what_they_found(bands: int) -> None:
    encoder = FeatureEncoder(bands, partial(Recurrent, GRUCell, hidden_size=3), conv_channels=2)
    frame = torch.zeros(1, 2, bands)
    if bands == 40:
        frame[0, 0, 12:15] = torch.tensor([1.0, -2.0, 3.0])
        frame[0, 1, 16:19] = torch.tensor([1.0, -2.0, 3.0])

    found = encoder.embed(frame).view(2, 2, -1)

    assert found.shape[-1] == -(-bands // 4)
    torch.testing.assert_close(found[1, :, 3:8], found[0, :, 2:7])
    assert bands < 40 or not torch.allclose(found[0], found[1])


def test_band_filters_see_a_frame_and_those_before_it() -> None:
    torch.manual_seed(0)
    encoder = FeatureEncoder(6, partial(Recurrent, GRUCell, hidden_size=3), conv_channels=4, conv_frames=3).double()
    frames = torch.randn(1, 12, 6, dtype=torch.float64)
    moved = frames.clone()
    moved[0, 5] += 1.0

    changed = (encoder.embed(moved) != encoder.embed(frames)).any(-1)[0]

    assert changed.nonzero().flatten().tolist() == [5, 6, 7, 8, 9]  # two layers, each of which sees two frames more
    assert encoder.embed(frames[:, :0]).shape == (1, 0, 8)


def test_band_filters_are_normalized_over_the_valid_frames_alone() -> None:
    torch.manual_seed(0)
    options = {"conv_channels": 4, "conv_frames": 2, "conv_norm": True, "bidirectional": False}
    encoder = FeatureEncoder(6, partial(Recurrent, GRUCell, hidden_size=3), **options).double()
    long, short = torch.randn(1, 9, 6, dtype=torch.float64), torch.randn(1, 4, 6, dtype=torch.float64)
    padded = torch.cat([long, torch.cat([short, torch.full((1, 5, 6), torch.nan)], dim=1)])
    norm = encoder.convolution.norms[0]

    encoder(padded, torch.tensor([9, 4]))

    found = torch.cat(
        [encoder.convolution.first(nn.functional.pad(x.unsqueeze(1), (0, 0, 1, 0))) for x in (long, short)], 2
    )
    torch.testing.assert_close(norm.running_mean, 0.1 * found.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * found.transpose(0, 1).flatten(1).var(1))
    assert bool(encoder(padded, torch.tensor([0, 0])).values.isfinite().all())


@pytest.mark.parametrize("options", [{"filters": 0}, {"conv_channels": 0}, {"conv_frames": 0}])
def test_no_filter_is_none_and_not_zero(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}=0"):
        FeatureEncoder(8, partial(Recurrent, GRUCell, hidden_size=3), **options)


@pytest.mark.parametrize("options", [{"conv_frames": 3}, {"conv_norm": True}])
def test_options_of_band_filters_without_them_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need conv_channels, which is None"):
        FeatureEncoder(8, partial(Recurrent, GRUCell, hidden_size=3), **options)


def test_one_hot_vectors_are_rows_of_the_identity_and_no_parameters() -> None:
    embedding = OneHotEmbedding(5)
    ids = torch.tensor([[4, 0, 2], [1, 1, 3]])

    assert torch.equal(embedding(ids), torch.nn.functional.one_hot(ids, 5).float())
    assert not embedding.state_dict()
    encoder = RecurrentEncoder(embedding, partial(Recurrent, ElmanCell, hidden_size=3), bidirectional=False)
    assert encoder(ids).values.shape == (2, 3, 3)
    with pytest.raises(ValueError, match="vocabulary_size=0: expected 1 or more"):
        OneHotEmbedding(0)
