"""Records what the cells of a network compute: gates, candidates, states and outputs of each layer at each step."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.cells.base import Cell
from unrolled.layers.recurrent import Recurrent
from unrolled.modes import in_backward_pass, recording, transforms
from unrolled.state import leaves


class CellRecord:
    """What one cell computed in one pass over a batch of sequences.

    `record["f"]` is a tensor (batch, time, units) with NaN in the padding. The names are those of the cell's taps, such
    as "i", "f", "o", "g" of an LSTM and "r", "z", "n" of a GRU; those of its state, such as "h" and "c"; "output";
    "projected", the input's contribution to all gates, and "recurrent", that of the state. A step of the backward
    direction stands at the time of its input.

    Attributes:
        cell: the cell's name in the network, such as "core.cells.0".
        layer: index of the layer within its `Recurrent`.
        reverse: whether the cell runs backwards.
        taps: names of the values that the cell shows with `Cell.tap`.
        states: names of the tensors of its state.
        inputs: (batch, time, input), what the cell reads, zero in the padding; None for a cell that is stepped, whose
            inputs are known step by step only.
    """

    def __init__(self, cell: str, layer: int, reverse: bool, places: Tensor | None, inputs: Tensor | None) -> None:
        self.cell = cell
        self.layer = layer
        self.reverse = reverse
        self.inputs = inputs
        self.taps: tuple[str, ...] = ()
        self.states: tuple[str, ...] = ()
        self._places = places
        self._steps: list[dict[str, Tensor]] = []

    def __repr__(self) -> str:
        batch, time = self.mask.shape
        return f"CellRecord({self.cell!r}, batch={batch}, time={time}, names={self.names})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all recorded values."""
        return tuple(dict.fromkeys(name for step in self._steps for name in step))

    @property
    def mask(self) -> Tensor:
        """(batch, time) bool: true where a step is valid."""
        places = self.places
        found = torch.zeros(self._shape[0] * self._shape[1] + 1, dtype=torch.bool, device=places.device)
        found[places.flatten()] = True
        return found[1:].view(self._shape)

    @property
    def places(self) -> Tensor:
        """(rows, steps) int64: for each row and step of the pass its place in (batch × time), from 1; 0 for padding."""
        if self._places is not None:
            return self._places
        rows, steps = len(next(iter(self._steps[0].values()))), len(self._steps)
        return torch.arange(1, rows * steps + 1, device=next(iter(self._steps[0].values())).device).view(rows, steps)

    @property
    def _shape(self) -> tuple[int, int]:
        shape = self.places.shape if self.inputs is None else self.inputs.shape
        return shape[0], shape[1]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Tensor:
        """Return a recorded value (batch, time, units), detached, with NaN in the padding.

        Raises:
            ValueError: an unknown name.
        """
        return self.arrange(self.steps(name)).detach()

    def steps(self, name: str) -> list[Tensor | None]:
        """Return a value of each step, (rows, units), as the cell computed it; None for a step without the value.

        The order is that of the computation, and each stretch between reset marks is a row. With graph=True the tensors
        have their graph. `arrange` brings values of this order to (batch, time, units).

        Raises:
            ValueError: an unknown name.
        """
        if name not in self.names:
            raise ValueError(f"{self.cell} recorded no {name!r}; it recorded {', '.join(self.names)}")
        return [step.get(name) for step in self._steps]

    def arrange(self, steps: Sequence[Tensor | None]) -> Tensor:
        """Bring a value of each step, (rows, …), to (batch, time, …), with NaN in the padding and for None.

        Raises:
            ValueError: another number of steps than the record's, or no value at all.
        """
        known = next((step for step in steps if step is not None), None)
        if known is None or len(steps) != len(self._steps):
            raise ValueError(
                f"there are values of {len(steps)} steps, expected {len(self._steps)}, one of them a tensor"
            )
        batch, time = self._shape
        missing = torch.full_like(_numbers(known), torch.nan)
        stacked = torch.stack([missing if step is None else _numbers(step) for step in steps], dim=1)
        flat = stacked.new_full((batch * time + 1, *stacked.shape[2:]), torch.nan)
        flat = flat.index_put((self.places.flatten(),), stacked.flatten(0, 1))
        return flat[1:].view(batch, time, *stacked.shape[2:])

    def add(self, taps: Mapping[str, Tensor], state: Mapping[str, Tensor], blocks: Mapping[str, Tensor]) -> None:
        """Add a step."""
        self.taps = tuple(dict.fromkeys((*self.taps, *taps)))
        self.states = tuple(dict.fromkeys((*self.states, *state)))
        self._steps.append({**blocks, **state, **taps})


def _numbers(value: Tensor) -> Tensor:
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


class Recording(Mapping[str, CellRecord]):
    """The records of a network's cells, by their names in the network; of several passes of a cell, the last."""

    def __init__(self) -> None:
        self._passes: dict[str, list[CellRecord]] = {}

    def __getitem__(self, name: str) -> CellRecord:
        return self.passes(name)[-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._passes)

    def __len__(self) -> int:
        return len(self._passes)

    def passes(self, name: str) -> list[CellRecord]:
        """Return the records of all passes of a cell, in their order.

        Raises:
            KeyError: a cell that has not run, or that doesn't exist.
        """
        if name not in self._passes:
            ran = ", ".join(self._passes) or "none: run the network within the context"
            raise KeyError(f"{name!r} is not a cell that ran; those are {ran}")
        return self._passes[name]

    def add(self, record: CellRecord) -> None:
        """Add the record of a pass."""
        self._passes.setdefault(record.cell, []).append(record)


@contextmanager
def record(network: nn.Module, *, graph: bool = False) -> Generator[Recording]:
    """Record what the cells of a network compute within the context.

    For example::

        with record(network) as recording:
            network(inputs, lengths=lengths)
        recording["cells.0"]["f"]  # the forget gates of the first layer, (batch, time, units)

    Any network with cells can be recorded, also one with cells of your own: without taps they show their states,
    outputs and blocks. The values are those of the backend "loop", which all layers use while they are recorded, and
    recompute is off. What a backward pass computes again is not recorded. Single steps through `step` are recorded as
    one sequence, until the next pass over whole sequences.

    Args:
        network: a network, or a cell, whose name is then "cell".
        graph: whether the values keep their graph, so that gradients with respect to them can be computed. `inputs`
            then require gradients. By default they are copies.

    Raises:
        ValueError: a network without cells, one that is recorded already, one compiled with torch.compile; in the
            context a search or sampling, a transform of torch.func, torch.jit.trace, or a value of another batch.
    """
    cells = {name or "cell": module for name, module in network.named_modules() if isinstance(module, Cell)}
    if not cells:
        raise ValueError(f"{type(network).__name__} has no recurrent cell to record")
    _check(network, cast("Mapping[str, Cell[Any]]", cells))
    layers = _layers(network)
    found = Recording()
    try:
        for name, cell in cells.items():
            cell.observer = _CellObserver(name, layers.get(id(cell), 0), found, graph=graph)
        yield found
    finally:
        for cell in cells.values():
            if "observer" in vars(cell):
                del cell.observer


def _check(network: nn.Module, cells: Mapping[str, Cell[Any]]) -> None:
    for name, module in network.named_modules():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(
                f"{name or 'the network'} is compiled with torch.compile, which computes no step on its own; record "
                "the network that was compiled"
            )
    recorded = [name for name, cell in cells.items() if cell.observer is not None]
    if recorded:
        raise ValueError(f"{recorded[0]} is recorded already; use that recording, or leave its context first")


def _layers(network: nn.Module) -> dict[int, int]:
    """Return the layer of each cell that is part of a `Recurrent`, by the id of the cell."""
    stacks = [module for module in network.modules() if isinstance(module, Recurrent)]
    lists = (cells for stack in stacks for cells in (stack.cells, stack.reverse_cells))
    return {id(cell): layer for cells in lists for layer, cell in enumerate(cells)}


class _CellObserver:
    """Receives the values of one cell; see `unrolled.cells.observer.Observer`."""

    def __init__(self, name: str, layer: int, recording: Recording, *, graph: bool) -> None:
        self.name, self.layer, self.recording, self.graph = name, layer, recording, graph
        self.present: CellRecord | None = None  # of the pass over whole sequences that is under way
        self.stepped: CellRecord | None = None  # of single steps so far
        self.taps: dict[str, Tensor] | None = None  # of the step that is under way

    @contextmanager
    def sequences(self, places: Tensor, inputs: Tensor, *, reverse: bool) -> Generator[Tensor]:
        if self.graph and not inputs.requires_grad:
            inputs = inputs.detach().requires_grad_()
        with self._pass(places, inputs, reverse=reverse):
            yield inputs

    @contextmanager
    def steps(self, places: Tensor) -> Generator[None]:
        with self._pass(places, None, reverse=False):
            yield

    @contextmanager
    def _pass(self, places: Tensor, inputs: Tensor | None, *, reverse: bool) -> Generator[None]:
        if in_backward_pass():
            yield
            return
        self._check_modes()
        self.present, self.stepped = CellRecord(self.name, self.layer, reverse, places, inputs), None
        try:
            yield
            self.recording.add(self.present)
        finally:
            self.present = None

    def step(self, cell: Cell[Any], projected: Tensor, state: Any, noise: Any) -> tuple[Tensor, Any]:
        if in_backward_pass():
            return cell.step(projected, state, noise)
        self.taps = {}
        try:
            output, after = cell.step(projected, state, noise)
            blocks = {"projected": projected, "output": output}
            record = self._record(len(output))
            parts = self.taps, named_leaves(after), blocks
            self._check_names(*parts)
            record.add(*({n: self._kept(n, value, len(output)) for n, value in part.items()} for part in parts))
        finally:
            self.taps = None
        return output, after

    def tapped(self, name: str, value: Tensor) -> None:
        if self.taps is None:  # outside of a step, or computed again in a backward pass
            return
        if name in self.taps:
            raise ValueError(f"{self.name} taps {name!r} twice in a step; give each value a name of its own")
        self.taps[name] = value

    def _record(self, rows: int) -> CellRecord:
        """Return the record that the present step belongs to."""
        if self.present is not None:
            return self.present
        if self.stepped is None or self.stepped.places.shape[0] != rows:
            self._check_modes()
            self.stepped = CellRecord(self.name, self.layer, False, None, None)
            self.recording.add(self.stepped)
        return self.stepped

    def _check_names(self, taps: Mapping[str, Tensor], *others: Mapping[str, Tensor]) -> None:
        for other in others:
            for name in taps.keys() & other.keys():
                if taps[name] is not other[name]:
                    raise ValueError(f"{self.name} taps {name!r}, the name of another value; give it another name")

    def _kept(self, name: str, value: Tensor, rows: int) -> Tensor:
        if value.dim() == 0 or len(value) != rows:
            raise ValueError(
                f"{name!r} of {self.name} has the shape {tuple(value.shape)}, expected {rows} rows: a value for each "
                "sequence of the batch"
            )
        return value if self.graph else value.detach().clone()

    def _check_modes(self) -> None:
        if transforms() or recording():
            how = "torch.jit.trace" if recording() else "a transform of torch.func, or forward-mode differentiation"
            raise ValueError(f"a network can't be recorded within {how}; run it without")
        if self.graph and not torch.is_grad_enabled():
            raise ValueError("record(…, graph=True) needs gradients, which are disabled; leave no_grad, or graph=False")


def named_leaves(state: Any) -> dict[str, Tensor]:
    """Return the tensors of a state by name: those of named tuples by field, in nested states with "_l" and an index.

    A state that is one tensor is "state".
    """
    if isinstance(state, Tensor):
        return {"state": state}
    if hasattr(state, "_fields"):
        fields = zip(state._fields, state, strict=True)
        return {
            name if isinstance(value, Tensor) else f"{name}_{inner}": leaf
            for name, value in fields
            for inner, leaf in named_leaves(value).items()
        }
    if isinstance(state, tuple):
        parts = enumerate(cast("tuple[Any, ...]", state))
        return {f"{name}_l{index}": leaf for index, part in parts for name, leaf in named_leaves(part).items()}
    return {f"state_{index}": leaf for index, leaf in enumerate(leaves(state))}
