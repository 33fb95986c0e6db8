"""Cells as ONNX's recurrent operators LSTM, GRU and RNN, where these define exactly the same.

Weights are brought into the operators' layout: gates in the order i, o, f, c of an LSTM and z, r, h of a GRU, an axis
for the direction, and both biases in one vector. Runtimes have fast kernels for these operators. Other cells, and
subclasses, which may compute anything, become the operator Scan.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from unrolled.backends import SCAN
from unrolled.backends.base import Backend
from unrolled.cells.base import Cell
from unrolled.cells.elman import ElmanCell
from unrolled.cells.gru import GRUCell
from unrolled.cells.lstm import LSTMCell
from unrolled.cells.peephole_lstm import PeepholeLSTMCell
from unrolled.cells.reset_first_gru import ResetFirstGRUCell
from unrolled.state import HiddenState, LSTMState

OPSET = 20


class Operator(NamedTuple):
    """An operator that computes a cell.

    Attributes:
        name: LSTM, GRU or RNN.
        blocks: the cell's gates, a letter for each block of rows of its weights.
        order: those of the operator.
        attributes: of the operator, besides its sizes and direction.
    """

    name: str
    blocks: str
    order: str
    attributes: dict[str, Any]


class _Activation(NamedTuple):
    name: str
    alpha: float = 0.0
    beta: float = 0.0


_ACTIVATIONS = {
    "tanh": _Activation("Tanh"),
    "sigmoid": _Activation("Sigmoid"),
    "relu": _Activation("Relu"),
    "softsign": _Activation("Softsign"),
    "softplus": _Activation("Softplus"),
    "hard_sigmoid": _Activation("HardSigmoid", 1 / 6, 0.5),
}


def operator_of(cell: Cell[Any]) -> Operator | None:
    """Return the operator that computes exactly what a cell does in evaluation mode; None if there is none."""
    kind = type(cell)
    if getattr(cell, "has_zoneout", False):
        return None  # in evaluation mode a mean of two states
    if kind is LSTMCell:
        return Operator("LSTM", "ifgo", "iofg", {})
    if kind is PeepholeLSTMCell:
        return _peepholes(cast("PeepholeLSTMCell", cell))
    if kind in (GRUCell, ResetFirstGRUCell):
        return Operator("GRU", "rzn", "zrn", {"linear_before_reset": int(kind is GRUCell)})
    if kind is ElmanCell:
        activation = _activations(cast("ElmanCell", cell).activation)
        return None if activation is None else Operator("RNN", "h", "h", activation)
    return None


def _peepholes(cell: PeepholeLSTMCell) -> Operator | None:
    activations, blocks = _activations(*cell.activations), "igo" if cell.coupled else "ifgo"
    if activations is None or cell.blocks != blocks:  # a gate is missing
        return None
    return Operator("LSTM", blocks, "iofg", {**({"input_forget": 1} if cell.coupled else {}), **activations})


def _activations(*names: str) -> dict[str, Any] | None:
    found = [_ACTIVATIONS.get(name) for name in names]
    if not all(found):
        return None
    known = cast("list[_Activation]", found)
    attributes: dict[str, Any] = {"activations": [each.name for each in known]}
    if any(each.alpha for each in known):  # numbers stand for those activations alone that have any
        attributes["activation_alpha"] = [each.alpha for each in known if each.alpha]
        attributes["activation_beta"] = [each.beta for each in known if each.alpha]
    return attributes


class OperatorBackend(Backend):
    """One of ONNX's recurrent operators for all steps of a layer in one direction."""

    name = "onnx"
    reverses = True

    def refuses(self, cell: Cell[Any], inputs: Tensor) -> str | None:
        if operator_of(cell) is None:
            return f"ONNX has no operator of {type(cell).__name__} with these options"
        return SCAN.refuses(cell, inputs)

    def run(
        self, cell: Cell[Any], inputs: Tensor, state: Any, lengths: Tensor | None, reverse: bool, noise: Any
    ) -> tuple[Tensor, Any]:
        operator, known = cast("Operator", operator_of(cell)), cast("LSTMCell", cell)
        batch, time = inputs.shape[:2]
        ends = None if lengths is None else lengths.to(torch.int32)
        given: list[Tensor | None] = [
            inputs.transpose(0, 1),
            _ordered(known.weight_ih, operator).unsqueeze(0),
            _ordered(known.weight_hh, operator).unsqueeze(0),
            torch.cat([_ordered(known.bias_ih, operator), _ordered(known.bias_hh, operator)]).unsqueeze(0),
            ends,
            state.h.unsqueeze(0),
        ]
        sizes = [[time, 1, batch, known.hidden_size], [1, batch, known.hidden_size]]
        if operator.name == "LSTM":
            seen = _peephole_weights(known)
            given += [state.c.unsqueeze(0), *([] if seen is None else [seen.unsqueeze(0)])]
            sizes.append(sizes[1])
        direction = "reverse" if reverse else "forward"
        attributes = {"hidden_size": known.hidden_size, "direction": direction, **operator.attributes}
        outputs, *last = torch.onnx.ops.symbolic_multi_out(
            operator.name, given, attributes, dtypes=[inputs.dtype] * len(sizes), shapes=sizes, version=OPSET
        )
        after = [leaf.squeeze(0) for leaf in last]
        if lengths is not None:  # for an empty row a runtime may return zeros
            empty = (lengths == 0).unsqueeze(1)
            after = [torch.where(empty, before, leaf) for before, leaf in zip(state, after, strict=True)]
        return outputs.squeeze(1).transpose(0, 1), (LSTMState if len(after) == 2 else HiddenState)(*after)


def for_onnx(cell: Cell[Any], inputs: Tensor) -> Backend:
    """Return the backend that exports a cell: its operator, or a scan.

    Raises:
        ValueError: a cell that neither can run.
    """
    backend = SCAN if operator_of(cell) is None or inputs.dtype != torch.float32 else _OPERATORS
    refusal = backend.refuses(cell, inputs)
    if refusal is not None:
        raise ValueError(f"{type(cell).__name__} can't be exported: {refusal}")
    return backend


_OPERATORS = OperatorBackend()


def _ordered(weights: Tensor, operator: Operator) -> Tensor:
    """Return the blocks of rows in the operator's order; a gate that the cell lacks is zero, since none reads it."""
    size = weights.shape[0] // len(operator.blocks)
    # Not split: the operator Split is not computed beforehand.
    blocks = {gate: weights[place * size : (place + 1) * size] for place, gate in enumerate(operator.blocks)}
    return torch.cat([blocks.get(gate, torch.zeros_like(weights[:size])) for gate in operator.order])


def _peephole_weights(cell: Any) -> Tensor | None:
    """Return the operator's P: the weights from c to the gates i, o, f."""
    found = [getattr(cell, f"peephole_{gate}", None) for gate in "iof"]
    if all(weights is None for weights in found):
        return None
    size = cell.hidden_size
    return torch.cat([cell.bias_ih.new_zeros(size) if weights is None else weights for weights in found])
