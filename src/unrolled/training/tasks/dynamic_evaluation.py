"""Dynamic evaluation: a network that goes on learning from the text on which it is scored."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.losses import Loss
from unrolled.state import detach, map_state


class DynamicEvaluation:
    """Segment by segment: predict it, count the loss, and only then take one step of gradient descent on it.

        θ ← θ − rate × g + decay × (θ_trained − θ)

    Every symbol is predicted before anything was learned from it, so the score is an honest one, of a network that may
    adapt to names and style as it reads. Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models", section 3,
    with the plain gradient; here its norm is bounded as well. What learns is a copy: the network stays as it is.

    Args:
        rate: of the gradient descent.
        segment: steps that are predicted, and learned from, at a time; a window's end ends one, too.
        decay: share of the way back to the trained weights at each step.
        norm: the gradient's at most.

    Raises:
        ValueError: a rate, segment or norm that is not above zero, a decay outside [0, 1).
    """

    def __init__(self, rate: float = 0.1, *, segment: int = 64, decay: float = 0.0, norm: float = 1.0) -> None:
        for name, value in (("rate", rate), ("segment", segment), ("norm", norm)):
            if not value > 0:
                raise ValueError(f"dynamic.{name} is {value}, expected more than 0")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"dynamic.decay is {decay}, expected at least 0 and below 1")
        self.rate, self.segment, self.decay, self.norm = rate, int(segment), decay, norm
        self._network: nn.Module | None = None
        self._trained: list[Tensor] = []

    @classmethod
    def from_options(cls, options: Mapping[str, Any] | None) -> "DynamicEvaluation | None":
        """From a mapping of the arguments; None for none.

        Raises:
            ValueError: an argument that there is not, or no mapping.
        """
        if options is None:
            return None
        allowed = ("rate", "segment", "decay", "norm")
        if not isinstance(options, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"dynamic is {options!r}, expected {', '.join(allowed)} by name, such as '{{rate:0.1}}'")
        unknown = [name for name in options if name not in allowed]
        if unknown:
            raise ValueError(f"dynamic has no {', '.join(unknown)}; it takes {', '.join(allowed)}")
        return cls(**options)

    def begin(self, network: nn.Module) -> None:
        """Copies the network as it was trained."""
        with torch.inference_mode(False):
            self._network = copy.deepcopy(network)
            self._trained = [parameter.detach().clone() for parameter in self._network.parameters()]

    def end(self) -> None:
        """Lets go of the copy."""
        self._network, self._trained = None, []

    def score(
        self, inputs: Tensor, targets: Tensor, loss_mask: Tensor, state: Any, loss: Callable[..., tuple[Loss, Any]]
    ) -> tuple[Loss, Any]:
        """The summed loss over a window, learned from on the way, and the state behind it.

        Args:
            inputs: (batch, time); rows are learned from together.
            targets: (batch, time).
            loss_mask: (batch, time) bool, the predictions that count.
            state: before the window.
            loss: (network, inputs, targets, loss_mask, state) of a segment -> its loss and the state behind it.
        """
        network = cast(nn.Module, self._network)
        total, count = torch.zeros((), dtype=torch.float64), 0
        # A test runs in inference mode, whose tensors can't be split of a graph: these are copies that can.
        with torch.inference_mode(False), torch.enable_grad():
            state = map_state(Tensor.clone, state)
            splits = (each.clone().split(self.segment, dim=1) for each in (inputs, targets, loss_mask))
            for some_inputs, some_targets, some_scored in zip(*splits, strict=True):
                split, state = loss(network, some_inputs, some_targets, some_scored, detach(state))
                state = detach(state)
                total, count = total + split.total.detach().double().cpu(), count + int(split.count)
                if split.count > 0:
                    self._learn(network, split.mean)
        return Loss(total, torch.tensor(count)), state

    def _learn(self, network: nn.Module, loss: Tensor) -> None:
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        shrink = min(1.0, self.norm / max(float(nn.utils.get_total_norm(gradients)), 1e-12))
        with torch.no_grad():
            for parameter, gradient, trained in zip(parameters, gradients, self._trained, strict=True):
                parameter.sub_(gradient, alpha=self.rate * shrink)
                if self.decay:
                    parameter.lerp_(trained, self.decay)
