"""Products of bfloat16 in the compiled backend: where they are taken, what they round, and what they don't."""

from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import ElmanCell, GRUCell, LSTMCell, LSTMState, PeepholeLSTMCell, Recurrent, unroll
from unrolled.backends import choose
from unrolled.backends.compiled import uses_bfloat16_products
from unrolled.backends.compiled.build import supports_bfloat16_products
from unrolled.state import leaves

pytestmark = pytest.mark.skipif(not supports_bfloat16_products(), reason="this processor has no products of bfloat16")
MAKES = [LSTMCell, GRUCell, ElmanCell, PeepholeLSTMCell]


@pytest.fixture
def medium() -> Generator[None]:
    """float32 modules whose products may be rounded to bfloat16."""
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def results(cell: Any, inputs: Tensor, lengths: Tensor | None, reverse: bool) -> list[Tensor]:
    """Outputs, state, and the gradients of everything."""
    inputs = inputs.clone().requires_grad_()
    torch.manual_seed(1)
    outputs, final = unroll(cell, inputs, lengths=lengths, reverse=reverse, backend="compiled")
    values = [outputs, *leaves(final)]
    total = sum(((value + 0.5) ** 2).sum() for value in values)
    return [*values, *torch.autograd.grad(total, [inputs, *cell.parameters()])]


def errors_of(cell: Any, inputs: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """How far results are from those of float32, relative to their size; each of them."""
    torch.set_float32_matmul_precision("medium")
    try:
        found = results(cell, inputs, lengths, reverse)
    finally:
        torch.set_float32_matmul_precision("highest")
    expected = results(cell, inputs, lengths, reverse)
    return torch.stack([(one - other).norm() / other.norm() for one, other in zip(found, expected, strict=True)])


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("sizes", [(4, 7, 3, 5), (17, 9, 33, 65), (50, 20, 128, 128), (3, 12, 530, 40)])
@pytest.mark.parametrize("ragged", [False, True])
def test_they_agree_with_single_precision_within_their_rounding(
    make: Any, sizes: tuple[int, ...], ragged: bool, generator: torch.Generator
) -> None:
    batch, time, features, hidden = sizes
    cell = make(features, hidden)
    inputs = torch.randn(batch, time, features, generator=generator)
    lengths = torch.randint(0, time + 1, (batch,), generator=generator) if ragged else None

    errors = errors_of(cell, inputs, lengths, ragged)

    assert float(errors.detach().max()) < 2**-6  # a number loses at most 2⁻⁹, and steps add up
    assert float(errors[0].detach()) > 1e-6  # and they are not those of float32


def test_dropped_states_and_weights_too(generator: torch.Generator) -> None:
    cell = LSTMCell(20, 30, recurrent_dropout=0.5, weight_drop=0.25, zoneout=0.2)

    errors = errors_of(cell, torch.randn(6, 9, 20, generator=generator), None, False)

    assert float(errors.detach().max()) < 2**-6


class _Adding(nn.Module):
    """An LSTM with open gates that adds 0.0024 to c at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = LSTMCell(1, 4)
        with torch.no_grad():
            for parameter in self.cell.parameters():
                parameter.zero_()
            self.cell.bias_ih[:8] = 40.0  # input and forget gates: 1
            self.cell.bias_ih[8:12] = torch.atanh(torch.tensor(0.0024))


@pytest.mark.parametrize("kind", ["autocast", "medium", "bfloat16"])
def test_c_is_never_rounded(kind: str) -> None:
    # given a c of 1, where bfloat16's next number is 1.0078, and 0.0024 more at each step
    cell = _Adding().cell
    state = LSTMState(torch.zeros(2, 4), torch.ones(2, 4))
    inputs = torch.zeros(2, 128, 1)
    if kind == "bfloat16":
        cell, inputs = cell.bfloat16(), inputs.bfloat16()
    torch.set_float32_matmul_precision("medium" if kind == "medium" else "highest")

    # when it is run in bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        assert uses_bfloat16_products(cell)
        _, final = unroll(cell, inputs, state, backend="compiled")
    torch.set_float32_matmul_precision("highest")

    # then c has moved all the way, where torch's kernel leaves it at 1
    step = float(torch.tanh(cell.bias_ih[8].float()))
    torch.testing.assert_close(final.c, torch.full((2, 4), 1.0 + 128 * step), rtol=0, atol=1e-4)


def test_a_state_in_single_precision_goes_from_window_to_window_unrounded() -> None:
    cell = LSTMCell(3, 5)
    inputs = torch.randn(2, 12, 3)
    with torch.autocast("cpu", torch.bfloat16):
        whole, end = unroll(cell, inputs, backend="compiled")
        first, middle = unroll(cell, inputs[:, :7], backend="compiled")
        second, last = unroll(cell, inputs[:, 7:], middle, backend="compiled")

    assert whole.dtype == torch.bfloat16
    assert torch.equal(torch.cat([first, second], dim=1), whole)
    assert all(torch.equal(*pair) for pair in zip(leaves(last), leaves(end), strict=True))


@pytest.mark.parametrize("make", MAKES)
def test_a_module_in_bfloat16_gives_and_takes_it(make: Any) -> None:
    cell = make(3, 5).bfloat16()
    inputs = torch.randn(2, 20, 3).bfloat16().requires_grad_()

    outputs, state = unroll(cell, inputs, backend="compiled")
    outputs.float().square().sum().backward()

    assert {outputs.dtype, *(leaf.dtype for leaf in leaves(state))} == {torch.bfloat16}
    assert {parameter.grad.dtype for parameter in (inputs, *cell.parameters())} == {torch.bfloat16}
    expected, _ = unroll(cell.float(), inputs.detach().float(), backend="compiled")
    torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=0.02)


def test_doubles_stay_doubles_and_single_precision_is_whole_by_default(generator: torch.Generator) -> None:
    inputs = torch.randn(2, 20, 3, generator=generator)
    assert not uses_bfloat16_products(GRUCell(3, 5))
    with torch.autocast("cpu", torch.float16):
        assert not uses_bfloat16_products(GRUCell(3, 5))
    with torch.autocast("cpu", torch.bfloat16):
        assert uses_bfloat16_products(GRUCell(3, 5))
        assert not uses_bfloat16_products(GRUCell(3, 5).double())
    cell = GRUCell(3, 5).double()
    expected = unroll(cell, inputs.double(), backend="loop")[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = unroll(cell, inputs.double(), backend="compiled")[0]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2**-8)


def test_auto_takes_the_kernel_that_rounds_no_c() -> None:
    cell, inputs = LSTMCell(3, 5), torch.zeros(2, 20, 3)

    assert choose("auto", cell, inputs).backend == "fused"
    with torch.autocast("cpu", torch.bfloat16):
        assert choose("auto", cell, inputs).backend == "compiled"


@pytest.mark.usefixtures("medium")
def test_numbers_that_are_none_are_not_lost(generator: torch.Generator) -> None:
    inputs = torch.randn(3, 8, 40, generator=generator)
    inputs[1, 4, 7] = torch.nan
    outputs, _ = unroll(GRUCell(40, 20), inputs, backend="compiled")

    assert outputs[[0, 2]].isfinite().all()
    assert outputs[1, :4].isfinite().all()
    assert outputs[1, 4:].isnan().all()


def test_a_text_of_numbers_is_learned_as_in_single_precision() -> None:
    # given a parity task, which a network learns or doesn't
    losses: dict[bool, float] = {}
    for mixed in (False, True):
        torch.manual_seed(0)
        network, head = Recurrent(LSTMCell, 1, 32, backend="compiled"), nn.Linear(32, 1)
        optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=0.02)
        generator = torch.Generator().manual_seed(1)
        for _ in range(150):
            bits = torch.randint(0, 2, (64, 8, 1), generator=generator).float()
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                logits = head(network(bits)[0])
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), bits.cumsum(1) % 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[mixed] = float(loss)

    assert losses[True] < max(0.05, 2 * losses[False]), losses
