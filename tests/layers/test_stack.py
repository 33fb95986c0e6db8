"""Layers and directions: the laws of `Recurrent`, its options and its errors."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import ElmanCell, GRUCell, LSTMCell, LSTMState, Recurrent, ShapeError, unroll
from unrolled.state import leaves, map_state, select, where

CELLS = [LSTMCell, GRUCell, ElmanCell]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "residual": {"residual": True},
    "learned": {"learned_initial_state": True},
    "noisy": {"dropout": 0.5, "residual_dropout": 0.5, "variational_dropout": True, "residual": True},
    "loop": {"backend": "loop"},
}


@pytest.fixture
def inputs(generator: torch.Generator) -> Tensor:
    return torch.randn(4, 7, 3, dtype=torch.float64, generator=generator)


@pytest.fixture(params=[(cell, name) for cell in CELLS for name in OPTIONS], ids=lambda p: f"{p[0].__name__}-{p[1]}")
def network(request: pytest.FixtureRequest, generator: torch.Generator) -> Recurrent:
    cell, name = request.param
    cell = partial(cell, recurrent_dropout=0.3, weight_drop=0.3) if name == "noisy" else cell
    network = Recurrent(cell, 3, 5, 3, **OPTIONS[name]).double().eval()
    with torch.no_grad():
        for leaf in network.initial:
            leaf.copy_(torch.randn(leaf.shape, generator=generator))
    return network


def close(one: Any, other: Any, atol: float = 1e-14) -> None:
    torch.testing.assert_close(leaves(one), leaves(other), rtol=0, atol=atol)


def step_through(network: Recurrent, inputs: Tensor, **options: Any) -> tuple[Tensor, Any]:
    state = network.initial_state(len(inputs), like=inputs)
    outputs: list[Tensor] = []
    for now in inputs.unbind(1):
        output, state = network.step(now, state, **options)
        outputs.append(output)
    return torch.stack(outputs, dim=1), state


def test_forward_is_repeated_step(network: Recurrent, inputs: Tensor) -> None:
    close(network(inputs), step_through(network, inputs))


@pytest.mark.parametrize("cut", [0, 3, 7])
def test_two_chunks_are_one_pass(network: Recurrent, inputs: Tensor, cut: int) -> None:
    whole, final = network(inputs)

    head, state = network(inputs[:, :cut])
    tail, resumed = network(inputs[:, cut:], state)

    close(torch.cat([head, tail], dim=1), whole)
    close(resumed, final)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_padding_never_matters(cell: Any, options: dict[str, Any], bidirectional: bool, inputs: Tensor) -> None:
    network = Recurrent(cell, 3, 5, 2, bidirectional=bidirectional, **options).double()
    lengths = torch.tensor([7, 0, 1, 4])
    padding = torch.arange(7) >= lengths.unsqueeze(1)

    results = []
    for padded_with in (0.0, torch.nan):
        torch.manual_seed(0)  # the same dropout
        given = inputs.masked_fill(padding.unsqueeze(-1), padded_with).requires_grad_()
        outputs, state = network(given, lengths=lengths)
        assert not outputs[padding].any()
        total = outputs.square().sum() + sum(leaf.square().sum() for leaf in leaves(state))
        results.append([outputs, *leaves(state), *torch.autograd.grad(total, [given, *network.parameters()])])

    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert torch.isfinite(results[0][-1]).all()


def test_a_row_that_is_reset_forgets_and_its_neighbours_do_not(network: Recurrent, inputs: Tensor) -> None:
    reset = torch.tensor([False, True, False, True])
    _, state = network(inputs)

    outputs, _ = network(inputs, where(reset, network.initial_state(4, like=inputs), state))

    close(outputs[reset], network(inputs)[0][reset])
    close(outputs[~reset], network(inputs, state)[0][~reset])
    assert not torch.allclose(network(inputs)[0][~reset], network(inputs, state)[0][~reset])


def test_rows_know_nothing_of_each_other(network: Recurrent, inputs: Tensor) -> None:
    order = torch.tensor([2, 0, 0, 3, 1])

    outputs, state = network(inputs)
    shuffled, shuffled_state = network(inputs[order])

    close(shuffled, outputs[order])
    close(shuffled_state, select(state, order))


def test_each_layer_reads_the_one_below_and_adds_it_where_sizes_agree(inputs: Tensor) -> None:
    network = Recurrent(GRUCell, 3, 5, 3, residual=True).double()

    first, _ = unroll(network.cells[0], inputs)  # pyright: ignore[reportArgumentType]
    second = first + unroll(network.cells[1], first)[0]  # pyright: ignore[reportArgumentType]
    third = second + unroll(network.cells[2], second)[0]  # pyright: ignore[reportArgumentType]

    close(network(inputs)[0], third)


def test_residual_dropout_drops_what_a_layer_adds(inputs: Tensor) -> None:
    """The sum is not dropped again: the next layer and the caller read the very values that were added."""
    network = Recurrent(GRUCell, 3, 5, 3, residual=True, residual_dropout=0.5).double()
    torch.manual_seed(0)
    outputs, _ = network(inputs)

    torch.manual_seed(0)
    expected = nn.functional.dropout(unroll(network.cells[0], inputs)[0].contiguous(), 0.5)  # pyright: ignore[reportArgumentType]
    for cell in list(network.cells)[1:]:
        expected = expected + nn.functional.dropout(unroll(cell, expected)[0].contiguous(), 0.5)  # pyright: ignore[reportArgumentType]

    close(outputs, expected)


@pytest.mark.parametrize("variational", [False, True])
def test_steps_under_drawn_noise_drop_what_each_layer_adds(inputs: Tensor, variational: bool) -> None:
    network = Recurrent(
        GRUCell, 3, 5, 2, residual=True, dropout=0.3, residual_dropout=0.5, variational_dropout=variational
    ).double()
    noises = network.noises(4, 7, like=inputs)
    cells: Any = network.cells
    state = lower, upper = network.initial_state(4, like=inputs)

    for now, noise in zip(inputs.unbind(1), noises, strict=True):
        output, state = network.step(now, state, noise)
        first, lower = cells[0](now, lower)
        first = first * noise.outputs[0]
        second, upper = cells[1](first * noise.between[1], upper)
        close(output, first + second * noise.outputs[1])

    for mask, later in zip(noises[0].outputs, noises[1].outputs, strict=True):
        assert mask is not None
        assert later is not None
        assert set(mask.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(mask, later) == variational
    assert not torch.equal(*noises[0].outputs)  # each layer has its own


def test_two_directions_are_a_forward_and_a_reversed_unroll(inputs: Tensor) -> None:
    network = Recurrent(LSTMCell, 3, 5, bidirectional=True).double()
    lengths = torch.tensor([7, 0, 1, 4])

    outputs, ((forward, backward),) = network(inputs, lengths=lengths)

    for part, state, cells, reverse in (
        (outputs[..., :5], forward, network.cells, False),
        (outputs[..., 5:], backward, network.reverse_cells, True),
    ):
        expected, final = unroll(cells[0], inputs, lengths=lengths, reverse=reverse)  # pyright: ignore[reportArgumentType]
        close(part, expected)
        close(state, final)
        assert isinstance(state, LSTMState)
    assert network.output_size == 10


def test_a_learned_state_begins_at_the_cells_own_and_learns(inputs: Tensor) -> None:
    network = Recurrent(LSTMCell, 3, 5, 2, learned_initial_state=True, bidirectional=True).double()
    plain = Recurrent(LSTMCell, 3, 5, 2, bidirectional=True).double()
    plain.load_state_dict(network.state_dict(), strict=False)

    outputs, _ = network(inputs)
    outputs.sum().backward()

    close(outputs, plain(inputs)[0], atol=0)
    assert len(network.initial) == 8
    assert all(leaf.grad is not None and leaf.grad.any() for leaf in network.initial)


@pytest.mark.parametrize("variational", [False, True])
def test_dropout_lies_between_layers_and_is_the_same_at_all_steps_if_variational(variational: bool) -> None:
    # given layers whose outputs are all one, and a last one that shows what it reads
    network = Recurrent(partial(ElmanCell, activation="relu"), 1, 50, 2, dropout=0.4, variational_dropout=variational)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.get_parameter("cells.0.bias_ih").fill_(1.0)
        network.get_parameter("cells.1.weight_ih").copy_(torch.eye(50))

    outputs, _ = network(torch.zeros(4, 6, 1))

    assert outputs.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert (outputs == outputs[:, :1]).all() == variational
    assert not (outputs[0] == outputs[1]).all()


def test_one_layer_has_no_dropout(inputs: Tensor) -> None:
    network = Recurrent(LSTMCell, 3, 5, dropout=0.9).double()

    close(network(inputs)[0], network.eval()(inputs)[0], atol=0)


def test_dropout_repeats_under_a_seed(inputs: Tensor) -> None:
    network = Recurrent(LSTMCell, 3, 5, 2, dropout=0.5).double()

    torch.manual_seed(3)
    once, _ = network(inputs)

    assert not torch.equal(network(inputs)[0], once)
    torch.manual_seed(3)
    assert torch.equal(network(inputs)[0], once)


def test_steps_that_share_their_noise_are_one_noisy_pass(inputs: Tensor) -> None:
    # given noise of every kind, the same at all steps
    cell = partial(LSTMCell, recurrent_dropout=0.3, weight_drop=0.3)
    network = Recurrent(cell, 3, 5, 2, dropout=0.4, variational_dropout=True).double()
    torch.manual_seed(1)
    noise = network.noise(4, like=inputs)

    # when the same steps are taken with it twice, and once with noise of their own
    outputs, _ = step_through(network, inputs, noise=noise)
    again, _ = step_through(network, inputs, noise=noise)
    fresh, _ = step_through(network, inputs)

    # then it alone decides
    assert torch.equal(outputs, again)
    assert not torch.allclose(outputs, fresh)
    assert noise.between[0] is None
    assert noise.between[1] is not None
    assert noise.between[1].unique().tolist() == pytest.approx([0, 1 / 0.6])


def test_a_step_drops_what_its_noise_says_between_the_layers(inputs: Tensor) -> None:
    network = Recurrent(LSTMCell, 3, 5, 2, dropout=0.4).double()
    nothing = torch.zeros(4, 5).double()
    noise = network.noise(4, like=inputs)._replace(between=(None, nothing))

    output, _ = network.step(inputs[:, 0], network.initial_state(4, like=inputs), noise)

    expected, _ = network.cells[1](nothing)
    assert torch.equal(output, expected)


@pytest.mark.parametrize("variational", [True, False])
def test_the_noise_of_each_step_is_new_between_the_layers_unless_it_is_variational(
    variational: bool, inputs: Tensor
) -> None:
    cell = partial(LSTMCell, weight_drop=0.3)
    network = Recurrent(cell, 3, 5, 2, dropout=0.4, variational_dropout=variational)

    noises = network.noises(4, 6, like=torch.zeros(1))

    masks = torch.stack([noise.between[1] for noise in noises], 1)
    assert masks.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert torch.equal(masks, masks[:, :1].expand_as(masks)) == variational
    assert all(noise.cells[0].weight_hh is noises[0].cells[0].weight_hh for noise in noises)
    assert all(noise.between[0] is None for noise in noises)
    assert network.eval().noises(4, 2, like=inputs) == [((None, None), (None, None), (None, None))] * 2


def test_choices_say_what_each_layer_takes_and_why(inputs: Tensor) -> None:
    network = Recurrent(partial(LSTMCell, recurrent_dropout=0.5), 3, 5, 2)

    training, evaluation = network.backend_choices(inputs), network.eval().backend_choices(inputs)

    assert [choice.backend for choice in training] == ["loop", "loop"]
    assert "recurrent_dropout=0.5" in training[1].reason
    assert [choice.backend for choice in evaluation] == ["fused", "fused"]


def test_a_network_can_be_built_and_counted_without_memory() -> None:
    with torch.device("meta"):
        network = Recurrent(LSTMCell, 3, 5, 2, learned_initial_state=True)

    outputs, _ = network(torch.zeros(2, 4, 3, device="meta"), lengths=torch.tensor([4, 1]))

    assert outputs.shape == (2, 4, 5)
    assert outputs.device.type == "meta"


def test_keys_are_stable() -> None:
    network = Recurrent(LSTMCell, 3, 5, 2, bidirectional=True, learned_initial_state=True)

    parameters = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    cells = [f"{name}.{layer}.{p}" for name in ("cells", "reverse_cells") for layer in (0, 1) for p in parameters]
    assert list(network.state_dict()) == [*cells, *(f"initial.{index}" for index in range(8))]


def test_gradients_are_exact(inputs: Tensor) -> None:
    network = Recurrent(LSTMCell, 3, 4, 2, bidirectional=True, residual=True).double()
    lengths = torch.tensor([3, 1])
    inputs = inputs[:2, :3].clone().requires_grad_()

    assert torch.autograd.gradcheck(lambda x: network(x, lengths=lengths)[0], (inputs,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0, expected 1 or more"),
        ({"dropout": 1.0}, r"dropout is 1\.0, expected a probability in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout is -0\.1, expected"),
        ({"residual": True, "residual_dropout": 1.0}, r"dropout is 1\.0, expected"),
        ({"residual_dropout": 0.5}, r"residual_dropout=0\.5 drops outputs before a residual sum: set residual=True"),
        ({"hidden_size": 0}, "hidden_size is 0, expected 1 or more"),
    ],
)
def test_options_that_make_no_network_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recurrent(LSTMCell, **{"input_size": 3, "hidden_size": 5, **options})


def test_two_directions_cannot_step(inputs: Tensor) -> None:
    network = Recurrent(LSTMCell, 3, 5, bidirectional=True).double()

    with pytest.raises(ValueError, match="a bidirectional network cannot step"):
        network.step(inputs[:, 0], network.initial_state(4, like=inputs))


def test_inputs_and_states_of_the_wrong_shape_are_refused(network: Recurrent, inputs: Tensor) -> None:
    state = network.initial_state(4, like=inputs)

    with pytest.raises(ShapeError, match=r"inputs has the shape \(4, 3\), expected \(batch, time, input=3\)"):
        network(inputs[:, 0])
    with pytest.raises(ShapeError, match=r"inputs has the shape \(4, 7, 3\), expected \(batch, input=3\)"):
        network.step(inputs, state)
    with pytest.raises(ValueError, match="state is a tuple of 2, expected a tuple of 3"):
        network(inputs, state[:2])
    with pytest.raises(ShapeError, match="for a batch of 4"):
        network(inputs, map_state(lambda leaf: leaf[:1], state))
