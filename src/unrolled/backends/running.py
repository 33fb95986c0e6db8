"""Runs a layer over time, in one direction or both, with the chosen backend."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from unrolled.backends import backend_for
from unrolled.backends.base import Backend
from unrolled.backends.fused import run_both as run_both_fused
from unrolled.backends.recomputation import checkpoint_segments
from unrolled.backends.stretches import run_stretches
from unrolled.cells.base import Cell
from unrolled.cells.hooks import cached_weights, freeze_computed_weights, has_hooks, is_plain
from unrolled.cells.lstm import LSTMCell
from unrolled.modes import transforms
from unrolled.resets import Stretches
from unrolled.sequences import mask_from_lengths, reverse_valid
from unrolled.shapes import expect
from unrolled.state import check, outline

S = TypeVar("S")


class Marked(NamedTuple):
    """The stretches of a batch, and the state with which each of them begins, with one row; or both directions'."""

    stretches: Stretches
    initial: Any


def run(
    cell: Cell[S],
    inputs: Tensor,
    state: S,
    lengths: Tensor | None,
    reverse: bool,
    backend: str,
    recompute: bool,
    marked: Marked | None = None,
) -> tuple[Tensor, S]:
    """Run a cell over checked sequences.

    Args:
        cell: any cell.
        inputs: (batch, time, input), zero in the padding.
        state: the state before the first step.
        lengths: (batch,) int64 from 0 to time; None without padding.
        reverse: run from the last valid step to the first.
        backend: a backend's name, or "auto".
        recompute: whether to store only the states between √time segments, and run each again in the backward pass.
        marked: where new sequences begin within a row; None for one sequence per row.

    Returns:
        The outputs (batch, time, output), zero in the padding, and the state after each row's last step.
    """
    if is_plain(cell):
        return _run(cell, inputs, state, lengths, reverse, backend, recompute, marked)

    def through(inputs: Tensor, state: S) -> tuple[Tensor, S]:
        expect(inputs, "batch time input", input=cell.input_size, name="inputs, after a hook,")
        check(state, outline(cell.initial_state(1, like=inputs), like=inputs), like=inputs)
        with cached_weights(cell):
            return _run(freeze_computed_weights(cell), inputs, state, lengths, reverse, backend, recompute, marked)

    return cell(inputs, state, through=through) if has_hooks(cell) else through(inputs, state)


def _run(
    cell: Cell[S],
    inputs: Tensor,
    state: S,
    lengths: Tensor | None,
    reverse: bool,
    backend: str,
    recompute: bool,
    marked: Marked | None,
) -> tuple[Tensor, S]:
    chosen = backend_for(backend, cell, inputs, ragged=lengths is not None or marked is not None)
    if inputs.shape[1] == 0:
        return inputs.new_empty(inputs.shape[0], 0, cell.output_size), state
    if cell.observer is None:
        return _run_with(chosen, cell, inputs, state, lengths, reverse, recompute, marked)
    with cell.observer.sequences(_places(inputs, lengths, reverse, marked), inputs, reverse=reverse) as read:
        return _run_with(chosen, cell, read, state, lengths, reverse, False, marked)


def _places(inputs: Tensor, lengths: Tensor | None, reverse: bool, marked: Marked | None) -> Tensor:
    """Return for each row and step of the loop its place in (batch × time), counted from 1; 0 in the padding."""
    batch, time = inputs.shape[:2]
    places = torch.arange(1, batch * time + 1, device=inputs.device).view(batch, time)
    if marked is not None:  # each stretch is a row
        places, lengths = marked.stretches.split(places), marked.stretches.lengths
    if lengths is not None:
        places = places * mask_from_lengths(lengths, places.shape[1])
    return reverse_valid(places, lengths) if reverse else places


def _run_with(
    backend: Backend,
    cell: Cell[S],
    inputs: Tensor,
    state: S,
    lengths: Tensor | None,
    reverse: bool,
    recompute: bool,
    marked: Marked | None,
) -> tuple[Tensor, S]:
    if recompute and torch.is_grad_enabled() and transforms():
        raise ValueError("recompute=True needs hooks, which torch.func and forward mode lack; set it to False")
    if marked is not None:
        return run_stretches(
            backend,
            cell,
            inputs,
            state,
            marked.initial,
            lengths,
            marked.stretches,
            reverse=reverse,
            recompute=recompute,
        )
    noise = cell.noise(inputs.shape[0], like=inputs)

    def pass_through(inputs: Tensor, state: S, lengths: Tensor | None) -> tuple[Tensor, S]:
        return _directed(backend, cell, inputs, state, lengths, reverse, noise)

    if recompute and torch.is_grad_enabled():
        return checkpoint_segments(pass_through, inputs, state, lengths, reverse=reverse)
    return pass_through(inputs, state, lengths)


def run_both(
    cells: Sequence[Cell[Any]],
    inputs: Tensor,
    states: Sequence[Any],
    lengths: Tensor | None,
    backend: str,
    recompute: bool,
    marked: Marked | None = None,
) -> tuple[Tensor, tuple[Any, Any]]:
    """Run one cell forwards and another backwards; return their concatenated outputs and both states."""
    called = has_hooks(cells[0]) or has_hooks(cells[1])
    forward, backward = cells if called else map(freeze_computed_weights, cells)
    alike = isinstance(forward, LSTMCell) and isinstance(backward, LSTMCell) and not called
    if alike and lengths is None and not recompute and marked is None:
        fused = all(backend_for(backend, cell, inputs).name == "fused" for cell in (forward, backward))
        if fused and inputs.shape[1] > 0:
            noises = tuple(cell.noise(inputs.shape[0], like=inputs) for cell in (forward, backward))
            both = cast("tuple[LSTMCell, LSTMCell]", (forward, backward))
            return run_both_fused(both, inputs, (states[0], states[1]), (noises[0], noises[1]))
    both = (None, None) if marked is None else tuple(marked._replace(initial=one) for one in marked.initial)
    outputs, first = run(forward, inputs, states[0], lengths, False, backend, recompute, both[0])
    reversed_outputs, second = run(backward, inputs, states[1], lengths, True, backend, recompute, both[1])
    return torch.cat([outputs, reversed_outputs], dim=-1), (first, second)


def _directed(
    backend: Backend, cell: Cell[S], inputs: Tensor, state: S, lengths: Tensor | None, reverse: bool, noise: Any
) -> tuple[Tensor, S]:
    """Run a backend in a direction, and reverse and clear the padding where the backend doesn't."""
    turned = reverse and not backend.reverses
    if turned:
        inputs = reverse_valid(inputs, lengths)
    outputs, state = backend.run(cell, inputs, state, lengths, reverse and backend.reverses, noise)
    if lengths is not None and not backend.clears_padding:
        outputs = outputs.masked_fill(~mask_from_lengths(lengths, outputs.shape[1]).unsqueeze(-1), 0.0)
    return reverse_valid(outputs, lengths) if turned else outputs, state
