"""What all cells with torch's layout keep."""

import pytest
import torch

from unrolled import ElmanCell, GRUCell, LSTMCell, ShapeError
from unrolled.cells.base import AffineCell

CELLS = [ElmanCell, GRUCell, LSTMCell]


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
    state = make(3, 4).initial_state(2, like=torch.zeros(1, dtype=torch.float64))

    for leaf in state:
        assert leaf.dtype == torch.float64
        assert leaf.shape == (2, 4)
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
    assert torch.equal(noise.weight_hh[kept], 2 * cell.weight_hh[kept])
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("make", CELLS)
def test_recurrent_dropout_acts_on_the_product_and_not_on_the_carried_state(make: type[AffineCell]) -> None:
    torch.manual_seed(0)
    cell = make(3, 4, recurrent_dropout=0.5).double()
    state = type(cell.initial_state(2, like=cell.weight_hh))(
        *(torch.randn(2, 4, dtype=torch.float64) for _ in range(2 if make is LSTMCell else 1))
    )
    inputs = torch.randn(2, 3, dtype=torch.float64)
    noise = cell.noise(2, like=inputs)
    assert noise is not None
    assert noise.state_mask is not None

    output, _ = cell.step(cell.project(inputs), state, noise)

    # The same by hand: a copy whose product alone sees the masked state.
    seen = torch.nn.functional.linear(state.h * noise.state_mask, cell.weight_hh, cell.bias_hh)
    cell.recur = lambda h, noise: seen  # pyright: ignore[reportAttributeAccessIssue]
    expected, _ = cell.step(cell.project(inputs), state)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-15)
