"""What all cells with torch's layout keep."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from unrolled import (
    Cell,
    ClockworkCell,
    ElmanCell,
    FullGateLSTMCell,
    GRUCell,
    JordanCell,
    LayerNormLSTMCell,
    LSTMCell,
    MogrifierLSTMCell,
    MultiplicativeLSTMCell,
    PeepholeLSTMCell,
    ProjectedLSTMCell,
    ResetFirstGRUCell,
    ShapeError,
    unroll,
)
from unrolled.cells.base import AffineCell
from unrolled.state import leaves, map_state, rebuild

# Those with a recurrent product, and so with noise on it.
CELLS = [
    ElmanCell,
    GRUCell,
    LSTMCell,
    PeepholeLSTMCell,
    FullGateLSTMCell,
    LayerNormLSTMCell,
    ProjectedLSTMCell,
    ResetFirstGRUCell,
    JordanCell,
    ClockworkCell,
    MultiplicativeLSTMCell,
    MogrifierLSTMCell,
]


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_gradients_of_all_parameters_are_exact(
    make_cell: Callable[..., Cell], reverse: bool, generator: torch.Generator
) -> None:
    cell = make_cell(3, 4).double()
    inputs = torch.randn(3, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    lengths, zeros = torch.tensor([3, 1, 0]), cell.initial_state(3, like=inputs)
    start = [torch.randn(leaf.shape, dtype=leaf.dtype, generator=generator).requires_grad_() for leaf in leaves(zeros)]
    names = [name for name, _ in cell.named_parameters()]

    def run(inputs: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = {f"cell.{n}": p for n, p in zip(names, others[len(start) :], strict=True)}
        asked = (inputs, rebuild(zeros, others[: len(start)]), lengths)
        outputs, state = torch.func.functional_call(_Unrolled(cell, reverse), given, asked)
        return outputs, *(leaf for leaf in leaves(state) if leaf.requires_grad)

    assert torch.autograd.gradcheck(run, (inputs, *start, *cell.parameters()))


class _Unrolled(nn.Module):
    """`unroll` as a module, whose parameters can be given."""

    def __init__(self, cell: Cell, reverse: bool) -> None:
        super().__init__()
        self.cell = cell
        self.reverse = reverse

    def forward(self, inputs: torch.Tensor, state: Any, lengths: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return unroll(self.cell, inputs, state, lengths, reverse=self.reverse, backend="loop")


def test_a_cell_is_drawn_anew_by_reset_parameters(make_cell: Callable[..., Cell]) -> None:
    torch.manual_seed(0)
    cell = make_cell(3, 4)
    first = {name: value.clone() for name, value in cell.named_parameters()}
    assert all(value.isfinite().all() for value in first.values())

    torch.manual_seed(1)
    cell.reset_parameters()

    weights = [name for name, value in cell.named_parameters() if value.dim() == 2]
    assert weights
    assert not any(torch.equal(first[name], cell.get_parameter(name)) for name in weights)


def test_a_copy_of_the_weights_is_the_same_cell(make_cell: Callable[..., Cell], generator: torch.Generator) -> None:
    cell, copy = make_cell(3, 4).double(), make_cell(3, 4).double()
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)
    assert not torch.equal(unroll(cell, inputs)[0], unroll(copy, inputs)[0])

    copy.load_state_dict(cell.state_dict())

    torch.testing.assert_close(unroll(copy, inputs), unroll(cell, inputs), rtol=0, atol=0)


@pytest.mark.parametrize("make", CELLS)
@pytest.mark.parametrize("sizes", [(0, 4), (3, 0), (3, -1)])
def test_sizes_below_one_are_refused(make: type[AffineCell], sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"(input|hidden)_size is (0|-1), expected 1 or more"):
        make(*sizes)


@pytest.mark.parametrize("make", CELLS)
@pytest.mark.parametrize("option", ["recurrent_dropout", "weight_drop"])
@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_probabilities_are_probabilities(make: type[AffineCell], option: str, probability: float) -> None:
    with pytest.raises(ValueError, match=f"{option} is {probability}, expected a probability"):
        make(3, 4, **{option: probability})


@pytest.mark.parametrize("make", CELLS)
def test_weights_are_drawn_as_torch_draws_them(make: type[AffineCell]) -> None:
    torch.manual_seed(0)
    cell = make(50, 64)

    bound = 1 / 8
    for weight in (cell.weight_ih, cell.weight_hh):
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("make", CELLS)
def test_the_initial_state_is_zero_in_the_dtype_asked_for(make: type[AffineCell]) -> None:
    cell = make(3, 4)

    state = cell.initial_state(2, like=torch.zeros(1, dtype=torch.float64))

    assert state.h.shape == (2, cell.output_size)
    for leaf in leaves(state):
        assert leaf.dtype == torch.float64
        assert not leaf.any()


@pytest.mark.parametrize("make", CELLS)
def test_a_step_refuses_inputs_of_another_size(make: type[AffineCell]) -> None:
    with pytest.raises(ShapeError, match=r"inputs has the shape \(2, 4\), expected \(batch, input=3\)"):
        make(3, 4)(torch.zeros(2, 4))


@pytest.mark.parametrize("make", CELLS)
@pytest.mark.parametrize("options", [{}, {"recurrent_dropout": 0.5, "weight_drop": 0.5}])
def test_there_is_no_noise_in_evaluation_mode_or_without_options(make: type[AffineCell], options: dict) -> None:
    cell = make(3, 4, **options)

    assert cell.eval().noise(2, like=torch.zeros(1)) is None
    assert (cell.train().noise(2, like=torch.zeros(1)) is None) == (options == {})


@pytest.mark.parametrize("make", CELLS)
def test_noise_keeps_expectations(make: type[AffineCell]) -> None:
    torch.manual_seed(0)
    cell = make(3, 100, recurrent_dropout=0.25, weight_drop=0.5)

    noise = cell.noise(200, like=torch.zeros(1))

    assert noise is not None
    assert noise.state_mask is not None
    assert noise.weight_hh is not None
    assert noise.state_mask.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert noise.state_mask.mean().item() == pytest.approx(1, abs=0.02)
    kept = noise.weight_hh != 0
    weight = cell.recurrent_weight()
    assert torch.equal(noise.weight_hh[kept], 2 * weight[kept])
    assert kept.sum().item() / (weight != 0).sum().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("make", CELLS)
def test_recurrent_dropout_acts_on_the_product_and_not_on_the_carried_state(make: type[AffineCell]) -> None:
    torch.manual_seed(0)
    cell = make(3, 4, recurrent_dropout=0.5).double()
    state = map_state(torch.randn_like, cell.initial_state(2, like=cell.weight_hh))
    inputs = torch.randn(2, 3, dtype=torch.float64)
    noise = cell.noise(2, like=inputs)
    assert noise is not None
    mask = noise.state_mask
    assert mask is not None

    output, _ = cell.step(cell.project(inputs), state, noise)

    # The same by hand: a product that alone sees the masked state.
    factors = cell.recurrent_factors
    cell.recurrent_factors = lambda h, noise: factors(h * mask, None)  # pyright: ignore
    expected, _ = cell.step(cell.project(inputs), state, noise._replace(state_mask=None))
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-15)
    cell.recurrent_factors = factors
    assert not torch.allclose(output, cell.step(cell.project(inputs), state)[0])
