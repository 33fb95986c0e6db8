"""What a cell gets that writes its pointwise maths alone."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from unrolled import HiddenState, PointwiseCell, unroll
from unrolled.cells.base import RecurrentNoise


class LightGRUCell(PointwiseCell[HiddenState]):
    """The cell of the docstring."""

    gates = 2

    def pointwise(self, projected, recurrent, state):
        z = torch.sigmoid(projected[0] + recurrent[0])
        h = z * state.h + (1 - z) * torch.relu(projected[1] + recurrent[1])
        return h, HiddenState(h)


class Pair(NamedTuple):
    h: Tensor
    s: Tensor


class TwofoldCell(PointwiseCell[Pair]):
    """Two tensors enter the product, which has fewer blocks than there are gates; a parameter of its own."""

    gates = 3
    recurrent_gates = 2
    state_type = Pair

    def __init__(self, input_size: int, hidden_size: int, **options: float) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.weight_s = nn.Parameter(torch.ones(hidden_size))

    def recurrent_inputs(self, state):
        return state.s, state.h

    def pointwise(self, projected, recurrent, state):
        h = torch.tanh(projected[0] + recurrent[0] + self.weight_s * state.s)
        return h * projected[2], Pair(h, torch.sigmoid(projected[1] + recurrent[1]))


class DiagonalCell(PointwiseCell[HiddenState]):
    """Nothing of the state enters a product."""

    gates = 1

    def recurrent_inputs(self, state):
        return ()

    def pointwise(self, projected, recurrent, state):
        h = torch.tanh(projected[0] + 0.5 * state.h)
        return h, HiddenState(h)


class NoisyCell(PointwiseCell[HiddenState]):
    """Noise of both kinds: a mask that is new at each step, and one that lasts for an unroll."""

    gates = 1

    def step_masks(self, shape, *, like):
        return (torch.bernoulli(like.new_full((*shape, self.hidden_size), 0.5)),) if self.training else ()

    def noise(self, batch, *, like):
        mask = torch.bernoulli(like.new_full((batch, self.hidden_size), 0.5))
        return RecurrentNoise(None, None, (mask,)) if self.training else None

    def pointwise(self, projected, recurrent, state):
        h = torch.tanh(projected[0] + recurrent[0])
        if self.training:
            h = torch.where(projected[1] > 0, h, state.h) * recurrent[1]
        return h, HiddenState(h)


def test_gates_get_their_blocks_of_rows(generator: torch.Generator) -> None:
    cell = LightGRUCell(3, 5).double()
    inputs, h = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5))

    output, state = cell(inputs, HiddenState(h))

    z, a = (inputs @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh).chunk(2, dim=1)
    z = torch.sigmoid(z)
    torch.testing.assert_close(output, z * h + (1 - z) * a.relu(), rtol=0, atol=1e-14)
    assert state.h is output


def test_several_tensors_enter_the_product_side_by_side(generator: torch.Generator) -> None:
    cell = TwofoldCell(3, 5).double()
    assert cell.weight_ih.shape == (15, 3)
    assert cell.weight_hh.shape == (10, 10)
    inputs, h, s = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5, 5))

    output, state = cell(inputs, Pair(h, s))

    p = inputs @ cell.weight_ih.T + cell.bias_ih
    q = torch.cat([s, h], dim=1) @ cell.weight_hh.T + cell.bias_hh
    expected = torch.tanh(p[:, :5] + q[:, :5] + s)
    torch.testing.assert_close(state.h, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(state.s, torch.sigmoid(p[:, 5:10] + q[:, 5:]), rtol=0, atol=1e-14)
    torch.testing.assert_close(output, expected * p[:, 10:], rtol=0, atol=1e-14)


def test_recurrent_dropout_covers_all_that_enters_the_product() -> None:
    noise = TwofoldCell(3, 5, recurrent_dropout=0.5).noise(4, like=torch.zeros(1))

    assert noise is not None
    assert noise.state_mask is not None
    assert noise.state_mask.shape == (4, 10)


def test_a_cell_without_a_recurrent_product_has_no_weights_for_one() -> None:
    cell = DiagonalCell(3, 5)

    assert [name for name, _ in cell.named_parameters()] == ["weight_ih", "bias_ih"]
    assert cell(torch.zeros(2, 3))[0].shape == (2, 5)
    with pytest.raises(ValueError, match=r"recurrent_dropout=0\.5 and weight_drop=0\.0 have no recurrent product"):
        DiagonalCell(3, 5, recurrent_dropout=0.5)


@pytest.mark.parametrize("make", [LightGRUCell, TwofoldCell, DiagonalCell])
def test_all_parameters_have_first_values(make: type[PointwiseCell]) -> None:
    torch.manual_seed(0)
    cell = make(3, 25)
    assert all(0 < parameter.abs().max() <= 0.2 for name, parameter in cell.named_parameters() if name != "weight_s")

    cell.reset_parameters()

    assert all(0 < parameter.abs().max() <= 0.2 for parameter in cell.parameters())


def test_noise_reaches_the_maths_behind_the_gates() -> None:
    torch.manual_seed(0)
    cell = NoisyCell(3, 5).double()
    inputs = torch.randn(2, 6, 3, dtype=torch.float64)

    torch.manual_seed(1)
    outputs, _ = unroll(cell, inputs, backend="loop")

    # The same by hand, the mask of the unroll drawn before those of the steps.
    torch.manual_seed(1)
    noise = cell.noise(2, like=inputs)
    state = cell.initial_state(2, like=inputs)
    for now, output in zip(cell.project(inputs).unbind(1), outputs.unbind(1), strict=True):
        expected, state = cell.step(now, state, noise)
        torch.testing.assert_close(output, expected, rtol=0, atol=0)
    assert (outputs == 0).any(dim=1).sum() > 0
    torch.testing.assert_close(unroll(cell.eval(), inputs)[0], unroll(cell, inputs)[0], rtol=0, atol=0)
