"""The laws of running one cell through time, in either direction and on either backend."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import Cell, GRUCell, HiddenState, ShapeError, unroll
from unrolled.state import leaves, map_state, select, where


@pytest.fixture
def case(running: tuple[Callable[[int, int], Cell], str]) -> tuple[Cell, Callable[..., tuple[Tensor, Any]]]:
    """A cell, and `unroll` on a backend that runs it."""
    make, backend = running
    torch.manual_seed(0)  # some weights let no state through: one in 200 of Elman's networks with ReLU has no live unit
    cell = make(3, 5).double()
    return cell, partial(unroll, cell, backend=backend)


@pytest.fixture
def inputs(generator: torch.Generator) -> Tensor:
    return torch.randn(4, 7, 3, dtype=torch.float64, generator=generator)


def close(one: Any, other: Any, atol: float = 1e-14) -> None:
    torch.testing.assert_close(leaves(one), leaves(other), rtol=0, atol=atol)


def gradients(cell: Cell, result: tuple[Tensor, Any], inputs: Tensor) -> list[Tensor]:
    total = result[0].square().sum() + sum(leaf.square().sum() for leaf in leaves(result[1]))
    return list(torch.autograd.grad(total, [inputs, *cell.parameters()]))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, 1e30])
def test_padding_never_matters(case, inputs: Tensor, reverse: bool, poison: float) -> None:
    cell, run = case
    lengths = torch.tensor([7, 0, 1, 4])
    padding = torch.arange(7) >= lengths.unsqueeze(1)
    inputs = inputs.masked_fill(padding.unsqueeze(-1), 0.0).requires_grad_()
    poisoned = inputs.detach().masked_fill(padding.unsqueeze(-1), poison).requires_grad_()

    clean = run(inputs, lengths=lengths, reverse=reverse)
    result = run(poisoned, lengths=lengths, reverse=reverse)

    close(result, clean, atol=0)
    assert not result[0][padding].any()
    expected = gradients(cell, clean, inputs)
    found = gradients(cell, result, poisoned)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not found[0][padding].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_row_in_a_ragged_batch_is_that_row_alone(case, inputs: Tensor, reverse: bool) -> None:
    _, run = case
    lengths = [7, 0, 1, 4]

    outputs, state = run(inputs, lengths=torch.tensor(lengths), reverse=reverse)

    for row, length in enumerate(lengths):
        alone, last = run(inputs[row : row + 1, :length], reverse=reverse)
        close(outputs[row : row + 1, :length], alone)
        close(select(state, torch.tensor([row])), last)


@pytest.mark.parametrize("cut", [0, 1, 3, 7])
def test_two_chunks_are_one_pass(case, inputs: Tensor, cut: int) -> None:
    _, run = case

    whole, final = run(inputs)
    head, state = run(inputs[:, :cut])
    tail, resumed = run(inputs[:, cut:], state)

    close(torch.cat([head, tail], dim=1), whole)
    close(resumed, final)


@pytest.mark.parametrize("cut", [1, 3])
def test_two_ragged_chunks_are_one_pass(case, inputs: Tensor, cut: int) -> None:
    _, run = case
    lengths = torch.tensor([7, 0, 1, 4])

    whole, final = run(inputs, lengths=lengths)
    head, state = run(inputs[:, :cut], lengths=lengths.clamp(max=cut))
    tail, resumed = run(inputs[:, cut:], state, lengths=(lengths - cut).clamp(min=0))

    close(torch.cat([head, tail], dim=1), whole)
    close(resumed, final)


def test_unrolling_is_repeated_steps(case, inputs: Tensor) -> None:
    cell, run = case

    outputs, final = run(inputs)

    state = None
    for now, output in zip(inputs.unbind(1), outputs.unbind(1), strict=True):
        stepped, state = cell(now, state)
        close(output, stepped)
    close(final, state)


def test_reverse_reads_from_the_end_and_stays_aligned(case, inputs: Tensor) -> None:
    _, run = case

    outputs, final = run(inputs, reverse=True)

    horizontal_flip, mirrored_final = run(inputs.flip(1))
    close(outputs.flip(1), horizontal_flip)
    close(final, mirrored_final)


def test_an_output_never_depends_on_later_inputs(case, inputs: Tensor) -> None:
    _, run = case
    inputs.requires_grad_()

    (gradient,) = torch.autograd.grad(run(inputs)[0][:, 3].sum(), inputs)

    assert gradient[:, :4].any()
    assert not gradient[:, 4:].any()


def test_a_row_that_is_reset_forgets_and_its_neighbours_do_not(case, inputs: Tensor) -> None:
    cell, run = case
    reset = torch.tensor([False, True, False, True])

    _, state = run(inputs)
    fresh = cell.initial_state(4, like=inputs)
    outputs, _ = run(inputs, where(reset, fresh, state))

    close(outputs[reset], run(inputs)[0][reset])
    close(outputs[~reset], run(inputs, state)[0][~reset])
    assert not torch.allclose(run(inputs)[0][~reset], run(inputs, state)[0][~reset])


@pytest.mark.parametrize("lengths", [None, [0, 0, 0, 0]])
@pytest.mark.parametrize("reverse", [False, True])
def test_no_steps_leave_the_state_alone(case, inputs: Tensor, lengths: list[int] | None, reverse: bool) -> None:
    cell, run = case
    state = map_state(torch.ones_like, cell.initial_state(4, like=inputs))
    given = None if lengths is None else torch.tensor(lengths)

    outputs, after = run(inputs[:, :0], state, lengths=given, reverse=reverse)

    assert outputs.shape == (4, 0, cell.output_size)
    close(after, state, atol=0)
    if given is not None:
        outputs, after = run(inputs, state, lengths=given, reverse=reverse)
        assert not outputs.any()
        close(after, state, atol=0)


@pytest.mark.parametrize("lengths", [None, torch.zeros(0, dtype=torch.int64)])
def test_an_empty_batch_gives_an_empty_answer(case, inputs: Tensor, lengths: Tensor | None) -> None:
    cell, run = case

    outputs, state = run(inputs[:0], lengths=lengths)

    assert outputs.shape == (0, 7, cell.output_size)
    expected = cell.initial_state(0, like=inputs)
    assert [leaf.shape for leaf in leaves(state)] == [leaf.shape for leaf in leaves(expected)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_lengths_may_be_any_integers(case, inputs: Tensor, dtype: torch.dtype) -> None:
    _, run = case

    close(run(inputs, lengths=torch.tensor([7, 0, 1, 4], dtype=dtype)), run(inputs, lengths=torch.tensor([7, 0, 1, 4])))


def test_second_gradients_are_exact(request: pytest.FixtureRequest, case, inputs: Tensor) -> None:
    _, run = case
    short = inputs[:2, :3].clone().requires_grad_()
    lengths = torch.tensor([3, 1])

    if "relu" in request.node.name:
        pytest.skip("a rectifier's second derivative is zero or none")
    assert torch.autograd.gradgradcheck(lambda x: run(x, lengths=lengths)[0], (short,))


def test_gradients_flow_in_evaluation_mode(case, inputs: Tensor) -> None:
    cell, run = case
    inputs.requires_grad_()
    expected = gradients(cell, run(inputs), inputs)

    cell.eval()

    torch.testing.assert_close(gradients(cell, run(inputs), inputs), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([7, 8, 1, 1]), "lengths go from 1 to 8, expected 0 to 7"),
        (torch.tensor([7, -1, 1, 1]), "lengths go from -1 to 7, expected 0 to 7"),
        (torch.tensor([7.0, 1.0, 1.0, 1.0]), r"lengths are torch\.float32, expected integers"),
        (torch.tensor([True, True, True, False]), r"lengths are torch\.bool, expected integers"),
        (torch.tensor([7, 1, 1]), r"lengths has the shape \(3,\), expected \(batch=4\)"),
    ],
)
def test_lengths_that_are_none_are_refused(case, inputs: Tensor, lengths: Tensor, message: str) -> None:
    _, run = case

    with pytest.raises(ValueError, match=message):
        run(inputs, lengths=lengths)


def test_inputs_and_states_of_the_wrong_shape_are_refused(case, inputs: Tensor) -> None:
    cell, run = case

    with pytest.raises(ShapeError, match=r"inputs has the shape \(7, 3\), expected \(batch, time, input=3\)"):
        run(inputs[0])
    with pytest.raises(ShapeError, match=r"inputs has the shape \(4, 7, 2\), expected \(batch, time, input=3\)"):
        run(inputs[..., :2])
    with pytest.raises(ShapeError, match=r"shape \(3, \d\), expected \(4, \d\) for a batch of 4"):
        run(inputs, cell.initial_state(3, like=inputs))


def test_a_cell_may_carry_anything(generator: torch.Generator) -> None:
    class Averaging(Cell[tuple[Tensor, Tensor, None]]):
        """The mean of all inputs so far, beside their number: a state of unequal leaves, and one that is no float."""

        def initial_state(self, batch: int, *, like: Tensor) -> tuple[Tensor, Tensor, None]:
            return like.new_zeros(batch, self.hidden_size), torch.zeros(batch, dtype=torch.int64), None

        def project(self, inputs: Tensor) -> Tensor:
            return inputs

        def step(
            self, projected: Tensor, state: tuple[Tensor, Tensor, None], noise: None = None
        ) -> tuple[Tensor, tuple[Tensor, Tensor, None]]:
            total, number = state[0] + projected, state[1] + 1
            return total / number.unsqueeze(-1), (total, number, None)

    inputs = torch.randn(3, 6, 2, dtype=torch.float64, generator=generator)

    outputs, state = unroll(Averaging(2, 2, output_size=2), inputs, lengths=torch.tensor([6, 0, 2]))

    close(outputs[0, -1], inputs[0].mean(0))
    close(outputs[2, 1], inputs[2, :2].mean(0))
    assert state[1].tolist() == [6, 0, 2]


def test_the_state_of_one_row_is_a_hidden_state(inputs: Tensor) -> None:
    assert isinstance(unroll(GRUCell(3, 5).double(), inputs)[1], HiddenState)
