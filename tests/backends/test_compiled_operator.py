"""The compiled layer as an operator of torch: higher derivatives, torch.compile, mixed precision."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    ElmanCell,
    GRUCell,
    HiddenState,
    LSTMCell,
    Recurrent,
    ResetFirstGRUCell,
    unroll,
)
from unrolled.backends.compiled.kernel import LayerInputs
from unrolled.backends.compiled.operator import KERNELS, packed, recurrence
from unrolled.state import leaves

MAKES = [LSTMCell, GRUCell, ElmanCell]


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run_of(inputs: Tensor, weights: dict[str, Tensor]) -> LayerInputs:
    """A GRU's layer of five units."""
    initial = [inputs.new_zeros(inputs.shape[0], 5)]
    others: dict[str, Any] = {"further": [], "own": None, "noise": [], "state_mask": None, "lengths": None}
    return LayerInputs(inputs=inputs, initial=initial, reverse=False, **weights, **others)


@pytest.mark.parametrize(
    ("make", "lengths", "reverse"),
    [(LSTMCell, None, False), (ElmanCell, None, True), (GRUCell, [3, 1], False), (GRUCell, [3, 1], True)],
)
def test_second_derivatives_are_exact(make: Any, lengths: list[int] | None, reverse: bool) -> None:
    cell = make(2, 2).double()
    inputs = double(2, 3, 2).requires_grad_()
    given = None if lengths is None else torch.tensor(lengths)

    def run(inputs: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        outputs, final = unroll(cell, inputs, lengths=given, reverse=reverse, backend="compiled")
        return (outputs, *leaves(final))

    assert torch.autograd.gradgradcheck(run, (inputs, *cell.parameters()))


@pytest.mark.parametrize("make", MAKES)
def test_a_gradient_penalty_mixes_inputs_and_weights_as_the_loop_does(make: Any) -> None:
    cell = make(3, 5).double()

    def penalty(backend: str) -> tuple[Tensor, ...]:
        inputs = double(4, 6, 3).requires_grad_()
        outputs, _ = unroll(cell, inputs, backend=backend)
        (slope,) = torch.autograd.grad(outputs.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(slope.square().sum() + outputs.sum(), [inputs, *cell.parameters()])

    torch.testing.assert_close(penalty("compiled"), penalty("loop"), rtol=0, atol=1e-10)


def test_a_state_computed_from_the_weights_is_not_counted_twice() -> None:
    cell = GRUCell(3, 5).double()

    def penalty(backend: str) -> tuple[Tensor, ...]:
        inputs = double(4, 6, 3).requires_grad_()
        start = HiddenState(torch.tanh(inputs[:, 0] @ cell.weight_ih[:5].T))
        outputs, _ = unroll(cell, inputs, start, backend=backend)
        slopes = torch.autograd.grad(outputs.square().sum(), [inputs, cell.weight_ih], create_graph=True)
        return torch.autograd.grad(sum(slope.square().sum() for slope in slopes), [inputs, *cell.parameters()])

    torch.testing.assert_close(penalty("compiled"), penalty("loop"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", MAKES)
def test_a_retained_graph_gives_the_same_gradients_again(make: Any) -> None:
    cell = make(3, 5).double()
    outputs, _ = unroll(cell, double(4, 6, 3), backend="compiled")
    total = outputs.square().sum()

    first = torch.autograd.grad(total, list(cell.parameters()), retain_graph=True)
    second = torch.autograd.grad(total, list(cell.parameters()))

    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_outputs_changed_in_place_are_noticed() -> None:
    outputs, _ = unroll(GRUCell(3, 5), torch.zeros(2, 4, 3), backend="compiled")
    outputs.mul_(2)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


def test_the_gradient_of_a_final_state_alone(generator: torch.Generator) -> None:
    cell = LSTMCell(3, 5).double()

    def gradients(backend: str) -> tuple[Tensor, ...]:
        _, final = unroll(cell, double(4, 6, 3), lengths=torch.tensor([6, 2, 0, 1]), backend=backend)
        return torch.autograd.grad(final.c.square().sum(), list(cell.parameters()))

    torch.testing.assert_close(gradients("compiled"), gradients("loop"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("frozen", ["weights", "inputs"])
def test_gradients_of_one_side_alone(frozen: str) -> None:
    def gradients(backend: str) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        cell = GRUCell(3, 5).double().requires_grad_(frozen != "weights")
        inputs = double(4, 6, 3).requires_grad_(frozen != "inputs")
        wanted = [inputs] if frozen == "weights" else list(cell.parameters())
        return torch.autograd.grad(unroll(cell, inputs, backend=backend)[0].square().sum(), wanted)

    torch.testing.assert_close(gradients("compiled"), gradients("loop"), rtol=0, atol=1e-12)


def test_torch_agrees_that_it_is_an_operator() -> None:
    cell = GRUCell(3, 5)
    inputs = torch.randn(2, 4, 3)
    unroll(cell, inputs, backend="compiled")  # so that its kernel is there
    key = next(
        key for key, kernel in KERNELS.items() if kernel.program.layout.gates == 3 and kernel.dtype == inputs.dtype
    )
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in cell.named_parameters()}
    learned, fixed = packed(run_of(inputs, weights))

    torch.library.opcheck(recurrence, (learned, fixed, False, key, True))


NOISY = partial(LSTMCell, recurrent_dropout=0.5, candidate_dropout=0.25, zoneout=0.3, zoneout_c=0.5)


@pytest.mark.parametrize("make", [GRUCell, ResetFirstGRUCell, NOISY])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_torch_compile_takes_it_whole(bidirectional: bool, make: Any) -> None:
    network = Recurrent(make, 3, 5, 2, bidirectional=bidirectional, backend="compiled").double()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    inputs, lengths = double(4, 6, 3), torch.tensor([6, 3, 1, 0])

    def run(network: Any) -> Tensor:
        torch.manual_seed(1)
        return network(inputs, lengths=lengths)[0]

    found, expected = run(compiled), run(network)

    assert torch.equal(found, expected)
    parameters = list(network.parameters())
    gradients = [torch.autograd.grad(outputs.square().sum(), parameters) for outputs in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


class _Outputs(nn.Module):
    def __init__(self, backend: str) -> None:
        super().__init__()
        self.network = Recurrent(GRUCell, 3, 5, backend=backend)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)[0]


def test_an_exported_program_has_nothing_of_this_machine_in_it() -> None:
    module = _Outputs("auto").eval()
    inputs = torch.randn(2, 16, 3)
    assert module.network.backend_choices(inputs)[0].backend == "compiled"

    program = torch.export.export(module, (inputs,))

    assert "unrolled" not in str(program.graph)
    torch.testing.assert_close(program.module()(inputs), module(inputs))
    with pytest.raises(Exception, match="an exported program can't depend on this machine's compiler"):
        torch.export.export(_Outputs("compiled").eval(), (inputs,))


@pytest.mark.parametrize("make", MAKES)
def test_under_autocast_dtypes_are_those_of_torchs_layers(make: Any) -> None:
    inputs = torch.randn(2, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        cell = make(3, 5)
        outputs, state = unroll(cell, inputs, backend="compiled")
        again, _ = unroll(make(5, 5), outputs, backend="compiled")  # a layer on a layer

    # As nn.LSTM's outputs are, where the processor lets it run.
    assert outputs.dtype == again.dtype == torch.bfloat16
    assert {leaf.dtype for leaf in leaves(state)} == {torch.float32}  # as the loop's: a state goes on unrounded
    outputs.float().sum().backward()
    assert cell.weight_hh.grad is not None
    assert cell.weight_hh.grad.dtype == torch.float32


def test_any_memory_layout_is_taken() -> None:
    cell = LSTMCell(3, 5).double()
    with torch.no_grad():
        cell.weight_hh.set_(double(5, 20).t())  # columns first
    plain = double(4, 6, 3)
    start = cell.initial_state(4, like=plain)
    expected = unroll(cell, plain, start, backend="loop")[0]
    misaligned = torch.empty(4 * 6 * 3 * 8 + 8, dtype=torch.uint8)[8:].view(torch.float64).view(4, 6, 3).copy_(plain)
    layouts = [plain.transpose(0, 1).contiguous().transpose(0, 1), plain.repeat(1, 1, 2)[..., :3], misaligned]

    for inputs in layouts:
        broadcast = type(start)(*(leaf[:1].expand(4, 5) for leaf in start))
        found, _ = unroll(cell, inputs, broadcast, backend="compiled")
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    ends = torch.tensor([6, 1, 4, 1, 2, 1, 0, 1])[::2]  # strided
    found = [unroll(cell, plain, lengths=ends, backend=backend)[0] for backend in ("compiled", "loop")]
    torch.testing.assert_close(*found, rtol=0, atol=1e-13)


def test_expanded_gradients_and_empty_batches() -> None:
    cell = GRUCell(3, 5).double()
    inputs = double(4, 6, 3).requires_grad_()
    unroll(cell, inputs, backend="compiled")[0].sum().backward()  # the gradient of a sum has no strides
    assert inputs.grad is not None
    assert inputs.grad.abs().min() > 0

    outputs, state = unroll(cell, double(0, 6, 3).requires_grad_(), backend="compiled")
    outputs.sum().backward()
    assert outputs.shape == (0, 6, 5)
    assert state.h.shape == (0, 5)


def test_raw_pointers_are_only_taken_from_what_fits() -> None:
    unroll(GRUCell(3, 5), torch.zeros(2, 4, 3), backend="compiled")
    kernel = next(k for k in KERNELS.values() if k.program.layout.gates == 3 and k.dtype == torch.float32)
    good = run_of(torch.zeros(2, 4, 3), {name: weight.detach() for name, weight in GRUCell(3, 5).named_parameters()})
    kernel.forward(good, keep=False)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"inputs": good.inputs.double()}, "inputs"),
        ({"inputs": torch.zeros(2, 3, 4).transpose(1, 2)}, "inputs is not contiguous"),
        ({"weight_hh": torch.zeros(15, 4)}, "weight_hh"),
        ({"weight_hh": None}, "weight_hh is missing"),
        ({"bias_ih": torch.zeros(14)}, "bias_ih"),
        ({"initial": [torch.zeros(3, 5)]}, "state"),
        ({"initial": []}, "0 wide|0 states|weight"),
        ({"noise": [torch.zeros(2, 5)]}, "1 states and 1 masks are given, expected 1 and 0"),
        ({"lengths": torch.tensor([4, 5])}, "lengths are not all within 0 and 4"),
        ({"lengths": torch.tensor([4.0, 1.0])}, "lengths"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            kernel.forward(good._replace(**change), keep=False)
