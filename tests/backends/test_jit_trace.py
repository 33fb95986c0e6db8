"""torch.jit.trace, and so the classic exporter to ONNX: what `auto` takes goes anywhere and takes other lengths."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    CategoricalHead,
    ElmanCell,
    FeatureEncoder,
    GRUCell,
    LSTMCell,
    MeanPooling,
    PeepholeLSTMCell,
    Recurrent,
    SequenceClassifier,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),  # of sizes that are compared with one another
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning"),
]


class Outputs(nn.Module):
    """Outputs alone, of inputs and lengths."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        found = self.network(inputs, lengths=lengths)
        return found[0] if isinstance(found, tuple) else found


def traced(module: nn.Module, *inputs: Tensor) -> Callable[..., Tensor]:
    with torch.no_grad():
        return torch.jit.trace(module, inputs)  # pyright: ignore


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("make", [LSTMCell, GRUCell, ElmanCell, partial(ElmanCell, activation="relu")])
def test_a_trace_takes_other_batches_and_times(make: Any, bidirectional: bool) -> None:
    module = Outputs(Recurrent(make, 3, 4, 2, bidirectional=bidirectional)).eval()
    trace = traced(module, torch.randn(2, 20, 3))

    for batch, time in ((2, 20), (3, 33), (1, 3)):
        inputs = torch.randn(batch, time, 3)
        torch.testing.assert_close(trace(inputs), module(inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [LSTMCell, GRUCell])
def test_lengths_are_an_input_of_the_trace_not_a_constant(make: Any) -> None:
    module = Outputs(Recurrent(make, 3, 4, bidirectional=True)).eval()
    trace = traced(module, torch.randn(2, 20, 3), torch.tensor([20, 20]))

    for lengths in ([20, 3], [0, 11], [20, 20]):
        inputs, given = torch.randn(2, 20, 3), torch.tensor(lengths)
        torch.testing.assert_close(trace(inputs, given), module(inputs, given), rtol=0, atol=1e-5)


def test_a_cell_without_torchs_kernel_is_traced_step_by_step_and_takes_no_other_number_of_steps() -> None:
    module = Outputs(Recurrent(PeepholeLSTMCell, 3, 4)).eval()
    trace, inputs = traced(module, torch.randn(2, 20, 3)), torch.randn(5, 20, 3)

    torch.testing.assert_close(trace(inputs), module(inputs), rtol=0, atol=1e-5)
    with pytest.raises(RuntimeError, match="Expected 20 elements in a list but found 19"):
        trace(inputs[:, 1:])


def test_a_trace_is_kept_in_a_file(tmp_path: Path) -> None:
    core = partial(Recurrent, GRUCell, hidden_size=4)
    module = Outputs(
        SequenceClassifier(FeatureEncoder(3, core), partial(CategoricalHead, num_classes=2), MeanPooling)
    ).eval()
    inputs, lengths = torch.randn(2, 20, 3), torch.tensor([20, 5])
    torch.jit.save(traced(module, inputs, lengths), tmp_path / "trace.pt")  # pyright: ignore

    loaded = torch.jit.load(tmp_path / "trace.pt")

    other = torch.tensor([4, 18])
    torch.testing.assert_close(loaded(inputs, other), module(inputs, other), rtol=0, atol=1e-5)


def test_the_compiled_backend_by_name_is_refused_with_the_reason() -> None:
    module = Outputs(Recurrent(GRUCell, 3, 4, backend="compiled")).eval()

    with pytest.raises(ValueError, match="a traced program can't depend on this machine's compiler"):
        traced(module, torch.randn(2, 20, 3))
