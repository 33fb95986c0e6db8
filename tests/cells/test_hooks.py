"""Pruned and normalized cells, and hooks of any kind: nothing is ignored, frozen or stale, whatever runs the cell."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    BahdanauWiring,
    Encoded,
    GRUCell,
    LSTMCell,
    LSTMState,
    PeepholeLSTMCell,
    PointwiseCell,
    Recurrent,
    TopDownWiring,
    from_torch,
    to_torch,
    unroll,
)
from unrolled.backends import choose
from unrolled.state import HiddenState, leaves

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")

Put = Callable[[nn.Module, str], Any]
PRUNED: dict[str, Put] = {
    "pruned": partial(prune.l1_unstructured, amount=0.5),
    "weight norm, by hook": nn.utils.weight_norm,
    "spectral norm, by hook": nn.utils.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
}
BACKENDS = ["auto", "loop", "fused", "compiled"]


def trained(run: Callable[[Tensor], tuple[Tensor, Tensor]], module: nn.Module, inputs: Tensor) -> list[Tensor]:
    """What three steps of SGD on a module see, and its parameters behind them."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    seen: list[Tensor] = []
    for step in range(3):
        outputs, c = run(inputs + step)
        seen += [outputs.detach(), c.detach()]
        optimizer.zero_grad()
        (outputs.square().sum() + c.sum()).backward()
        optimizer.step()
    return [*seen, *(parameter.detach().clone() for _, parameter in sorted(module.named_parameters()))]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight", ["weight_hh", "weight_ih"])
@pytest.mark.parametrize("name", PRUNED)
def test_it_learns_as_torchs_layer_with_the_same_on_it(name: str, weight: str, backend: str) -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4, batch_first=True).double()
    network = from_torch(layer)
    network.backend = backend
    for module, own in ((layer, f"{weight}_l0"), (network.cells[0], weight)):
        torch.manual_seed(1)  # where the iteration of the spectral norm begins
        PRUNED[name](module, own)
    inputs = torch.randn(2, 20, 3, dtype=torch.float64)

    def ours(values: Tensor) -> tuple[Tensor, Tensor]:
        outputs, (state,) = network(values)
        return outputs, state.c

    def theirs(values: Tensor) -> tuple[Tensor, Tensor]:
        with parametrize.cached():  # torch's layer looks at its weights more than once
            outputs, (_, c) = layer(values)
        return outputs, c[0]

    found, expected = trained(ours, network, inputs), trained(theirs, layer, inputs)

    torch.testing.assert_close(found[:6], expected[:6], rtol=0, atol=1e-10)
    by_size = [sorted(leaf.norm().item() for leaf in each[6:]) for each in (found, expected)]  # names differ
    torch.testing.assert_close(*by_size, rtol=0, atol=1e-10)


def test_a_cell_without_a_spectral_norm_has_its_own_kernel() -> None:
    inputs = torch.randn(2, 9, 3)
    unroll(nn.utils.spectral_norm(LSTMCell(3, 7), "weight_hh"), inputs, backend="compiled")
    cell = LSTMCell(3, 7)

    outputs, _ = unroll(cell, inputs, backend="compiled")

    torch.testing.assert_close(outputs, unroll(cell, inputs, backend="loop")[0])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", PRUNED)
def test_all_backends_move_the_spectral_norm_on_by_one_iteration_per_pass(name: str, bidirectional: bool) -> None:
    def results(backend: str, *, recompute: bool = False) -> list[Tensor]:
        torch.manual_seed(0)
        network = Recurrent(LSTMCell, 3, 4, 2, bidirectional=bidirectional, backend=backend, recompute=recompute)
        for cell in (*network.cells, *network.reverse_cells):
            PRUNED[name](cell, "weight_hh")
        inputs, lengths = torch.randn(2, 9, 3, dtype=torch.float64), torch.tensor([9, 4])
        outputs, _ = network.double()(inputs, lengths=lengths)
        network(inputs)  # before the way back of the first pass
        slopes = torch.autograd.grad(outputs.square().sum(), list(network.parameters()))
        return [outputs, *slopes, *(buffer.clone() for buffer in network.buffers())]

    expected = results("loop")
    for backend in ("auto", "fused", "compiled"):
        torch.testing.assert_close(results(backend), expected, rtol=0, atol=1e-10)
    for backend in ("loop", "compiled"):
        torch.testing.assert_close(results(backend, recompute=True), expected, rtol=0, atol=1e-10)


def test_a_normalized_vector_of_the_cells_own_is_compiled_too() -> None:
    networks = [Recurrent(PeepholeLSTMCell, 3, 4, backend=backend).double() for backend in ("compiled", "loop")]
    networks[1].load_state_dict(networks[0].state_dict())
    inputs, found = torch.randn(2, 9, 3, dtype=torch.float64), []
    for network in networks:
        for name in ("weight_hh", *(n for n, p in network.cells[0].named_parameters() if p.dim() == 1 and "peep" in n)):
            parametrize.register_parametrization(network.cells[0], name, nn.Tanh())
        outputs, _ = network(inputs)
        found.append([outputs, *torch.autograd.grad(outputs.square().sum(), list(network.parameters()))])

    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", PRUNED)
@pytest.mark.parametrize("cell", [LSTMCell, GRUCell])
def test_steps_look_at_the_weights_of_now(cell: Any, name: str) -> None:
    network = Recurrent(cell, 3, 4, 2).double().eval()
    for own in network.cells:
        PRUNED[name](own, "weight_ih")
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5).add_(0.1)  # as an optimizer or a loaded file would
        state, stepped = network.initial_state(2, like=inputs), []
        for moment in inputs.unbind(1):
            output, state = network.step(moment, state)
            stepped.append(output)
        torch.testing.assert_close(torch.stack(stepped, 1), network(inputs)[0], rtol=0, atol=1e-12)


def decoder(kind: str) -> Any:
    core = partial(Recurrent, GRUCell, hidden_size=6, num_layers=2)
    if kind == "language":
        return AutoregressiveDecoder.of_tokens(7, 4, core)
    orders: dict[str, Any] = {"before": BahdanauWiring, "between": TopDownWiring}
    options: dict[str, Any] = {"wiring": orders[kind]} if kind in orders else {"input_feeding": kind == "feeding"}
    return AutoregressiveDecoder.of_tokens(7, 4, core, AdditiveAttention, 6, **options)


@pytest.mark.parametrize("kind", ["language", "feeding", "at once", "before", "between"])
def test_decoders_look_at_the_weights_of_now(kind: str) -> None:
    torch.manual_seed(0)
    network = decoder(kind).double().eval()
    stacks = [network.core, *([network.steps.wiring.language] if kind == "between" else [])]
    cells = [cell for stack in stacks for cell in stack.cells]
    for cell in cells:
        for name in ("weight_ih", "weight_hh"):
            prune.random_unstructured(cell, name, 0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5).add_(0.1)
    values = torch.randn(2, 3, 6, dtype=torch.float64)
    tokens = torch.randint(7, (2, 4))

    def run() -> list[Tensor]:
        state, memory = network.start(2, None if kind == "language" else Encoded(values, None, values.mean(1)))
        whole, stepped = network(tokens, state, memory).parameters, []
        for token in tokens.unbind(1):
            decoded = network.step(token, state, memory)
            state = decoded.state
            stepped.append(decoded.parameters)
        return [whole, torch.stack(stepped, 1)]

    found = run()
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
    for cell in cells:
        for name in ("weight_ih", "weight_hh"):
            prune.remove(cell, name)
    torch.testing.assert_close(found, run(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_hooks_run_once_per_pass_and_are_heard(backend: str) -> None:
    network = Recurrent(LSTMCell, 3, 4, backend=backend).double()
    cell: Any = network.cells[0]
    inputs = torch.randn(2, 20, 3, dtype=torch.float64)
    start = LSTMState(*torch.randn(2, 2, 4, dtype=torch.float64))
    expected, (after,) = network(2 * inputs, (start,))
    slopes: list[Tensor] = []
    seen: list[Any] = []

    def doubled(module: Any, given: Any) -> Any:
        seen.append((module, given))
        return 2 * given[0], given[1]

    def negated(module: Any, given: Any, result: Any) -> Any:
        return -result[0], result[1]

    cell.register_forward_pre_hook(doubled)
    cell.register_forward_hook(negated)
    cell.register_full_backward_hook(lambda _, __, given: slopes.append(given[0]))
    outputs, (state,) = network(inputs, (start,))
    outputs.sum().backward()

    torch.testing.assert_close([outputs, *state], [-expected, *after], rtol=0, atol=1e-12)
    assert [given[1] for _, given in seen] == [start]
    assert seen[0][0] is cell
    assert torch.equal(seen[0][1][0], inputs)
    assert len(slopes) == 1
    assert slopes[0].shape == outputs.shape


def test_a_hook_that_gives_what_does_not_fit_is_refused() -> None:
    network = Recurrent(GRUCell, 3, 4)
    handle = network.cells[0].register_forward_pre_hook(lambda _, given: (given[0][..., :2], given[1]))
    with pytest.raises(ValueError, match="inputs, after a hook, has the shape"):
        network(torch.zeros(2, 20, 3))
    handle.remove()
    network.cells[0].register_forward_pre_hook(lambda _, given: (given[0], HiddenState(torch.zeros(2, 4096))))
    with pytest.raises(ValueError, match=r"state\.h has the shape \(2, 4096\), expected \(2, 4\)"):
        network(torch.zeros(2, 20, 3))


class ActivatedCell(PointwiseCell[HiddenState]):
    gates = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.activation = nn.Tanh()

    def pointwise(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        h = self.activation(projected[0] + recurrent[0])
        return h, HiddenState(h)


def test_a_hook_on_a_module_within_a_cell_is_not_compiled_away() -> None:
    cell, inputs = ActivatedCell(3, 4), torch.zeros(2, 20, 3)
    assert choose("auto", cell, inputs).backend == "compiled"
    calls: list[int] = []

    cell.activation.register_forward_hook(lambda *_: calls.append(1))
    unroll(cell, inputs)

    assert len(calls) == 20
    with pytest.raises(ValueError, match="its module 'activation' has hooks"):
        unroll(cell, inputs, backend="compiled")


def test_what_cannot_be_done_is_refused_by_name() -> None:
    network = Recurrent(partial(LSTMCell, weight_drop=0.5), 3, 4)
    prune.l1_unstructured(network.cells[0], "weight_hh", 0.5)
    inputs = torch.zeros(2, 3)
    network(inputs.unsqueeze(1).expand(2, 20, 3))
    with pytest.raises(ValueError, match=r"weight_drop=0\.5 drops weights before the hooks of LSTMCell"):
        network.step(inputs, network.initial_state(2, like=inputs))
    network.eval()
    noise = network.noise(2, like=inputs)
    with pytest.raises(ValueError, match="LSTMCell has hooks: pass inputs and projected=None"):
        network.advance(network.cells[0].project(inputs), network.initial_state(2, like=inputs), noise)
    with pytest.raises(ValueError, match="no hooks on cells"):
        to_torch(network)

    layer = nn.utils.weight_norm(nn.LSTM(3, 4), "weight_hh_l0")
    with pytest.raises(ValueError, match="a hook computes weight_hh_l0 of this layer; remove it first"):
        from_torch(layer)


@pytest.mark.parametrize("name", PRUNED)
def test_torch_compile_sees_them(name: str) -> None:
    def results(compiled: bool) -> list[Tensor]:
        torch._dynamo.reset()
        torch.manual_seed(0)
        network = Recurrent(GRUCell, 3, 4)
        PRUNED[name](network.cells[0], "weight_hh")
        network = network.double()
        outputs, _ = (torch.compile(network, backend="aot_eager") if compiled else network)(inputs)
        slopes = torch.autograd.grad(outputs.square().sum(), list(network.parameters()))
        return [outputs, *slopes, *(buffer.clone() for buffer in network.buffers())]

    inputs = torch.randn(2, 20, 3, dtype=torch.float64)
    # To read the cell is to look at its weights once more, which improves the estimate of a spectral norm.
    torch.testing.assert_close(results(True), results(False), rtol=0, atol=1e-4)


def test_cells_without_hooks_are_not_called() -> None:
    network = Recurrent(LSTMCell, 3, 4)
    network.cells[0].forward = None  # pyright: ignore

    _, state = network(torch.zeros(2, 20, 3))
    network.step(torch.zeros(2, 3), state)
    assert len(leaves(state)) == 2
