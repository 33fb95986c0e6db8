"""Ensembles of decoders."""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.heads.base import Head
from unrolled.layers.encoded import Encoded
from unrolled.models.decoders.base import Decoded, Decoder, DecoderState, core_of
from unrolled.resets import Stretches
from unrolled.wording import counted


class EnsembleDecoder(Decoder):
    """A decoder of tokens whose logits are the logarithm of the mean distribution of several decoders.

    Its state and memory are tuples with one entry per decoder. Its attention weights are the mean of the decoders that
    have attention.

    Args:
        decoders: decoders with the same vocabulary.
        geometric: whether log probabilities are averaged instead of probabilities.

    Raises:
        ValueError: no decoders, or vocabularies of different sizes.
    """

    def __init__(self, decoders: Sequence[Decoder], *, geometric: bool = False) -> None:
        super().__init__()
        sizes = sorted({decoder.vocabulary_size for decoder in decoders})
        if len(sizes) != 1:
            raise ValueError(f"an ensemble needs decoders with one vocabulary, got {sizes if sizes else 'no decoder'}")
        self.decoders = nn.ModuleList(decoders)
        sides = sorted({decoder.condition_size for decoder in decoders})
        if len(sides) != 1:
            raise ValueError(f"an ensemble needs decoders with the same conditions, got condition_size {sides}")
        self.condition_size = sides[0]
        self.attends = any(decoder.attends for decoder in decoders)
        self.geometric = geometric

    @property
    def head(self) -> Head:  # pyright: ignore[reportIncompatibleVariableOverride]  # read-only, and not a parameter
        """The head of the first decoder, for samples and losses of the mean distribution."""
        return self._members()[0].head

    def start(self, batch: int, encoded: Encoded | Sequence[Encoded] | None = None) -> tuple[DecoderState, Any]:
        """Return the states and memories of all decoders.

        Args:
            batch: number of rows.
            encoded: one source, or one per decoder from its own encoder.

        Raises:
            ValueError: another number of sources than of decoders.
        """
        several = [encoded] * len(self.decoders) if encoded is None or isinstance(encoded, Encoded) else list(encoded)
        if len(several) != len(self.decoders):
            raise ValueError(f"{counted(len(several), 'source')} for {counted(len(self.decoders), 'decoder')}")
        started = [decoder.start(batch, source) for decoder, source in zip(self._members(), several, strict=True)]
        return DecoderState(tuple(state for state, _ in started)), tuple(memory for _, memory in started)

    def forward(
        self,
        inputs: Tensor,
        state: DecoderState | None = None,
        memory: Any = None,
        lengths: Tensor | None = None,
        conditions: Tensor | None = None,
        resets: Tensor | Stretches | None = None,
    ) -> Decoded:
        """Predict log probabilities (batch, time, vocabulary) for tokens (batch, time)."""
        state = self.start(len(inputs))[0] if state is None else state
        members = zip(self._members(), self._states(state), self._memories(memory), strict=True)
        return self._mean([decoder(inputs, own, known, lengths, conditions, resets) for decoder, own, known in members])

    def step(
        self,
        inputs: Tensor,
        state: DecoderState | None = None,
        memory: Any = None,
        *,
        conditions: Tensor | None = None,
    ) -> Decoded:
        """Predict log probabilities (batch, vocabulary) for tokens (batch,)."""
        state = self.start(len(inputs))[0] if state is None else state
        members = zip(self._members(), self._states(state), self._memories(memory), strict=True)
        return self._mean([decoder.step(inputs, own, known, conditions=conditions) for decoder, own, known in members])

    def _members(self) -> list[Decoder]:
        return list(self.decoders)  # pyright: ignore[reportReturnType]  # ModuleList is not generic

    def _states(self, state: Any) -> tuple[Any, ...]:
        states = core_of(state)
        if not isinstance(states, tuple) or len(cast("tuple[Any, ...]", states)) != len(self.decoders):
            raise ValueError(
                f"state.core is not a tuple of the states of {len(self.decoders)} decoders, which `start` returns"
            )
        return cast("tuple[Any, ...]", states)

    def _memories(self, memory: Any) -> Sequence[Any]:
        if memory is not None and len(memory) != len(self.decoders):
            raise ValueError(f"got {len(memory)} memories for {len(self.decoders)} decoders")
        return [None] * len(self.decoders) if memory is None else memory

    def _mean(self, decoded: Sequence[Decoded]) -> Decoded:
        scores = torch.stack([one.parameters.float().log_softmax(-1) for one in decoded])
        mean = scores.mean(0).log_softmax(-1) if self.geometric else scores.logsumexp(0) - math.log(len(decoded))
        attended = [one.weights for one in decoded if one.weights is not None]
        weights = torch.stack(attended).mean(0) if attended else None
        return Decoded(mean, weights, DecoderState(tuple(one.state for one in decoded)))
