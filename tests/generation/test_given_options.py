"""Options of a search at their borders, and decoders that say nothing: refused by name, or right."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AutoregressiveDecoder,
    CategoricalHead,
    Decoded,
    Decoder,
    DecoderState,
    GRUCell,
    Recurrent,
    beam_search,
    greedy,
    sample,
)
from unrolled.generation import scheduled_sampling
from unrolled.generation.search import Search

NAN, INF = float("nan"), float("inf")
WORDS = 5


class Says(Decoder):
    """The logits of a table, (vocabulary, vocabulary), by the last token, whatever came before."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.head = CategoricalHead(1, len(logits))
        self.logits = logits

    def start(self, batch: int, encoded: Any = None) -> tuple[DecoderState, None]:
        return DecoderState(torch.zeros(batch, 1)), None

    def forward(self, tokens: Tensor, state: DecoderState, memory: Any = None, lengths: Any = None) -> Decoded:
        return Decoded(self.logits[tokens], None, state)

    def step(self, tokens: Tensor, state: DecoderState, memory: Any = None) -> Decoded:
        return Decoded(self.logits[tokens], None, state)


def says(seed: int = 0) -> Says:
    return Says(torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(seed)))


def searched(decoder: Decoder, rows: int = 3, **options: Any) -> Any:
    start = torch.arange(rows) % WORDS
    return beam_search(decoder, *decoder.start(rows), **{"start": start, "stop": 0, "max_length": 4, **options})


def drawn(decoder: Decoder, rows: int = 3, **options: Any) -> Any:
    start = torch.arange(rows) % WORDS
    return sample(decoder, *decoder.start(rows), **{"start": start, "max_length": 4, **options})


@pytest.mark.parametrize("value", [NAN, INF, -INF, -1.0, 1e39])
@pytest.mark.parametrize("name", ["length_penalty", "coverage_penalty", "diversity_penalty"])
def test_weights_of_a_search_are_finite(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}="):
        searched(says(), **{name: value})
    with pytest.raises(ValueError, match=f"{name}="):
        Search(**{name: value}).checked()


@pytest.mark.parametrize("value", [NAN, INF, -1, 1.5, "2", None])
@pytest.mark.parametrize("name", ["num_beams", "n_best", "num_beam_groups", "no_repeat_ngram_size"])
def test_what_is_counted_is_whole(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}="):
        searched(says(), **{name: value})


@pytest.mark.parametrize(
    "options",
    [
        *({"temperature": value} for value in (NAN, INF, -1e-30)),
        *({"top_k": value} for value in (NAN, INF, 0, 2.5)),
        *({"top_p": value} for value in (NAN, INF, 0.0, 1.1)),
        *({"no_repeat_ngram_size": value} for value in (NAN, -1, 0.5)),
        *({"max_length": value} for value in (NAN, 2.5, -1)),
        *({"min_length": value} for value in (NAN, torch.tensor([1.0, 2.0, 3.0]))),
        {"stop": WORDS},
        {"stop": -1},
        {"forbidden": [1, WORDS]},
        {"forbidden": [-1]},
        {"start": torch.tensor([0, WORDS, 1])},
        {"start": torch.tensor([0.0, 1.0, 1.0])},
        {"start": torch.tensor([0, 1])},
        {"start": torch.tensor([[0, 1, 1]])},
    ],
)
def test_options_of_a_draw_are_refused_by_name(options: dict[str, Any]) -> None:
    name = next(iter(options))

    with pytest.raises(ValueError, match=f"{name}|state has a tensor"):
        drawn(says(), **options)
    if name in ("stop", "forbidden", "start", "max_length", "min_length"):
        with pytest.raises(ValueError, match=f"{name}|state has a tensor"):
            searched(says(), **options)


@pytest.mark.parametrize("options", [{"max_ratio": NAN}, {"max_ratio": INF}, {"min_ratio": NAN}, {"max_extra": 1.5}])
def test_ratios_of_lengths_are_finite(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Search(**options).checked()


@pytest.mark.parametrize("temperature", [1e-3, 1e-10, 1e-38, 1e-45, 5e-324])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    decoder = says()

    for options in ({}, {"top_k": 3}, {"top_p": 0.9}, {"forbidden": [1]}):
        found = drawn(decoder, temperature=temperature, **options)
        expected = drawn(decoder, temperature=0.0, **options)
        assert torch.equal(found.values, expected.values)
        torch.testing.assert_close(found.log_probability, expected.log_probability)


@pytest.mark.parametrize("temperature", [1e10, 1e38, 1e300])
def test_a_high_temperature_draws_evenly_from_what_is_allowed(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)

    found = drawn(says(), rows=2000, temperature=temperature, forbidden=[2], generator=generator).values

    counts = found.flatten().bincount(minlength=WORDS) / found.numel()
    torch.testing.assert_close(counts, torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25]), rtol=0, atol=0.02)


def test_great_logits_at_a_temperature_are_as_precise_as_small_ones() -> None:
    table = says().logits
    for shift in (0.0, 3e4):
        shifted = Says((table.double() + shift).float())
        generator = torch.Generator().manual_seed(0)
        found = drawn(shifted, rows=1000, temperature=0.5, max_length=1, generator=generator).values[:, 0]
        chances = (table.double() / 0.5).softmax(-1)
        for last in range(WORDS):
            shares = found[last::WORDS].bincount(minlength=WORDS) / len(found[last::WORDS])
            torch.testing.assert_close(shares.double(), chances[last], rtol=0, atol=0.15)


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("place", [0, 3])
def test_logits_that_are_none_are_refused_with_their_row(value: float, place: int) -> None:
    decoder = says()
    decoder.logits[2, place] = value  # row 2 begins with it, the others may come there

    for temperature in (0.0, 1.0):
        for forbidden in ([], [place]):
            with pytest.raises(ValueError, match=r"row 2: the decoder's logits are NaN or infinite"):
                drawn(decoder, temperature=temperature, max_length=1, forbidden=forbidden)
    with pytest.raises(ValueError, match=r"row 2: the decoder's logits are NaN or infinite"):
        greedy(decoder, *decoder.start(3), start=torch.arange(3), max_length=1)
    for num_beams in (1, 4):
        with pytest.raises(ValueError, match=r"row 2: the decoder's logits are NaN or infinite"):
            searched(decoder, num_beams=num_beams)
    with pytest.raises(ValueError, match=r"row 1: the decoder's logits are NaN or infinite"):
        scheduled_sampling(decoder, torch.tensor([[0, 1, 1], [2, 1, 1]]), *decoder.start(2), probability=1.0)


def test_a_row_that_is_finished_may_say_anything() -> None:
    decoder = says()
    decoder.logits[1] = torch.tensor([100.0, 0.0, 0.0, 0.0, 0.0])  # behind 1 comes the end
    decoder.logits[0] = NAN  # which nobody reads any more

    found = drawn(decoder, stop=0, start=torch.tensor([1, 1, 1]), temperature=0.0)
    assert found.lengths.tolist() == [0, 0, 0]
    hypotheses = searched(decoder, start=torch.tensor([1, 1, 1]), num_beams=1)
    assert hypotheses.lengths.tolist() == [[0]] * 3


def test_impossible_tokens_are_fine() -> None:
    decoder = says()
    decoder.logits[:, 3] = -INF

    assert not (drawn(decoder, rows=200).values == 3).any()
    assert not (searched(decoder).tokens == 3).any()
    decoder.logits[:] = -INF
    with pytest.raises(ValueError, match="row 0: the decoder's logits are NaN or infinite"):
        drawn(decoder)


def test_a_row_of_which_nothing_is_left_is_named_as_it_was_given() -> None:
    decoder = says()
    decoder.logits[4, :] = -INF
    decoder.logits[4, 2] = 0.0  # behind 4 comes 2 alone

    for run in (drawn, searched):
        with pytest.raises(ValueError, match="row 4: no token is allowed"):
            run(decoder, rows=5, forbidden=[2])


def test_a_penalty_too_large_for_its_texts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"length_penalty=1000\.0 is too large for texts of 30 tokens"):
        searched(says(), length_penalty=1000.0, max_length=30)
    assert searched(says(), length_penalty=20.0, max_length=30).scores.isfinite().all()


def test_a_network_of_nan_writes_nothing() -> None:
    decoder = AutoregressiveDecoder.of_tokens(4, 5, partial(Recurrent, GRUCell, hidden_size=6)).eval()
    with torch.no_grad():
        next(decoder.parameters()).fill_(NAN)

    with pytest.raises(ValueError, match="row 0: the decoder's logits are NaN"):
        searched(decoder, rows=1)


@pytest.mark.parametrize("run", [drawn, searched])
def test_a_state_of_another_batch_is_refused(run: Any) -> None:
    decoder = says()

    with pytest.raises(ValueError, match=r"the state has a tensor of shape \(3, 1\), expected 2 rows"):
        run(decoder, start=torch.tensor([0, 1]))
