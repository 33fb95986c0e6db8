"""ONNX's operators LSTM, GRU and RNN, run by onnxruntime, as a definition from outside."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from unrolled import (
    Cell,
    ElmanCell,
    GRUCell,
    LSTMCell,
    PeepholeLSTMCell,
    Recurrent,
    ResetFirstGRUCell,
    unroll,
)
from unrolled.backends import BACKENDS
from unrolled.state import leaves, map_state

INPUT, HIDDEN, BATCH, TIME = 3, 5, 4, 6


class Operator(NamedTuple):
    """An operator of ONNX, and how it stands to a cell of ours."""

    cell: Any
    name: str
    blocks: str  # our gates, in our order
    order: str  # theirs
    activations: tuple[str, ...]
    attributes: dict[str, Any] = {}  # noqa: RUF012 - a default that is only read


LSTM = partial(Operator, name="LSTM", blocks="ifgo", order="iofg", activations=("Sigmoid", "Tanh", "Tanh"))
peepholes = PeepholeLSTMCell
OPERATORS = {
    "LSTM": LSTM(LSTMCell),
    "LSTM with peepholes": LSTM(peepholes),
    "LSTM, coupled": LSTM(partial(peepholes, coupled=True), blocks="igo", attributes={"input_forget": 1}),
    "LSTM, coupled without peepholes": LSTM(
        partial(peepholes, coupled=True, peepholes=False), blocks="igo", attributes={"input_forget": 1}
    ),
    "LSTM, softsign": LSTM(
        partial(peepholes, input_activation="softsign", output_activation="softsign"),
        activations=("Sigmoid", "Softsign", "Softsign"),
    ),
    "LSTM, relu and softplus": LSTM(
        partial(peepholes, input_activation="relu", output_activation="softplus"),
        activations=("Sigmoid", "Relu", "Softplus"),
    ),
    "LSTM, hard gates": LSTM(
        partial(peepholes, gate_activation="hard_sigmoid"),
        activations=("HardSigmoid", "Tanh", "Tanh"),
        attributes={"activation_alpha": [1 / 6], "activation_beta": [0.5]},
    ),
    "GRU, reset behind the product": Operator(
        GRUCell, "GRU", "rzn", "zrn", ("Sigmoid", "Tanh"), {"linear_before_reset": 1}
    ),
    "GRU, reset before the product": Operator(
        ResetFirstGRUCell, "GRU", "rzn", "zrn", ("Sigmoid", "Tanh"), {"linear_before_reset": 0}
    ),
    "RNN": Operator(ElmanCell, "RNN", "h", "h", ("Tanh",)),
    "RNN, relu": Operator(partial(ElmanCell, activation="relu"), "RNN", "h", "h", ("Relu",)),
    "RNN, softsign": Operator(partial(ElmanCell, activation="softsign"), "RNN", "h", "h", ("Softsign",)),
    "RNN, logistic": Operator(partial(ElmanCell, activation="sigmoid"), "RNN", "h", "h", ("Sigmoid",)),
}


def weights(operator: Operator, cell: Cell) -> list[np.ndarray | None]:
    """W, R, B and P of one direction, in ONNX's order; a gate that the cell lacks is zero, since none reads it."""

    def ordered(name: str) -> Tensor:
        parts = dict(zip(operator.blocks, cell.get_parameter(name).detach().split(HIDDEN), strict=True))
        return torch.cat([parts.get(gate, torch.zeros_like(next(iter(parts.values())))) for gate in operator.order])

    biases = torch.cat([ordered("bias_ih"), ordered("bias_hh")])
    found = [getattr(cell, f"peephole_{gate}", None) for gate in "iof"]
    seen = torch.cat([torch.zeros(HIDDEN) if p is None else p.detach() for p in found])
    has = any(p is not None for p in found)
    return [ordered("weight_ih").numpy(), ordered("weight_hh").numpy(), biases.numpy(), seen.numpy() if has else None]


def ask_onnxruntime(
    operator: Operator, cells: list[Cell], direction: str, inputs: Tensor, lengths: Tensor | None, start: list[Tensor]
) -> list[np.ndarray]:
    """Y (time, directions, batch, hidden), Y_h and, of an LSTM, Y_c (directions, batch, hidden)."""
    w, r, b, p = (
        None if parts[0] is None else np.stack(parts)  # pyright: ignore
        for parts in zip(*(weights(operator, cell) for cell in cells), strict=True)
    )
    lens = None if lengths is None else lengths.to(torch.int32).numpy()
    fed = {"X": inputs.transpose(0, 1).numpy(), "W": w, "R": r, "B": b, "lens": lens}
    fed |= {"h": start[0].numpy()}
    fed |= {"c": start[1].numpy(), "P": p} if operator.name == "LSTM" else {}
    outputs = ["Y", "Y_h", "Y_c"][: 3 if operator.name == "LSTM" else 2]
    attributes = {
        key: value * len(cells) if isinstance(value, list) else value for key, value in operator.attributes.items()
    }
    node = helper.make_node(
        operator.name,
        [name if value is not None else "" for name, value in fed.items()],
        outputs,
        hidden_size=HIDDEN,
        direction=direction,
        activations=list(operator.activations) * len(cells),
        **attributes,
    )
    given = {name: np.ascontiguousarray(value) for name, value in fed.items() if value is not None}
    kinds, dimensions = {"lens": TensorProto.INT32}, {"Y": 4}
    graph = helper.make_graph(
        [node],
        "cell",
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), v.shape) for n, v in given.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * dimensions.get(name, 3)) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(outputs, given)]


@pytest.mark.parametrize("lengths", [None, [6, 1, 3, 5]])  # at 0 onnxruntime forgets the state
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("name", OPERATORS)
def test_cells_are_onnxs_operators(
    name: str, direction: str, lengths: list[int] | None, generator: torch.Generator
) -> None:
    torch.manual_seed(0)
    operator = OPERATORS[name]
    network = Recurrent(operator.cell, INPUT, HIDDEN, bidirectional=direction == "bidirectional")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)  # to where activations bend
    cells: list[Any] = [*network.cells, *network.reverse_cells]
    inputs = torch.randn(BATCH, TIME, INPUT, generator=generator)
    given = None if lengths is None else torch.tensor(lengths)
    like = network.initial_state(BATCH, like=inputs)
    state = map_state(lambda leaf: torch.randn(leaf.shape, generator=generator), like)

    takers = [backend for backend in BACKENDS if BACKENDS[backend].refuses(cells[0], inputs) is None]
    assert {"loop", "compiled"} <= set(takers)

    per_cell = len(leaves(state)) // len(cells)
    start = [torch.stack(leaves(state)[index::per_cell]) for index in range(per_cell)]
    y, *y_final = ask_onnxruntime(operator, cells, direction, inputs, given, start)
    expected = torch.from_numpy(y).permute(2, 0, 1, 3).flatten(2)
    assert expected.abs().max() > 0.1
    for backend in takers:
        if direction == "bidirectional":
            network.backend = backend
            outputs, final = network(inputs, state, given)
        else:
            reverse = direction == "reverse"
            outputs, final = unroll(cells[0], inputs, state[0], given, reverse=reverse, backend=backend)
        torch.testing.assert_close(outputs.detach(), expected, rtol=0, atol=1e-5)
        for index, found in enumerate(y_final):
            ours = torch.stack(leaves(final)[index::per_cell]).detach()
            torch.testing.assert_close(ours, torch.from_numpy(found), rtol=0, atol=1e-5)
