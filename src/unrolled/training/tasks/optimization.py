"""Optimizer, learning rate schedule and penalties, which all tasks take."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unrolled.training.tasks.schedules import Schedule

ParameterGroups = Sequence[tuple[Iterable[nn.Parameter], dict[str, Any]]]


@dataclass(frozen=True)
class Optimization:
    """How a network is trained.

    Attributes:
        optimizer: a partial that is called with parameter groups; None for a task that only scores.
        schedule: learning rate schedule; None for a constant rate.
        l1: weight of Σ|w| over the weight matrices (not biases), added to the loss.
        l2: weight of ½ Σw², likewise. An optimizer's weight_decay is the decoupled or built-in alternative.
        groups: optimizer options of parts of the network by name, such as {"encoder.embedding": {"lr": 1e-3}}; the
            longest matching name counts.

    Raises:
        ValueError: a negative penalty, a group without options.
    """

    optimizer: Callable[[Iterable[Any]], Optimizer] | None = None
    schedule: Schedule | None = None
    l1: float = 0.0
    l2: float = 0.0
    groups: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        for name, options in (self.groups or {}).items():
            if not isinstance(options, Mapping) or not options:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"groups.{name}={options!r}: expected options of the optimizer, such as {{lr: 0.001}}")
        if not (0 <= self.l1 < float("inf") and 0 <= self.l2 < float("inf")):
            raise ValueError(f"l1={self.l1}, l2={self.l2}: expected finite weights, 0 or more; 0 for no penalty")

    def penalty(self, network: nn.Module) -> Tensor | float:
        """Returns the L1 and L2 terms, which are added to the mean loss."""
        if self.l1 == 0 and self.l2 == 0:
            return 0.0
        weights = [p for p in network.parameters() if p.dim() > 1]
        absolute = torch.stack([w.abs().sum() for w in weights]).sum() if self.l1 else 0.0
        square = torch.stack([w.square().sum() for w in weights]).sum() if self.l2 else 0.0
        return self.l1 * absolute + 0.5 * self.l2 * square

    def split(self, network: nn.Module, parameters: ParameterGroups) -> ParameterGroups:
        """Divides parameter groups by `groups`. The parts with their own options come last.

        Raises:
            ValueError: a name without parameters that are trained.
        """
        if not self.groups:
            return parameters
        names = sorted(self.groups, key=len, reverse=True)
        named = ((name, id(parameter)) for name, parameter in network.named_parameters())
        own = {key: part for name, key in named for part in [_part(name, names)] if part is not None}
        rest: list[tuple[list[nn.Parameter], dict[str, Any]]] = []
        parts: list[tuple[list[nn.Parameter], dict[str, Any]]] = []
        found: set[str | None] = set()
        for several, options in parameters:
            listed = list(several)
            rest.append(([p for p in listed if id(p) not in own], options))
            for name in names:
                taken = [p for p in listed if own.get(id(p)) == name]
                if taken:
                    parts.append((taken, {**options, **self.groups[name]}))
                    found.add(name)
        for name in names:
            if name not in found:
                have = ", ".join(dict.fromkeys(name for name, _ in network.named_children()))
                raise ValueError(f"groups.{name}: no trained parameter of the network is called so; its parts: {have}")
        return [*rest, *parts]

    def configure(self, parameters: ParameterGroups, num_steps: int | float) -> Any:
        """Builds the optimizer and the schedule, as `LightningModule.configure_optimizers` returns them.

        Weight decay applies to matrices only, so each group is divided.

        Args:
            parameters: groups of parameters with their own optimizer options, such as {"lr": 1e-5}.
            num_steps: optimizer steps of the whole run; infinite if the run has no end.

        Raises:
            ValueError: there is no optimizer.
        """
        if self.optimizer is None:
            raise ValueError("this task was built for scoring only, with optimizer=None; give an optimizer to train")
        groups: list[dict[str, Any]] = []
        for several, options in parameters:
            listed = list(several)
            groups.append({"params": [p for p in listed if p.dim() > 1], **options})
            groups.append({"params": [p for p in listed if p.dim() <= 1], **options, "weight_decay": 0.0})
        optimizer = self.optimizer([group for group in groups if group["params"]])
        for name, options in (self.groups or {}).items():
            for option, value in options.items():
                if option not in optimizer.defaults:
                    have = ", ".join(optimizer.defaults)
                    raise ValueError(f"groups.{name}: {type(optimizer).__name__} has no {option!r}; it takes {have}")
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if isinstance(optimizer.defaults[option], float) and not (number and 0 <= value < float("inf")):
                    raise ValueError(f"groups.{name}.{option}={value!r}: expected a number of 0 or more")
        if self.schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.schedule.build(optimizer, num_steps)}


def _part(parameter: str, names: Sequence[str]) -> str | None:
    """Returns the first of the names that is the parameter's, or that of a module around it."""
    return next((name for name in names if f"{parameter}.".startswith(f"{name}.")), None)
