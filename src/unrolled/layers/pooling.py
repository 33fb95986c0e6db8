"""Pooling over time: one vector per sequence."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled.layers.encoded import Encoded
from unrolled.sequences import mask_from_lengths
from unrolled.shapes import expect
from unrolled.state import check, outline


class Pooling(nn.Module, ABC):
    """Base class of pooling from `Encoded` to one vector, for whole sequences or step by step.

    An empty sequence gives zeros. For a forward encoder, the result after the last step equals that for the whole
    sequence.

    Args:
        input_size: number of features of the encoder's values.
    """

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.output_size = input_size

    @abstractmethod
    def forward(self, encoded: Encoded) -> Tensor:
        """Pool values (batch, time, features) to (batch, output_size)."""

    @abstractmethod
    def initial_state(self, batch: int, *, like: Tensor) -> Any:
        """Return the state before the first step."""

    @abstractmethod
    def step(self, values: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Add a step (batch, features); return the result (batch, output_size) for all steps so far, and the state."""

    def _check_step(self, values: Tensor, state: Any) -> None:
        expect(values, "batch features", features=self.input_size, name="values")
        check(state, outline(self.initial_state(1, like=values), like=values), like=values, name="state")

    def _checked(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Check and return the values, with their mask (batch, time, 1)."""
        values = encoded.values
        expect(values, "batch time features", features=self.input_size, name="values")
        batch, time = values.shape[:2]
        if encoded.lengths is None:
            return values, torch.ones(batch, time, 1, dtype=torch.bool, device=values.device)
        return values, mask_from_lengths(encoded.lengths.to(values.device), time).unsqueeze(-1)


class LastPooling(Pooling):
    """Returns the encoder's summary: the last step of each direction."""

    def forward(self, encoded: Encoded) -> Tensor:
        expect(encoded.summary, "batch features", features=self.input_size, name="summary")
        return encoded.summary

    def initial_state(self, batch: int, *, like: Tensor) -> None:
        return None

    def step(self, values: Tensor, state: None) -> tuple[Tensor, None]:
        self._check_step(values, state)
        return values, None


class MeanState(NamedTuple):
    """The sum (batch, features) and the number (batch, 1) of the steps so far."""

    total: Tensor
    steps: Tensor


class MeanPooling(Pooling):
    """Computes the mean over the valid steps."""

    def forward(self, encoded: Encoded) -> Tensor:
        values, mask = self._checked(encoded)
        return values.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)

    def initial_state(self, batch: int, *, like: Tensor) -> MeanState:
        return MeanState(like.new_zeros(batch, self.input_size), like.new_zeros(batch, 1))

    def step(self, values: Tensor, state: MeanState) -> tuple[Tensor, MeanState]:
        self._check_step(values, state)
        state = MeanState(state.total + values, state.steps + 1)
        return state.total / state.steps, state


class MaxPooling(Pooling):
    """Computes the maximum of each feature over the valid steps."""

    def forward(self, encoded: Encoded) -> Tensor:
        values, mask = self._checked(encoded)
        if values.shape[1] == 0:
            return values.new_zeros(values.shape[0], self.input_size)
        greatest = values.masked_fill(~mask, -torch.inf).amax(1)
        return torch.where(mask.any(1), greatest, 0.0)

    def initial_state(self, batch: int, *, like: Tensor) -> Tensor:
        return like.new_full((batch, self.input_size), -torch.inf)

    def step(self, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self._check_step(values, state)
        state = torch.maximum(values, state)
        return state, state


class AttentionState(NamedTuple):
    """An online softmax over the steps so far: maximum score, sum of exponentials and weighted sum relative to it."""

    greatest: Tensor  # (batch, 1)
    total: Tensor  # (batch, 1)
    weighted: Tensor  # (batch, features)


class AttentionPooling(Pooling):
    """Computes the mean of the valid steps, weighted by softmax(v · tanh(W h + b)) (Yang et al. 2016, eq. 5 to 7).

    Args:
        input_size: number of features of the encoder's values.
        hidden_size: number of units of the tanh layer.
    """

    def __init__(self, input_size: int, hidden_size: int = 64) -> None:
        super().__init__(input_size)
        if hidden_size < 1:
            raise ValueError(f"hidden_size is {hidden_size}, expected 1 or more")
        self.hidden = nn.Linear(input_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, encoded: Encoded) -> Tensor:
        values, mask = self._checked(encoded)
        return (self.weights(encoded).unsqueeze(-1) * values.masked_fill(~mask, 0.0)).sum(1)

    def weights(self, encoded: Encoded) -> Tensor:
        """Return the weights (batch, time) of the steps, zero in the padding."""
        values, mask = self._checked(encoded)
        if values.shape[1] == 0:
            return values.new_zeros(values.shape[:2])
        scores = self._scores(values.masked_fill(~mask, 0.0)).masked_fill(~mask, torch.finfo(values.dtype).min)
        return torch.softmax(scores, dim=1).masked_fill(~mask, 0.0).squeeze(-1)

    def initial_state(self, batch: int, *, like: Tensor) -> AttentionState:
        greatest = like.new_full((batch, 1), torch.finfo(like.dtype).min)
        return AttentionState(greatest, like.new_zeros(batch, 1), like.new_zeros(batch, self.input_size))

    def step(self, values: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        self._check_step(values, state)
        score = self._scores(values)
        greatest = torch.maximum(state.greatest, score)
        old, new = torch.exp(state.greatest - greatest), torch.exp(score - greatest)
        state = AttentionState(greatest, state.total * old + new, state.weighted * old + new * values)
        return state.weighted / state.total, state

    def _scores(self, values: Tensor) -> Tensor:
        return self.score(torch.tanh(self.hidden(values)))


class ConcatPooling(Pooling):
    """Concatenates the results of several poolings, such as the mean and the maximum.

    Args:
        input_size: number of features of the encoder's values.
        poolings: partial `Pooling`s, each called with input_size.

    Raises:
        ValueError: no pooling.
    """

    def __init__(self, input_size: int, poolings: Sequence[Callable[..., Pooling]]) -> None:
        super().__init__(input_size)
        if not poolings:
            raise ValueError("poolings is empty, expected one or more, such as [MeanPooling, MaxPooling]")
        self.poolings = nn.ModuleList(pooling(input_size) for pooling in poolings)
        self.output_size = sum(pooling.output_size for pooling in self._each())

    def forward(self, encoded: Encoded) -> Tensor:
        return torch.cat([pooling(encoded) for pooling in self._each()], dim=-1)

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Any, ...]:
        return tuple(pooling.initial_state(batch, like=like) for pooling in self._each())

    def step(self, values: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        self._check_step(values, state)
        stepped = [pooling.step(values, own) for pooling, own in zip(self._each(), state, strict=True)]
        return torch.cat([vector for vector, _ in stepped], dim=-1), tuple(own for _, own in stepped)

    def _each(self) -> Sequence[Pooling]:
        return cast("Sequence[Pooling]", self.poolings)
