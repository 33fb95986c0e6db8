"""Layers, directions and ragged batches against torch.nn with packed sequences: values, final states, gradients."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unrolled import ElmanCell, GRUCell, LSTMCell, Recurrent
from unrolled.state import leaves, rebuild

INPUT, HIDDEN, BATCH, TIME = 3, 5, 4, 6
CELLS: dict[str, tuple[Any, Any]] = {
    "lstm": (LSTMCell, nn.LSTM),
    "gru": (GRUCell, nn.GRU),
    "elman": (ElmanCell, nn.RNN),
    "relu": (partial(ElmanCell, activation="relu"), partial(nn.RNN, nonlinearity="relu")),
}
LENGTHS = [None, [6, 1, 3, 5], [6, 0, 1, 0], [2, 1, 3, 2]]


def twins(name: str, layers: int, bidirectional: bool, backend: str) -> tuple[Recurrent, nn.RNNBase]:
    """One of our networks and one of torch's, with the same weights."""
    cell, layer = CELLS[name]
    network = Recurrent(cell, INPUT, HIDDEN, layers, bidirectional=bidirectional, backend=backend).double()
    oracle = layer(INPUT, HIDDEN, layers, bidirectional=bidirectional, batch_first=True).double()
    with torch.no_grad():
        for cells, suffix in ((network.cells, ""), (network.reverse_cells, "_reverse")):
            for index, part in enumerate(cells):
                for parameter, value in part.named_parameters():
                    oracle.get_parameter(f"{parameter}_l{index}{suffix}").copy_(value)
    return network, oracle


def ask(oracle: nn.RNNBase, inputs: Tensor, stacked: list[Tensor], lengths: list[int] | None) -> tuple[Tensor, Any]:
    """Outputs and final states (layers × directions, batch, hidden) of torch's network, which takes no length 0."""
    if lengths is None:
        outputs, final = oracle(inputs, tuple(stacked) if len(stacked) == 2 else stacked[0])
        return outputs, list(final) if len(stacked) == 2 else [final]
    rows = [row for row, length in enumerate(lengths) if length > 0]
    some = [leaf[:, rows] for leaf in stacked]
    packed = pack_padded_sequence(inputs[rows], torch.tensor(lengths)[rows], batch_first=True, enforce_sorted=False)
    packed, final = oracle(packed, tuple(some) if len(some) == 2 else some[0])
    valid, _ = pad_packed_sequence(packed, batch_first=True, total_length=TIME)
    outputs = torch.zeros(BATCH, *valid.shape[1:], dtype=valid.dtype).index_put((torch.tensor(rows),), valid)
    finals = list(final) if len(some) == 2 else [final]
    where = (slice(None), torch.tensor(rows))
    return outputs, [
        leaf.index_put((torch.arange(len(leaf))[:, None], where[1]), new)
        for leaf, new in zip(stacked, finals, strict=True)
    ]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("backend", ["loop", "fused", "compiled"])
@pytest.mark.parametrize("name", CELLS)
def test_layers_are_torchs(
    name: str, backend: str, layers: int, bidirectional: bool, lengths: list[int] | None, generator: torch.Generator
) -> None:
    network, oracle = twins(name, layers, bidirectional, backend)
    inputs = torch.randn(BATCH, TIME, INPUT, dtype=torch.float64, generator=generator, requires_grad=True)
    like = leaves(network.initial_state(BATCH, like=inputs))
    start = [torch.randn(leaf.shape, dtype=leaf.dtype, generator=generator, requires_grad=True) for leaf in like]
    per_cell = len(start) // (layers * (1 + bidirectional))
    stacked = [torch.stack(start[index::per_cell]) for index in range(per_cell)]

    # when both networks run from the same state
    outputs, final = network(
        inputs,
        rebuild(network.initial_state(BATCH, like=inputs), start),
        None if lengths is None else torch.tensor(lengths),
    )
    expected, expected_final = ask(oracle, inputs, stacked, lengths)

    # then outputs and final states agree
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-14)
    final = leaves(final)
    for index, leaf in enumerate(expected_final):
        torch.testing.assert_close(torch.stack(final[index::per_cell]), leaf, rtol=0, atol=1e-14)

    # and so do all gradients, of any function of both
    weights = torch.randn(outputs.shape, dtype=outputs.dtype, generator=generator)
    ours = (outputs * weights).sum() + sum(leaf.square().sum() for leaf in final)
    theirs = (expected * weights).sum() + sum(leaf.square().sum() for leaf in expected_final)
    names = [name for name, _ in oracle.named_parameters()]
    gradients = torch.autograd.grad(ours, [inputs, *start, *(_ours(network, name) for name in names)])
    wanted = torch.autograd.grad(theirs, [inputs, *start, *oracle.parameters()])
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, rtol=0, atol=1e-12)


def _ours(network: Recurrent, name: str) -> nn.Parameter:
    parameter, _, layer = name.removesuffix("_reverse").rpartition("_l")
    cells = network.reverse_cells if name.endswith("_reverse") else network.cells
    return cells[int(layer)].get_parameter(parameter)


def test_single_precision_takes_the_fast_kernel_to_the_same_numbers(generator: torch.Generator) -> None:
    # given a size that torch's oneDNN kernel takes, which double precision never sees
    network = Recurrent(LSTMCell, 16, 32, 2, bidirectional=True, backend="fused")
    loop = Recurrent(LSTMCell, 16, 32, 2, bidirectional=True, backend="loop")
    loop.load_state_dict(network.state_dict())
    inputs = torch.randn(8, 12, 16, generator=generator)
    lengths = torch.tensor([12, 0, 1, 7, 12, 3, 5, 11])

    results = []
    for one in (network, loop):
        outputs, state = one(inputs, lengths=lengths)
        total = outputs.square().sum() + sum(leaf.sum() for leaf in leaves(state))
        results.append((outputs, leaves(state), torch.autograd.grad(total, list(one.parameters()))))

    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-6)
    for gradient, want in zip(results[0][2], results[1][2], strict=True):
        # Sums over 96 steps, so the error is relative to the largest of them.
        torch.testing.assert_close(gradient, want, rtol=0, atol=1e-5 * float(want.abs().max().clamp(min=1)))
