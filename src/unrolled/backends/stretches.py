"""Runs a layer over rows that hold several sequences side by side, whose beginnings are marked.

There are two ways, with equal results. Each stretch between marks becomes a ragged row of its own: one call of the
backend, with more rows. Or all rows are cut wherever one has a mark: one call for each piece of time.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor

from unrolled.backends.base import Backend
from unrolled.backends.recomputation import checkpoint_segments
from unrolled.cells.base import Cell, RecurrentNoise
from unrolled.resets import Stretches
from unrolled.sequences import mask_from_lengths, reverse_valid
from unrolled.state import select, where

S = TypeVar("S")

# Cost of a cut, relative to a pass over the whole batch: measured on a CPU with layers of 256 and 100 steps.
_CUT = 0.01


def run_stretches(
    backend: Backend,
    cell: Cell[S],
    inputs: Tensor,
    state: S,
    initial: S,
    lengths: Tensor | None,
    stretches: Stretches,
    *,
    reverse: bool,
    recompute: bool,
) -> tuple[Tensor, S]:
    """Run a cell over checked sequences, of which a row can hold several.

    Args:
        backend: a backend that supports the cell.
        cell: any cell.
        inputs: (batch, time, input), zero in the padding.
        state: the state before each row's first step or, with `reverse`, after its last.
        initial: the state with which a marked sequence begins, with one row.
        lengths: (batch,) int64 from 0 to time; None without padding.
        stretches: the stretches of the batch.
        reverse: run from the last valid step of each stretch to its first.
        recompute: whether to store only the states between √time segments.

    Returns:
        The outputs (batch, time, output), zero in the padding, and the state after each row's last step.
    """
    noise = cell.noise(len(stretches.row), like=inputs)  # of each stretch, so that the ways draw the same
    known = noise is None or isinstance(noise, RecurrentNoise)
    size = max(inputs.shape[0] * inputs.shape[1], 1)
    rows_cost = len(stretches.row) * stretches.longest / size
    cuts_cost = 1.0 + _CUT * len(stretches.marks)
    recorded = cell.observer is not None  # its recorder expects a row for each stretch
    if backend.name == "compiled" or recompute or recorded or not known or rows_cost < cuts_cost:
        return _rows(backend, cell, inputs, state, initial, stretches, noise, reverse=reverse, recompute=recompute)
    return _cuts(backend, cell, inputs, state, initial, lengths, stretches, noise, reverse=reverse)


def _rows(
    backend: Backend,
    cell: Cell[S],
    inputs: Tensor,
    state: S,
    initial: S,
    stretches: Stretches,
    noise: Any,
    *,
    reverse: bool,
    recompute: bool,
) -> tuple[Tensor, S]:
    # The others begin with the row's state, which is that before its first step or, in reverse, after its last.
    fresh = ~stretches.last if reverse else stretches.fresh
    several = torch.zeros_like(stretches.row)
    before = where(fresh, select(initial, several), select(state, stretches.row))

    def run(inputs: Tensor, state: S, lengths: Tensor | None) -> tuple[Tensor, S]:
        turned = reverse and not backend.reverses
        read = reverse_valid(inputs, lengths) if turned else inputs
        outputs, state = backend.run(cell, read, state, lengths, reverse and backend.reverses, noise)
        return reverse_valid(outputs, lengths) if turned else outputs, state

    split = stretches.split(inputs)
    if split.shape[1] == 0:
        outputs, after = split.new_zeros(len(split), 0, cell.output_size), before
    elif recompute and torch.is_grad_enabled():
        outputs, after = checkpoint_segments(run, split, before, stretches.lengths, reverse=reverse)
    else:
        outputs, after = run(split, before, stretches.lengths)
    outputs = stretches.join(outputs)
    return _without_padding(outputs, stretches), select(after, _ends(stretches, reverse=reverse))


def _cuts(
    backend: Backend,
    cell: Cell[S],
    inputs: Tensor,
    state: S,
    initial: S,
    lengths: Tensor | None,
    stretches: Stretches,
    noise: Any,
    *,
    reverse: bool,
) -> tuple[Tensor, S]:
    time = inputs.shape[1]
    read = reverse_valid(inputs, lengths) if reverse else inputs
    starts, of_step, marks = stretches.starts(lengths, reverse=reverse)
    first = select(initial, torch.zeros_like(lengths if lengths is not None else starts[:, 0].long()))
    pieces: list[Tensor] = []
    for begin, end in zip((0, *marks), (*marks, time), strict=True):
        state = where(starts[:, begin], first, state)
        within = None if lengths is None else (lengths - begin).clamp(0, end - begin)
        outputs, state = backend.run(cell, read[:, begin:end], state, within, False, _of(noise, of_step[:, begin]))
        pieces.append(outputs)
    outputs = torch.cat(pieces, dim=1)
    return _without_padding(reverse_valid(outputs, lengths) if reverse else outputs, stretches), state


def _of(noise: RecurrentNoise | None, stretches: Tensor) -> RecurrentNoise | None:
    """Return the noise of each row's stretch. Weight drop is the same for all rows."""
    if noise is None:
        return None
    mask = None if noise.state_mask is None else noise.state_mask[stretches]
    return noise._replace(state_mask=mask, masks=tuple(each[stretches] for each in noise.masks))


def _ends(stretches: Stretches, *, reverse: bool) -> Tensor:
    """Return for each row the stretch after which its state is returned."""
    return (stretches.first if reverse else stretches.last).nonzero()[:, 0]


def _without_padding(outputs: Tensor, stretches: Stretches) -> Tensor:
    lengths = (stretches.begin + stretches.lengths)[stretches.last]
    return outputs.masked_fill(~mask_from_lengths(lengths, outputs.shape[1]).unsqueeze(-1), 0.0)
