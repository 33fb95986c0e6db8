"""Sampling against distributions that can be worked out by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import Decoded, Decoder, DecoderState, greedy, sample


class Table(Decoder):
    """The next token's distribution is a row of a table, chosen by the last token."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.vocabulary_size = len(probabilities)
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
    return sample(table, *table.start(ROWS), start=start, max_length=1, generator=generator, **options).tokens[:, 0]


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

    assert written.tokens.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    assert written.lengths.tolist() == [4, 4]
    expected = torch.tensor([0.4 * 0.7 * 0.4 * 0.7, 0.7 * 0.4 * 0.7 * 0.4]).log()
    torch.testing.assert_close(written.log_probability, expected)


def test_a_row_ends_at_its_stop_symbol_while_others_go_on(table: Table) -> None:
    written = greedy(table, *table.start(2), start=torch.tensor([2, 0]), stop=3, max_length=3)

    assert written.tokens.tolist() == [[3, 3, 3], [1, 0, 1]]
    assert written.lengths.tolist() == [0, 3]
    assert written.log_probability[0] == 0  # the stop symbol was certain, and nothing after it counts


def test_all_rows_finished_end_the_search(table: Table) -> None:
    assert greedy(table, *table.start(1), start=torch.tensor([2]), stop=3, max_length=50).tokens.shape == (1, 1)


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
