"""torch.compile of what `auto` takes: forwards and backwards, whole, whichever backend it may be."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    CategoricalHead,
    ElmanCell,
    EncoderDecoder,
    FeatureEncoder,
    GRUCell,
    LSTMCell,
    MeanPooling,
    PeepholeLSTMCell,
    ProjectedLSTMCell,
    Recurrent,
    RecurrentEncoder,
    SequenceClassifier,
)
from unrolled.backends import BACKENDS
from unrolled.backends.compiled import CompiledBackend
from unrolled.state import leaves, map_state

LSTM = partial(Recurrent, LSTMCell, hidden_size=4)


def results(network: nn.Module, run: Callable[[Any], Any], *, compiled: str | None = None) -> list[Tensor]:
    """Outputs, state and the gradients of all parameters."""
    torch.manual_seed(1)
    found = leaves(run(network if compiled is None else torch.compile(network, backend=compiled, fullgraph=True)))
    found = [value for value in found if value.is_floating_point()]
    total = sum((value + 0.5).square().sum() for value in found)
    gradients = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)  # pyright: ignore
    return [*found, *(gradient for gradient in gradients if gradient is not None)]


def agree(network: nn.Module, run: Callable[[Any], Any], compiler: str = "aot_eager", atol: float = 1e-10) -> None:
    torch._dynamo.reset()
    torch.testing.assert_close(results(network, run, compiled=compiler), results(network, run), rtol=0, atol=atol)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a C++ compiler."""
    monkeypatch.setattr(CompiledBackend, "refuses", lambda *_: "no C++ compiler")


CELLS = {
    "lstm": LSTMCell,
    "dropped": partial(LSTMCell, weight_drop=0.5),
    "gru": GRUCell,
    "elman": ElmanCell,
    "softsign": partial(ElmanCell, activation="softsign"),
    "peephole": PeepholeLSTMCell,
    "projected": partial(ProjectedLSTMCell, projection_size=2),
}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("projected", 7),
        *((name, 17) for name in CELLS if name != "projected"),
        ("lstm", 3),
        ("gru", 3),
        ("softsign", 3),
    ],
)
def test_what_auto_takes_trains(name: str, time: int, ragged: bool) -> None:
    network = Recurrent(CELLS[name], 3, 4, bidirectional=ragged).double()
    inputs = torch.randn(2, time, 3, dtype=torch.float64)
    lengths = torch.tensor([time, 2]) if ragged else None
    start = map_state(torch.randn_like, network.initial_state(2, like=inputs))

    agree(network, lambda run: run(inputs, start, lengths=lengths))


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ["lstm", "gru", "softsign"])
def test_what_auto_takes_without_a_compiler_trains(name: str) -> None:
    network = Recurrent(CELLS[name], 3, 4).double()
    inputs = torch.randn(2, 7, 3, dtype=torch.float64)

    agree(network, lambda run: run(inputs))
    agree(network, lambda run: run(inputs, lengths=torch.tensor([7, 2])))


@pytest.mark.parametrize("compiler", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_other_compilers_do_it_too(name: str, compiler: str) -> None:
    network, inputs = Recurrent(CELLS[name], 3, 4, 2), torch.randn(2, 17, 3)

    agree(network, lambda run: run(inputs), compiler, atol=1e-5)


def test_evaluation_without_gradients_is_taken_whole() -> None:
    torch._dynamo.reset()
    network, inputs = Recurrent(LSTMCell, 3, 4, 2).eval(), torch.randn(2, 7, 3)

    with torch.no_grad():
        found = torch.compile(network, backend="aot_eager", fullgraph=True)(inputs)[0]
        torch.testing.assert_close(found, network(inputs)[0])


def test_it_is_compiled_once_for_all_batches_and_times() -> None:
    torch._dynamo.reset()
    network = Recurrent(LSTMCell, 3, 4).double()
    compiled: Any = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=True)

    for batch, time in ((2, 17), (5, 30), (3, 9)):
        inputs = torch.randn(batch, time, 3, dtype=torch.float64)
        with torch._dynamo.config.patch(error_on_recompile=batch != 2):
            torch.testing.assert_close(compiled(inputs)[0], network(inputs)[0], rtol=0, atol=1e-12)


def test_recomputation_is_compiled_too() -> None:
    network = Recurrent(LSTMCell, 3, 4, recompute=True).double()
    inputs = torch.randn(2, 17, 3, dtype=torch.float64)

    agree(network, lambda run: run(inputs))


def attentive() -> tuple[nn.Module, Callable[[Any], Any]]:
    decoder = partial(AutoregressiveDecoder.of_tokens, 5, 3, LSTM, AdditiveAttention)
    tokens = torch.randint(0, 5, (2, 8))
    network = EncoderDecoder(RecurrentEncoder.of_tokens(5, 3, LSTM), decoder)
    return network, lambda run: run(tokens, torch.tensor([8, 3]), tokens[:, :3], torch.tensor([3, 1]))


def language() -> tuple[nn.Module, Callable[[Any], Any]]:
    network = AutoregressiveDecoder.of_tokens(5, 3, LSTM)
    return network, lambda run: run(torch.randint(0, 5, (2, 8)), network.start(2)[0], None, torch.tensor([8, 3]))


def classifying() -> tuple[nn.Module, Callable[[Any], Any]]:
    network = SequenceClassifier(
        FeatureEncoder(3, LSTM, filters=5), partial(CategoricalHead, num_classes=2), MeanPooling
    )
    return network, lambda run: run(torch.randn(2, 8, 3, dtype=torch.float64), torch.tensor([8, 3]))


@pytest.mark.parametrize("make", [attentive, language, classifying])
def test_whole_networks_train(make: Callable[[], tuple[nn.Module, Callable[[Any], Any]]]) -> None:
    network, run = make()

    agree(network.double(), run)


def test_torchs_lstm_kernel_is_still_exported() -> None:
    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Recurrent(LSTMCell, 3, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.network(inputs)[0]

    module, inputs = Outputs().eval(), torch.randn(2, 17, 3)
    program = torch.export.export(module, (inputs,))

    torch.testing.assert_close(program.module()(inputs), module(inputs))


def test_by_name_it_is_refused_with_the_reason() -> None:
    torch._dynamo.reset()
    network = Recurrent(LSTMCell, 3, 4, backend="fused")

    with pytest.raises(Exception, match="loses a tensor of the gradient of torch's LSTM kernel"):
        torch.compile(network, backend="aot_eager", fullgraph=True)(torch.randn(2, 7, 3))
    assert BACKENDS["fused"].refuses(network.cells[0], torch.randn(2, 7, 3)) is None  # pyright: ignore
