"""Every pointwise cell as C beside the network itself, over a thousand steps."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unrolled
from unrolled import (
    Bundle,
    ElmanCell,
    FeatureEncoder,
    HiddenState,
    JordanCell,
    LSTMCell,
    LSTMState,
    NumbersHead,
    PeepholeLSTMCell,
    PointwiseCell,
    Processor,
    Recurrent,
    SequenceTagger,
    SeriesScaler,
)
from unrolled.deployment import export_c

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
Run = Callable[..., dict[str, Tensor]]
FEATURES, HIDDEN, STEPS = 5, 12, 1000


class OwnCell(PointwiseCell[LSTMState]):
    """Parameters of its own, a normalization over the units, and many operations."""

    gates = 3
    state_type = LSTMState

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.slope = nn.Parameter(torch.tensor(0.75))
        self.peep = nn.Parameter(torch.linspace(-1.0, 1.0, hidden_size))
        self.register_buffer("rate", torch.linspace(0.5, 1.0, hidden_size))

    def recurrent_inputs(self, state: LSTMState) -> tuple[Tensor, ...]:
        return state.c, state.h

    def pointwise(self, projected: Any, recurrent: Any, state: LSTMState) -> tuple[Tensor, LSTMState]:
        a, b, c = (one + other for one, other in zip(projected, recurrent, strict=True))
        a = nn.functional.layer_norm(a * self.slope, a.shape[-1:]) + self.peep * state.c
        b = torch.where((b > 0.1) & (c < 0.5), nn.functional.gelu(b), nn.functional.elu(c)).clamp(-2.0, 2.0)
        c = nn.functional.softplus(c) + torch.exp(-b.abs()) + torch.log1p(a.square()) + (1.0 + c.square()) ** 0.3
        d = torch.sqrt(1.0 + c.square()) * torch.sin(b) + torch.cos(a) - torch.erf(a) + torch.sign(b)
        c = state.c * torch.sigmoid(a) * self.rate + 0.1 * torch.maximum(d, a) - 0.1 * torch.minimum(b, c)
        h = torch.tanh(c - c.mean(-1, keepdim=True))
        return h, LSTMState(h, c)


class SmoothedCell(PointwiseCell[HiddenState]):
    """A projection of its own, and a recurrent matrix that is computed."""

    gates = 1

    def project(self, inputs: Tensor) -> Tensor:
        return 0.5 * super().project(inputs) + inputs.mean(-1, keepdim=True)

    def recurrent_weight(self) -> Tensor:
        return self.weight_hh.triu()

    def pointwise(self, projected: Any, recurrent: Any, state: HiddenState) -> tuple[Tensor, HiddenState]:
        h = torch.tanh(projected[0] + recurrent[0])
        return h, HiddenState(h)


def pointwise_cells() -> dict[str, type[Any]]:
    """All cells of the package that C is written for."""
    found = ((name, getattr(unrolled, name)) for name in unrolled.__all__ if name.endswith("Cell"))
    return {
        name.lower(): kind for name, kind in found if issubclass(kind, PointwiseCell) and not inspect.isabstract(kind)
    }


OPTIONS: dict[str, Any] = {
    "zoneout_lstm": partial(LSTMCell, zoneout=0.2, zoneout_c=0.4),
    "relu": partial(ElmanCell, activation="relu"),
    "context": partial(JordanCell, memory=0.5, activation="sigmoid"),
    "own": OwnCell,
    "smoothed": SmoothedCell,
}


def tagger(cell: Any, seed: int = 0, **options: Any) -> Bundle:
    """A cell with random weights and biases, with a linear output."""
    torch.manual_seed(seed)
    core = partial(Recurrent, cell, hidden_size=HIDDEN, backend="loop", **options)
    network = SequenceTagger(FeatureEncoder(FEATURES, core, bidirectional=False), partial(NumbersHead, num_outputs=3))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    scaler = SeriesScaler(["x"] * FEATURES, [0.0] * FEATURES, [1.0] * FEATURES)
    return Bundle(network.eval(), Processor(scaler), {})


def expected(bundle: Bundle, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return bundle.network(inputs.unsqueeze(0))[0]


def programs() -> dict[str, tuple[Bundle, Tensor]]:
    torch.manual_seed(1)
    inputs = torch.randn(STEPS, FEATURES)
    found = {name: (tagger(cell), inputs) for name, cell in (pointwise_cells() | OPTIONS).items()}
    learned = tagger(PeepholeLSTMCell, num_layers=2, residual=True, learned_initial_state=True)
    found["learned"] = (learned, inputs)
    with torch.no_grad():
        for initial in found["learned"][0].network.encoder.core.initial:
            initial.copy_(torch.randn_like(initial))
    return found


OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # compilers, and what runs their programs
    "optimized": (("gcc", *WARNINGS, "-O3", "-march=native"), ()),
    "clang": (("clang", *WARNINGS, "-O2"), ()),
    "arm": (("arm-linux-gnueabihf-gcc", *WARNINGS, "-O2", "-static"), ("qemu-arm",)),
    "thumb": (("arm-linux-gnueabihf-gcc", *WARNINGS, "-Os", "-mthumb", "-static"), ("qemu-arm",)),
}


def check(found: dict[str, Tensor], given: dict[str, tuple[Bundle, Tensor]]) -> None:
    for name, (bundle, inputs) in given.items():
        wanted = expected(bundle, inputs)
        assert wanted.std() > 0.01, f"{name} computes nothing"
        torch.testing.assert_close(found[name], wanted, rtol=0.0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_every_pointwise_cell_equals_eager_over_a_thousand_steps(run_c: Run) -> None:
    given = programs()
    assert len(given) >= 16
    check(run_c(given), given)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_other_compilers_and_processors_compute_the_same(run_c: Run, kind: str) -> None:
    command, through = OTHERS[kind]
    given = programs()
    check(run_c(given, command=command, through=through), given)


def test_a_projection_that_is_no_product_is_refused() -> None:
    class SquaredCell(SmoothedCell):
        def project(self, inputs: Tensor) -> Tensor:
            return super().project(inputs) * inputs.square().mean(-1, keepdim=True)

    with pytest.raises(ValueError, match="SquaredCell cannot be written in C: its projection is neither affine nor"):
        export_c(tagger(SquaredCell))
