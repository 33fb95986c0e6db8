"""Steps without gradients on the shortest path, against the loop, which is the definition, and against whole passes."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from unrolled import GRUCell, LSTMCell, PeepholeLSTMCell, PointwiseCell, Recurrent, ResetFirstGRUCell
from unrolled.backends import BACKENDS
from unrolled.shapes import ShapeError
from unrolled.state import leaves, map_state, select

MakeCell = Callable[[int, int], Any]


def stack(make: MakeCell, backend: str, **options: Any) -> Recurrent:
    torch.manual_seed(1)
    return Recurrent(make, 3, 6, 2, backend=backend, **options).eval()


@torch.no_grad()
def walk(network: Recurrent, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The outputs of repeated steps, and the last state."""
    state, outputs = network.initial_state(len(inputs), like=inputs), list[Tensor]()
    for step in inputs.unbind(1):  # not contiguous
        output, state = network.step(step, state)
        outputs.append(output)
    return torch.stack(outputs, 1), leaves(state)


def products(network: Recurrent, inputs: Tensor) -> set[str]:
    """Names of torch's matrix products that the steps ran: none on the way to a compiled kernel."""
    walk(network, inputs)
    with torch.autograd.profiler.profile() as profiled:
        walk(network, inputs)
    names = {event.name for event in profiled.function_events or ()}
    return names & {"aten::linear", "aten::lstm_cell", "aten::gru_cell", "aten::rnn_tanh_cell"}


@pytest.mark.parametrize(("rows", "residual"), [(1, False), (3, True), (17, False)])
def test_steps_equal_the_loop(make_cell: MakeCell, rows: int, residual: bool) -> None:
    network = stack(make_cell, "auto", residual=residual).double()
    inputs = torch.randn(rows, 7, 3, dtype=torch.float64)
    outputs, state = walk(network, inputs)
    with torch.no_grad():
        wanted, end = stack(make_cell, "loop", residual=residual).double()(inputs)
    torch.testing.assert_close(outputs, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state, leaves(end), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_steps_equal_a_compiled_pass_to_the_last_bit(make_cell: MakeCell, dtype: torch.dtype) -> None:
    inputs = torch.randn(5, 7, 3, dtype=dtype)
    if BACKENDS["compiled"].refuses(make_cell(3, 6).to(dtype), inputs) is not None:
        pytest.skip("the cell has no kernel")
    network = stack(make_cell, "compiled").to(dtype)
    if type(network.cells[0]).project is not PointwiseCell.project:
        pytest.skip("torch projects the inputs of one step in another order than those of many")
    outputs, state = walk(network, inputs)
    with torch.no_grad():
        wanted, end = network(inputs)
    assert torch.equal(outputs, wanted)
    assert all(map(torch.equal, state, leaves(end)))
    for row in range(5):  # nor do they depend on other rows
        alone, of_row = walk(network, inputs[row : row + 1])
        assert torch.equal(alone, outputs[row : row + 1])
        assert all(map(torch.equal, of_row, select(tuple(state), torch.tensor([row]))))
    assert not products(network, inputs)


def test_the_shortest_path_is_taken() -> None:
    one, many = torch.randn(1, 2, 3), torch.randn(16, 2, 3)
    assert products(stack(LSTMCell, "auto"), one) == {"aten::lstm_cell", "aten::linear"}
    assert products(stack(GRUCell, "auto"), one) == {"aten::gru_cell", "aten::linear"}
    assert products(stack(LSTMCell, "fused"), many) == {"aten::lstm_cell", "aten::linear"}
    assert products(stack(LSTMCell, "loop"), one) == {"aten::linear"}
    if BACKENDS["compiled"].refuses(LSTMCell(3, 6), one) is None:
        assert not products(stack(LSTMCell, "auto"), many)
        assert not products(stack(PeepholeLSTMCell, "auto"), one)


class Scaled(PointwiseCell[Any]):
    """A cell with an option that can be changed within a list, and a buffer."""

    gates = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.factors = [0.5]
        self.register_buffer("rate", torch.linspace(0.1, 1.0, hidden_size))

    def pointwise(self, projected: Any, recurrent: Any, state: Any) -> tuple[Tensor, Any]:
        h = torch.tanh(self.factors[0] * projected[0] + self.rate * recurrent[0])
        return h, type(state)(h)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2.0 * weight


def add_hook(cell: Any) -> None:
    cell.register_forward_hook(lambda module, given, result: (2.0 * result[0], result[1]))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda cell: cell.weight_ih.detach().mul_(2.0),
    "in place through .data": lambda cell: cell.weight_hh.data.add_(1.0),
    "in place through numpy": lambda cell: cell.bias_ih.detach().numpy().fill(0.3),
    "another tensor under .data": lambda cell: setattr(cell.weight_hh, "data", -cell.weight_hh.data),
    "columns as rows under .data": lambda cell: setattr(cell.weight_hh, "data", cell.weight_hh.data.T.clone().T * 2),
    "another parameter": lambda cell: setattr(cell, "weight_ih", nn.Parameter(cell.weight_ih.detach() * 3.0)),
    "a hook": add_hook,
    "a parametrization": lambda cell: parametrize.register_parametrization(cell, "weight_hh", Doubled()),
    "pruning": lambda cell: prune.l1_unstructured(cell, "weight_ih", 0.5),
    "another dtype and back": lambda cell: cell.double().float(),
}
OPTIONS: dict[str, tuple[MakeCell, Callable[[Any], Any]]] = {
    "an option": (LSTMCell, lambda cell: setattr(cell, "zoneout", (0.5, 0.25))),
    "a method": (GRUCell, lambda cell: setattr(cell, "recurrent_weight", lambda: -cell.weight_hh)),
    "an item of a list": (Scaled, lambda cell: cell.factors.__setitem__(0, 2.0)),
    "a buffer": (Scaled, lambda cell: cell.rate.zero_()),
}


@pytest.mark.parametrize("make", [LSTMCell, PeepholeLSTMCell, ResetFirstGRUCell])
@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_changes_of_weights_are_noticed(make: MakeCell, change: Callable[[Any], Any]) -> None:
    noticed(make, change)


@pytest.mark.parametrize(("make", "change"), OPTIONS.values(), ids=list(OPTIONS))
def test_changes_of_options_are_noticed(make: MakeCell, change: Callable[[Any], Any]) -> None:
    noticed(make, change)


def noticed(make: MakeCell, change: Callable[[Any], Any]) -> None:
    inputs = torch.randn(2, 4, 3)
    for backend in ("auto", "compiled"):
        quick, slow = stack(make, backend), stack(make, "loop")
        before = walk(quick, inputs)[0]
        for network in (quick, slow):
            change(network.cells[1])
        after = walk(quick, inputs)[0]
        assert not torch.allclose(after, before) or change is CHANGES["another dtype and back"]
        torch.testing.assert_close(after, walk(slow, inputs)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [LSTMCell, PeepholeLSTMCell])
def test_what_a_step_refuses_is_the_same_without_gradients(make: MakeCell) -> None:
    network, inputs = stack(make, "auto"), torch.randn(2, 3)
    state = network.initial_state(2, like=inputs)
    for given, before in (
        (inputs[:, :2], state),
        (inputs[0], state),
        (inputs, network.initial_state(3, like=inputs)),
        (inputs, state[:1]),
        (inputs, tuple(tuple(layer) for layer in state)),
        (inputs, map_state(Tensor.double, state)),
        (inputs.double(), state),
    ):
        messages: list[str] = []
        for mode in (torch.no_grad(), torch.enable_grad()):
            with mode, pytest.raises((ValueError, RuntimeError)) as raised:
                network.step(given, before)
            messages.append(f"{raised.type} {raised.value}")
        assert messages[0] == messages[1]
    with torch.no_grad(), pytest.raises(ShapeError, match="expected"):
        network.step(inputs[:, :2], state)


def test_gradients_flow_where_they_are_wanted() -> None:
    network, inputs = stack(PeepholeLSTMCell, "auto"), torch.randn(2, 3, requires_grad=True)
    output, _ = network.step(inputs, network.initial_state(2, like=inputs))
    output.sum().backward()
    assert inputs.grad is not None
    assert bool(inputs.grad.any())
    assert all(weight.grad is not None for weight in network.parameters())


def test_training_mode_of_one_cell_draws_its_noise() -> None:
    network = stack(lambda *sizes: LSTMCell(*sizes, recurrent_dropout=0.5), "auto")
    inputs = torch.randn(2, 6, 3)
    network.cells[0].train()
    assert not torch.equal(walk(network, inputs)[0], walk(network, inputs)[0])


class OneStep(nn.Module):
    def __init__(self, network: Recurrent) -> None:
        super().__init__()
        self.network = network

    def forward(self, row: Tensor) -> Tensor:
        return self.network.step(row, self.network.initial_state(1, like=row))[0]


def test_transforms_and_traces_see_a_step() -> None:
    network, inputs = OneStep(stack(PeepholeLSTMCell, "auto")), torch.randn(4, 1, 3)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        traced: Any = torch.jit.trace(network, inputs[0])
        wanted = torch.stack([network(row) for row in inputs])
        torch.testing.assert_close(torch.func.vmap(network)(inputs), wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.stack([traced(row) for row in inputs]), wanted, rtol=1e-5, atol=1e-6)
    assert "addmm" in str(traced.inlined_graph) or "linear" in str(traced.inlined_graph)


def test_threads_step_one_network_at_once() -> None:
    network, inputs = stack(PeepholeLSTMCell, "compiled"), torch.randn(8, 50, 3)
    wanted = [walk(network, row.unsqueeze(0))[0] for row in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: walk(network, row.unsqueeze(0))[0], inputs))
    assert all(map(torch.equal, found, wanted))


class Labelled(Tensor):
    """A subclass, whose numbers need not be in memory."""


def test_other_kinds_of_tensors_take_the_loop() -> None:
    for make in (LSTMCell, PeepholeLSTMCell):
        network, inputs = stack(make, "auto"), torch.randn(2, 3)
        state = network.initial_state(2, like=inputs)
        with torch.no_grad():
            wanted = network.step(inputs, state)[0]
            for other in (inputs.as_subclass(Labelled), inputs.to_sparse()):
                found = network.step(other, state)[0]
                torch.testing.assert_close(found.as_subclass(Tensor), wanted, rtol=1e-5, atol=1e-6)
            network.cells[1].weight_hh = nn.Parameter(network.cells[1].weight_hh.detach().as_subclass(Labelled))
            torch.testing.assert_close(network.step(inputs, state)[0].as_subclass(Tensor), wanted, rtol=1e-5, atol=1e-6)


def test_an_empty_batch_steps() -> None:
    network = stack(GRUCell, "auto")
    with torch.no_grad():
        output, state = network.step(torch.zeros(0, 3), network.initial_state(0, like=torch.zeros(1)))
    assert output.shape == (0, 6)
    assert state[1].h.shape == (0, 6)
