"""Decoders of frames: numbers, keys and pen strokes instead of tokens, with conditions, attention and any head."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    CategoricalHead,
    Encoded,
    FrameEmbedding,
    GRUCell,
    Head,
    LabelsHead,
    LSTMCell,
    MixtureHead,
    NumbersHead,
    Recurrent,
    TokenEmbedding,
    sample,
    scheduled_sampling,
)
from unrolled.models.decoders.base import DecoderState
from unrolled.sequences import mask_from_lengths
from unrolled.shapes import ShapeError
from unrolled.state import leaves

SOURCE, CONDITIONS = 5, 2
HEADS = {
    "strokes": (3, partial(MixtureHead, num_components=4)),
    "series": (1, partial(MixtureHead, num_components=3, num_coordinates=1, end_of_stroke=False)),
    "keys": (4, partial(LabelsHead, num_labels=4)),
}


def make(kind: str = "strokes", *, attends: bool = False, **options: Any) -> AutoregressiveDecoder:
    torch.manual_seed(1)
    size, head = HEADS[kind]
    core = partial(Recurrent, LSTMCell, hidden_size=8, num_layers=2)
    if attends:
        options = {"attention": partial(AdditiveAttention, attention_size=6), "source_size": SOURCE, **options}
    decoder = AutoregressiveDecoder(FrameEmbedding(size, 7), core, head, condition_size=CONDITIONS, **options)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return decoder.double().eval()


def started(decoder: AutoregressiveDecoder, rows: int, generator: torch.Generator) -> tuple[DecoderState, Any]:
    if decoder.bridge is None:
        return decoder.start(rows)
    values = torch.randn(rows, 4, SOURCE, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([4, 2, 3, 1, 4, 4])[:rows]
    return decoder.start(rows, Encoded(values, lengths, values[:, 0], None))


def frames(kind: str, rows: int, time: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(rows, time, HEADS[kind][0], generator=generator, dtype=torch.float64)
    if kind == "keys":
        return (drawn > 0).double()
    return torch.cat([drawn[..., :2], (drawn[..., 2:] > 0).double()], -1) if kind == "strokes" else drawn


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_steps_are_one_pass(kind: str, attends: bool, generator: torch.Generator) -> None:
    decoder = make(kind, attends=attends)
    given = frames(kind, 3, 6, generator)
    beside = torch.randn(3, 6, CONDITIONS, generator=generator, dtype=torch.float64)
    state, memory = started(decoder, 3, generator)

    whole = decoder(given, state, memory, conditions=beside)
    stepped = []
    for step in range(6):
        decoded = decoder.step(given[:, step], state, memory, conditions=beside[:, step])
        stepped.append(decoded.parameters)
        state = decoded.state

    torch.testing.assert_close(torch.stack(stepped, 1), whole.parameters, rtol=0, atol=1e-12)
    for one, other in zip(leaves(state), leaves(whole.state), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attends", [False, True])
def test_padding_reaches_nothing_not_even_as_nan(attends: bool, generator: torch.Generator) -> None:
    decoder = make(attends=attends)
    lengths = torch.tensor([6, 2, 0])
    valid = mask_from_lengths(lengths, 6)
    given = frames("strokes", 3, 6, generator)
    beside = torch.randn(3, 6, CONDITIONS, generator=generator, dtype=torch.float64)
    state, memory = started(decoder, 3, generator)
    found = []
    for filler in (0.0, torch.nan):
        padded, others = (each.masked_fill(~valid.unsqueeze(-1), filler) for each in (given, beside))
        decoded = decoder(padded, state, memory, lengths, others)
        loss = decoder.head.loss(decoded.parameters, padded, valid)
        gradients = torch.autograd.grad(loss.total, list(decoder.parameters()), retain_graph=True, allow_unused=True)
        found.append([loss.total, *leaves(decoded.state), *(g for g in gradients if g is not None)])

    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_a_sample_has_the_log_probability_of_a_pass_over_it(
    kind: str, attends: bool, temperature: float, generator: torch.Generator
) -> None:
    decoder = make(kind, attends=attends)
    beside = torch.randn(6, 9, CONDITIONS, generator=generator, dtype=torch.float64)
    begin = frames(kind, 6, 1, generator)[:, 0]
    state, memory = started(decoder, 6, generator)
    most = torch.tensor([8, 3, 0, 1, 8, 2])

    drawn = sample(
        decoder,
        state,
        memory,
        start=begin,
        conditions=beside,
        max_length=most,
        temperature=temperature,
        generator=generator,
    )

    assert drawn.lengths.equal(most)
    assert drawn.values.shape == (6, 8, HEADS[kind][0])
    mask = mask_from_lengths(most, 8)
    assert not drawn.values[~mask].any()
    inputs = torch.cat([begin.unsqueeze(1), drawn.values[:, :-1]], 1)
    parameters = decoder(inputs, state, memory, most, beside[:, :8]).parameters
    losses = decoder.head.losses(parameters.detach(), drawn.values).masked_fill(~mask, 0.0).sum(1)
    torch.testing.assert_close(drawn.log_probability.double(), -losses, rtol=1e-5, atol=1e-5)
    if temperature == 0.0:
        torch.testing.assert_close(drawn.values[mask], decoder.head.predict(parameters)[mask])


def test_first_samples_have_the_heads_distribution(generator: torch.Generator) -> None:
    decoder, rows = make("series"), 40_000
    begin = torch.zeros(rows, 1, dtype=torch.float64)
    beside = torch.zeros(rows, 1, CONDITIONS, dtype=torch.float64)

    drawn = sample(decoder, *decoder.start(rows), start=begin, conditions=beside, max_length=1, generator=generator)

    parameters = decoder.step(begin[:1], conditions=beside[:1, 0]).parameters.detach()
    expected = decoder.head.distribution(parameters)
    assert abs(float(drawn.values.mean() - expected.mean)) < 4 * float(expected.variance.sqrt()) / rows**0.5
    assert abs(float(drawn.values.var() / expected.variance) - 1) < 0.05


def test_a_function_ends_rows(generator: torch.Generator) -> None:
    """It sees every row at every step, and the value for which it returns true is the row's last."""
    decoder = make("series")
    begin, beside = torch.zeros(4, 1).double(), torch.zeros(4, 10, CONDITIONS).double()
    seen: list[int] = []

    def stop(step: int, state: DecoderState, values: Tensor) -> Tensor:
        assert leaves(state)[0].shape[0] == len(values) == 4
        seen.append(step)
        return torch.tensor([step >= 2, step >= 0, False, step >= 5])

    options = {"start": begin, "conditions": beside, "stop": stop, "max_length": torch.tensor([9, 9, 7, 9])}
    drawn = sample(decoder, *decoder.start(4), **options, generator=generator)
    later = sample(decoder, *decoder.start(4), **options, min_length=2, generator=generator)

    assert drawn.lengths.tolist() == [3, 1, 7, 6]
    assert later.lengths.tolist() == [3, 3, 7, 6]
    assert seen[:7] == list(range(7))
    assert not drawn.values[~mask_from_lengths(drawn.lengths, 7)].any()


def test_a_function_ends_rows_of_tokens(generator: torch.Generator) -> None:
    decoder = AutoregressiveDecoder.of_tokens(6, 4, partial(Recurrent, GRUCell, hidden_size=5)).eval()

    def stop(step: int, state: DecoderState, values: Tensor) -> Tensor:
        return values == 3

    start = torch.zeros(50, dtype=torch.long)
    drawn = sample(decoder, *decoder.start(50), start=start, stop=stop, max_length=30, generator=generator)

    for ids, length in zip(drawn.values.tolist(), drawn.lengths.tolist(), strict=True):
        assert 3 not in ids[: length - 1]
        assert ids[length - 1] == 3 or length == 30
        assert not any(ids[length:])


def test_a_wave_continues_by_itself_with_the_period_it_is_given() -> None:
    """A sine of any period: the phase is in the state, and the period is a condition."""
    torch.manual_seed(0)
    core = partial(Recurrent, GRUCell, hidden_size=32)
    decoder = AutoregressiveDecoder(FrameEmbedding(1), core, partial(NumbersHead, num_outputs=1), condition_size=1)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)

    def waves(periods: Tensor, time: int, phases: Tensor) -> tuple[Tensor, Tensor]:
        values = torch.sin((torch.arange(time) + phases[:, None]) * 2 * torch.pi / periods[:, None])
        return values.unsqueeze(-1), (10 / periods)[:, None, None].expand(-1, time, 1)

    for _ in range(400):
        values, beside = waves(8 + 12 * torch.rand(32), 41, 20 * torch.rand(32))
        parameters = decoder(values[:, :-1], conditions=beside[:, :-1]).parameters
        loss = decoder.head.loss(parameters, values[:, 1:]).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    values, beside = waves(torch.tensor([9.0, 13.0, 18.0]), 60, torch.zeros(3))
    decoder.eval()
    state = decoder(values[:, :20], conditions=beside[:, :20]).state

    options = {"start": values[:, 20], "conditions": beside[:, 20:], "max_length": 30, "temperature": 0.0}
    drawn = sample(decoder, state, **options)

    assert (drawn.values - values[:, 21:51]).abs().mean() < 0.15  # 0.64 for zeros


def test_scheduled_sampling_of_frames(generator: torch.Generator) -> None:
    decoder = make("keys")
    given = frames("keys", 200, 4, generator)
    beside = torch.zeros(200, 4, CONDITIONS).double()
    options: dict[str, Any] = {"conditions": beside, "generator": generator}

    fed = scheduled_sampling(decoder, given, *decoder.start(200), probability=1.0, **options)
    some = scheduled_sampling(decoder, given, *decoder.start(200), probability=0.3, **options)

    assert fed.shape == given.shape
    assert fed[:, 0].equal(given[:, 0])
    chances = decoder(fed, conditions=beside).parameters.sigmoid().mean((0, 1))
    torch.testing.assert_close(fed[:, 1:].mean((0, 1)), chances.detach(), atol=0.1, rtol=0)
    changed = (some != given).any(-1)
    assert 0.1 < changed[:, 1:].double().mean() < 0.31


class Rigid(NumbersHead):
    """A head that only predicts."""

    sample = Head.sample


def numbers(head: Any = None, size: int = 2, **options: Any) -> AutoregressiveDecoder:
    head = head or partial(NumbersHead, num_outputs=2)
    return AutoregressiveDecoder(FrameEmbedding(size), partial(Recurrent, GRUCell, hidden_size=4), head, **options)


def test_what_cannot_be_is_named() -> None:
    core = partial(Recurrent, GRUCell, hidden_size=4)
    classes = partial(CategoricalHead, num_classes=3)
    with pytest.raises(ValueError, match="tied=True needs a TokenEmbedding and a CategoricalHead"):
        numbers(tied=True)
    with pytest.raises(ValueError, match="readout_size and copy: for a decoder with attention"):
        numbers(readout_size=3, copy=True)
    with pytest.raises(ValueError, match="give source_size"):
        AutoregressiveDecoder(TokenEmbedding(3, 4), core, classes, AdditiveAttention)
    with pytest.raises(ValueError, match="embedding is an int, expected an InputEmbedding"):
        AutoregressiveDecoder(3, core, classes)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="predicts no tokens: its head is a NumbersHead"):
        _ = numbers().vocabulary_size
    decoder = numbers()
    start = torch.zeros(3, 2)
    rigid = numbers(partial(Rigid, num_outputs=2))
    with pytest.raises(ValueError, match="a Rigid can't be sampled; temperature=0"):
        sample(rigid, *rigid.start(3), start=start, max_length=2)
    assert sample(rigid, *rigid.start(3), start=start, max_length=2, temperature=0.0).values.shape == (3, 2, 2)
    assert sample(decoder, *decoder.start(3), start=start, max_length=2, temperature=0.0).values.shape == (3, 2, 2)
    for wrong in ({"top_k": 3}, {"stop": 0}, {"forbidden": [1]}, {"no_repeat_ngram_size": 2}, {"top_p": 0.5}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: for decoders of tokens"):
            sample(decoder, *decoder.start(3), start=start, max_length=2, temperature=0.0, **wrong)
    with pytest.raises(ValueError, match="targets of 2 entries can't continue frames of 5 features"):
        sample(numbers(size=5), *numbers(size=5).start(3), start=torch.zeros(3, 5), max_length=2)
    with pytest.raises(ShapeError, match="start has the shape"):
        sample(decoder, *decoder.start(3), start=torch.zeros(3), max_length=2)
    with torch.no_grad():
        decoder.head.linear.bias[0] = torch.nan
    with pytest.raises(ValueError, match="row 0: the decoder's"):
        sample(decoder, *decoder.start(3), start=start, max_length=2, temperature=0.0)


def test_conditions_are_checked() -> None:
    decoder, start = make("series"), torch.zeros(3, 1).double()
    with pytest.raises(ValueError, match="reads 2 features beside each input"):
        decoder(torch.zeros(3, 4, 1).double())
    with pytest.raises(ShapeError, match=r"conditions has the shape \(3, 5, 2\), expected \(3, 4, 2\)"):
        decoder(torch.zeros(3, 4, 1).double(), conditions=torch.zeros(3, 5, 2))
    with pytest.raises(ShapeError, match="conditions has 4 steps, but max_length is 5"):
        sample(decoder, *decoder.start(3), start=start, conditions=torch.zeros(3, 4, 2), max_length=5)
    with pytest.raises(ValueError, match="condition_size=0"):
        numbers()(torch.zeros(3, 4, 2), conditions=torch.zeros(3, 4, 2))
    with pytest.raises(ValueError, match="condition_size is -1"):
        numbers(condition_size=-1)
