"""The attentive decoder: one pass is its steps, later tokens and padding never matter, states are values."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AdditiveAttention,
    Attention,
    AutoregressiveDecoder,
    DotAttention,
    ElmanCell,
    Encoded,
    FeedForward,
    GRUCell,
    HardMonotonicAttention,
    LocationAttention,
    LSTMCell,
    MultiplicativeAttention,
    Recurrent,
    SummaryAttention,
)
from unrolled.state import leaves, select

VOCABULARY, SOURCE_SIZE = 11, 6
ATTENTIONS: dict[str, Callable[..., Attention]] = {
    "additive": AdditiveAttention,
    "coverage": partial(AdditiveAttention, attention_size=4, coverage=True),
    "dot": DotAttention,
    "hard_monotonic": HardMonotonicAttention,
    "location": partial(LocationAttention, kernel_size=3, filters=2),
    "multiplicative": MultiplicativeAttention,
    "summary": SummaryAttention,
}


def make(attention: str = "additive", cell: Any = LSTMCell, core: dict[str, Any] | None = None, **options: Any) -> Any:
    """A decoder in float64 and evaluation mode, two layers deep."""
    torch.manual_seed(0)
    stack = partial(Recurrent, cell, hidden_size=SOURCE_SIZE, num_layers=2, **(core or {}))
    decoder = AutoregressiveDecoder.of_tokens(VOCABULARY, 5, stack, ATTENTIONS[attention], SOURCE_SIZE, **options)
    return decoder.double().eval()


@pytest.fixture
def encoded(generator: torch.Generator) -> Encoded:
    """Four sources, one of them empty and one of a single place."""
    values = torch.randn(4, 5, SOURCE_SIZE, dtype=torch.float64, generator=generator)
    summary = torch.randn(4, SOURCE_SIZE, dtype=torch.float64, generator=generator)
    return Encoded(values, torch.tensor([5, 3, 1, 0]), summary, torch.randint(VOCABULARY, (4, 5), generator=generator))


@pytest.fixture
def tokens(generator: torch.Generator) -> Tensor:
    return torch.randint(VOCABULARY, (4, 7), generator=generator)


def stepped(decoder: Any, tokens: Tensor, state: Any, memory: Any, noise: Any = None) -> tuple[Tensor, Any, list[Any]]:
    """Logits and weights over time and all states, the first one included, token by token."""
    logits, weights, states = [], [], [state]
    for time, token in enumerate(tokens.unbind(1)):
        decoded = decoder.step(token, states[-1], memory, noise=None if noise is None else noise.at(time))
        logits.append(decoded.parameters)
        weights.append(decoded.weights)
        states.append(decoded.state)
    return torch.stack(logits, 1), None if weights[0] is None else torch.stack(weights, 1), states


def assert_same(one: Any, other: Any) -> None:
    for found, expected in zip(leaves(one), leaves(other), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


MODES = [{"input_feeding": True}, {"input_feeding": False}, {"copy": True}, {"copy": True, "input_feeding": False}]


def modes(attention: str) -> list[dict[str, Any]]:
    if attention == "hard_monotonic":
        return [{"input_feeding": False}]
    return [mode for mode in MODES if attention != "summary" or not mode.get("copy")]


CASES = [(attention, mode) for attention in ATTENTIONS for mode in modes(attention)]


@pytest.mark.parametrize(("attention", "mode"), CASES)
@pytest.mark.parametrize("lengths", [None, [7, 3, 0, 5]])
def test_a_pass_is_its_steps(
    attention: str, mode: dict[str, Any], lengths: list[int] | None, encoded: Encoded, tokens: Tensor
) -> None:
    decoder = make(attention, **mode)
    state, memory = decoder.start(4, encoded)
    logits, weights, states = stepped(decoder, tokens, state, memory)

    whole = decoder(tokens, state, memory, None if lengths is None else torch.tensor(lengths))

    for row, length in enumerate([7] * 4 if lengths is None else lengths):
        torch.testing.assert_close(whole.parameters[row, :length], logits[row, :length], rtol=0, atol=1e-12)
        if weights is not None:
            torch.testing.assert_close(whole.weights[row, :length], weights[row, :length], rtol=0, atol=1e-12)
            assert not whole.weights[row, length:].any()
        alone = torch.tensor([row])
        assert_same(select(whole.state, alone), select(states[length], alone))


@pytest.mark.parametrize("cell", [ElmanCell, GRUCell, partial(LSTMCell, weight_drop=0.2, recurrent_dropout=0.3)])
@pytest.mark.parametrize("variational", [True, False])
@pytest.mark.parametrize(
    "core",
    [
        {"dropout": 0.4},
        {"dropout": 0.4, "variational_dropout": True, "residual": True},
        {"residual": True, "residual_dropout": 0.4},
    ],
)
def test_a_pass_in_training_is_its_steps_under_the_same_noise(
    cell: Any, variational: bool, core: dict[str, Any], encoded: Encoded, tokens: Tensor
) -> None:
    dropout = {"token_dropout": 0.2, "input_dropout": 0.3, "output_dropout": 0.4, "variational_dropout": variational}
    decoder = make("coverage", cell, core, **dropout).train()
    state, memory = decoder.start(4, encoded)

    torch.manual_seed(5)
    whole = decoder(tokens, state, memory)
    torch.manual_seed(5)
    logits, weights, states = stepped(decoder, tokens, state, memory, decoder.noise(4, 7))

    torch.testing.assert_close(whole.parameters, logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole.weights, weights, rtol=0, atol=1e-12)
    assert_same(whole.state, states[-1])
    assert not torch.equal(decoder(tokens, state, memory).parameters, whole.parameters)


@pytest.mark.parametrize("variational", [True, False])
def test_variational_dropout_drops_the_same_at_all_steps(variational: bool) -> None:
    options = {"input_dropout": 0.5, "output_dropout": 0.5, "variational_dropout": variational}
    noise = make(core={"dropout": 0.5, "variational_dropout": variational}, **options).train().noise(4, 9)

    between = torch.stack([of_step.between[1] for of_step in noise.core], 1)
    for mask in (noise.embedded, noise.readout, between):
        assert 0 < (mask == 0).float().mean() < 1
        assert torch.equal(mask, mask[:, :1].expand_as(mask)) == variational


def test_steps_in_training_draw_noise_of_their_own(encoded: Encoded, tokens: Tensor) -> None:
    decoder = make(output_dropout=0.5).train()
    state, memory = decoder.start(4, encoded)

    one, other = (decoder.step(tokens[:, 0], state, memory).parameters for _ in range(2))

    assert not torch.equal(one, other)


@pytest.mark.parametrize(("attention", "mode"), CASES)
@pytest.mark.parametrize("moment", [0, 3, 5])
def test_logits_never_know_later_tokens(
    attention: str, mode: dict[str, Any], moment: int, encoded: Encoded, tokens: Tensor
) -> None:
    decoder = make(attention, **mode)
    state, memory = decoder.start(4, encoded)
    changed = tokens.clone()
    changed[:, moment + 1 :] = (changed[:, moment + 1 :] + 1) % VOCABULARY

    before, after = decoder(tokens, state, memory).parameters, decoder(changed, state, memory).parameters

    assert torch.equal(before[:, : moment + 1], after[:, : moment + 1])
    assert not torch.equal(before[:, moment + 1 :], after[:, moment + 1 :])


@pytest.mark.parametrize(("attention", "mode"), CASES)
def test_padding_of_source_and_target_never_matters(
    attention: str, mode: dict[str, Any], encoded: Encoded, tokens: Tensor
) -> None:
    decoder = make(attention, **mode)
    lengths = torch.tensor([7, 3, 0, 5])
    behind = torch.arange(5) >= encoded.lengths.unsqueeze(1)
    poisoned = encoded._replace(
        values=encoded.values.masked_fill(behind.unsqueeze(-1), torch.nan),
        tokens=encoded.tokens.masked_fill(behind, 10**6),
    )
    other = torch.where(torch.arange(7) < lengths.unsqueeze(1), tokens, 0)

    results = []
    for source, target in ((encoded, tokens), (poisoned, other)):
        whole = decoder(target, *decoder.start(4, source), lengths)
        gradients = torch.autograd.grad(whole.parameters.square().sum(), list(decoder.parameters()), allow_unused=True)
        valid = torch.arange(7) < lengths.unsqueeze(1)
        results.append([whole.parameters[valid], whole.weights, *leaves(whole.state)])
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)

    for one, other in zip(*results, strict=True):
        assert one is other is None or torch.equal(one, other)


@pytest.mark.parametrize(("attention", "mode"), CASES)
def test_chunks_are_the_whole(attention: str, mode: dict[str, Any], encoded: Encoded, tokens: Tensor) -> None:
    decoder = make(attention, **mode)
    state, memory = decoder.start(4, encoded)
    whole = decoder(tokens, state, memory)

    pieces = []
    for chunk in (tokens[:, :2], tokens[:, 2:2], tokens[:, 2:3], tokens[:, 3:]):
        decoded = decoder(chunk, state, memory)
        pieces.append(decoded)
        state = decoded.state

    torch.testing.assert_close(
        torch.cat([piece.parameters for piece in pieces], 1), whole.parameters, rtol=0, atol=1e-12
    )
    if attention != "summary":
        torch.testing.assert_close(torch.cat([piece.weights for piece in pieces], 1), whole.weights, rtol=0, atol=1e-12)
    assert_same(state, whole.state)


@pytest.mark.parametrize(("attention", "mode"), CASES)
def test_selecting_rows_commutes_with_a_step(
    attention: str, mode: dict[str, Any], encoded: Encoded, tokens: Tensor
) -> None:
    decoder = make(attention, **mode)
    state, memory = decoder.start(4, encoded)
    state = decoder.step(tokens[:, 0], state, memory).state
    rows = torch.tensor([1, 1, 3, 0, 2, 0])

    after = select(decoder.step(tokens[:, 1], state, memory), rows)
    before = decoder.step(tokens[rows, 1], select(state, rows), select(memory, rows))

    assert_same(before, after)


@pytest.mark.parametrize("mode", MODES)
def test_a_source_without_a_single_place_is_written_about_too(mode: dict[str, Any], tokens: Tensor) -> None:
    decoder = make("location", **mode)
    nothing = torch.zeros(4, 0, SOURCE_SIZE).double()
    encoded = Encoded(nothing, None, torch.zeros(4, SOURCE_SIZE).double(), torch.zeros(4, 0).long())

    decoded = decoder(tokens, *decoder.start(4, encoded))

    assert decoded.parameters.isfinite().all()
    assert decoded.weights.shape == (4, 7, 0)


class Doubled(LSTMCell):
    """A cell with a projection of its own, which cannot be split."""

    def project(self, inputs: Tensor) -> Tensor:
        return super().project(torch.tanh(inputs))


class Masked(LSTMCell):
    """A cell whose projection brings noise for each step."""

    def step_masks(self, shape: tuple[int, ...], *, like: Tensor) -> tuple[Tensor, ...]:
        return (torch.full((*shape, self.hidden_size), 0.5, dtype=like.dtype),)

    def pointwise(self, projected: Any, recurrent: Any, state: Any) -> Any:
        assert (projected[4] == 0.5).all()
        return super().pointwise(projected[:4], recurrent, state)


@pytest.mark.parametrize("cell", [LSTMCell, GRUCell, Doubled, Masked])
@pytest.mark.parametrize("core", [{}, {"residual": True}])
@pytest.mark.parametrize("readout_size", [4, 1])  # beside an embedding of 5, 1 makes the core's input as wide as itself
def test_the_core_reads_the_token_and_the_last_readout(
    cell: Any, core: dict[str, Any], readout_size: int, encoded: Encoded, tokens: Tensor
) -> None:
    decoder = make("additive", cell, core, readout_size=readout_size)
    state, memory = decoder.start(4, encoded)
    expected = []

    for token in tokens.unbind(1):
        inputs = torch.cat([decoder.embedding(token), state.context], dim=-1)
        query, following = decoder.core.step(inputs, state.core)
        context, _, _ = decoder.attention(query, memory, None)
        readout = torch.tanh(decoder.steps.readout(torch.cat([query, context], dim=-1)))
        expected.append(decoder.head.linear(readout))
        state = state._replace(core=following, context=readout)

    start, memory = decoder.start(4, encoded)
    decoded = decoder(tokens, start, memory)
    torch.testing.assert_close(decoded.parameters, torch.stack(expected, 1), rtol=0, atol=1e-12)
    assert_same(decoded.state, state)


def test_the_first_state_is_made_from_the_summary(encoded: Encoded) -> None:
    decoder = make()

    state, _ = decoder.start(4, encoded)

    expected = [torch.tanh(layer(encoded.summary)) for layer in decoder.bridge]
    assert all(torch.equal(*pair) for pair in zip(leaves(state.core), expected, strict=True))
    assert not state.context.any()
    with pytest.raises(ValueError, match="pass `encoded`"):
        decoder.start(4)


def test_the_first_state_keeps_its_precision_under_autocast(encoded: Encoded) -> None:
    encoded = encoded._replace(values=encoded.values.float(), summary=encoded.summary.float())

    with torch.autocast("cpu", torch.bfloat16):
        state, _ = make("coverage").float().start(4, encoded)

    assert {leaf.dtype for leaf in leaves(state)} == {torch.float32}


@pytest.mark.parametrize(("attention", "mode"), CASES)
@pytest.mark.parametrize("pure", [True, False])
def test_half_precision_stays_close(
    attention: str, mode: dict[str, Any], pure: bool, encoded: Encoded, tokens: Tensor
) -> None:
    decoder = make(attention, **mode)
    exact = decoder(tokens, *decoder.start(4, encoded)).parameters
    kind = torch.bfloat16 if pure else torch.float32
    decoder = decoder.to(kind).train()
    encoded = encoded._replace(values=encoded.values.to(kind), summary=encoded.summary.to(kind))

    with torch.autocast("cpu", torch.bfloat16, enabled=not pure):
        decoded = decoder(tokens, *decoder.start(4, encoded), torch.tensor([7, 3, 1, 5]))
    decoded.parameters.float().sum().backward()

    # bfloat16 has eight bits; logits of size 1 go through a dozen products.
    torch.testing.assert_close(decoded.parameters[0].double(), exact[0], rtol=0, atol=0.05)
    assert all(p.grad is None or p.grad.isfinite().all() for p in decoder.parameters())


def test_tied_weights_are_one_parameter() -> None:
    decoder = make(tied=True)

    assert decoder.head.linear.weight is decoder.embedding.weight
    assert decoder.steps.readout.out_features == 5
    assert decoder.core.input_size == 5 + 5
    assert len({id(p) for p in decoder.parameters()}) == len(list(decoder.parameters()))


def test_sizes_follow_from_the_core_unless_they_are_given() -> None:
    assert make().core.input_size == 5 + SOURCE_SIZE
    assert make(readout_size=3).core.input_size == 5 + 3
    assert make(readout_size=3).head.input_size == 3
    assert make(input_feeding=False).core.input_size == 5
    assert make("additive", hidden_size=9, num_layers=1).core.output_size == 9


def test_finding_out_a_size_draws_no_weights() -> None:
    torch.manual_seed(0)
    implied = make()
    given = make(readout_size=SOURCE_SIZE)

    assert_same(tuple(implied.state_dict().values()), tuple(given.state_dict().values()))


def test_a_net_without_memory_is_no_decoder() -> None:
    with pytest.raises(ValueError, match="needs a recurrent model, such as gru, but FeedForward has no state"):
        AutoregressiveDecoder.of_tokens(7, 5, partial(FeedForward, hidden_size=4), AdditiveAttention, source_size=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tied": True, "readout_size": 4}, "embedding.size equal to the size of the head's input, 4, got 5"),
        ({"attention": "summary", "copy": True}, "SummaryAttention has none"),
        ({"token_dropout": 1.0}, "dropout is 1.0"),
        ({"attention": "dot", "hidden_size": 4}, "query_size=4 and source_size=6"),
    ],
)
def test_what_cannot_be_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize("input_feeding", [True, False])
def test_lengths_that_the_tokens_cannot_have_are_named(input_feeding: bool, encoded: Encoded, tokens: Tensor) -> None:
    decoder = make(input_feeding=input_feeding)

    with pytest.raises(ValueError, match="lengths go from 1 to 8, expected 0 to 7"):
        decoder(tokens, *decoder.start(4, encoded), torch.tensor([8, 1, 2, 3]))
    with pytest.raises(ValueError, match="lengths go from 1 to 6, expected 0 to 5"):
        decoder.start(4, encoded._replace(lengths=torch.tensor([6, 1, 2, 3])))
