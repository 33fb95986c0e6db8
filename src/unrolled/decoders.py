"""From `Encoded` to tokens. Told nothing, a decoder is a language model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.dropout import SequenceDropout
from unrolled.encoders import Encoded, complete
from unrolled.recurrent import Recurrent
from unrolled.shapes import expect
from unrolled.state import leaves, rebuild


class DecoderState(NamedTuple):
    """All that a decoder remembers between tokens. Every leaf has the batch on axis 0."""

    core: Any
    attention: Any = None
    context: Tensor | None = None


class Decoded(NamedTuple):
    """What a decoder says of a piece of text, and where it stands after it."""

    logits: Tensor  # (batch, time, vocabulary), or (batch, vocabulary) from `step`
    weights: Tensor | None  # (batch, time, source): what attention looked at
    state: DecoderState


class Decoder(nn.Module, ABC):
    """Reads a token, predicts the next. Logits at a step never depend on later tokens."""

    vocabulary_size: int

    @abstractmethod
    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, Any]:
        """The state before the first token, and the memory that `forward` and `step` want with it."""

    @abstractmethod
    def forward(
        self, tokens: Tensor, state: DecoderState, memory: Any = None, lengths: Tensor | None = None
    ) -> Decoded:
        """Tokens (batch, time) -> logits (batch, time, vocabulary)."""

    @abstractmethod
    def step(self, tokens: Tensor, state: DecoderState, memory: Any = None) -> Decoded:
        """Tokens (batch,) -> logits (batch, vocabulary): what `forward` gives for this one step."""


class RecurrentDecoder(Decoder):
    """Embedding, recurrent net, linear output; started from a summary of the source if there is one.

    Args:
        vocabulary_size: number of token ids.
        embedding_size: features of a token.
        core: a partial `Recurrent`, to be completed with its input size; always read forwards.
        hidden_size: overrides the core's own.
        num_layers: overrides the core's own.
        input_dropout: dropout on the embedded tokens.
        output_dropout: dropout on the core's outputs.
        variational_dropout: both with one mask for all steps of a pass (Gal & Ghahramani 2016), or a new one at each.
        tied: the output layer shares the embedding's weights (Press & Wolf 2017); the sizes must agree.
        summary_size: features of an `Encoded.summary` to start from, each leaf of the state through
            tanh(W s + b) (Cho et al. 2014, appendix A.1.2). None: a language model, which starts from the core's
            own initial state.

    Raises:
        ValueError: tied with an embedding as wide as something else than the core's output.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        core: Callable[..., Recurrent],
        *,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        variational_dropout: bool = True,
        tied: bool = False,
        summary_size: int | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.input_dropout = SequenceDropout(input_dropout, variational=variational_dropout)
        self.core = complete(core, embedding_size, hidden_size=hidden_size, num_layers=num_layers)
        self.output_dropout = SequenceDropout(output_dropout, variational=variational_dropout)
        self.output = nn.Linear(self.core.output_size, vocabulary_size)
        if tied:
            self._tie(embedding_size)
        self.bridge = None if summary_size is None else self._bridge(summary_size)

    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, None]:
        """The initial state for `batch` rows; there is no memory, since nothing is attended to."""
        initial = self.core.initial_state(batch, like=self.output.weight)
        if self.bridge is None:
            if encoded is not None:
                raise ValueError("this decoder was built without summary_size, so it cannot start from a source")
            return DecoderState(initial), None
        if encoded is None:
            raise ValueError("this decoder starts from a source: give it `encoded`")
        expect(encoded.summary, "batch summary", batch=batch, name="encoded.summary")
        return DecoderState(rebuild(initial, [torch.tanh(layer(encoded.summary)) for layer in self.bridge])), None

    def forward(
        self, tokens: Tensor, state: DecoderState, memory: Any = None, lengths: Tensor | None = None
    ) -> Decoded:
        """Tokens (batch, time), of which the first `lengths` (batch,) are valid -> logits (batch, time, vocabulary)."""
        expect(tokens, "batch time", name="tokens")
        embedded = self.input_dropout(self.embedding(tokens))
        outputs, core = self.core(embedded, state.core, lengths)
        return Decoded(self.output(self.output_dropout(outputs)), None, state._replace(core=core))

    def step(self, tokens: Tensor, state: DecoderState, memory: Any = None) -> Decoded:
        """Tokens (batch,) -> logits (batch, vocabulary)."""
        expect(tokens, "batch", name="tokens")
        outputs, core = self.core.step(self.embedding(tokens), state.core)
        return Decoded(self.output(outputs), None, state._replace(core=core))

    def _tie(self, embedding_size: int) -> None:
        if embedding_size != self.core.output_size:
            raise ValueError(
                f"tied=True needs embedding_size equal to the core's output, {self.core.output_size}, "
                f"got {embedding_size}"
            )
        self.output.weight = self.embedding.weight
        # The output layer's scale: an embedding's unit normal would give logits of the size of √hidden.
        nn.init.uniform_(self.embedding.weight, -(embedding_size**-0.5), embedding_size**-0.5)

    def _bridge(self, summary_size: int) -> nn.ModuleList:
        initial = leaves(self.core.initial_state(1, like=self.output.weight))
        return nn.ModuleList(nn.Linear(summary_size, leaf.shape[-1]) for leaf in initial)
