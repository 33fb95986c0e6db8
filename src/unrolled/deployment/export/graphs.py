"""The graphs that a network is exported as: functions of named tensors, with states as inputs and outputs.

A graph is the same for each target that runs graphs of tensors: ONNX, and programs of torch.export.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unrolled.cells.hooks import has_hooks
from unrolled.heads.base import Head
from unrolled.heads.categorical import CategoricalHead
from unrolled.heads.ctc import CTCHead
from unrolled.heads.labels import LabelsHead
from unrolled.state import leaves, map_state

BATCH, TIME = 3, 5  # sizes of the examples that graphs are recorded with; they run with any others


class Port(NamedTuple):
    """An input of a graph.

    Attributes:
        name: its name.
        example: a tensor that the graph is recorded with.
        axes: names of its first axes; an axis without a name, or with the name "", has the size of the example.
    """

    name: str
    example: Tensor
    axes: tuple[str, ...]


class Graph(NamedTuple):
    """A part of a network that is exported as one program.

    Attributes:
        name: "sequence" for whole sequences, "step" for one step; or a part, such as "encoder".
        module: maps the tensors of `inputs` to a tuple of those of `outputs`.
        inputs: the inputs in order.
        outputs: names of the outputs in order.
        initial: for each input that is a state, the row (features,) before the first step.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    initial: dict[str, Tensor]


class Carried(NamedTuple):
    """A state as inputs and outputs.

    Attributes:
        like: a state of one row.
        names: of its tensors.
        axes: names of the axes of each tensor whose sizes vary.
    """

    like: Any
    names: tuple[str, ...]
    axes: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, state: Any, prefix: str = "state", longer: Any = None) -> "Carried":
        """Name the tensors of a state by its fields: state_0_h, state_0_c, …

        Args:
            state: the state of one row.
            prefix: of the names.
            longer: the same state for a longer source, which shows where a tensor has an axis of the source.
        """
        pairs = zip(leaves(state), leaves(state if longer is None else longer), strict=True)
        long = [[one != other for one, other in zip(leaf.shape, more.shape, strict=True)] for leaf, more in pairs]
        axes = (("batch", *("source" if varies else "" for varies in leaf[1:])) for leaf in long)
        return cls(state, tuple(_names(state, prefix)), tuple(axes))

    @property
    def ports(self) -> tuple[Port, ...]:
        """The inputs."""
        parts = zip(self.names, leaves(self.like), self.axes, strict=True)
        return tuple(Port(name, rows(leaf), axes) for name, leaf, axes in parts)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return tuple(f"next_{name}" for name in self.names)

    @property
    def initial(self) -> dict[str, Tensor]:
        """The values of the inputs before the first step, without the axis of the batch."""
        return {name: leaf[0].detach() for name, leaf in zip(self.names, leaves(self.like), strict=True)}

    def rebuild(self, tensors: Sequence[Tensor]) -> Any:
        """Return a state with given tensors."""
        given = iter(tensors)

        def take(_: Tensor) -> Tensor:
            return next(given)

        return map_state(take, self.like)


class Part(nn.Module):
    """A function of a network and of tensors, as a module that has the network's weights.

    Args:
        network: the network.
        function: is called with the tensors; returns a tuple of tensors.
    """

    def __init__(self, network: nn.Module, function: Callable[..., Sequence[Tensor]]) -> None:
        super().__init__()
        self.network = network
        self._function = function

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Call the function. An output that is an input, or another output, is copied."""
        seen: set[int] = set(map(id, tensors))
        found: list[Tensor] = []
        for tensor in self._function(*tensors):
            found.append(tensor.clone() if id(tensor) in seen else tensor)
            seen.add(id(tensor))
        return tuple(found)


def frozen(network: nn.Module) -> nn.Module:
    """Return a copy of a network on the CPU in evaluation mode, with computed weights as plain parameters.

    Raises:
        ValueError: a part with hooks, which may run any code.
    """
    copied = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    for name, module in list(copied.named_modules()):
        for weight in list(cast("Any", module).parametrizations) if parametrize.is_parametrized(module) else []:
            parametrize.remove_parametrizations(module, weight)
        if has_hooks(module):
            raise ValueError(
                f"{name or type(module).__name__} has hooks, and an exported network has none: remove them, as "
                "torch.nn.utils.prune.remove does"
            )
    return copied


def rows(leaf: Tensor) -> Tensor:
    """Return a tensor of one row as an example with several rows."""
    return leaf.detach().expand(BATCH, *leaf.shape[1:]).clone()


def lengths_port(name: str = "lengths") -> Port:
    """Return the input (batch,) of the numbers of valid steps."""
    return Port(name, torch.tensor([TIME, 2, 0]), ("batch",))


class Read(NamedTuple):
    """What a network reads at a step.

    Attributes:
        size: number of entries.
        dtype: their type.
        axis: name of their axis, where its size varies; "" elsewhere.
    """

    size: int
    dtype: torch.dtype
    axis: str = ""


def steps_port(name: str, read: Read | None, axis: str = "time") -> Port:
    """Return an input (batch, time, entries), or (batch, time) of token ids where `read` is None."""
    return Port(name, _example(read, TIME), ("batch", axis, *(() if read is None else (read.axis,))))


def step_port(name: str, read: Read | None) -> Port:
    """Return an input (batch, entries), or (batch,) of token ids where `read` is None."""
    return Port(name, _example(read), ("batch", *(() if read is None else (read.axis,))))


def stepping(
    network: nn.Module,
    state: Carried,
    outputs: tuple[str, ...],
    inputs: tuple[Port, ...],
    step: Callable[..., list[Tensor]],
) -> Graph:
    """Return the graph of a step, which reads a state after its inputs, and returns the next one after its outputs."""
    return Graph("step", Part(network, step), (*inputs, *state.ports), (*outputs, *state.outputs), state.initial)


def output_of(head: Head) -> str:
    """Return the name of a head's parameters."""
    return "logits" if isinstance(head, CategoricalHead | LabelsHead | CTCHead) else "parameters"


def _example(read: Read | None, *time: int) -> Tensor:
    if read is None:
        return torch.zeros(BATCH, *time, dtype=torch.int64)
    return torch.zeros(BATCH, *time, read.size, dtype=read.dtype)


def _names(state: Any, prefix: str) -> Iterator[str]:
    if isinstance(state, Tensor):
        yield prefix
    elif state is not None:
        fields = getattr(state, "_fields", range(len(state)))
        for field, child in zip(fields, state, strict=True):
            yield from _names(child, f"{prefix}_{field}")
