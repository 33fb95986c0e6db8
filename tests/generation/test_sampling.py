"""Sampling against distributions that can be worked out by hand."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    CategoricalHead,
    Decoded,
    Decoder,
    DecoderState,
    Encoded,
    GRUCell,
    Recurrent,
    greedy,
    sample,
    scheduled_sampling,
)


class Table(Decoder):
    """The next token's distribution is a row of a table, chosen by the last token."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.head = CategoricalHead(1, len(probabilities))
        self.logits = probabilities.log()

    def start(self, batch: int, encoded: Any = None) -> tuple[DecoderState, None]:
        return DecoderState(None), None

    def forward(
        self, tokens: Tensor, state: DecoderState, memory: Any = None, lengths: Tensor | None = None
    ) -> Decoded:
        return Decoded(self.logits[tokens], None, state)

    def step(self, tokens: Tensor, state: DecoderState, memory: Any = None) -> Decoded:
        return Decoded(self.logits[tokens], None, state)


ROWS = 20_000


@pytest.fixture
def table() -> Table:
    return Table(torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.7, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 1.0], [0.25] * 4]))


def shares(tokens: Tensor) -> Tensor:
    return torch.bincount(tokens, minlength=4) / len(tokens)


def draw(table: Table, generator: torch.Generator, **options: Any) -> Tensor:
    start = torch.zeros(ROWS, dtype=torch.long)
    return sample(table, *table.start(ROWS), start=start, max_length=1, generator=generator, **options).values[:, 0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.3, 0.2]),
        ({"temperature": 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3]),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_k": 99}, [0.1, 0.4, 0.3, 0.2]),
        ({"top_p": 0.35}, [0, 1, 0, 0]),
        ({"top_p": 0.69}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.3, 0.2]),
        ({"forbidden": [1]}, [0.1 / 0.6, 0, 0.3 / 0.6, 0.2 / 0.6]),
    ],
)
def test_shares_are_those_of_the_distribution(
    table: Table, generator: torch.Generator, options: dict, expected: list[float]
) -> None:
    found = shares(draw(table, generator, **options))

    # Four standard deviations of a share of one half over this many rows.
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=2 / ROWS**0.5)
    assert not found[torch.tensor(expected) == 0].any()


def test_a_seed_repeats_and_the_global_generator_is_left_alone(table: Table) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()

    first, second = (draw(table, torch.Generator().manual_seed(3)) for _ in range(2))

    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_greedy_is_temperature_zero_and_follows_the_argmax(table: Table) -> None:
    written = greedy(table, *table.start(2), start=torch.tensor([0, 1]), max_length=4)

    assert written.values.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    assert written.lengths.tolist() == [4, 4]
    expected = torch.tensor([0.4 * 0.7 * 0.4 * 0.7, 0.7 * 0.4 * 0.7 * 0.4]).log()
    torch.testing.assert_close(written.log_probability, expected)


def test_a_row_ends_at_its_stop_symbol_while_others_go_on(table: Table) -> None:
    written = greedy(table, *table.start(2), start=torch.tensor([2, 0]), stop=3, max_length=3)

    assert written.values.tolist() == [[3, 3, 3], [1, 0, 1]]
    assert written.lengths.tolist() == [0, 3]
    assert written.log_probability[0] == 0  # the stop symbol was certain, and nothing after it counts


def test_a_stop_symbol_may_be_any_integer(table: Table) -> None:
    options = {"start": torch.tensor([1, 2]), "max_length": 6, "temperature": 0.0}

    expected = sample(table, *table.start(2), stop=3, **options)
    found = sample(table, *table.start(2), stop=np.int64(3), **options)  # pyright: ignore[reportArgumentType]

    assert torch.equal(found.lengths, expected.lengths)
    assert expected.lengths.tolist() == [6, 0]


def test_all_rows_finished_end_the_search(table: Table) -> None:
    assert greedy(table, *table.start(1), start=torch.tensor([2]), stop=3, max_length=50).values.shape == (1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_bad_options_are_named(table: Table, generator: torch.Generator, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(table, generator, **options)


def test_each_row_has_its_own_least_and_greatest_length(table: Table, generator: torch.Generator) -> None:
    most, least = torch.tensor([6, 3, 0, 6] * 50), torch.tensor([2, 3, 0, 6] * 50)
    start = torch.zeros(200, dtype=torch.long)

    table.logits = (table.logits.exp() + 0.05).log()  # so that there is always something to write
    drawn = sample(
        table, *table.start(200), start=start, stop=3, max_length=most, min_length=least, generator=generator
    )

    assert ((drawn.lengths >= least) & (drawn.lengths <= most)).all()
    assert len(set(drawn.lengths[::4].tolist())) > 2
    behind = torch.arange(drawn.values.shape[1]) >= drawn.lengths[:, None]
    assert ((drawn.values == 3) == behind).all()


@pytest.mark.parametrize("size", [1, 2])
def test_no_repeat_rules_out_what_was_written(table: Table, generator: torch.Generator, size: int) -> None:
    table.logits = (table.logits.exp() + 0.05).log()
    start = torch.zeros(500, dtype=torch.long)
    options: dict[str, Any] = {"start": start, "max_length": 4, "generator": generator}

    free = sample(table, *table.start(500), **options).values
    held = sample(table, *table.start(500), **options, no_repeat_ngram_size=size).values

    def repeats(row: list[int]) -> bool:
        grams = [tuple(row[at : at + size]) for at in range(len(row) - size + 1)]
        return len(grams) > len(set(grams))

    assert any(map(repeats, free.tolist()))
    assert not any(map(repeats, held.tolist()))


def test_own_inputs_follow_what_was_fed(table: Table, generator: torch.Generator) -> None:
    certain = Table(torch.eye(4).roll(1, dims=1) + 1e-9)  # 0 -> 1 -> 2 -> 3 -> 0
    given = torch.full((400, 4), 0)

    def fed(decoder: Table, probability: float) -> Tensor:
        return scheduled_sampling(decoder, given, *decoder.start(400), probability=probability, generator=generator)

    assert fed(certain, 0.0) is given
    assert fed(certain, 1.0).tolist() == [[0, 1, 2, 3]] * 400
    mixed = fed(certain, 0.5)
    assert (mixed[:, 0] == 0).all()
    replaced = mixed[:, 1:] != 0
    # A replaced input is what follows the one before it, whether that was given or replaced.
    assert (mixed[:, 1:][replaced] == ((mixed[:, :-1] + 1) % 4)[replaced]).all()
    assert 0.4 < float(replaced[:, 0].float().mean()) < 0.6
    torch.testing.assert_close(shares(fed(table, 1.0)[:, 1]), torch.tensor([0.1, 0.4, 0.3, 0.2]), atol=0.08, rtol=0)
    with pytest.raises(ValueError, match=r"probability is 1\.5"):
        fed(table, 1.5)


def test_own_inputs_carry_the_state_on(generator: torch.Generator) -> None:
    decoder = AutoregressiveDecoder.of_tokens(9, 6, partial(Recurrent, GRUCell, hidden_size=8)).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    decoder.head.linear.weight.data *= 1000.0  # so sure of itself that a draw is the likeliest token
    start = torch.arange(9)
    given = start.unsqueeze(1).repeat(1, 8)

    fed = scheduled_sampling(decoder, given, *decoder.start(9), probability=1.0, generator=generator)

    expected = greedy(decoder, *decoder.start(9), start=start, max_length=7)
    assert fed[:, 1:].tolist() == expected.values.tolist()
    assert fed[:, 1:].unique().numel() > 2


def test_rows_that_outlive_the_others_are_as_if_alone(generator: torch.Generator) -> None:
    """Who is left is carried on without those that are finished: its state, its source and its bounds stay its own."""
    core, attention = partial(Recurrent, GRUCell, hidden_size=8), partial(AdditiveAttention, attention_size=4)
    decoder = AutoregressiveDecoder.of_tokens(9, 6, core, attention, 5).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    source = Encoded(torch.randn(40, 3, 5, generator=generator), None, torch.randn(40, 5, generator=generator))
    start, most = torch.arange(40) % 9, torch.arange(40) % 4 * 9 + 1

    def write(rows: Tensor) -> Any:
        encoded = Encoded(source.values[rows], None, source.summary[rows])
        bounds = {"stop": 8, "max_length": most[rows], "min_length": 1, "no_repeat_ngram_size": 3, "temperature": 0.0}
        return sample(decoder, *decoder.start(len(rows), encoded), start=start[rows], **bounds)

    together = write(torch.arange(40))
    assert together.lengths.unique().numel() > 5
    for row in range(40):
        alone = write(torch.tensor([row]))
        length = int(alone.lengths)
        assert together.values[row].tolist()[:length] == alone.values[0].tolist()[:length]
        assert together.values[row].tolist()[length:] == [8] * (together.values.shape[1] - length)
        assert int(together.lengths[row]) == length
        torch.testing.assert_close(together.log_probability[row], alone.log_probability[0])


def test_a_row_that_may_write_nothing_is_an_error_with_a_remedy(table: Table) -> None:
    start = torch.tensor([0, 2])  # from 2 only 3 can follow

    with pytest.raises(
        ValueError, match="row 1: no token is allowed; lower min_length, or set no_repeat_ngram_size to 0"
    ):
        sample(table, *table.start(2), start=start, stop=3, max_length=4, min_length=2)
