"""torch's own recurrent kernels, called with the cells' parameters: one call for all steps of a layer.

These kernels support padding only as packed sequences, which need a sort and lengths on the CPU, and which on the CPU
exclude the fast kernel. They are not used here. A hidden state that is also the output is gathered at each row's last
valid step. The LSTM's c is not an output, so padding must not change it: an additional input feature, 1 in the padding
and 0 elsewhere, sets the input gate to 0 and the forget gate to 1 there, so c keeps its exact value.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from unrolled.backends.base import Backend
from unrolled.cells.base import Cell, RecurrentNoise
from unrolled.cells.elman import ElmanCell
from unrolled.cells.gru import GRUCell
from unrolled.cells.hooks import own_class
from unrolled.cells.lstm import LSTMCell
from unrolled.modes import transforms
from unrolled.sequences import last_valid, mask_from_lengths
from unrolled.state import HiddenState, LSTMState

# The sigmoid is exactly 0 and 1 at ∓10⁴ in every dtype, and float16 can represent the number.
_SHUT = -1e4
_OPEN = 1e4

_Known = LSTMCell | GRUCell | ElmanCell
_ELMAN: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}

_ELMAN_STEP: dict[str, Callable[..., Tensor]] = {"tanh": torch.rnn_tanh_cell, "relu": torch.rnn_relu_cell}
_DTYPES = (torch.float32, torch.float64)  # of a step; with others, the loop rounds after other operations
# What the kernels compute instead.
_METHODS = ("project", "step", "pointwise", "products", "recur", "recurrent_factors", "recurrent_weight")


class FusedBackend(Backend):
    """torch.lstm, torch.gru, torch.rnn_tanh and torch.rnn_relu.

    A cell must have exactly one of the supported types: a subclass may compute anything and is refused.
    """

    name = "fused"

    def refuses(self, cell: Cell[Any], inputs: Tensor) -> str | None:
        kind = own_class(cell)
        if kind not in (LSTMCell, GRUCell, ElmanCell):
            return f"the fused kernels support only LSTMCell, GRUCell and ElmanCell, not {kind.__name__}"
        for name in _METHODS:
            if name in vars(cell):
                return f"the fused kernels do not call {name}, which was replaced on this cell"
        known = cast("_Known", cell)
        if isinstance(known, ElmanCell) and known.activation not in _ELMAN:
            return f"the fused kernels support the activations {' and '.join(_ELMAN)}, not {known.activation}"
        for name in ("recurrent_dropout", "candidate_dropout"):
            if known.training and getattr(known, name) > 0.0:
                return f"the fused kernels do not support dropout within a step ({name}={getattr(known, name)})"
        if known.has_zoneout:
            return f"the fused kernels do not support zoneout (zoneout={known.zoneout})"
        if transformed := transforms():
            for mode, name in (("vmap", "vmap"), ("jvp", "forward-mode derivative")):
                if mode in transformed:
                    return f"torch's fused kernels have no {name}"
        if isinstance(known, LSTMCell) and inputs.device.type == "cpu":
            return _refuses_lstm_on_cpu()
        return None

    def run(
        self, cell: Cell[Any], inputs: Tensor, state: Any, lengths: Tensor | None, reverse: bool, noise: Any
    ) -> tuple[Tensor, Any]:
        known = cast("_Known", cell)
        dropped = None if noise is None else cast("RecurrentNoise", noise).weight_hh
        recurrent = known.weight_hh if dropped is None else dropped
        if isinstance(known, LSTMCell):
            return _run_lstm(known, inputs, state, lengths, recurrent)
        kernel = torch.gru if isinstance(known, GRUCell) else _ELMAN[known.activation]
        weights = [known.weight_ih, recurrent, known.bias_ih, known.bias_hh]
        outputs, h = kernel(inputs, _layered(state.h), *_options(weights))
        return outputs, HiddenState(h[0] if lengths is None else last_valid(outputs, lengths, state.h))


def step_fused(cell: Cell[Any], inputs: Tensor, state: Any) -> tuple[Tensor, Any] | None:
    """Compute one step of a cell in evaluation mode with torch.lstm_cell and its like, where `modes.direct` is true.

    Args:
        cell: any cell without hooks.
        inputs: (batch, input), with two axes.
        state: the state before the step. It need not have been checked.

    Returns:
        The output and the next state; None if there is no such function, or if an argument isn't as it should be.
    """
    kind = type(cell)
    if kind is not LSTMCell and kind is not GRUCell and kind is not ElmanCell:
        return None
    known: Any = cell
    attributes = vars(known)
    if type(state) is not known.state_type or any(known.zoneout) or not attributes.keys().isdisjoint(_METHODS):
        return None
    own: dict[str, Any] = attributes["_parameters"]
    weight = own["weight_ih"]
    if weight.dtype not in _DTYPES or state[0].dim() != 2:
        return None
    try:  # torch checks the other sizes, dtypes and devices, but little of c; the loop then says what is wrong
        if kind is LSTMCell:
            if state[1].dim() != 2 or state[1].dtype is not weight.dtype:
                return None
            h, c = torch.lstm_cell(inputs, state, weight, own["weight_hh"], own["bias_ih"], own["bias_hh"])
            return h, LSTMState(h, c)
        function = torch.gru_cell if kind is GRUCell else _ELMAN_STEP.get(known.activation)
        if function is None:
            return None
        h = function(inputs, state[0], weight, own["weight_hh"], own["bias_ih"], own["bias_hh"])
        return h, HiddenState(h)
    except RuntimeError:
        return None


def _refuses_lstm_on_cpu() -> str | None:
    autocast = torch.is_autocast_enabled("cpu")
    if torch.compiler.is_compiling() and (autocast or not torch.compiler.is_exporting()):
        return "torch.compile (2.13) loses a tensor of the gradient of torch's LSTM kernel on a CPU"
    if not autocast:
        return None
    dtype = torch.get_autocast_dtype("cpu")
    return (
        None if _lstm_takes(dtype) else f"torch's LSTM kernel does not run under autocast to {dtype} on this processor"
    )


@cache
def _lstm_takes(dtype: torch.dtype) -> bool:
    """Return whether torch.lstm runs under autocast on the CPU: oneDNN's bfloat16 LSTM needs AVX-512 on x86."""
    weights = [torch.zeros(4, 1, requires_grad=True), torch.zeros(4, 1), torch.zeros(4), torch.zeros(4)]
    state = (torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    try:
        with torch.autocast("cpu", dtype), torch.enable_grad():
            torch.lstm(torch.zeros(1, 1, 1), state, *_options(weights))
    except RuntimeError:
        return False
    return True


def run_both(
    cells: tuple[LSTMCell, LSTMCell], inputs: Tensor, states: tuple[LSTMState, LSTMState], noises: tuple[Any, Any]
) -> tuple[Tensor, tuple[LSTMState, LSTMState]]:
    """Run two LSTMs on the same inputs (batch, time, input), one forwards, one backwards, in one call of the kernel.

    The kernel runs backwards itself. Two calls would have to reverse the inputs and outputs of the second.

    Returns:
        The concatenated outputs (batch, time, 2 × hidden), and the state after each direction's last step.
    """
    weights: list[Tensor] = []
    for cell, noise in zip(cells, noises, strict=True):
        dropped = None if noise is None else cast("RecurrentNoise", noise).weight_hh
        weights += [cell.weight_ih, cell.weight_hh if dropped is None else dropped, cell.bias_ih, cell.bias_hh]
    h, c = (torch.stack(leaves) for leaves in zip(*states, strict=True))
    outputs, h, c = torch.lstm(inputs, (h, c), *_options(weights, bidirectional=True))
    return outputs, (LSTMState(h[0], c[0]), LSTMState(h[1], c[1]))


def _run_lstm(
    cell: LSTMCell, inputs: Tensor, state: LSTMState, lengths: Tensor | None, recurrent: Tensor
) -> tuple[Tensor, LSTMState]:
    weight_ih = cell.weight_ih
    if lengths is not None:
        padded = ~mask_from_lengths(lengths, inputs.shape[1]).unsqueeze(-1)
        inputs = torch.cat([inputs, padded.to(inputs.dtype)], dim=-1)
        column = weight_ih.new_zeros(4, cell.hidden_size, 1)
        column[0] = _SHUT
        column[1] = _OPEN
        weight_ih = torch.cat([weight_ih, column.flatten(0, 1)], dim=1)
    weights = [weight_ih, recurrent, cell.bias_ih, cell.bias_hh]
    outputs, h, c = torch.lstm(inputs, (_layered(state.h), _layered(state.c)), *_options(weights))
    return outputs, LSTMState(h[0] if lengths is None else last_valid(outputs, lengths, state.h), c[0])


def _layered(leaf: Tensor) -> Tensor:
    """Add the layer axis: (batch, hidden) -> (1, batch, hidden), contiguous as cuDNN requires."""
    return leaf.unsqueeze(0).contiguous()


def _options(
    weights: list[Tensor], *, bidirectional: bool = False
) -> tuple[list[Tensor], bool, int, float, bool, bool, bool]:
    """Return torch's last kernel arguments: weights, biases, layers, dropout, train, bidirectional, batch first.

    With `train` a kernel saves values for its backward pass, which cuDNN requires. It therefore follows the gradient
    mode and not the module's mode.
    """
    return _in_one_block(weights), True, 1, 0.0, torch.is_grad_enabled(), bidirectional, True


def _in_one_block(weights: list[Tensor]) -> list[Tensor]:
    """Copy the weights to one block of memory, which cuDNN uses without a further copy and a warning.

    The cost is small compared with many steps of a layer. Unlike flattening in place, a copy doesn't change the
    parameters, and it works for computed weights. It has not been tested on a CUDA device.
    """
    if not weights[0].is_cuda:
        return weights
    block = torch.cat([weight.flatten() for weight in weights])
    parts = torch.split(block, [weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
