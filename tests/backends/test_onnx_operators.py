"""ONNX's LSTM, GRU and RNN operators, run by onnxruntime: a definition from outside, for cells and backends alike."""

from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from unrolled import ElmanCell, GRUCell, LSTMCell, PeepholeLSTMCell, ResetFirstGRUCell, unroll
from unrolled.backends import BACKENDS
from unrolled.state import leaves, rebuild

BATCH, TIME, INPUT, HIDDEN = 4, 7, 3, 5
LSTM_ORDER, GRU_ORDER = ("i", "o", "f", "g"), ("z", "r", "n")  # of ONNX's blocks, by the names of ours

CASES: dict[str, tuple[str, Any, tuple[str, ...], tuple[str, ...], dict[str, Any]]] = {
    "lstm": ("LSTM", LSTMCell, tuple("ifgo"), LSTM_ORDER, {}),
    "peepholes": ("LSTM", PeepholeLSTMCell, tuple("ifgo"), LSTM_ORDER, {}),
    "no peepholes": ("LSTM", partial(PeepholeLSTMCell, peepholes=False), tuple("ifgo"), LSTM_ORDER, {}),
    "coupled": ("LSTM", partial(PeepholeLSTMCell, coupled=True), tuple("igo"), LSTM_ORDER, {"input_forget": 1}),
    "softsign": (
        "LSTM",
        partial(PeepholeLSTMCell, input_activation="softsign", output_activation="softsign"),
        tuple("ifgo"),
        LSTM_ORDER,
        {"activations": ["Sigmoid", "Softsign", "Softsign"]},
    ),
    "gru": ("GRU", GRUCell, tuple("rzn"), GRU_ORDER, {"linear_before_reset": 1}),
    "gru, reset first": ("GRU", ResetFirstGRUCell, tuple("rzn"), GRU_ORDER, {"linear_before_reset": 0}),
    "tanh": ("RNN", ElmanCell, ("h",), ("h",), {}),
    "relu": ("RNN", partial(ElmanCell, activation="relu"), ("h",), ("h",), {"activations": ["Relu"]}),
    "logistic": ("RNN", partial(ElmanCell, activation="logistic"), ("h",), ("h",), {"activations": ["Sigmoid"]}),
}


def blocks(tensor: Tensor, ours: tuple[str, ...], theirs: tuple[str, ...]) -> Tensor:
    """The blocks of rows in ONNX's order; a gate that we don't have is one that its operator doesn't look at."""
    named = dict(zip(ours, tensor.detach().split(HIDDEN), strict=True))
    return torch.cat([named.get(name, torch.full_like(named[ours[0]], 0.5)) for name in theirs])


def ask(name: str, cell: Any, inputs: Tensor, state: Any, lengths: Tensor, reverse: bool) -> list[Tensor]:
    """The operator's outputs (batch, time, hidden) and final state."""
    operator, _, ours, theirs, attributes = CASES[name]
    ordered = partial(blocks, ours=ours, theirs=theirs)
    given: dict[str, Tensor] = {
        "X": inputs.transpose(0, 1),
        "W": ordered(cell.weight_ih).unsqueeze(0),
        "R": ordered(cell.weight_hh).unsqueeze(0),
        "B": torch.cat([ordered(cell.bias_ih), ordered(cell.bias_hh)]).unsqueeze(0),
        "sequence_lens": lengths.int(),
        "initial_h": state[0].unsqueeze(0),
    }
    names = list(given)
    finals = ["Y_h"]
    if operator == "LSTM":
        peepholes = [getattr(cell, f"peephole_{gate}", None) for gate in "iof"]
        flat = [torch.zeros(HIDDEN) if peephole is None else peephole.detach() for peephole in peepholes]
        given |= {"initial_c": state[1].unsqueeze(0), "P": torch.cat(flat).unsqueeze(0)}
        names += ["initial_c", "P"]
        finals.append("Y_c")
    direction = "reverse" if reverse else "forward"
    node = helper.make_node(operator, names, ["Y", *finals], hidden_size=HIDDEN, direction=direction, **attributes)
    kinds = {torch.float32: TensorProto.FLOAT, torch.int32: TensorProto.INT32}
    entries = [helper.make_tensor_value_info(key, kinds[v.dtype], list(v.shape)) for key, v in given.items()]
    exits = [helper.make_tensor_value_info(key, TensorProto.FLOAT, None) for key in ("Y", *finals)]
    graph = helper.make_graph([node], "layer", entries, exits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {key: np.ascontiguousarray(value.numpy()) for key, value in given.items()}
    outputs, *final = (torch.from_numpy(found) for found in session.run(None, feeds))
    return [outputs[:, 0].transpose(0, 1), *(leaf[0] for leaf in final)]


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("backend", ["loop", "fused", "compiled"])
@pytest.mark.parametrize("name", CASES)
def test_the_operator_says_the_same(name: str, backend: str, reverse: bool, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    cell = CASES[name][1](INPUT, HIDDEN)
    inputs = torch.randn(BATCH, TIME, INPUT, generator=generator)
    if BACKENDS[backend].refuses(cell, inputs) is not None:
        assert backend != "loop"
        assert (name, backend) not in {("lstm", "fused"), ("gru", "fused"), ("peepholes", "compiled")}
        pytest.skip("this backend doesn't run this cell")
    zeros = cell.initial_state(BATCH, like=inputs)
    state = rebuild(zeros, [torch.randn(leaf.shape, generator=generator) for leaf in leaves(zeros)])
    lengths = torch.tensor([7, 1, 4, 6])

    with torch.no_grad():
        outputs, final = unroll(cell, inputs, state, lengths, reverse=reverse, backend=backend)

    expected = ask(name, cell, inputs, state, lengths, reverse)
    torch.testing.assert_close([outputs, *leaves(final)], expected, rtol=0, atol=1e-5)
    assert expected[0].abs().max() > 0.1
