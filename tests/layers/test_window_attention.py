"""The soft window: against its equations written out in Python, and its laws."""

import math

import pytest
import torch
from torch import Tensor

from unrolled import Encoded, ShapeError, WindowAttention, WindowState


def window(generator: torch.Generator, components: int = 3) -> WindowAttention:
    attention = WindowAttention(4, 5, num_components=components, initial_step=0.5).double()
    with torch.no_grad():
        for weight in attention.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return attention


def source(generator: torch.Generator, *lengths: int) -> Encoded:
    values = torch.randn(len(lengths), max(lengths), 4, generator=generator, dtype=torch.float64)
    for row, length in enumerate(lengths):
        values[row, length:] = math.nan
    return Encoded(values, torch.tensor(lengths), torch.zeros(len(lengths), 4).double())


def test_it_is_graves_equations_46_to_51(generator: torch.Generator) -> None:
    attention, encoded = window(generator), source(generator, 6, 4)
    memory = attention.prepare(encoded)
    state, kappa = attention.start(memory), [[0.0] * 3, [0.0] * 3]

    for _ in range(4):
        query = torch.randn(2, 5, generator=generator, dtype=torch.float64)
        context, weights, state = attention(query, memory, state)

        raw = (query @ attention.window.weight.T + attention.window.bias).tolist()
        assert weights is not None
        for row, length in enumerate((6, 4)):
            phi = []
            kappa[row] = [k + math.exp(raw[row][6 + n]) for n, k in enumerate(kappa[row])]
            for u in range(length + 1):
                parts = zip(raw[row][:3], raw[row][3:6], kappa[row], strict=True)
                phi.append(sum(math.exp(a) * math.exp(-math.exp(b) * (k - u) ** 2) for a, b, k in parts))
            assert weights[row, :length].tolist() == pytest.approx(phi[:length], rel=1e-9)
            assert not weights[row, length:].any()
            expected = torch.tensor(phi[:length]).double() @ encoded.values[row, :length]
            torch.testing.assert_close(context[row], expected)
            assert float(state.beyond[row]) == pytest.approx(phi[length] - max(phi[:length]), rel=1e-9)
        torch.testing.assert_close(state.position, torch.tensor(kappa).double())


def test_gradients_are_those_of_differences(generator: torch.Generator) -> None:
    attention, memory = window(generator), None
    memory = attention.prepare(source(generator, 5, 2))
    queries = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)

    def run(given: Tensor) -> Tensor:
        return attention.over_time(given, memory, attention.start(memory)).context

    assert torch.autograd.gradcheck(run, queries)


def test_a_row_without_a_source_has_no_context(generator: torch.Generator) -> None:
    attention = window(generator)
    memory = attention.prepare(source(generator, 3, 0))

    context, weights, _ = attention(torch.zeros(2, 5).double(), memory, attention.start(memory))

    assert weights is not None
    assert not context[1].any()
    assert not weights[1].any()


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_extreme_queries_stay_finite_in_float32(size: float) -> None:
    attention = WindowAttention(4, 5)
    memory = attention.prepare(Encoded(torch.ones(2, 3, 4), None, torch.zeros(2, 4)))
    query = torch.tensor([[size] * 5, [-size] * 5]).requires_grad_()

    context, _, state = attention(query, memory, attention.start(memory))
    (context.sum() + state.position.sum()).backward()

    assert context.isfinite().all()
    assert state.position.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in attention.parameters())


def test_it_moves_forward_and_passes_the_end(generator: torch.Generator) -> None:
    attention = WindowAttention(4, 5, initial_step=0.25)
    memory = attention.prepare(Encoded(torch.ones(1, 3, 4), None, torch.zeros(1, 4)))
    state, passed = attention.start(memory), []

    for _ in range(20):
        before = state
        state = attention(torch.zeros(1, 5), memory, state).state
        assert isinstance(state, WindowState)
        assert (state.position > before.position).all()
        passed.append(bool(state.beyond > 0))

    assert not passed[0]
    assert passed.index(True) in range(8, 14)  # 2.5 symbols at about a quarter a step
    assert passed[passed.index(True) :] == [True] * len(passed[passed.index(True) :])


def test_options_and_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_components=0, initial_step=0.05: expected 1 or more"):
        WindowAttention(4, 5, num_components=0)
    with pytest.raises(ValueError, match="initial_step=0"):
        WindowAttention(4, 5, initial_step=0.0)
    attention = WindowAttention(4, 5)
    with pytest.raises(ShapeError, match=r"encoded\.values"):
        attention.prepare(Encoded(torch.ones(2, 3, 7), None, torch.zeros(2, 7)))
