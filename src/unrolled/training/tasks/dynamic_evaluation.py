"""Dynamic evaluation: a network that continues to learn from the text on which it is scored."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.losses import Loss
from unrolled.state import detach, map_state
from unrolled.training.configuration.flat import check_names


class DynamicEvaluation:
    """Scores a text segment by segment, with one step of gradient descent on each segment after it is scored.

        θ ← θ − rate × g + decay × (θ_trained − θ)

    Every symbol is predicted before the network learns from it. Krause et al. 2018, "Dynamic Evaluation of Neural
    Sequence Models", section 3, with the plain gradient; in addition, its norm is clipped. A copy of the network
    learns; the network itself does not change.

    Args:
        rate: learning rate.
        segment: number of steps of a segment; the end of a window also ends a segment.
        decay: factor of the step back to the trained weights.
        norm: maximum norm of the gradient.

    Raises:
        ValueError: a rate, segment or norm that is not above zero, or a decay outside [0, 1).
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
        """Builds an instance from a mapping of the arguments; returns None for None.

        Raises:
            ValueError: an unknown argument, or not a mapping.
        """
        if options is None:
            return None
        check_names("dynamic", options, cls)
        return cls(**options)

    def begin(self, network: nn.Module) -> None:
        """Copies the trained network."""
        with torch.inference_mode(False):
            self._network = copy.deepcopy(network)
            self._trained = [parameter.detach().clone() for parameter in self._network.parameters()]

    def end(self) -> None:
        """Deletes the copy."""
        self._network, self._trained = None, []

    def score(
        self, inputs: Tensor, targets: Tensor, loss_mask: Tensor, state: Any, loss: Callable[..., tuple[Loss, Any]]
    ) -> tuple[Loss, Any]:
        """Returns the summed loss of a window and the state after it. The copy learns from each segment.

        Args:
            inputs: (batch, time); each step uses the gradient of all rows.
            targets: (batch, time).
            loss_mask: (batch, time) bool, the predictions that count.
            state: the state before the window.
            loss: (network, inputs, targets, loss_mask, state) of a segment -> its loss and the state after it.
        """
        network = cast(nn.Module, self._network)
        total, count = torch.zeros((), dtype=torch.float64), 0
        # A test runs in inference mode, whose tensors cannot be part of a graph: these copies can.
        with torch.inference_mode(False), torch.enable_grad():
            state = map_state(Tensor.clone, state)
            segments = (each.clone().split(self.segment, dim=1) for each in (inputs, targets, loss_mask))
            for segment_inputs, segment_targets, segment_mask in zip(*segments, strict=True):
                segment, state = loss(network, segment_inputs, segment_targets, segment_mask, detach(state))
                state = detach(state)
                total, count = total + segment.total.detach().double().cpu(), count + int(segment.count)
                if segment.count > 0:
                    self._learn(network, segment.mean)
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
