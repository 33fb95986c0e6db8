"""The compiled backend against the loop, which is the definition: values, gradients and laws, exactly."""

from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unrolled import (
    ClockworkCell,
    ElmanCell,
    FullGateLSTMCell,
    GRUCell,
    HiddenState,
    IndRNNCell,
    JordanCell,
    LayerNormLSTMCell,
    LSTMCell,
    LSTMState,
    MultiplicativeLSTMCell,
    PeepholeLSTMCell,
    PointwiseCell,
    ResetFirstGRUCell,
    unroll,
)
from unrolled.backends.compiled.kernel import Kernel
from unrolled.cells.base import RecurrentNoise
from unrolled.cells.pointwise import ChainedCell
from unrolled.state import leaves, rebuild


class PeepholeCell(PointwiseCell[LSTMState]):
    """Parameters of its own, one of them a single number, and a buffer."""

    gates = 4
    state_type = LSTMState

    def __init__(self, input_size: int, hidden_size: int, **options: float) -> None:
        super().__init__(input_size, hidden_size, **options)
        for name in ("peep_i", "peep_f", "peep_o"):
            self.register_parameter(name, nn.Parameter(torch.linspace(-1.0, 1.0, hidden_size)))
        self.slope = nn.Parameter(torch.tensor(0.75))
        self.register_buffer("rate", torch.linspace(0.5, 1.0, hidden_size))

    def pointwise(self, projected: Any, recurrent: Any, state: LSTMState) -> tuple[Tensor, LSTMState]:
        i, f, g, o = (one + other for one, other in zip(projected, recurrent, strict=True))
        i = torch.sigmoid(i + self.peep_i * state.c)
        f = torch.sigmoid(f + self.peep_f * state.c)
        c = f * state.c + i * torch.tanh(self.slope * g) * self.rate
        h = torch.sigmoid(o + self.peep_o * c) * torch.tanh(c)
        return h, LSTMState(h, c)


class Pair(NamedTuple):
    h: Tensor
    s: Tensor


class TwofoldCell(PointwiseCell[Pair]):
    """Two tensors enter the product, which has fewer blocks than there are gates; the output is none of the state."""

    gates = 3
    recurrent_gates = 2
    state_type = Pair

    def recurrent_inputs(self, state: Pair) -> tuple[Tensor, ...]:
        return state.s, state.h

    def pointwise(self, projected: Any, recurrent: Any, state: Pair) -> tuple[Tensor, Pair]:
        h = torch.tanh(projected[0] + recurrent[0] + 0.5 * state.s)
        return h * projected[2], Pair(h, torch.sigmoid(projected[1] + recurrent[1]))


class DiagonalCell(PointwiseCell[HiddenState]):
    """Nothing of the state enters a product."""

    gates = 1

    def recurrent_inputs(self, state: HiddenState) -> tuple[Tensor, ...]:
        return ()

    def pointwise(self, projected: Any, recurrent: Any, state: HiddenState) -> tuple[Tensor, HiddenState]:
        h = torch.tanh(projected[0] + 0.5 * state.h)
        return h, HiddenState(h)


class SharedCell(PointwiseCell[LSTMState]):
    """More recurrent blocks than gates, one used twice; a state that is handed on as it is; a gate that is not used."""

    gates = 2
    recurrent_gates = 3
    state_type = LSTMState

    def pointwise(self, projected: Any, recurrent: Any, state: LSTMState) -> tuple[Tensor, LSTMState]:
        a = projected[0] + recurrent[0] * recurrent[2]
        h = torch.where(a > 0.1, torch.tanh(a), torch.clamp(a, -0.3, 0.05)) + 0.1 * recurrent[1] * recurrent[0]
        return h, LSTMState(h, state.c)


class NoisyCell(PointwiseCell[HiddenState]):
    """Noise of every kind: new at each step, for an unroll, on the state, on the weights."""

    gates = 1

    def step_masks(self, shape: tuple[int, ...], *, like: Tensor) -> tuple[Tensor, ...]:
        return (torch.bernoulli(like.new_full((*shape, self.hidden_size), 0.5)),) if self.training else ()

    def noise(self, batch: int, *, like: Tensor) -> RecurrentNoise | None:
        noise = super().noise(batch, like=like) or RecurrentNoise(None, None)
        mask = torch.bernoulli(like.new_full((batch, self.hidden_size), 0.5))
        return noise._replace(masks=(mask,)) if self.training else None

    def pointwise(self, projected: Any, recurrent: Any, state: HiddenState) -> tuple[Tensor, HiddenState]:
        h = torch.tanh(projected[0] + recurrent[0])
        if self.training:
            h = torch.where(projected[1] > 0, h, state.h) * (0.5 + recurrent[1])
        return h, HiddenState(h)


class EveryOperationCell(PointwiseCell[HiddenState]):
    """What the compiler knows besides the functions of the common cells."""

    gates = 3

    def pointwise(self, projected: Any, recurrent: Any, state: HiddenState) -> tuple[Tensor, HiddenState]:
        a, b, c = (one + other for one, other in zip(projected, recurrent, strict=True))
        a = torch.exp(-a.abs()) + torch.log1p(b.square()) - torch.expm1(-c.square()) + nn.functional.softplus(a)
        b = torch.sqrt(1 + b.square()) * torch.sin(c) + torch.cos(a) - nn.functional.elu(b) + nn.functional.silu(c)
        c = nn.functional.gelu(c) + nn.functional.leaky_relu(b, 0.1) + nn.functional.hardtanh(a) + torch.maximum(a, b)
        d = torch.minimum(a, c) + torch.rsqrt(1 + a.square()) + torch.log(1 + b.square()) + (1 + c.abs()) ** 0.7
        e = (
            d.reciprocal()
            + d.sign()
            + torch.where((a > b) & (c < 1.0), a, -b)
            + torch.erf(d)
            + nn.functional.softsign(a)
        )
        h = torch.lerp(state.h, torch.tanh(0.1 * e + 0.01 * c**3), 0.5) + 0.1 * torch.relu(b)
        return h, HiddenState(h)


class SumsCell(PointwiseCell[HiddenState]):
    """Sums, means and layer norm over a row's units, one after another, of one block and of several."""

    gates = 3

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 3 * hidden_size))

    def pointwise(self, projected: Any, recurrent: Any, state: HiddenState) -> tuple[Tensor, HiddenState]:
        joined = torch.cat([one + other for one, other in zip(projected, recurrent, strict=True)], dim=-1)
        joined = nn.functional.layer_norm(joined, joined.shape[-1:]) * self.gain
        a, b, c = joined.split(self.hidden_size, dim=-1)
        share = torch.sigmoid(a.sum(-1, keepdim=True) - (b * state.h).mean(-1, keepdim=True))
        sharpened = torch.exp(c) / torch.exp(c).sum(-1, keepdim=True)
        h = share * torch.tanh(b + nn.functional.layer_norm(c * share, c.shape[-1:])) + (1 - share) * sharpened
        return h, HiddenState(h)


class ChainCell(ChainedCell[LSTMState]):
    """Two further products, one of several blocks, one without a bias, on what a sum and both noises went into."""

    gates = 2
    state_type = LSTMState

    def __init__(self, input_size: int, hidden_size: int, **options: float) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.weight_one = nn.Parameter(torch.randn(2 * hidden_size, 3 * hidden_size) / 3)
        self.weight_two = nn.Parameter(torch.randn(hidden_size, hidden_size) / 2)
        self.bias_two = nn.Parameter(torch.linspace(-1.0, 1.0, hidden_size))

    def products(self, weight_hh: Tensor) -> Any:
        return (weight_hh, self.bias_hh), (self.weight_one, None), (self.weight_two, self.bias_two)

    def chain(self, projected: Any, recurrent: Any, state: LSTMState, product: Any) -> tuple[Tensor, LSTMState]:
        a = torch.sigmoid(projected[0] + recurrent[0])
        first, second = product(1, a * state.h, state.c, a - a.mean(-1, keepdim=True))
        c = state.c + a * torch.tanh(first + recurrent[1])
        (third,) = product(2, c * second)
        h = torch.tanh(third + projected[1]) * a
        return h + second, LSTMState(h, 0.5 * c)


CELLS: dict[str, Any] = {
    "lstm": LSTMCell,
    "gru": GRUCell,
    **{name: partial(ElmanCell, activation=name) for name in ("tanh", "sigmoid", "relu", "softsign")},
    "peephole lstm": PeepholeLSTMCell,
    "coupled, softsign": partial(PeepholeLSTMCell, coupled=True, input_activation="softsign"),
    "no input gate": partial(PeepholeLSTMCell, missing_gate="input", peepholes=False),
    "no forget gate": partial(PeepholeLSTMCell, missing_gate="forget"),
    "no output gate": partial(PeepholeLSTMCell, missing_gate="output"),
    "no input activation": partial(PeepholeLSTMCell, input_activation="identity"),
    "no output activation": partial(PeepholeLSTMCell, output_activation="identity"),
    "peephole zoneout": partial(PeepholeLSTMCell, zoneout=0.3, zoneout_c=0.5, recurrent_dropout=0.5),
    "full gates": FullGateLSTMCell,
    "full gates dropped": partial(FullGateLSTMCell, recurrent_dropout=0.5, weight_drop=0.25),
    "independent": IndRNNCell,
    "clockwork": partial(ClockworkCell, periods=(1, 3)),
    "zoneout": partial(LSTMCell, zoneout=0.3, zoneout_c=0.5, candidate_dropout=0.25),
    "zoneout gru": partial(GRUCell, zoneout=0.3, recurrent_dropout=0.5),
    "tanh dropped": partial(ElmanCell, recurrent_dropout=0.5),
    "own": PeepholeCell,
    "twofold": TwofoldCell,
    "diagonal": DiagonalCell,
    "shared": SharedCell,
    "noisy": NoisyCell,
    "every operation": EveryOperationCell,
    "sums": SumsCell,
    "chain": ChainCell,
    "chain dropped": partial(ChainCell, recurrent_dropout=0.5, weight_drop=0.25),
    "reset first": ResetFirstGRUCell,
    "reset first dropped": partial(ResetFirstGRUCell, recurrent_dropout=0.5, weight_drop=0.25),
    "layer norm": LayerNormLSTMCell,
    "layer norm dropped": partial(LayerNormLSTMCell, recurrent_dropout=0.5, weight_drop=0.25),
    "jordan": partial(JordanCell, memory=0.5, output_activation="sigmoid", recurrent_dropout=0.5),
    "multiplicative": partial(MultiplicativeLSTMCell, recurrent_dropout=0.5, weight_drop=0.25),
    "dropped": partial(LSTMCell, recurrent_dropout=0.5, weight_drop=0.25),
    "twofold dropped": partial(TwofoldCell, recurrent_dropout=0.5, weight_drop=0.25),
}
LENGTHS = {"full": None, "ragged": [7, 0, 1, 4], "none": [0, 0, 0, 0]}


def results(
    cell: Any, inputs: Tensor, state: Any, lengths: Tensor | None, reverse: bool, backend: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and states, then the gradients of everything, from a loss that sees everything."""
    torch.manual_seed(1)  # the same noise
    inputs = inputs.clone().requires_grad_()
    start = None if state is None else rebuild(state, [leaf.clone().requires_grad_() for leaf in leaves(state)])
    outputs, final = unroll(cell, inputs, start, lengths, reverse=reverse, backend=backend)
    values = [outputs, *leaves(final)]
    weights = [torch.arange(1, value.numel() + 1, dtype=value.dtype).view(value.shape).cos() for value in values]
    total = sum((value * weight + value.square()).sum() for value, weight in zip(values, weights, strict=True))
    wanted = [inputs, *(leaves(start) if start is not None else []), *cell.parameters()]
    gradients = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    return [value.detach() for value in values], list(gradients)


def random_state(cell: Any, batch: int, generator: torch.Generator) -> Any:
    zeros = cell.initial_state(batch, like=cell.weight_ih)
    drawn = [torch.randn(leaf.shape, dtype=leaf.dtype, generator=generator) for leaf in leaves(zeros)]
    return rebuild(zeros, drawn)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("start", [False, True], ids=["at zero", "from a state"])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", CELLS)
def test_it_agrees_with_the_loop_on_everything(
    name: str, lengths: str, start: bool, reverse: bool, generator: torch.Generator
) -> None:
    cell = CELLS[name](3, 5).double()
    inputs = torch.randn(4, 7, 3, dtype=torch.float64, generator=generator)
    state = random_state(cell, 4, generator) if start else None
    given_lengths = None if LENGTHS[lengths] is None else torch.tensor(LENGTHS[lengths])

    expected = results(cell, inputs, state, given_lengths, reverse, "loop")
    found = results(cell, inputs, state, given_lengths, reverse, "compiled")

    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-10)
    if lengths == "full":
        assert all(gradient.abs().sum() > 0 for gradient in found[1][:1])


@pytest.mark.parametrize("name", CELLS)
def test_in_evaluation_mode_too(name: str, generator: torch.Generator) -> None:
    cell = CELLS[name](3, 5).double().eval()
    inputs = torch.randn(4, 7, 3, dtype=torch.float64, generator=generator)

    expected = results(cell, inputs, None, None, False, "loop")

    torch.testing.assert_close(results(cell, inputs, None, None, False, "compiled"), expected, rtol=0, atol=1e-10)


WIDE = ["layer norm", "reset first", "multiplicative", "jordan", "full gates"]


@pytest.mark.parametrize("name", ["lstm", "gru", "tanh", "own", "twofold", "chain", *WIDE])
@settings(deadline=None, derandomize=True, max_examples=20)
@given(data=st.data())
def test_whatever_the_shapes_and_threads(name: str, data: st.DataObject) -> None:
    # sizes beside the borders of vectors, panels, tiles and packed blocks: 16, 32, 14 and 112, 256
    time = data.draw(st.integers(1, 9))
    batch = data.draw(st.sampled_from([0, 1, 2, 13, 14, 15, 29]))
    features, hidden = (data.draw(st.sampled_from([1, 2, 8, 15, 17, 33, 65])) for _ in range(2))
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, time), min_size=batch, max_size=batch)), dtype=torch.int64)
    threads, reverse, start = data.draw(st.integers(1, 3)), data.draw(st.booleans()), data.draw(st.booleans())
    cell = CELLS[name](features, hidden).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, time, features, dtype=torch.float64, generator=generator)
    state = random_state(cell, batch, generator) if start else None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = results(cell, inputs, state, lengths, reverse, "compiled")
    finally:
        torch.set_num_threads(before)

    torch.testing.assert_close(found, results(cell, inputs, state, lengths, reverse, "loop"), rtol=0, atol=1e-10)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", ["sums", "chain", *WIDE])
def test_units_of_more_than_one_vector(name: str, reverse: bool, generator: torch.Generator) -> None:
    cell = CELLS[name](15, 33).double()
    inputs = torch.randn(15, 7, 15, dtype=torch.float64, generator=generator)
    state, lengths = random_state(cell, 15, generator), torch.arange(15) % 8

    expected = results(cell, inputs, state, lengths, reverse, "loop")

    torch.testing.assert_close(results(cell, inputs, state, lengths, reverse, "compiled"), expected, rtol=0, atol=1e-10)


def test_layers_wider_than_a_packed_block(generator: torch.Generator) -> None:
    cell = GRUCell(270, 300).double()
    inputs = torch.randn(20, 15, 270, dtype=torch.float64, generator=generator)  # 300 steps, 20 rows

    found = results(cell, inputs, None, None, False, "compiled")

    torch.testing.assert_close(found, results(cell, inputs, None, None, False, "loop"), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["lstm", "gru", "tanh", "sigmoid", "softsign", "own", "sums", *WIDE])
def test_single_precision_is_as_exact_as_the_loop(name: str, generator: torch.Generator) -> None:
    cell = CELLS[name](40, 70)
    inputs = torch.randn(9, 50, 40, generator=generator)
    found = {backend: results(cell, inputs, None, None, False, backend) for backend in ("compiled", "loop")}
    exact = results(cell.double(), inputs.double(), None, None, False, "loop")

    def errors(backend: str) -> list[float]:
        pairs = zip((*found[backend][0], *found[backend][1]), (*exact[0], *exact[1]), strict=True)
        return [float((one - other).norm() / other.norm()) for one, other in pairs]

    for compiled, loop in zip(errors("compiled"), errors("loop"), strict=True):
        assert compiled < 2 * loop + 1e-7


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_are_those_of_the_numbers(name: str, reverse: bool, generator: torch.Generator) -> None:
    cell = CELLS[name](2, 3).double()
    inputs = torch.randn(3, 3, 2, dtype=torch.float64, generator=generator).requires_grad_()
    state = rebuild(s := random_state(cell, 3, generator), [leaf.requires_grad_() for leaf in leaves(s)])
    names = [key for key, _ in cell.named_parameters()]

    def run(inputs: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        start, parameters = others[: len(state)], dict(zip(names, others[len(state) :], strict=True))
        call = partial(
            torch.func.functional_call,
            _Unroll(cell, torch.tensor([3, 1, 0]), reverse),
            {f"cell.{k}": v for k, v in parameters.items()},
        )
        return call((inputs, rebuild(state, start)))

    assert torch.autograd.gradcheck(run, (inputs, *leaves(state), *cell.parameters()))


class _Unroll(nn.Module):
    def __init__(self, cell: Any, lengths: Tensor, reverse: bool) -> None:
        super().__init__()
        self.cell = cell
        self.lengths = lengths
        self.reverse = reverse

    def forward(self, inputs: Tensor, state: Any) -> tuple[Tensor, ...]:
        outputs, final = unroll(self.cell, inputs, state, self.lengths, reverse=self.reverse, backend="compiled")
        return (outputs, *leaves(final))


@pytest.mark.parametrize("name", ["lstm", "gru", "twofold"])
def test_two_chunks_are_one_pass(name: str, generator: torch.Generator) -> None:
    cell = CELLS[name](3, 5).double()
    inputs = torch.randn(4, 9, 3, dtype=torch.float64, generator=generator)

    whole, end = unroll(cell, inputs, backend="compiled")
    first, middle = unroll(cell, inputs[:, :4], backend="compiled")
    second, after = unroll(cell, inputs[:, 4:], middle, backend="compiled")

    assert torch.equal(torch.cat([first, second], dim=1), whole)
    assert all(torch.equal(*pair) for pair in zip(leaves(after), leaves(end), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_never_depends_on_the_rows_beside_it(dtype: torch.dtype, generator: torch.Generator) -> None:
    cell = GRUCell(20, 40).to(dtype)
    inputs = torch.randn(31, 9, 20, dtype=dtype, generator=generator)
    lengths = torch.randint(0, 10, (31,), generator=generator)

    together, _ = unroll(cell, inputs, lengths=lengths, backend="compiled")

    for row in (0, 13, 30):
        alone, _ = unroll(cell, inputs[row : row + 1], lengths=lengths[row : row + 1], backend="compiled")
        assert torch.equal(alone[0], together[row])  # to the last bit


def test_padding_never_matters_not_even_in_gradients(generator: torch.Generator) -> None:
    cell = LSTMCell(3, 5).double()
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)
    spoilt = inputs.clone()
    spoilt[1, 2:] = torch.nan
    lengths = torch.tensor([6, 2])

    for reverse in (False, True):
        clean = results(cell, inputs, None, lengths, reverse, "compiled")
        torch.testing.assert_close(results(cell, spoilt, None, lengths, reverse, "compiled"), clean, rtol=0, atol=0)


@pytest.mark.parametrize("name", CELLS)
def test_nothing_is_kept_without_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    forward = Kernel.forward

    def watched(*arguments: Any, **options: Any) -> Any:
        found = forward(*arguments, **options)
        kept.append(found[1].numel())
        return found

    monkeypatch.setattr(Kernel, "forward", watched)
    cell, inputs = CELLS[name](3, 5).double(), torch.zeros(2, 7, 3, dtype=torch.float64)

    unroll(cell, inputs, backend="compiled")
    with torch.no_grad():
        unroll(cell, inputs, backend="compiled")
    unroll(cell.requires_grad_(False), inputs, backend="compiled")

    assert kept[1:] == [0, 0]
    blocks = {"gru": 4, "lstm": 5}  # r, z, n and what n takes from the state; four gates and c
    assert name not in blocks or kept[0] == 2 * 7 * 5 * blocks[name]
