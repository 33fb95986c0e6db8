"""Recomputation over time: the same gradients to the last bit, in memory that grows with the square root of time."""

import weakref
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unrolled import GRUCell, LayerNormLSTMCell, LSTMCell, Recurrent, unroll
from unrolled.backends import BACKENDS
from unrolled.backends.recomputation import checkpoint_segments
from unrolled.state import leaves

NOISY = partial(LSTMCell, recurrent_dropout=0.5, weight_drop=0.25)
CASES = [
    ("loop", LSTMCell),
    ("loop", NOISY),
    ("loop", LayerNormLSTMCell),
    ("fused", LSTMCell),
    ("fused", partial(GRUCell, weight_drop=0.25)),
    ("compiled", GRUCell),
    ("compiled", NOISY),
]


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("lengths", [None, [11, 0, 3, 8]])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("backend", "make"), CASES)
def test_outputs_states_and_gradients_are_the_same(
    backend: str, make: Any, bidirectional: bool, lengths: list[int] | None
) -> None:
    given = None if lengths is None else torch.tensor(lengths)

    def results(recompute: bool) -> list[Tensor]:
        torch.manual_seed(1)
        options: dict[str, Any] = {"bidirectional": bidirectional, "backend": backend, "recompute": recompute}
        network = Recurrent(make, 3, 5, 2, **options).double()
        inputs = double(4, 11, 3).requires_grad_()
        outputs, final = network(inputs, lengths=given)
        total = (outputs * double(*outputs.shape)).sum() + sum(leaf.square().sum() for leaf in leaves(final))
        return [outputs, *leaves(final), *torch.autograd.grad(total, [inputs, *network.parameters()])]

    expected, found = results(False), results(True)

    # A stretch's gradients of the weights are added up beside the others', so their last bits may differ.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    if backend == "compiled":  # its products don't depend on how many steps they are taken for
        assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("backend", ["loop", "compiled"])
def test_a_stretch_meets_the_same_noise_twice(backend: str) -> None:
    # given noise that is new at each step, and the same stretches with nothing forgotten between
    cell = LSTMCell(3, 5, zoneout=0.3, zoneout_c=0.5, candidate_dropout=0.25, recurrent_dropout=0.5).double()

    def results(recompute: bool) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        inputs = double(4, 16, 3).requires_grad_()
        if recompute:
            outputs, _ = unroll(cell, inputs, backend=backend, recompute=True)
        else:
            noise, state = cell.noise(4, like=inputs), cell.initial_state(4, like=inputs)
            parts: list[Tensor] = []
            for stretch in inputs.split(4, dim=1):
                part, state = BACKENDS[backend].run(cell, stretch, state, None, False, noise)
                parts.append(part)
            outputs = torch.cat(parts, dim=1)
        torch.rand(3)  # whatever is drawn between the two passes
        return (outputs, *torch.autograd.grad(outputs.square().sum(), [inputs, *cell.parameters()]))

    torch.testing.assert_close(results(True), results(False), rtol=0, atol=0)


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that operators made and that something still holds."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor) and (storage := result.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.change(storage.nbytes())
                weakref.finalize(storage, self.change, -storage.nbytes())
        return results

    def change(self, amount: int) -> None:
        self.bytes += amount
        self.peak = max(self.peak, self.bytes)


@pytest.mark.parametrize("backend", ["loop", "fused", "compiled"])
def test_what_is_kept_grows_with_the_square_root_of_time(backend: str) -> None:
    def kept(time: int, recompute: bool) -> tuple[int, int]:
        """Bytes that wait for the backward pass beside inputs and outputs, and the most that it adds."""
        cell = LSTMCell(1, 32)
        inputs = torch.zeros(16, time, 1, requires_grad=True)
        unroll(cell, inputs, backend=backend)  # traces and compiles it
        with Live() as live:
            live.known.add(inputs.untyped_storage())
            outputs, final = unroll(cell, inputs, backend=backend, recompute=recompute)
            waiting = live.bytes - outputs.nbytes - sum(leaf.nbytes for leaf in leaves(final))
            before = live.peak = live.bytes
            final.h.sum().backward()
        return waiting, live.peak - before

    whole, stretches = ([kept(time, recompute) for time in (64, 1024)] for recompute in (False, True))

    # 16 times the steps
    assert whole[1][0] > 12 * whole[0][0]
    assert stretches[1][0] < 5 * stretches[0][0]
    assert stretches[1][0] < whole[1][0] / 16
    assert stretches[1][1] < 6 * stretches[0][1]


def test_nothing_is_run_twice_without_gradients() -> None:
    calls: list[int] = []

    def run(inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        calls.append(inputs.shape[1])
        return inputs, state

    checkpoint_segments(run, torch.zeros(2, 10, 3), None, None, reverse=False)
    assert calls == [4, 4, 2]
    cell = GRUCell(3, 5)
    with torch.no_grad():
        outputs, _ = unroll(cell, torch.randn(2, 10, 3), recompute=True)
    assert outputs.shape == (2, 10, 5)
    assert unroll(cell, torch.zeros(2, 0, 3), recompute=True)[0].shape == (2, 0, 5)
    assert unroll(cell, torch.zeros(2, 1, 3), recompute=True)[0].shape == (2, 1, 5)


@pytest.mark.parametrize("backend", ["loop", "compiled"])
def test_second_derivatives_too(backend: str) -> None:
    cell = GRUCell(2, 2).double()

    def run(inputs: Tensor, *_: Tensor) -> Tensor:
        return unroll(cell, inputs, backend=backend, recompute=True)[0]

    assert torch.autograd.gradgradcheck(run, (double(2, 5, 2).requires_grad_(), *cell.parameters()))


def test_a_compiled_lstm_keeps_no_more_for_its_backward_pass_than_that_of_torch() -> None:
    def kept(run: Any) -> tuple[float, float]:
        """Numbers for each step, row and unit: what waits for the backward pass, outputs too, and the most in it."""
        inputs = torch.zeros(16, 64, 32, requires_grad=True)
        run(inputs)  # traces and compiles it
        with Live() as live:
            live.known.add(inputs.untyped_storage())
            outputs = run(inputs)
            waiting = live.bytes
            outputs.sum().backward()
        return waiting / 4 / inputs.numel(), live.peak / 4 / inputs.numel()

    cell, theirs = LSTMCell(32, 32), torch.nn.LSTM(32, 32, batch_first=True)
    ours, torchs = (kept(run) for run in (lambda x: unroll(cell, x, backend="compiled")[0], lambda x: theirs(x)[0]))

    # Kernels' own scratch, which is of a size that doesn't grow with time, is seen on neither side.
    assert ours[0] == pytest.approx(6.0, abs=0.1)  # four gates, c and the output
    assert ours[0] < torchs[0] / 2
    assert ours[1] < torchs[1] / 2
