"""A decoder without attention, which is a language model if it has no source."""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from unrolled.layers.dropout import SequenceDropout
from unrolled.layers.encoded import Encoded
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.base import Bridge, Decoded, Decoder, DecoderState, core_of, tie
from unrolled.models.encoders import TokenEmbedding, complete
from unrolled.shapes import expect


class RecurrentDecoder(Decoder):
    """An embedding, a recurrent network and a linear output layer, optionally started from the summary of a source.

    Args:
        vocabulary_size: number of token ids.
        embedding_size: number of features of a token.
        core: a partial `Recurrent`, called with its input size; it is unidirectional.
        hidden_size: overrides the core's hidden_size.
        num_layers: overrides the core's num_layers.
        input_dropout: dropout probability of the embedded tokens.
        output_dropout: dropout probability of the core's outputs.
        variational_dropout: whether both have one mask for all steps of a sequence (Gal & Ghahramani 2016).
        tied: whether the output layer shares the embedding's weights (Press & Wolf 2017); the sizes must be equal.
        scaled_embedding: whether a tied embedding is multiplied by √embedding_size, which speeds up early learning.
        source_size: number of features of an `Encoded.summary` to start from. None for a language model, which starts
            from the core's initial state.
        source_as: how the summary s is used. "state": each tensor of the initial state is tanh(W s + b) (Cho et al.
            2014, appendix A.1.2). "input": the core reads W s + b before the first token (Vinyals et al. 2015, "Show
            and Tell", eq. 10-12).

    Raises:
        ValueError: `tied` with an embedding size other than the core's output size; an unknown source_as.
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
        scaled_embedding: bool = False,
        source_size: int | None = None,
        source_as: str = "state",
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.embedding = TokenEmbedding(vocabulary_size, embedding_size)
        self.input_dropout = SequenceDropout(input_dropout, variational=variational_dropout)
        self.core = complete(core, embedding_size, hidden_size=hidden_size, num_layers=num_layers)
        self.output_dropout = SequenceDropout(output_dropout, variational=variational_dropout)
        self.output = nn.Linear(self.core.output_size, vocabulary_size)
        if tied:
            tie(self.output, self.embedding, "the core's output", scaled=scaled_embedding)
        if source_as not in ("state", "input"):
            raise ValueError(f"source_as is {source_as!r}, expected 'state' or 'input'")
        self.bridge = self.first = None
        if source_size is not None and source_as == "state":
            self.bridge = Bridge(source_size, self.core)
        elif source_size is not None:
            self.first = nn.Linear(source_size, embedding_size)

    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, None]:
        """Return the initial state for `batch` rows, and None, since there is no memory without attention."""
        initial = self.core.initial_state(batch, like=self.output.weight)
        if self.bridge is None and self.first is None:
            if encoded is not None:
                raise ValueError("this decoder was built without source_size, so it cannot start from a source")
            return DecoderState(initial), None
        if encoded is None:
            raise ValueError("this decoder starts from a source: pass `encoded`")
        expect(encoded.summary, "batch summary", batch=batch, name="encoded.summary")
        if self.bridge is not None:
            return DecoderState(self.bridge(encoded.summary, initial)), None
        _, core = self.core(cast(nn.Linear, self.first)(encoded.summary).unsqueeze(1), initial)
        return DecoderState(core), None

    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None, lengths: Tensor | None = None
    ) -> Decoded:
        """Predict logits (batch, time, vocabulary) for tokens (batch, time), of which `lengths` (batch,) are valid."""
        expect(tokens, "batch time", name="tokens")
        state = self.start(len(tokens))[0] if state is None else state
        embedded = self.input_dropout(self.embedding(tokens))
        outputs, core = self.core(embedded, core_of(state), lengths)
        return Decoded(self.output(self.output_dropout(outputs)), None, state._replace(core=core))

    def step(self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None) -> Decoded:
        """Predict logits (batch, vocabulary) for tokens (batch,)."""
        expect(tokens, "batch", name="tokens")
        state = self.start(len(tokens))[0] if state is None else state
        outputs, core = self.core.step(self.embedding(tokens), core_of(state))
        return Decoded(self.output(outputs), None, state._replace(core=core))
