"""What can be traced and what is refused, wherever and whenever a cell is first looked at."""

import builtins
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unrolled import (
    Cell,
    ElmanCell,
    GRUCell,
    HiddenState,
    JordanCell,
    LSTMCell,
    PointwiseCell,
    unroll,
)
from unrolled.backends import BACKENDS, choose
from unrolled.backends import compiled as backends_compiled
from unrolled.backends.compiled import tracing
from unrolled.cells.pointwise import ChainedCell

MAKES = [LSTMCell, GRUCell, ElmanCell]


class _OwnStep(GRUCell):
    def step(self, *arguments: Any) -> Any:
        return super().step(*arguments)


class _OwnProduct(GRUCell):
    def recur(self, *arguments: Any) -> Any:
        return super().recur(*arguments)


class _Mean(PointwiseCell[HiddenState]):
    gates = 1

    def pointwise(self, projected: Any, recurrent: Any, state: HiddenState) -> tuple[Tensor, HiddenState]:
        h = self.combine(projected[0] + recurrent[0])
        return h, HiddenState(h)

    def combine(self, h: Tensor) -> Tensor:
        return h - h.mean(dim=-1, keepdim=True)


class _Lost(_Mean):
    def combine(self, h: Tensor) -> Tensor:
        return h * h.sum(-1)[:, None]


class _Overall(_Mean):
    def combine(self, h: Tensor) -> Tensor:
        return h - h.mean(dim=0, keepdim=True)


class _Part(_Mean):
    def combine(self, h: Tensor) -> Tensor:
        return h - h[:, :2].sum(-1, keepdim=True)


class _OutOfTurn(ChainedCell[HiddenState]):
    gates = 1
    number = 2

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.weight_more = nn.Parameter(torch.zeros(self.rows(), self.hidden_size))

    def rows(self) -> int:
        return self.hidden_size

    def products(self, weight_hh: Tensor) -> Any:
        return (weight_hh, self.bias_hh), (self.weight_more, None)

    def chain(self, projected: Any, recurrent: Any, state: HiddenState, product: Any) -> tuple[Tensor, HiddenState]:
        h = projected[0] + recurrent[0]
        if self.number:
            h = h + product(self.number, h)[0]
        return h, HiddenState(h)


class _Unasked(_OutOfTurn):
    number = 0


class _Narrow(_OutOfTurn):
    def rows(self) -> int:
        return 2


class _Cumulative(_Mean):
    def combine(self, h: Tensor) -> Tensor:
        return h.cumsum(0)


class _Flipped(_Mean):
    def combine(self, h: Tensor) -> Tensor:
        return h.flip(-1)


class _Random(_Mean):
    def combine(self, h: Tensor) -> Tensor:
        return h * torch.rand_like(h)


class _Branching(_Mean):
    def combine(self, h: Tensor) -> Tensor:
        return h if h.sum() > 0 else -h


class _Switching(_Mean):
    def combine(self, h: Tensor) -> Tensor:
        return h.double()


class _Holding(_Mean):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.prelu = nn.PReLU()

    def combine(self, h: Tensor) -> Tensor:
        return self.prelu(h)


class _Computed(_Mean):
    def recurrent_inputs(self, state: HiddenState) -> tuple[Tensor, ...]:
        return (2 * state.h,)

    def combine(self, h: Tensor) -> Tensor:
        return h


class _Plain(Cell[HiddenState]):
    def initial_state(self, batch: int, *, like: Tensor) -> HiddenState:
        return HiddenState(like.new_zeros(batch, self.hidden_size))

    def project(self, inputs: Tensor) -> Tensor:
        return inputs

    def step(self, projected: Tensor, state: HiddenState, noise: Any = None) -> tuple[Tensor, HiddenState]:
        return projected, HiddenState(projected)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (_OwnStep(3, 5), "_OwnStep overrides step"),
        (_OwnProduct(3, 5), "_OwnProduct overrides recur"),
        (JordanCell(3, 5, output_units=10), "JordanCell has 10 outputs and 5 units; a compiled cell needs equal sizes"),
        (_Lost(3, 5), "its step uses sum, of the shape (6,), which mixes rows or units"),
        (_Overall(3, 5), "its step uses mean, of the shape (1, 5), which mixes rows or units"),
        (_Part(3, 5), "its step uses slice, of the shape (6, 2), which mixes rows or units"),
        (_OutOfTurn(3, 5), "it calls product 2 out of order"),
        (_Unasked(3, 5), "it calls 0 of 1 further products"),
        (_Narrow(3, 5), "a product has weights (2, 5), not blocks of 5 units"),
        (_Cumulative(3, 5), "its step uses cumsum, which is not a supported elementwise operation"),
        (_Flipped(3, 5), "its step uses flip, which is not a supported elementwise operation"),
        (_Random(3, 5), "its step uses rand_like, which is not a supported elementwise operation"),
        (_Branching(3, 5), "its step cannot be traced"),
        (_Switching(3, 5), "its step computes in torch.float64 with inputs in torch.float32"),
        (_Holding(3, 5), "its module 'prelu' has parameters or buffers of its own"),
        (_Computed(3, 5), "its recurrent product takes a tensor that is computed from the state"),
        (_Plain(3, 3, output_size=3), "only pointwise cells can be compiled, and _Plain is not one"),
        (nn.utils.parametrizations.weight_norm(GRUCell(3, 5), "bias_ih", dim=None).half(), "not torch.float16"),
        (GRUCell(3, 5).double(), "not torch.float32, torch.float64"),
        (GRUCell(3, 5).to("meta"), "run on a CPU, not on meta"),
    ],
)
def test_what_it_cannot_take_it_refuses_and_says_why(cell: Any, reason: str) -> None:
    inputs = torch.zeros(2, 4, 3)

    refusal = BACKENDS["compiled"].refuses(cell, inputs)

    assert refusal is not None
    assert reason in refusal
    with pytest.raises(ValueError, match=re.escape(f"the backend 'compiled' cannot run this cell: {refusal}")):
        unroll(cell, inputs, backend="compiled")
    assert choose("auto", cell, inputs).backend in ("loop", "fused")


class _Activated(_Mean):
    def __init__(self, *sizes: int, activation: str = "softplus") -> None:
        super().__init__(*sizes)
        self.activation = activation

    def combine(self, h: Tensor) -> Tensor:
        return getattr(nn.functional, self.activation)(h)


def test_a_first_trace_under_hooks_is_as_any_other(generator: torch.Generator) -> None:
    cell = _Activated(3, 5).double()  # of this test alone, so nothing knows it yet
    inputs = torch.randn(2, 16, 3, dtype=torch.float64, generator=generator)

    def gradients(backend: str) -> tuple[Tensor, ...]:
        outputs = checkpoint(lambda x: unroll(cell, x, backend=backend)[0], inputs, use_reentrant=False)
        return outputs, *torch.autograd.grad(outputs.square().sum(), list(cell.parameters()))  # pyright: ignore

    with torch.autograd.graph.save_on_cpu():
        assert choose("auto", cell, inputs).backend == "compiled"
    torch.testing.assert_close(gradients("compiled"), gradients("loop"), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients("auto"), gradients("loop"), rtol=0, atol=1e-12)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Nothing known of cells, nor of torch."""
    monkeypatch.setattr(backends_compiled, "_known", {})
    tracing._activations.cache_clear()
    yield monkeypatch
    tracing._activations.cache_clear()


def test_activations_that_torch_hides_are_refused_and_no_others(forgetful: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without(name: str, space: Any = None, *others: Any) -> Any:
        if name == "torch._decomp" and space["__name__"] == tracing.__name__:
            raise ImportError
        return importing(name, space, *others)

    forgetful.setattr(builtins, "__import__", without)

    refusals = [
        BACKENDS["compiled"].refuses(_Activated(3, 5, activation=name), torch.zeros(2, 4, 3))
        for name in ("gelu", "softsign")
    ]

    assert refusals == [
        "_Activated cannot be compiled: its step uses gelu, which is not a supported elementwise operation",
        None,
    ]


def test_without_torchs_tracer_every_cell_is_refused(forgetful: pytest.MonkeyPatch) -> None:
    forgetful.setitem(sys.modules, "torch.fx.experimental.proxy_tensor", None)

    assert "its step cannot be traced: import of torch.fx" in str(
        BACKENDS["compiled"].refuses(GRUCell(3, 5), torch.zeros(2, 4, 3))
    )


def test_an_option_changed_later_is_seen(generator: torch.Generator) -> None:
    class Optional(_Mean):
        scale = 1.0

        def combine(self, h: Tensor) -> Tensor:
            return self.scale * h

    cell = Optional(3, 5)
    inputs = torch.randn(2, 4, 3, generator=generator)
    found: list[Tensor] = []
    for scale in (1.0, 0.5):
        cell.scale = scale
        found.append(unroll(cell, inputs, backend="compiled")[0])
        torch.testing.assert_close(found[-1], unroll(cell, inputs, backend="loop")[0])

    assert not torch.allclose(*found)


def test_sizes_are_what_they_are_in_the_maths() -> None:
    class Scaled(_Mean):
        def combine(self, h: Tensor) -> Tensor:
            return h / self.hidden_size

    inputs = torch.randn(2, 4, 3)
    for hidden in (2, 5):
        cell = Scaled(3, hidden)
        torch.testing.assert_close(unroll(cell, inputs, backend="compiled")[0], unroll(cell, inputs, backend="loop")[0])
