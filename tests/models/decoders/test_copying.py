"""The mixture of writing and pointing, against sums over places written out by hand."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import AdditiveAttention, AutoregressiveDecoder, Encoded, GRUCell, Memory, Recurrent
from unrolled.models.decoders.copying import CopyMixture

TIME, VOCABULARY = 3, 6
LENGTHS = [4, 2, 0]
TOKENS = torch.tensor([[1, 3, 1, 5], [2, 2, 4, 4], [1, 1, 1, 1]])


@pytest.fixture
def mixture() -> CopyMixture:
    torch.manual_seed(0)
    return CopyMixture(2).double()


@pytest.fixture
def given(generator: torch.Generator) -> dict[str, Any]:
    mask = torch.arange(4) < torch.tensor(LENGTHS).unsqueeze(1)
    scores = torch.randn(3, TIME, 4, dtype=torch.float64, generator=generator)
    weights = scores.masked_fill(~mask.unsqueeze(1), -1e300).softmax(-1).masked_fill(~mask.unsqueeze(1), 0.0)
    nothing = torch.zeros(3, 4, 1).double()
    return {
        "logits": torch.randn(3, TIME, VOCABULARY, dtype=torch.float64, generator=generator),
        "features": torch.randn(3, TIME, 2, dtype=torch.float64, generator=generator),
        "weights": weights,
        "memory": Memory(nothing, nothing, mask, TOKENS),
    }


def test_the_mixture_is_the_sum_over_places(mixture: CopyMixture, given: dict[str, Any]) -> None:
    mixed = mixture(**given).exp()

    shares = torch.sigmoid(given["features"] @ mixture.gate.weight[0] + mixture.gate.bias)
    written = given["logits"].softmax(-1)
    for row, length in enumerate(LENGTHS):
        for time in range(TIME):
            share = shares[row, time] if length else 1.0
            expected = share * written[row, time]
            for place in range(length):
                expected[TOKENS[row, place]] += (1 - share) * given["weights"][row, time, place]
            torch.testing.assert_close(mixed[row, time], expected, rtol=0, atol=1e-14)


def test_probabilities_sum_to_one(mixture: CopyMixture, given: dict[str, Any]) -> None:
    total = mixture(**given).exp().sum(-1)

    torch.testing.assert_close(total, torch.ones(3, TIME).double(), rtol=0, atol=1e-14)


def test_gradients_are_those_of_finite_differences(mixture: CopyMixture, given: dict[str, Any]) -> None:
    def run(logits: Tensor, features: Tensor, weights: Tensor, *_: Tensor) -> Tensor:
        return mixture(logits, features, weights, given["memory"])

    # Weights of exactly zero, behind the end, are at the border of the logarithm's domain.
    inputs = [given[name].clamp_min(1e-3 if name == "weights" else -9) for name in ("logits", "features", "weights")]
    assert torch.autograd.gradcheck(run, [*(x.requires_grad_() for x in inputs), *mixture.parameters()])


def test_what_was_not_looked_at_at_all_gives_no_nan(mixture: CopyMixture, given: dict[str, Any]) -> None:
    weights = torch.zeros(3, TIME, 4).double()
    weights[..., 0] = 1.0
    logits = torch.full((3, TIME, VOCABULARY), -1e4).double()
    logits[..., 0] = 0.0
    logits.requires_grad_()
    weights.requires_grad_()

    mixed = mixture(logits, given["features"], weights, given["memory"])
    mixed[..., 1:].sum().backward()

    assert mixed.isfinite().all()
    assert logits.grad is not None
    assert weights.grad is not None
    assert logits.grad.isfinite().all()
    assert weights.grad.isfinite().all()
    assert not weights.grad[2].any()


def test_a_word_that_the_vocabulary_rules_out_can_be_copied(mixture: CopyMixture, given: dict[str, Any]) -> None:
    logits = torch.full((3, TIME, VOCABULARY), -100.0).double()
    logits[..., 0] = 0.0
    features = torch.zeros(3, TIME, 2).double()
    torch.nn.init.zeros_(mixture.gate.bias)

    mixed = mixture(logits, features, given["weights"], given["memory"]).exp()

    looked_at = given["weights"]
    torch.testing.assert_close(mixed[0, :, 1], 0.5 * (looked_at[0, :, 0] + looked_at[0, :, 2]), rtol=0, atol=1e-14)
    torch.testing.assert_close(mixed[0, :, 0], torch.full((TIME,), 0.5).double(), rtol=0, atol=1e-14)


def test_half_precision_is_mixed_in_single_precision(given: dict[str, Any]) -> None:
    mixture = CopyMixture(2).bfloat16()
    logits, features = given["logits"].bfloat16(), given["features"].bfloat16()

    mixed = mixture(logits, features, given["weights"].float(), given["memory"])

    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(3, TIME), rtol=0, atol=1e-6)  # float32's rounding


def test_a_decoder_that_copies_writes_logarithms_of_probabilities(generator: torch.Generator) -> None:
    core = partial(Recurrent, GRUCell, hidden_size=5)
    decoder = AutoregressiveDecoder.of_tokens(VOCABULARY, 4, core, AdditiveAttention, 3, copy=True)
    encoded = Encoded(torch.randn(3, 4, 3, generator=generator), torch.tensor(LENGTHS), torch.zeros(3, 3), TOKENS)
    state, memory = decoder.start(3, encoded)

    logits = decoder(torch.zeros(3, 2, dtype=torch.long), state, memory).parameters

    torch.testing.assert_close(logits.logsumexp(-1), torch.zeros(3, 2), rtol=0, atol=1e-6)  # float32's rounding
    with pytest.raises(ValueError, match="needs the token ids of the source"):
        decoder.start(3, encoded._replace(tokens=None))
    with pytest.raises(ValueError, match="needs the token ids of the source"):
        decoder.step(torch.zeros(3, dtype=torch.long), state, memory._replace(tokens=None))
