"""The decoder with skip connections: against its equations with torch's cells, and the laws of decoders."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    EmbeddingEncoder,
    EncoderDecoder,
    FeedForward,
    FrameEmbedding,
    LSTMCell,
    MixtureHead,
    OneHotEmbedding,
    Recurrent,
    ShapeError,
    SkipDecoder,
    WindowAttention,
    sample,
    select,
)
from unrolled.models.decoders.base import DecoderState
from unrolled.state import leaves

HEAD = partial(MixtureHead, num_components=2)
LENGTHS = torch.tensor([7, 4, 0])
SOURCE_LENGTHS = torch.tensor([5, 3, 2])


def synthesis(cell: Any = LSTMCell, layers: int = 3, **options: Any) -> EncoderDecoder:
    torch.manual_seed(0)
    core = partial(Recurrent, cell, hidden_size=6, num_layers=layers, **options)
    attention = partial(WindowAttention, num_components=2, initial_step=0.4)
    decoder = partial(SkipDecoder, FrameEmbedding(3), core, HEAD, attention)
    return EncoderDecoder(EmbeddingEncoder(OneHotEmbedding(9)), decoder).double().eval()


def prediction(cell: Any = LSTMCell, layers: int = 3) -> SkipDecoder:
    torch.manual_seed(0)
    core = partial(Recurrent, cell, hidden_size=6, num_layers=layers)
    return SkipDecoder(FrameEmbedding(3), core, HEAD).double().eval()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(9, (3, 5), generator=generator)
    return source, torch.randn(3, 7, 3, generator=generator, dtype=torch.float64)


def copied(cell: Any) -> nn.LSTMCell:
    twin = nn.LSTMCell(cell.input_size, cell.hidden_size).double()
    twin.load_state_dict(cell.state_dict())
    return twin


@torch.no_grad()
def test_it_is_graves_equations() -> None:
    network: Any = synthesis()
    source, inputs = batch()

    found = network(source, SOURCE_LENGTHS, inputs)

    decoder = network.decoder
    cells = [copied(layer.cells[0]) for layer in decoder.layers]
    memory = decoder.attention.prepare(network.encode(source, SOURCE_LENGTHS))
    window, context = decoder.attention.start(memory), torch.zeros(3, 9).double()
    states = [(torch.zeros(3, 6).double(), torch.zeros(3, 6).double()) for _ in cells]
    for t in range(7):
        states[0] = cells[0](torch.cat([inputs[:, t], context], -1), states[0])
        context, weights, window = decoder.attention(states[0][0], memory, window)
        for n in (1, 2):
            states[n] = cells[n](torch.cat([inputs[:, t], context, states[n - 1][0]], -1), states[n])
        parameters = decoder.head(torch.cat([h for h, _ in states], -1))
        torch.testing.assert_close(found.parameters[:, t], parameters)
        torch.testing.assert_close(found.weights[:, t], weights)


@torch.no_grad()
def test_steps_are_the_whole() -> None:
    network: Any = synthesis()
    source, inputs = batch()
    whole = network(source, SOURCE_LENGTHS, inputs)
    state, memory = network.start(source, SOURCE_LENGTHS)

    first = network.decoder(inputs[:, :3], state, memory)
    state = first.state
    for t in range(3, 7):
        one = network.decoder.step(inputs[:, t], state, memory)
        state = one.state
        torch.testing.assert_close(one.parameters, whole.parameters[:, t])
        torch.testing.assert_close(one.weights, whole.weights[:, t])
    torch.testing.assert_close(first.parameters, whole.parameters[:, :3])
    for one, other in zip(leaves(state), leaves(whole.state), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("attends", [True, False])
def test_padding_never_matters(attends: bool) -> None:
    network: Any = synthesis() if attends else prediction()
    source, inputs = batch()

    def run(rows: list[int], fill: float) -> tuple[Any, Tensor]:
        lengths = LENGTHS[rows]
        given = inputs[rows].clone()
        for row, length in enumerate(lengths.tolist()):
            given[row, length:] = fill
        time = max(1, int(lengths.max()))
        read = (source[rows], SOURCE_LENGTHS[rows]) if attends else ()
        decoded = network(*read, given[:, :time], lengths=lengths)
        mask = torch.arange(time) < lengths[:, None]
        loss = (network.decoder if attends else network).head.loss(decoded.parameters, given[:, :time].sigmoid(), mask)
        network.zero_grad()
        loss.total.backward()
        return decoded, torch.cat([weight.grad.flatten() for weight in network.parameters()])

    together, gradient = run([0, 1, 2], float("nan"))
    alone = [run([row], 5.0) for row in range(3)]

    torch.testing.assert_close(gradient, sum(one for _, one in alone))
    for row, (decoded, _) in enumerate(alone):
        length = int(LENGTHS[row])
        torch.testing.assert_close(together.parameters[row, :length], decoded.parameters[0, :length])
        state = select(together.state, torch.tensor([row]))
        for one, other in zip(leaves(state), leaves(decoded.state), strict=True):
            torch.testing.assert_close(one, other)


@torch.no_grad()
def test_later_inputs_change_nothing_before() -> None:
    network = synthesis()
    source, inputs = batch()
    changed = inputs.clone()
    changed[:, 4:] += 1.0

    one, other = (network(source, None, given).parameters for given in (inputs, changed))

    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4], other[:, 4])


@torch.no_grad()
def test_it_is_sampled_until_a_function_ends_it() -> None:
    network: Any = synthesis()
    source, _ = batch()
    state, memory = network.start(source, SOURCE_LENGTHS)

    def beyond(step: int, state: DecoderState, drawn: Tensor) -> Tensor:
        return state.attention.beyond > 0

    options: dict[str, Any] = {"start": torch.zeros(3, 3).double(), "stop": beyond, "max_length": 60}
    drawn = sample(network.decoder, state, memory, generator=torch.Generator().manual_seed(1), **options)

    assert (drawn.lengths < 60).all()
    frames = torch.cat([torch.zeros(3, 1, 3).double(), drawn.values], 1)
    for row, length in enumerate(drawn.lengths.tolist()):  # the window is past the end at the last step alone
        steps = [
            network.decoder(frames[row : row + 1, :n], *network.start(source[row : row + 1, : SOURCE_LENGTHS[row]]))
            for n in (length - 1, length)
        ]
        assert [bool(step.state.attention.beyond > 0) for step in steps] == [False, True]


@torch.no_grad()
def test_any_cell_and_any_number_of_layers(make_cell: Any) -> None:
    source, inputs = batch()
    for layers in (1, 2):
        network = synthesis(make_cell, layers)
        state, memory = network.start(source, SOURCE_LENGTHS)
        whole = network.decoder(inputs, state, memory)
        for t in range(7):
            one = network.decoder.step(inputs[:, t], state, memory)
            state = one.state
            torch.testing.assert_close(one.parameters, whole.parameters[:, t])


def test_dropout_acts_between_layers_in_training_alone() -> None:
    network = synthesis(layers=2, dropout=0.5)
    source, inputs = batch()
    still = [network(source, None, inputs).parameters for _ in range(2)]
    network.train()
    torch.manual_seed(1)
    one, other = (network(source, None, inputs).parameters for _ in range(2))

    assert torch.equal(*still)
    assert not torch.allclose(one, other)


def test_without_attention_reset_marks_begin_new_lines() -> None:
    network = prediction()
    _, inputs = batch()
    marks = torch.zeros(3, 7, dtype=torch.bool)
    marks[:, 4] = True

    whole = network(inputs, resets=marks).parameters

    torch.testing.assert_close(whole[:, :4], network(inputs[:, :4]).parameters)
    torch.testing.assert_close(whole[:, 4:], network(inputs[:, 4:]).parameters)


def test_a_feedforward_core_predicts_and_cannot_attend() -> None:
    core = partial(FeedForward, hidden_size=6, num_layers=2)
    network = SkipDecoder(FrameEmbedding(3), core, HEAD)
    assert network(torch.zeros(2, 4, 3)).parameters.shape == (2, 4, network.head.output_size)
    with pytest.raises(ValueError, match="needs a recurrent model, such as lstm, but FeedForward has no state"):
        SkipDecoder(FrameEmbedding(3), core, HEAD, WindowAttention, source_size=4)


def test_states_and_memories_of_others_are_refused() -> None:
    network, alone = synthesis(), prediction()
    source, inputs = batch()
    state, memory = network.start(source, SOURCE_LENGTHS)
    decoder: Any = network.decoder
    with pytest.raises(ValueError, match=r"starts from a source: pass the state and the memory"):
        decoder(inputs)
    with pytest.raises(ValueError, match="starts from a source: pass `encoded`"):
        decoder.start(3)
    with pytest.raises(ValueError, match="was built without a source"):
        alone.start(3, network.encode(source))
    with pytest.raises(ValueError, match="this one has no attention"):
        alone(inputs, state)
    with pytest.raises(ValueError, match="one source per row"):
        decoder(inputs, state, memory, resets=torch.zeros(3, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected what `start` returned"):
        decoder(inputs, state, None)
    with pytest.raises(ShapeError, match="the memory has 3 rows, the inputs have 2"):
        decoder(inputs[:2], state, memory)
    with pytest.raises(ValueError, match="which has 3 layers"):
        decoder(inputs, state._replace(core=state.core[:2]), memory)
    with pytest.raises(ValueError, match=r"state.context is None, expected a tensor of shape \(3, 9\)"):
        decoder(inputs, state._replace(context=None), memory)
    with pytest.raises(ShapeError, match=r"state.context has the shape \(3, 8\)"):
        decoder(inputs, state._replace(context=torch.zeros(3, 8)), memory)
    with pytest.raises(ValueError, match="need each other"):
        SkipDecoder(FrameEmbedding(3), partial(Recurrent, LSTMCell, hidden_size=6), HEAD, source_size=3)
