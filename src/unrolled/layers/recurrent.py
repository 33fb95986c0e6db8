"""Recurrent layers: one cell over time (`unroll`), and stacks of cells in one or two directions (`Recurrent`)."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from unrolled.backends import BackendChoice, check_name, choose
from unrolled.backends.running import Marked, run, run_both
from unrolled.backends.stepping import step_layers
from unrolled.cells.base import Cell
from unrolled.cells.hooks import freeze_computed_weights, has_hooks
from unrolled.layers.dropout import SequenceDropout
from unrolled.modes import direct
from unrolled.resets import Stretches
from unrolled.sequences import all_full, mask_from_lengths
from unrolled.shapes import expect
from unrolled.state import check, leaves, outline, rebuild, where

S = TypeVar("S")


class _Ragged(NamedTuple):
    """The ends of sequences: lengths (batch,) int64, and padding (batch, time, 1), true after the end."""

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
        inputs: (batch, time, input). Values after the end of a sequence have no effect, not even NaN.
        state: the state before the first step; `cell.initial_state` by default.
        lengths: (batch,) integers from 0 to time, on any device; the full time by default.
        reverse: whether to run from the last valid step to the first.
        backend: "auto", "compiled", "fused" or "loop". The results are the same.
        recompute: whether to store for the backward pass only the states between √time segments of √time steps, and to
            run each segment again in the backward pass.

    Returns:
        The outputs (batch, time, output), zero in the padding, and the state after each sequence's last step (with
        `reverse`, its first). Reversed outputs are aligned with the inputs: the output at t depends on the inputs from
        t on.

    Raises:
        ShapeError: inputs, state or lengths of the wrong shape.
        ValueError: a state of another structure, dtype or device than the cell's own, lengths that are not integers
            from 0 to time (on CUDA the range is not checked, since that would synchronize), or a backend that cannot
            run this cell.
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
    """Check lengths, and return the ends of sequences; None if there is known to be no padding."""
    if lengths is None:
        return None
    batch, time = inputs.shape[:2]
    if all_full(lengths, batch, time):
        return None
    lengths = lengths.to(inputs.device, torch.int64)
    return _Ragged(lengths, ~mask_from_lengths(lengths, time).unsqueeze(-1))


class StackNoise(NamedTuple):
    """Noise of all layers, which stays the same for all steps of a sequence.

    cells: the noise of each layer's cell.
    between: for each layer, a mask (batch, features) for its inputs; None for no mask.
    outputs: for each layer, a mask (batch, features) for its outputs before they are added to the inputs, likewise.
    """

    cells: tuple[Any, ...]
    between: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]


class Recurrent(nn.Module):
    """Layers of cells, in one direction or two: (batch, time, input) -> (batch, time, output).

    A state is a tuple with one entry per layer: the cell's state or, in two directions, the pair (forward, backward).

    Args:
        cell: creates a cell, given its input and hidden size: a class, or a partial of a class with options.
        input_size: number of input features.
        hidden_size: number of units of each cell.
        num_layers: number of layers, each of which takes the outputs of the previous one.
        dropout: probability that an output is dropped before the next layer, in training mode. The outputs of the last
            layer are not dropped (Zaremba et al. 2014, "Recurrent Neural Network Regularization").
        variational_dropout: whether all steps of a sequence share one dropout mask (Gal & Ghahramani 2016).
        residual: whether a layer with equal input and output sizes adds its input to its output, before dropout (Wu et
            al. 2016, "Google's Neural Machine Translation System", eq. 6).
        residual_dropout: probability that an output is dropped before it is added to the layer's input, in training
            mode (Vaswani et al. 2017, "Attention Is All You Need", section 5.4). It applies to the outputs of every
            layer, the last and those of other sizes included: one more than `dropout` has.
        bidirectional: whether each layer runs in both directions and concatenates their outputs.
        learned_initial_state: whether the state before the first step is a parameter, initialized with the cell's own
            initial state.
        backend: "auto", "compiled", "fused" or "loop"; see `backend_choices`.
        recompute: whether a layer stores for its backward pass only its inputs, its outputs and the states between
            √time segments of √time steps, and computes the rest again, which costs a second forward pass.

    Raises:
        ValueError: a size or number below one, a probability outside [0, 1), an unknown backend, residual_dropout
            without residual.
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
        residual_dropout: float = 0.0,
        bidirectional: bool = False,
        learned_initial_state: bool = False,
        backend: str = "auto",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers is {num_layers}, expected 1 or more")
        check_name(backend)
        if residual_dropout and not residual:
            raise ValueError(
                f"residual_dropout={residual_dropout} drops outputs before a residual sum: set residual=True, or use "
                "dropout"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = SequenceDropout(dropout, variational=variational_dropout)
        self.residual = residual
        self.residual_dropout = SequenceDropout(residual_dropout, variational=variational_dropout)
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
        # A leaf with this dtype has the dtype of the inputs, since no cell uses bfloat16 explicitly.
        like = torch.empty(0, dtype=torch.bfloat16)
        self._outline = outline(self._cells_state(1, like), like=like)
        self.initial = nn.ParameterList()
        if learned_initial_state:
            like = next(self.cells.parameters())
            first = zip(leaves(self._cells_state(1, like)), self.learnable_state(), strict=True)
            self.initial.extend(nn.Parameter(leaf[0].clone()) for leaf, learned in first if learned)

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Any, ...]:
        """Return the state before the first step, with the device and the dtype of `like`."""
        state = self._cells_state(batch, like)
        if len(self.initial) == 0:
            return state
        learned = iter(self.initial)
        own = zip(leaves(state), self.learnable_state(), strict=True)
        return rebuild(state, [next(learned).to(like).expand_as(leaf) if free else leaf for leaf, free in own])

    def learnable_state(self) -> list[bool]:
        """Return, for each tensor of a state in the order of `leaves`, whether it can be learned; counters can't."""
        like = torch.empty(0)
        cells = [cell for layer in self._layers() for cell in layer]
        return [n not in cell.counters for cell in cells for n in range(len(leaves(cell.initial_state(1, like=like))))]

    def _cells_state(self, batch: int, like: Tensor) -> tuple[Any, ...]:
        states = [[cell.initial_state(batch, like=like) for cell in layer] for layer in self._layers()]
        return tuple(tuple(layer) if self.bidirectional else layer[0] for layer in states)

    def _layers(self) -> list[list[Cell[Any]]]:
        """Return the cells of each layer: forward, or forward and backward."""
        stacks = (self.cells, self.reverse_cells) if self.bidirectional else (self.cells,)
        return cast("list[list[Cell[Any]]]", [list(layer) for layer in zip(*stacks, strict=True)])

    def forward(
        self,
        inputs: Tensor,
        state: tuple[Any, ...] | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | Stretches | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Run all layers over sequences. Arguments and results are those of `unroll`, except that the state has layers.

        Args:
            inputs: (batch, time, input).
            state: the state before the first step; `initial_state` by default.
            lengths: (batch,) numbers of valid steps; the full time by default.
            resets: (batch, time) bool, true where a new sequence begins within a row: its first step starts from
                `initial_state`, and the backward direction of the sequence before starts there, too. The results are
                those of separate sequences; noise is drawn for each of them. Or the `Stretches` of such marks, for
                which CUDA need not wait.

        Raises:
            ShapeError: inputs, state, lengths or marks of the wrong shape.
            ValueError: a state of another structure, dtype or device, lengths out of range, marks that are not bool, a
                backend that cannot run a cell.
        """
        expect(inputs, "batch time input", input=self.input_size, name="inputs")
        state = self._checked_state(state, inputs)
        ragged = _ragged(inputs, lengths)
        values = inputs if ragged is None else inputs.masked_fill(ragged.padding, 0.0)
        ends = None if ragged is None else ragged.lengths
        stretches, state = self._marked(inputs, state, ends, resets)
        final: list[Any] = []
        for layer, (cells, before) in enumerate(zip(self._layers(), state, strict=True)):
            dropped = values if layer == 0 else self.dropout(values, stretches)
            marked = None if stretches is None else Marked(stretches, self.initial_state(1, like=inputs)[layer])
            if self.bidirectional:
                outputs, after = run_both(cells, dropped, before, ends, self.backend, self.recompute, marked)
            else:
                outputs, after = run(cells[0], dropped, before, ends, False, self.backend, self.recompute, marked)
            final.append(after)
            values = self._join(values, self.residual_dropout(outputs, stretches))
        return values, tuple(final)

    def _marked(
        self, inputs: Tensor, state: tuple[Any, ...], ends: Tensor | None, resets: Tensor | Stretches | None
    ) -> tuple[Stretches | None, tuple[Any, ...]]:
        """Return the stretches of marks, None for one sequence per row, and the state with first marks applied."""
        if resets is None:
            return None, state
        if not isinstance(resets, Stretches):
            expect(resets, "batch time", batch=inputs.shape[0], time=inputs.shape[1], name="resets")
            resets = Stretches.of(resets.to(inputs.device), ends)
        stretches = resets.to(inputs.device)
        stretches.check(*inputs.shape[:2])
        if stretches.split_rows:
            return stretches, state
        # Marks at first steps alone: only the forward direction begins there.
        initial = self.initial_state(inputs.shape[0], like=inputs)
        fresh = stretches.fresh
        if not self.bidirectional:
            return None, where(fresh, initial, state)
        pairs = zip(initial, state, strict=True)
        return None, tuple((where(fresh, own[0], given[0]), given[1]) for own, given in pairs)

    def step(
        self, inputs: Tensor, state: tuple[Any, ...], noise: StackNoise | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Compute one step of all layers: the output (batch, output) for an input (batch, input), and the next state.

        In evaluation mode, repeated steps equal `forward`. Without gradients, "auto" calls torch.lstm_cell and its like
        for few rows, and compiled kernels otherwise. In training mode a step draws new noise, unless it is called with
        noise. To use the same noise for all steps of a sequence, draw it once with `noise`.

        Raises:
            ShapeError: inputs or state of the wrong shape.
            ValueError: a state of another structure, dtype or device; a bidirectional network.
        """
        if self.bidirectional:
            raise ValueError("a bidirectional network cannot step: its backward direction starts at the end")
        if noise is None and self.backend != "loop" and direct():
            found = self.step_directly(None, state, inputs)
            if found is not None:  # with the checks of the kernels
                return found
        expect(inputs, "batch input", input=self.input_size, name="inputs")
        state = self._checked_state(state, inputs)
        noise = noise or self.noise(inputs.shape[0], like=inputs)
        return self.advance(None, state, noise, inputs)

    def advance(
        self, projected: Tensor | None, state: tuple[Any, ...], noise: StackNoise, inputs: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Compute a step as `step` does, without checks, and optionally from a projected input.

        It is meant for callers that project many steps at once.

        Args:
            projected: (batch, ...), the result of the first cell's `project`; None to project `inputs`, which a cell
                with hooks requires.
            state: the state before the step.
            noise: the result of `noise`, or an item of `noises`.
            inputs: (batch, input), which a residual first layer adds to its output; None for no residual connection.
        """
        if self.backend != "loop" and direct() and all(part is None for parts in noise for part in parts):
            found = self.step_directly(projected, state, inputs)
            if found is not None:
                return found
        values: Any = inputs
        final: list[Any] = []
        layers = zip(self._layers(), state, *noise, strict=True)
        for layer, ((cell,), before, of_cell, mask, of_output) in enumerate(layers):
            given = projected if layer == 0 else None
            read = values if mask is None else values * mask
            if not has_hooks(cell):
                output, after = cell.observed_step(cell.project(read) if given is None else given, before, of_cell)
            elif given is None:
                output, after = _call_with_hooks(cell, read, before, of_cell)
            else:
                raise ValueError(f"{type(cell).__name__} has hooks: pass inputs and projected=None")
            final.append(after)
            output = output if of_output is None else output * of_output
            values = output if values is None else self._join(values, output)
        return values, tuple(final)

    def step_directly(
        self, projected: Tensor | None, state: Any, inputs: Tensor | None
    ) -> tuple[Tensor, tuple[Any, ...]] | None:
        """Compute a step without noise on the shortest path, where `modes.direct` is true; see `step_layers`.

        Returns:
            The output and the next state. None if there is no such path, in training mode, and for an argument that
            `step` refuses.
        """
        modules: dict[str, Any] = vars(self)["_modules"]  # faster than attributes
        if self.bidirectional or modules["dropout"].training or modules["residual_dropout"].training:
            return None
        cells: dict[str, Any] = vars(modules["cells"])["_modules"]
        join = self._join if self.residual else None
        return step_layers(cells.values(), projected, state, inputs, self.backend, join)

    def noises(self, batch: int, time: int, *, like: Tensor) -> list[StackNoise]:
        """Draw the noise of each step of a sequence, with a new dropout mask per step unless dropout is variational."""
        noise = self.noise(batch, like=like)
        between = [self.dropout.step_masks(mask, time) for mask in noise.between]
        outputs = [self.residual_dropout.step_masks(mask, time) for mask in noise.outputs]
        steps = zip(zip(*between, strict=True), zip(*outputs, strict=True), strict=True)
        return [StackNoise(noise.cells, *masks) for masks in steps]

    def noise(self, batch: int, *, like: Tensor) -> StackNoise:
        """Draw the noise of a whole sequence, for `step`."""
        cells = [layer[0] for layer in self._layers()]
        if self.training:
            for cell in cells:
                _check_noise(cell)
        between = [self.dropout.mask(batch, cell.input_size, like=like) for cell in cells[1:]]
        outputs = [self.residual_dropout.mask(batch, cell.output_size, like=like) for cell in cells]
        return StackNoise(tuple(cell.noise(batch, like=like) for cell in cells), (None, *between), tuple(outputs))

    def backend_choices(self, inputs: Tensor, *, ragged: bool = False) -> list[BackendChoice]:
        """Return each layer's backend for inputs (batch, time, input) in the present mode, with the reason."""
        batch, time = inputs.shape[:2]
        firsts = [freeze_computed_weights(layer[0]) for layer in self._layers()]
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
        """Check a state, as `forward` and `step` do; see `unrolled.state.check`.

        Raises:
            ShapeError: a tensor of another shape.
            ValueError: another structure, dtype or device.
        """
        check(state, self._outline, like=like, name=name)


def _call_with_hooks(cell: Cell[S], inputs: Tensor, state: S, noise: Any) -> tuple[Tensor, S]:
    """Compute one step from inputs (batch, input) and given noise through a call of the cell, so that its hooks run."""

    def through(inputs: Tensor, state: S) -> tuple[Tensor, S]:
        return cell.observed_step(cell.project(inputs), state, noise)

    return cell(inputs, state, through=through)


def _check_noise(cell: Any) -> None:
    if has_hooks(cell) and cell.training and getattr(cell, "weight_drop", 0.0) > 0.0:
        raise ValueError(
            f"weight_drop={cell.weight_drop} drops weights before the hooks of {type(cell).__name__} compute them; "
            "use torch.nn.utils.parametrizations instead of hooks, or weight_drop=0"
        )
