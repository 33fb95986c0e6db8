"""A layer through time, in one direction or in both, by the backend that is chosen for it."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from unrolled.backends import BACKENDS, choose
from unrolled.backends.base import Backend
from unrolled.backends.fused import run_both as run_both_fused
from unrolled.backends.recomputation import checkpoint_segments
from unrolled.cells.base import Cell
from unrolled.cells.hooks import computed_once, hooked, plain, settled
from unrolled.cells.lstm import LSTMCell
from unrolled.modes import transforms
from unrolled.sequences import mask_from_lengths, reverse_valid
from unrolled.shapes import expect
from unrolled.state import check, outline

S = TypeVar("S")


def run(
    cell: Cell[S], inputs: Tensor, state: S, lengths: Tensor | None, reverse: bool, backend: str, recompute: bool
) -> tuple[Tensor, S]:
    """Run a cell over checked sequences.

    Args:
        cell: any cell.
        inputs: (batch, time, input), zero in the padding.
        state: before the first step.
        lengths: (batch,) int64 from 0 to time; None where nothing is padded.
        reverse: read from the last valid step to the first.
        backend: a backend's name, or "auto".
        recompute: keep the states between √time stretches, and run each stretch again on the way back.

    Returns:
        The outputs (batch, time, output), zero in the padding, and the state behind each row's last step.
    """
    if plain(cell):
        return _run(cell, inputs, state, lengths, reverse, backend, recompute)

    def through(inputs: Tensor, state: S) -> tuple[Tensor, S]:
        expect(inputs, "batch time input", input=cell.input_size, name="inputs, after a hook,")
        check(state, outline(cell.initial_state(1, like=inputs), like=inputs), like=inputs)
        with computed_once(cell):
            return _run(settled(cell), inputs, state, lengths, reverse, backend, recompute)

    return cell(inputs, state, through=through) if hooked(cell) else through(inputs, state)


def _run(
    cell: Cell[S], inputs: Tensor, state: S, lengths: Tensor | None, reverse: bool, backend: str, recompute: bool
) -> tuple[Tensor, S]:
    choice = choose(backend, cell, inputs, ragged=lengths is not None)
    if inputs.shape[1] == 0:
        return inputs.new_empty(inputs.shape[0], 0, cell.output_size), state
    noise = cell.noise(inputs.shape[0], like=inputs)

    def pass_through(inputs: Tensor, state: S, lengths: Tensor | None) -> tuple[Tensor, S]:
        return _directed(BACKENDS[choice.backend], cell, inputs, state, lengths, reverse, noise)

    if recompute and torch.is_grad_enabled():
        if transforms():
            raise ValueError("recompute=True needs hooks that torch.func and forward mode don't have; set it to False")
        return checkpoint_segments(pass_through, inputs, state, lengths, reverse=reverse)
    return pass_through(inputs, state, lengths)


def run_both(
    cells: Sequence[Cell[Any]],
    inputs: Tensor,
    states: Sequence[Any],
    lengths: Tensor | None,
    backend: str,
    recompute: bool,
) -> tuple[Tensor, tuple[Any, Any]]:
    """`run` of a cell forwards and of another backwards: their outputs side by side, and both states."""
    called = hooked(cells[0]) or hooked(cells[1])
    forward, backward = cells if called else map(settled, cells)
    alike = isinstance(forward, LSTMCell) and isinstance(backward, LSTMCell) and not called
    if alike and lengths is None and not recompute:
        fused = all(choose(backend, cell, inputs).backend == "fused" for cell in (forward, backward))
        if fused and inputs.shape[1] > 0:
            noises = tuple(cell.noise(inputs.shape[0], like=inputs) for cell in (forward, backward))
            both = cast("tuple[LSTMCell, LSTMCell]", (forward, backward))
            return run_both_fused(both, inputs, (states[0], states[1]), (noises[0], noises[1]))
    outputs, first = run(forward, inputs, states[0], lengths, False, backend, recompute)
    reversed_outputs, second = run(backward, inputs, states[1], lengths, True, backend, recompute)
    return torch.cat([outputs, reversed_outputs], dim=-1), (first, second)


def _directed(
    backend: Backend, cell: Cell[S], inputs: Tensor, state: S, lengths: Tensor | None, reverse: bool, noise: Any
) -> tuple[Tensor, S]:
    """Run a backend in a direction, with zeros in the padding of the outputs, whatever it does of that by itself."""
    turned = reverse and not backend.reverses
    if turned:
        inputs = reverse_valid(inputs, lengths)
    outputs, state = backend.run(cell, inputs, state, lengths, reverse and backend.reverses, noise)
    if lengths is not None and not backend.clears_padding:
        outputs = outputs.masked_fill(~mask_from_lengths(lengths, outputs.shape[1]).unsqueeze(-1), 0.0)
    return reverse_valid(outputs, lengths) if turned else outputs, state
