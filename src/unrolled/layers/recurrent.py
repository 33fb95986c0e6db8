"""Cells through time: one layer in one direction (`unroll`), and stacks of them in one or two (`Recurrent`)."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from unrolled.backends import BackendChoice, check_name, choose
from unrolled.backends.running import run, run_both
from unrolled.cells.base import Cell
from unrolled.cells.hooks import hooked, settled
from unrolled.layers.dropout import SequenceDropout
from unrolled.sequences import all_full, mask_from_lengths
from unrolled.shapes import expect
from unrolled.state import check, leaves, outline, rebuild

S = TypeVar("S")


class _Ragged(NamedTuple):
    """Where sequences end: lengths (batch,) int64, and padding (batch, time, 1), true behind the end."""

    lengths: Tensor
    padding: Tensor


def unroll(
    cell: Cell[S],
    inputs: Tensor,
    state: S | None = None,
    lengths: Tensor | None = None,
    *,
    reverse: bool = False,
    backend: str = "auto",
    recompute: bool = False,
) -> tuple[Tensor, S]:
    """Run a cell over sequences.

    Args:
        cell: any cell.
        inputs: (batch, time, input). What stands behind a sequence's end never matters, not even NaN.
        state: before the first step; `cell.initial_state` by default.
        lengths: (batch,) integers from 0 to time, on any device; all of time by default.
        reverse: read from the last valid step to the first.
        backend: "auto", "compiled", "fused" or "loop". Results are the same.
        recompute: keep for the backward pass only the states between √time stretches of √time steps, and run each
            stretch again on the way back.

    Returns:
        The outputs (batch, time, output), zero in the padding, and the state behind each sequence's last step (in
        reverse, its first). Reversed outputs stay aligned with the inputs: the one at t has read t and everything
        behind it.

    Raises:
        ShapeError: inputs, state or lengths of the wrong shape.
        ValueError: a state of another structure, dtype or device than the cell's own, lengths that are not integers
            from 0 to time (on CUDA the range is not checked, since that would wait for the device), or a backend that
            cannot run this cell.
    """
    expect(inputs, "batch time input", input=cell.input_size, name="inputs")
    if state is None:
        state = cell.initial_state(inputs.shape[0], like=inputs)
    else:
        check(state, outline(cell.initial_state(1, like=inputs), like=inputs), like=inputs)
    ragged = _ragged(inputs, lengths)
    if ragged is not None:
        inputs = inputs.masked_fill(ragged.padding, 0.0)
    return run(cell, inputs, state, None if ragged is None else ragged.lengths, reverse, backend, recompute)


def _ragged(inputs: Tensor, lengths: Tensor | None) -> _Ragged | None:
    """Check lengths; None where it costs nothing to see that there is no padding."""
    if lengths is None:
        return None
    batch, time = inputs.shape[:2]
    if all_full(lengths, batch, time):
        return None
    lengths = lengths.to(inputs.device, torch.int64)
    return _Ragged(lengths, ~mask_from_lengths(lengths, time).unsqueeze(-1))


class StackNoise(NamedTuple):
    """Noise of one pass through all layers, the same at each step.

    cells: what each layer's cell gets as noise.
    between: (batch, features) for each layer, multiplies its inputs; None for none.
    """

    cells: tuple[Any, ...]
    between: tuple[Tensor | None, ...]


class Recurrent(nn.Module):
    """Layers of cells, in one direction or two: (batch, time, input) -> (batch, time, output).

    A state is a tuple with one entry per layer: the cell's state or, in two directions, the pair (forward, backward).

    Args:
        cell: makes a cell from its input and hidden size: a class, or a partial of one with options.
        input_size: features of an input.
        hidden_size: units of each cell.
        num_layers: layers, each on the outputs of the one below.
        dropout: probability of an output to be dropped on its way to the next layer, in training mode; not behind the
            last layer, so a single one has none (Zaremba et al. 2014, "Recurrent Neural Network Regularization").
        variational_dropout: drop the same features at all steps of a pass (Gal & Ghahramani 2016).
        residual: a layer whose input and output have equal sizes adds its input to its output, before any dropout
            (Wu et al. 2016, "Google's Neural Machine Translation System", eq. 6).
        bidirectional: run each layer in both directions and join their outputs.
        learned_initial_state: the state before the first step is a parameter, which begins at the cell's own.
        backend: "auto", "compiled", "fused" or "loop"; see `choices`.
        recompute: a layer keeps for its backward pass its inputs, its outputs and the states between √time stretches
            of √time steps; the rest is computed again, which costs another forward pass.

    Raises:
        ValueError: a size or number below one, a probability outside [0, 1), an unknown backend.
    """

    def __init__(
        self,
        cell: Callable[[int, int], Cell[Any]],
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        dropout: float = 0.0,
        variational_dropout: bool = False,
        residual: bool = False,
        bidirectional: bool = False,
        learned_initial_state: bool = False,
        backend: str = "auto",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers is {num_layers}, expected 1 or more")
        check_name(backend)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = SequenceDropout(dropout, variational=variational_dropout)
        self.residual = residual
        self.bidirectional = bidirectional
        self.backend = backend
        self.recompute = recompute
        self.cells = nn.ModuleList()
        self.reverse_cells = nn.ModuleList()
        self.output_size = input_size
        for _ in range(num_layers):
            directions = [cell(self.output_size, hidden_size) for _ in range(1 + bidirectional)]
            self.cells.append(directions[0])
            self.reverse_cells.extend(directions[1:])
            self.output_size = sum(direction.output_size for direction in directions)
        like = torch.empty(0, dtype=torch.bfloat16)  # no cell asks for it by name, so it tells "that of the inputs"
        self._outline = outline(self._cells_state(1, like), like=like)
        self.initial = nn.ParameterList()
        if learned_initial_state:
            like = next(self.cells.parameters())
            first = zip(leaves(self._cells_state(1, like)), self.learnable_state(), strict=True)
            self.initial.extend(nn.Parameter(leaf[0].clone()) for leaf, learned in first if learned)

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Any, ...]:
        """The state before the first step, on the device and in the dtype of `like`."""
        state = self._cells_state(batch, like)
        if len(self.initial) == 0:
            return state
        learned = iter(self.initial)
        own = zip(leaves(state), self.learnable_state(), strict=True)
        return rebuild(state, [next(learned).to(like).expand_as(leaf) if free else leaf for leaf, free in own])

    def learnable_state(self) -> list[bool]:
        """For each tensor of a state, in the order of `leaves`, whether it may be learned: counters may not."""
        like = torch.empty(0)
        cells = [cell for layer in self._layers() for cell in layer]
        return [n not in cell.counters for cell in cells for n in range(len(leaves(cell.initial_state(1, like=like))))]

    def _cells_state(self, batch: int, like: Tensor) -> tuple[Any, ...]:
        states = [[cell.initial_state(batch, like=like) for cell in layer] for layer in self._layers()]
        return tuple(tuple(layer) if self.bidirectional else layer[0] for layer in states)

    def _layers(self) -> list[list[Cell[Any]]]:
        """The cells of each layer: forward or (forward, backward)."""
        stacks = (self.cells, self.reverse_cells) if self.bidirectional else (self.cells,)
        return cast("list[list[Cell[Any]]]", [list(layer) for layer in zip(*stacks, strict=True)])

    def forward(
        self, inputs: Tensor, state: tuple[Any, ...] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Run all layers over sequences; arguments and returns are those of `unroll`, but for the layers in the state.

        Raises:
            ShapeError: inputs, state or lengths of the wrong shape.
            ValueError: a state of another structure, dtype or device, lengths out of range, a backend that cannot run a
                cell.
        """
        expect(inputs, "batch time input", input=self.input_size, name="inputs")
        state = self._checked_state(state, inputs)
        ragged = _ragged(inputs, lengths)
        values = inputs if ragged is None else inputs.masked_fill(ragged.padding, 0.0)
        ends = None if ragged is None else ragged.lengths
        final: list[Any] = []
        for layer, (cells, before) in enumerate(zip(self._layers(), state, strict=True)):
            dropped = values if layer == 0 else self.dropout(values)
            if self.bidirectional:
                outputs, after = run_both(cells, dropped, before, ends, self.backend, self.recompute)
            else:
                outputs, after = run(cells[0], dropped, before, ends, False, self.backend, self.recompute)
            final.append(after)
            values = self._join(values, outputs)
        return values, tuple(final)

    def step(
        self, inputs: Tensor, state: tuple[Any, ...], noise: StackNoise | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """One step through all layers: (batch, input) -> (batch, output) and the next state.

        In evaluation mode it equals `forward`, step by step. In training mode it draws fresh noise, unless it is given
        some from `noise`: who steps through a sequence draws once and hands it to each step.

        Raises:
            ShapeError: inputs or state of the wrong shape.
            ValueError: a state of another structure, dtype or device; two directions, which know no next step.
        """
        if self.bidirectional:
            raise ValueError("a bidirectional network cannot step: its backward direction begins at the end")
        expect(inputs, "batch input", input=self.input_size, name="inputs")
        state = self._checked_state(state, inputs)
        noise = noise or self.noise(inputs.shape[0], like=inputs)
        return self.advance(None, state, noise, inputs)

    def advance(
        self, projected: Tensor | None, state: tuple[Any, ...], noise: StackNoise, inputs: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """`step` without its checks, from what the first cell projects: for who has projected many steps at once.

        Args:
            projected: (batch, ...), from the first cell's `project`; None to project the inputs here, which a cell
                with hooks needs.
            state: before the step.
            noise: from `noise`, or one of `noises`.
            inputs: (batch, input), which a residual first layer adds to its output; None leaves that out.
        """
        values: Any = inputs
        final: list[Any] = []
        for layer, ((cell,), before, of_cell, mask) in enumerate(zip(self._layers(), state, *noise, strict=True)):
            given = projected if layer == 0 else None
            read = values if mask is None else values * mask
            if not hooked(cell):
                output, after = cell.step(cell.project(read) if given is None else given, before, of_cell)
            elif given is None:
                output, after = _called(cell, read, before, of_cell)
            else:
                raise ValueError(
                    f"{type(cell).__name__} has hooks: let it project the inputs here, with projected=None"
                )
            final.append(after)
            values = output if values is None else self._join(values, output)
        return values, tuple(final)

    def noises(self, batch: int, time: int, *, like: Tensor) -> list[StackNoise]:
        """The noise of each step of one pass: as `noise`, but new between the layers where `forward` draws anew."""
        noise = self.noise(batch, like=like)
        if self.dropout.variational or not self.dropout.active:
            return [noise] * time
        shapes = (None if mask is None else mask.new_ones(batch, time, mask.shape[1]) for mask in noise.between)
        masks = [None if ones is None else self.dropout(ones).unbind(1) for ones in shapes]
        between = ([None if mask is None else mask[step] for mask in masks] for step in range(time))
        return [noise._replace(between=tuple(of_step)) for of_step in between]

    def noise(self, batch: int, *, like: Tensor) -> StackNoise:
        """The noise of one pass, for `step`: every step that gets it drops the same."""
        cells = [layer[0] for layer in self._layers()]
        if self.training:
            for cell in cells:
                _check_noise(cell)
        masks = (self.dropout(like.new_ones(batch, 1, cell.input_size))[:, 0] for cell in cells[1:])
        between = (None, *masks) if self.dropout.active else (None,) * self.num_layers
        return StackNoise(tuple(cell.noise(batch, like=like) for cell in cells), between)

    def backend_choices(self, inputs: Tensor, *, ragged: bool = False) -> list[BackendChoice]:
        """Which backend each layer takes on inputs (batch, time, input) in the present mode, and why."""
        batch, time = inputs.shape[:2]
        firsts = [settled(layer[0]) for layer in self._layers()]
        layer_inputs = [inputs.new_empty(1, 1, 1).expand(batch, time, cell.input_size) for cell in firsts]
        pairs = zip(firsts, layer_inputs, strict=True)
        return [choose(self.backend, cell, values, ragged=ragged) for cell, values in pairs]

    def extra_repr(self) -> str:
        options = ("residual", "bidirectional", "recompute")
        return ", ".join([f"backend={self.backend}", *(f"{o}={getattr(self, o)}" for o in options if getattr(self, o))])

    def _join(self, values: Tensor, outputs: Tensor) -> Tensor:
        return outputs + values if self.residual and outputs.shape == values.shape else outputs

    def _checked_state(self, state: tuple[Any, ...] | None, inputs: Tensor) -> tuple[Any, ...]:
        if state is None:
            return self.initial_state(inputs.shape[0], like=inputs)
        self.check_state(state, like=inputs)
        return state

    def check_state(self, state: Any, *, like: Tensor, name: str = "state") -> None:
        """Check a state against the network's own, as `forward` and `step` do; see `unrolled.state.check`.

        Raises:
            ShapeError: a tensor of another shape.
            ValueError: another structure, dtype or device.
        """
        check(state, self._outline, like=like, name=name)


def _called(cell: Cell[S], inputs: Tensor, state: S, noise: Any) -> tuple[Tensor, S]:
    """One step from raw inputs (batch, input) and drawn noise, as a call of the cell, which its hooks wait for."""

    def through(inputs: Tensor, state: S) -> tuple[Tensor, S]:
        return cell.step(cell.project(inputs), state, noise)

    return cell(inputs, state, through=through)


def _check_noise(cell: Any) -> None:
    if hooked(cell) and cell.training and getattr(cell, "weight_drop", 0.0) > 0.0:
        raise ValueError(
            f"weight_drop={cell.weight_drop} drops weights before the hooks of {type(cell).__name__} compute them; "
            "take torch.nn.utils.parametrizations instead of hooks, or weight_drop=0"
        )
