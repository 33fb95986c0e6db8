"""Analyses beside finite differences in float64, numpy and analytic values of linear cells."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    Cell,
    ClockworkCell,
    ElmanCell,
    GRUCell,
    HiddenState,
    LSTMCell,
    PointwiseCell,
    Recurrent,
    ShapeError,
    unroll,
)
from unrolled.inspection import (
    by_lag,
    effective_context,
    final_state,
    find_units,
    input_gradients,
    loss_by_history,
    memory_capacity,
    product_norms,
    record,
    saliency,
    saturation,
    spectral_norms,
    spectral_radii,
    state_gradients,
    state_jacobians,
    time_constants,
)
from unrolled.state import leaves, rebuild

NAN = math.nan
Float = torch.float64


class Linear(Cell[HiddenState]):
    """h_t = A h_{t-1} + B x_t."""

    def __init__(self, transition: Tensor, inputs: Tensor) -> None:
        super().__init__(inputs.shape[1], len(transition), output_size=len(transition))
        self.transition, self.inputs = nn.Parameter(transition), nn.Parameter(inputs)

    def initial_state(self, batch: int, *, like: Tensor) -> HiddenState:
        return HiddenState(like.new_zeros(batch, self.hidden_size))

    def project(self, inputs: Tensor) -> Tensor:
        return inputs @ self.inputs.T

    def step(self, projected: Tensor, state: HiddenState, noise: Any = None) -> tuple[Tensor, HiddenState]:
        h = projected + state.h @ self.transition.T
        return h, HiddenState(h)


def test_the_gradient_of_a_linear_cell_is_a_power_of_its_transition() -> None:
    torch.manual_seed(0)
    transition, read = torch.randn(3, 3, dtype=Float), torch.randn(3, 2, dtype=Float)
    cell = Linear(transition, read)
    lengths = torch.tensor([6, 4])
    with record(cell, graph=True) as recording:
        _, state = unroll(cell, torch.randn(2, 6, 2, dtype=Float), lengths=lengths)
        loss = state.h[:, 0].sum()
    found = state_gradients(recording["cell"], loss)
    at_inputs = input_gradients(recording["cell"], loss)
    first = torch.tensor([1.0, 0.0, 0.0], dtype=Float)
    for row, length in enumerate(lengths.tolist()):
        for step in range(length):
            expected = torch.linalg.matrix_power(transition.T, length - 1 - step) @ first
            torch.testing.assert_close(found[row, step], expected)
            torch.testing.assert_close(at_inputs[row, step], read.T @ expected)
        assert found[row, length:].isnan().all()
        assert at_inputs[row, length:].isnan().all()
    norms = by_lag(found.norm(dim=-1), lengths - 1)
    powers = [float((torch.linalg.matrix_power(transition.T, lag) @ first).norm()) for lag in range(6)]
    torch.testing.assert_close(norms, torch.tensor(powers, dtype=Float))


class Nudged(nn.Module):
    """Adds a number to one unit of a cell's state after one step, for finite differences."""

    def __init__(self, cell: Cell[Any], at: int, leaf: int, unit: int) -> None:
        super().__init__()
        self.cell, self.place = cell, (at, leaf, unit)

    def forward(self, inputs: Tensor, change: float) -> Tensor:
        at, leaf, unit = self.place
        state, outputs = self.cell.initial_state(len(inputs), like=inputs), []
        for step in range(inputs.shape[1]):
            output, state = self.cell.step(self.cell.project(inputs[:, step]), state)
            if step == at:
                tensors = [tensor.clone() for tensor in leaves(state)]
                tensors[leaf][:, unit] += change
                state = rebuild(state, tensors)
                output = tensors[0]  # h is the output, too
            outputs.append(output)
        return torch.stack(outputs, 1).square().sum()


@pytest.mark.parametrize(("make", "name"), [(LSTMCell, "h"), (LSTMCell, "c"), (GRUCell, "h"), (ElmanCell, "h")])
def test_gradients_with_respect_to_states_are_those_of_finite_differences(make: Any, name: str) -> None:
    torch.manual_seed(1)
    cell = make(2, 3).double()
    inputs = torch.randn(1, 5, 2, dtype=Float)
    with record(cell, graph=True) as recording:
        loss = unroll(cell, inputs)[0].square().sum()
    found = state_gradients(recording["cell"], loss, name)
    with torch.no_grad():
        for at in range(5):
            for unit in range(3):
                nudged = Nudged(cell, at, "hc".index(name), unit)
                if name == "c":  # h of the same step is computed from c before it is nudged
                    continue
                slope = (nudged(inputs, 1e-6) - nudged(inputs, -1e-6)) / 2e-6
                assert found[0, at, unit] == pytest.approx(float(slope), abs=1e-8)
    if name == "c":  # ∂L/∂c_t = ∂L/∂h_t o_t (1 − tanh² c_t) + ∂L/∂c_{t+1} f_{t+1} + what c_t changes through no gate
        one = recording["cell"]
        of_h = state_gradients(one, loss, "h") * one["o"] * (1 - one["c"].tanh() ** 2)
        later = torch.cat([(found * one["f"])[:, 1:], torch.zeros_like(found[:, :1])], 1)
        torch.testing.assert_close(found, of_h + later)


def test_the_backward_direction_counts_lags_to_later_steps() -> None:
    transition = torch.diag(torch.tensor([0.5, 0.25], dtype=Float))
    cell = Linear(transition, torch.eye(2, dtype=Float))
    with record(cell, graph=True) as recording:
        outputs, _ = unroll(cell, torch.randn(1, 5, 2, dtype=Float), reverse=True)
        loss = outputs[0, 1, 0]
    gradients = state_gradients(recording["cell"], loss).norm(dim=-1)
    lags = by_lag(gradients, torch.tensor([1]), reverse=True)
    torch.testing.assert_close(lags, torch.tensor([1, 0.5, 0.25, 0.125, NAN], dtype=Float), equal_nan=True)
    assert gradients[0, 0] == 0


@pytest.mark.parametrize("reverse", [False, True])
def test_the_final_state_is_that_of_the_layer(reverse: bool) -> None:
    cell = LSTMCell(2, 3)
    with record(cell, graph=True) as recording:
        _, state = unroll(cell, torch.randn(3, 5, 2), lengths=torch.tensor([5, 2, 0]), reverse=reverse)
    assert torch.equal(final_state(recording["cell"], "c"), state.c)
    assert final_state(recording["cell"]).requires_grad


def test_gradients_refuse_what_they_can_not_compute() -> None:
    cell = GRUCell(2, 3)
    inputs = torch.randn(1, 4, 2)
    with record(cell) as recording:
        outputs, _ = unroll(cell, inputs)
    with pytest.raises(ValueError, match="graph=True"):
        state_gradients(recording["cell"], outputs.sum())
    with record(cell, graph=True) as recording:
        outputs, _ = unroll(cell, inputs)
        state_gradients(recording["cell"], outputs.sum(), "z")
    with pytest.raises(ValueError, match="one number"):
        state_gradients(recording["cell"], outputs)
    with pytest.raises(ValueError, match="doesn't depend on 'h' of cell"):
        state_gradients(recording["cell"], cell.bias_hh.sum())
    with record(cell, graph=True) as recording:
        output, _ = cell(inputs[:, 0])
    with pytest.raises(ValueError, match="step by step"):
        input_gradients(recording["cell"], output.sum())


def test_jacobians_of_a_linear_cell_are_its_transition() -> None:
    torch.manual_seed(0)
    transition = torch.randn(3, 3, dtype=Float)
    jacobians = state_jacobians(Linear(transition, torch.randn(3, 2, dtype=Float)), torch.randn(2, 4, 2, dtype=Float))
    torch.testing.assert_close(jacobians, transition.expand(2, 4, 3, 3))
    radius = max(abs(np.linalg.eigvals(transition.numpy())))
    torch.testing.assert_close(spectral_radii(jacobians), torch.full((2, 4), radius, dtype=Float))
    norm = np.linalg.norm(transition.numpy(), 2)
    torch.testing.assert_close(spectral_norms(jacobians), torch.full((2, 4), norm, dtype=Float))
    powers = [np.linalg.norm(np.linalg.matrix_power(transition.numpy(), lag), 2) for lag in range(5)]
    torch.testing.assert_close(product_norms(jacobians)[1], torch.tensor(powers, dtype=Float))


@pytest.mark.parametrize("make", [LSTMCell, GRUCell, lambda *sizes: ClockworkCell(*sizes, periods=(1, 2))])
def test_jacobians_are_those_of_finite_differences(make: Callable[..., Cell[Any]]) -> None:
    torch.manual_seed(2)
    cell = make(2, 3).double()
    inputs = torch.randn(2, 3, 2, dtype=Float)
    found = state_jacobians(cell, inputs)
    state = cell.initial_state(2, like=inputs)
    free = [n for n in range(len(leaves(state))) if n not in cell.counters]
    with torch.no_grad():
        for step in range(3):

            def flat(change: Tensor, step: int = step, state: Any = state) -> Tensor:
                tensors = [tensor.clone() for tensor in leaves(state)]
                for n, part in zip(free, change.split(3), strict=True):
                    tensors[n] += part
                after = cell.step(cell.project(inputs[:, step]), rebuild(state, tensors))[1]
                return torch.cat([leaves(after)[n] for n in free], -1)

            size = 3 * len(free)
            for column in range(size):
                change = torch.zeros(size, dtype=Float)
                change[column] = 1e-6
                slope = (flat(change) - flat(-change)) / 2e-6
                torch.testing.assert_close(found[:, step, :, column], slope, rtol=0, atol=1e-8)
            state = cell.step(cell.project(inputs[:, step]), state)[1]


def test_time_constants_and_saturation_leave_out_the_padding() -> None:
    gate = torch.tensor([[[0.5, 1.0], [0.7, 1.0], [NAN, NAN]], [[0.9, 1.0], [NAN, NAN], [NAN, NAN]]])
    torch.testing.assert_close(time_constants(gate), torch.tensor([-1 / math.log(0.7), math.inf]))
    wide = torch.tensor([[[0.05, 0.95], [0.15, 0.5], [NAN, NAN]], [[0.09, 0.95], [0.99, 0.91], [NAN, NAN]]])
    low, high = saturation(wide)
    torch.testing.assert_close(low, torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(high, torch.tensor([0.25, 0.75]))
    candidate = torch.tensor([[[-0.85], [0.5], [0.81]]])
    torch.testing.assert_close(torch.cat(saturation(candidate, low=-1.0)), torch.tensor([1 / 3, 1 / 3]))
    with pytest.raises(ValueError, match=r"from -0\.85 to 0\.81, expected 0 to 1"):
        saturation(candidate)
    with pytest.raises(ValueError, match="no valid step"):
        time_constants(torch.full((1, 2, 3), NAN))
    with pytest.raises(ValueError, match=r"margin is 0\.5"):
        saturation(wide, margin=0.5)


class Held(PointwiseCell[HiddenState]):
    """A forget gate of a constant for each unit: the state decays exactly exponentially."""

    gates = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.kept = nn.Parameter(torch.tensor([0.9, 0.5, 0.99]))

    def pointwise(self, projected, recurrent, state):
        f = self.tap("f", self.kept.expand_as(state.h))
        h = f * state.h
        return h, HiddenState(h)


def test_a_time_constant_is_the_time_in_which_a_unit_decays_to_1_over_e() -> None:
    cell = Held(1, 3)
    with record(cell) as recording:
        unroll(cell, torch.zeros(1, 5, 1), HiddenState(torch.ones(1, 3)))
    constants = time_constants(recording["cell"]["f"])
    decayed = recording["cell"]["h"][0, 4] ** (constants / 5)
    torch.testing.assert_close(decayed, torch.full((3,), math.exp(-1)))


def test_the_memory_of_a_delay_line_is_its_length() -> None:
    torch.manual_seed(0)
    shift = torch.diag(torch.ones(4, dtype=Float), -1)
    cell = Linear(shift, torch.eye(5, 1, dtype=Float))
    inputs = torch.rand(8, 200, 1, dtype=Float) * 2 - 1
    states = unroll(cell, inputs)[0].detach()
    found = memory_capacity(states, inputs[..., 0], max_lag=10)
    torch.testing.assert_close(found[:5], torch.ones(5, dtype=Float))
    assert found[5:].max() < 0.02


def test_the_memory_of_a_leaky_unit_is_analytic() -> None:
    torch.manual_seed(0)
    leak = 0.8
    cell = Linear(torch.tensor([[leak]], dtype=Float), torch.ones(1, 1, dtype=Float))
    inputs = torch.randn(64, 1000, 1, dtype=Float)
    states = unroll(cell, inputs)[0].detach()[:, 50:]
    found = memory_capacity(states, inputs[:, 50:, 0], max_lag=12)
    expected = torch.tensor([leak ** (2 * lag) * (1 - leak**2) for lag in range(13)], dtype=Float)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)  # of 30,000 samples
    assert float(found.sum()) == pytest.approx(1.0, abs=0.03)  # at most one number is in one unit
    with pytest.raises(ValueError, match="steps to fit a readout of 1 unit"):
        memory_capacity(states[:1, :4], inputs[:1, :4, 0], max_lag=3)


def test_saliency_of_a_linear_function_is_its_terms() -> None:
    torch.manual_seed(0)
    weights = torch.randn(5, 3, dtype=Float)
    inputs = torch.randn(2, 5, 3, dtype=Float, requires_grad=True)
    output = (inputs * weights).sum((1, 2))
    found = saliency(output, inputs)
    torch.testing.assert_close(found, (inputs * weights).sum(-1).detach())
    torch.testing.assert_close(found.sum(1), output.detach())  # complete, as for any linear function
    torch.testing.assert_close(saliency(output, inputs, method="norm"), weights.norm(dim=-1).expand(2, 5))
    with pytest.raises(ValueError, match="method is 'grad'"):
        saliency(output, inputs, method="grad")


def test_correlations_of_units_are_numpys() -> None:
    torch.manual_seed(0)
    holds = torch.rand(3, 20) > 0.6
    values = torch.randn(3, 20, 6, dtype=Float)
    values[..., 4] -= 3 * holds
    values[..., 2] = 7.0
    values[1, 15:] = NAN
    found = find_units(values, holds)
    valid = values.isfinite().all(-1)
    expected = [
        0.0 if unit == 2 else np.corrcoef(values[valid][:, unit].numpy(), holds[valid].numpy())[0, 1]
        for unit in range(6)
    ]
    assert found.units[0] == 4
    assert found.units[-1] == 2
    torch.testing.assert_close(found.correlations, torch.tensor(expected, dtype=Float)[found.units])
    assert found.correlations.abs().diff().max() <= 0
    with pytest.raises(ValueError, match="the same at all valid steps"):
        find_units(values, torch.ones(3, 20))


def test_a_predictor_of_order_three_uses_three_inputs() -> None:
    torch.manual_seed(0)
    inputs = torch.randint(0, 2, (4, 40))
    padded = torch.cat([torch.zeros(4, 2, dtype=torch.int64), inputs], 1)
    targets = padded[:, :-2] ^ padded[:, 1:-1] ^ padded[:, 2:]  # the parity of the last three

    def loss(windows: Tensor, wanted: Tensor) -> Tensor:
        if windows.shape[1] < 3:
            return torch.full(wanted.shape, 0.5, dtype=Float)
        return (windows[:, -3:].sum(1) % 2 != wanted).double()

    histories = [1, 2, 3, 4, 8]
    losses = loss_by_history(loss, inputs, targets, histories)
    torch.testing.assert_close(losses, torch.tensor([0.5, 0.5, 0, 0, 0], dtype=Float))
    assert effective_context(losses, histories) == 3
    assert effective_context(torch.tensor([2.0, 1.005, 1.0]), [1, 5, 9]) == 5
    with pytest.raises(ValueError, match="from 1 to 40"):
        loss_by_history(loss, inputs, targets, [0, 41])
    with pytest.raises(ValueError, match="ascending"):
        effective_context(losses, [1, 2])


def test_windows_of_a_history_are_what_a_network_reads_from_its_initial_state() -> None:
    torch.manual_seed(0)
    network = Recurrent(GRUCell, 2, 3).double()
    inputs = torch.randn(2, 6, 2, dtype=Float)
    targets = torch.randn(2, 6, 3, dtype=Float)

    def loss(windows: Tensor, wanted: Tensor) -> Tensor:
        return (network(windows)[0][:, -1] - wanted).square().mean(-1)

    found = loss_by_history(loss, inputs, targets, [2, 4])
    for history, one in zip([2, 4], found, strict=True):
        rows = [
            (network(inputs[row : row + 1, end - history : end])[0][0, -1] - targets[row, end - 1]).square().mean()
            for row in range(2)
            for end in range(4, 7)
        ]
        torch.testing.assert_close(one, torch.stack(rows).mean())


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError):
        by_lag(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ShapeError):
        memory_capacity(torch.zeros(2, 3, 4), torch.zeros(2, 4), max_lag=1)
    with pytest.raises(ShapeError):
        find_units(torch.zeros(2, 3, 4), torch.zeros(2, 4))
    with pytest.raises(ShapeError):
        state_jacobians(GRUCell(2, 3), torch.zeros(1, 4, 5))
