"""A decoder that predicts each token or frame from those before it, with or without a source.

Without attention:

    s_t = core([E y_{t-1}; k_t], s_{t-1})
    y_t ~ head(s_t)

with an embedding E and, if there are any, conditions k_t that are known beforehand. With attention to a source:

    s_t = core([E y_{t-1}; k_t; r_{t-1}], s_{t-1})      r_{t-1} with input feeding only
    c_t = attention(s_t)
    r_t = tanh(W [s_t; c_t])
    y_t ~ head(r_t)

Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", eq. 5-6 and section
3.3, with any `Attention`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.heads.base import Head
from unrolled.heads.categorical import CategoricalHead
from unrolled.layers.attention import Attention, Memory
from unrolled.layers.dropout import SequenceDropout, TokenDropout
from unrolled.layers.encoded import Encoded
from unrolled.layers.monotonic_attention import HardMonotonicAttention
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.attentive import AttentiveCore, DecoderNoise, Steps, times
from unrolled.models.decoders.base import Bridge, Decoded, Decoder, DecoderState, core_of
from unrolled.models.decoders.copying import CopyMixture
from unrolled.models.decoders.outputs import aligned_classes, copy_mixture, expect_no_attention, tie
from unrolled.models.decoders.stepping import step_directly
from unrolled.models.decoders.wiring import AttentionWiring
from unrolled.models.embeddings import (
    InputEmbedding,
    TokenEmbedding,
    check_conditions,
    checked_embedding,
    join_conditions,
    without_padding,
)
from unrolled.models.encoders import complete
from unrolled.modes import direct
from unrolled.resets import Stretches
from unrolled.sequences import all_full
from unrolled.shapes import expect


class AutoregressiveDecoder(Decoder):
    """An embedding, a recurrent network, optional attention with a readout layer, and a head.

    With a `TokenEmbedding` and a `CategoricalHead` it is a language model or, given a source, a decoder of texts; with
    a `FrameEmbedding` and another head it continues music, handwriting or measurements.

    Args:
        embedding: an `InputEmbedding` of the inputs.
        core: a partial `Recurrent`, called with its input size; it is unidirectional.
        head: a partial `Head`, called with its input size.
        attention: a partial `Attention`, called with source_size and query_size; None for no attention.
        source_size: number of features of the source, `Encoded.values` and `Encoded.summary`. None for a decoder
            without a source, which starts from the core's initial state.
        source_as: how the source's summary s is used without attention. "state": each tensor of the initial state is
            tanh(W s + b) (Cho et al. 2014, appendix A.1.2). "input": the core reads W s + b before the first input
            (Vinyals et al. 2015, "Show and Tell", eq. 10-12). Attention always uses "state".
        condition_size: number of features that the core reads beside each input; see `Decoder.forward`.
        hidden_size: overrides the core's hidden_size.
        num_layers: overrides the core's num_layers.
        token_dropout: probability that the whole embedding of an input is zeroed.
        input_dropout: dropout probability of the embedded inputs.
        output_dropout: dropout probability of the head's input. With attention that is the readout, which the next
            step uses, too.
        variational_dropout: whether both have one mask for all steps of a sequence (Gal & Ghahramani 2016).
        tied: whether the head shares the embedding's weights (Press & Wolf 2017).
        scaled_embedding: whether a tied embedding is multiplied by √size, since weights with the scale of an
            output layer are small for an embedding (Vaswani et al. 2017, section 3.4). It speeds up early learning.
        wiring: a partial `AttentionWiring`, the order of reading the input and attending to the source. The default,
            `LuongWiring`, attends after the core's step; captioning uses `BahdanauWiring` and `TopDownWiring`.
        input_feeding: whether the core reads the last readout together with the input (Luong et al. 2015, section 3.3),
            so that it depends on previous attention. Without it the core processes all steps at once, which is faster.
            None for yes, except with `HardMonotonicAttention`, which has nothing to feed.
        readout_size: number of features of the readout; by default that of the core's output, or of the embedding if
            tied.
        copy: whether a prediction can copy a token of the source (See et al. 2017). The parameters are then log
            probabilities. Source and target must share one vocabulary.

    With a `HardMonotonicAttention`, the parameters are log probabilities summed over all alignments.

    Raises:
        ValueError: `tied`, `copy` or hard monotonic attention without tokens, or with sizes that don't match; an option
            of attention without attention; attention without source_size; a wiring without input feeding; `copy` with
            an attention without weights; an unknown source_as; invalid options of the core, the attention or the head.
    """

    def __init__(
        self,
        embedding: InputEmbedding,
        core: Callable[..., Recurrent],
        head: Callable[..., Head],
        attention: Callable[..., Attention] | None = None,
        *,
        source_size: int | None = None,
        source_as: str = "state",
        condition_size: int = 0,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        token_dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        variational_dropout: bool = True,
        tied: bool = False,
        scaled_embedding: bool = False,
        wiring: Callable[..., AttentionWiring] | None = None,
        input_feeding: bool | None = None,
        readout_size: int | None = None,
        copy: bool = False,
    ) -> None:
        super().__init__()
        if source_as not in ("state", "input"):
            raise ValueError(f"source_as is {source_as!r}, expected 'state' or 'input'")
        if condition_size < 0:
            raise ValueError(f"condition_size is {condition_size}, expected 0 or more")
        self.embedding = checked_embedding(embedding)
        self.input_axes = embedding.input_axes
        self.condition_size = condition_size
        self.token_dropout = TokenDropout(token_dropout)
        self.input_dropout = SequenceDropout(input_dropout, variational=variational_dropout)
        self.output_dropout = SequenceDropout(output_dropout, variational=variational_dropout)
        finish = partial(complete, core, hidden_size=hidden_size, num_layers=num_layers)
        input_size = embedding.output_size + condition_size
        if attention is None:
            unfed = input_feeding is False
            expect_no_attention(wiring=wiring, input_feeding=unfed, readout_size=readout_size, copy=copy)
            self.steps = finish(input_size)
        else:
            if source_size is None:
                raise ValueError("attention needs a source: give source_size, its number of features")
            if readout_size is None and tied:
                readout_size = embedding.output_size
            self.steps = AttentiveCore(
                finish,
                attention,
                input_size,
                source_size,
                wiring=wiring,
                input_feeding=input_feeding,
                output_size=readout_size,
            )
        self.attends = self.attention is not None and self.attention.has_weights
        self.head = head(input_size=self.steps.output_size)
        if isinstance(self.attention, HardMonotonicAttention):
            self.attention.num_classes = aligned_classes(self.head, embedding, copy=copy)
        if tied:
            tie(self.head, embedding, scaled=scaled_embedding)
        self.bridge: Bridge | None = None
        self.first: nn.Linear | None = None
        if attention is not None or (source_size is not None and source_as == "state"):
            self.bridge = Bridge(cast(int, source_size), self.core)
        elif source_size is not None:
            self.first = nn.Linear(source_size, input_size)
        self.copy = copy
        self.mixture: CopyMixture | None = None
        if copy:
            self.mixture = copy_mixture(self.steps, self.head)

    @classmethod
    def of_tokens(
        cls,
        vocabulary_size: int,
        embedding_size: int,
        core: Callable[..., Recurrent],
        attention: Callable[..., Attention] | None = None,
        source_size: int | None = None,
        **options: Any,
    ) -> "AutoregressiveDecoder":
        """Build a decoder of tokens, with a `TokenEmbedding` and a `CategoricalHead` of one vocabulary.

        Args:
            vocabulary_size: number of token ids.
            embedding_size: number of features of a token.
            core: see the class for this and all further arguments.
            attention: a partial `Attention`, or None.
            source_size: number of features of the source, or None.
            options: other arguments of the class.
        """
        head = partial(CategoricalHead, num_classes=vocabulary_size)
        return cls(
            TokenEmbedding(vocabulary_size, embedding_size), core, head, attention, source_size=source_size, **options
        )

    @property
    def core(self) -> Recurrent:
        """The recurrent network."""
        return self.steps.core if isinstance(self.steps, AttentiveCore) else self.steps

    @property
    def attention(self) -> Attention | None:
        """The attention, if there is one."""
        return self.steps.attention if isinstance(self.steps, AttentiveCore) else None

    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, Any]:
        """Return the state before the first input, and the source prepared for attention, or None without attention."""
        initial = self.core.initial_state(batch, like=self._like)
        if self.bridge is None and self.first is None:
            if encoded is not None:
                raise ValueError("this decoder was built without source_size, so it cannot start from a source")
            return DecoderState(initial), None
        if encoded is None:
            raise ValueError("this decoder starts from a source: pass `encoded`")
        expect(encoded.summary, "batch summary", batch=batch, name="encoded.summary")
        if self.copy and encoded.tokens is None:
            raise ValueError("copy=True needs the token ids of the source, and encoded.tokens is None")
        if self.bridge is None:
            _, core = self.core(cast(nn.Linear, self.first)(encoded.summary).unsqueeze(1), initial)
            return DecoderState(core), None
        core = self.bridge(encoded.summary, initial)
        return self.steps.start(core, encoded) if isinstance(self.steps, AttentiveCore) else (DecoderState(core), None)

    def forward(
        self,
        inputs: Tensor,
        state: DecoderState | None = None,
        memory: Any = None,
        lengths: Tensor | None = None,
        conditions: Tensor | None = None,
        resets: Tensor | Stretches | None = None,
    ) -> Decoded:
        """See `Decoder.forward`; returns parameters (batch, time, outputs)."""
        if resets is not None and (self.bridge is not None or self.first is not None):
            raise ValueError("a decoder with a source has one source per row, so `resets` can't begin another sequence")
        expect(inputs, f"batch time {self.input_axes}", name="inputs")
        state = self._started(inputs, state)
        batch, time = inputs.shape[:2]
        if lengths is not None and all_full(lengths, batch, time):
            lengths = None
        check_conditions(conditions, self.condition_size, batch, time)
        embedded = self.embedding(without_padding(inputs, lengths))
        conditions = None if conditions is None else without_padding(conditions, lengths)
        if not isinstance(self.steps, AttentiveCore):
            embedded = join_conditions(self.input_dropout(self.token_dropout(embedded)), conditions)
            outputs, core = self.steps(embedded, core_of(state), lengths, resets)
            return Decoded(self.head(self.output_dropout(outputs)), None, DecoderState(core))
        if time == 0:
            weights = memory.values.new_zeros(batch, 0, memory.values.shape[1]) if self.attends else None
            return Decoded(self._like.new_zeros(batch, 0, self.head.output_size), weights, state)
        noise = self._masks(batch, time)
        embedded = join_conditions(times(embedded, noise.embedded), conditions)
        self.steps.check_state(state, memory, embedded)
        if self.steps.input_feeding:
            noise = noise._replace(core=self.steps.noises(batch, time, embedded))
        steps = self.steps(embedded, state, memory, lengths, noise)
        return self._decoded(without_padding(inputs, lengths), embedded, steps, memory, lengths)

    def step(
        self,
        inputs: Tensor,
        state: DecoderState | None = None,
        memory: Any = None,
        *,
        conditions: Tensor | None = None,
        noise: DecoderNoise | None = None,
    ) -> Decoded:
        """See `Decoder.step`; returns parameters (batch, outputs).

        In training mode, a decoder with attention uses `noise`, which is drawn by default.
        """
        if conditions is None and self.condition_size == 0 and direct():
            found = step_directly(vars(self)["_modules"], inputs, state)
            if found is not None:
                return found
        expect(inputs, f"batch {self.input_axes}", name="inputs")
        state = self._started(inputs, state)
        check_conditions(conditions, self.condition_size, inputs.shape[0])
        if not isinstance(self.steps, AttentiveCore):
            embedded = join_conditions(self.embedding(inputs), conditions)
            outputs, core = self.steps.step(embedded, core_of(state))
            return Decoded(self.head(outputs), None, DecoderState(core))
        noise = noise or self.noise(inputs.shape[0], 1)
        conditions = None if conditions is None else conditions.unsqueeze(1)
        embedded = join_conditions(times(self.embedding(inputs.unsqueeze(1)), noise.embedded), conditions)
        self.steps.check_state(state, memory, embedded)
        steps = self.steps.step(embedded, state, memory, noise)
        decoded = self._decoded(inputs.unsqueeze(1), embedded, steps, memory)
        weights = None if decoded.weights is None else decoded.weights.squeeze(1)
        return Decoded(decoded.parameters.squeeze(1), weights, decoded.state)

    def noise(self, batch: int, time: int) -> DecoderNoise:
        """Draw the noise of a sequence. Its items `noise.at(0)`, `noise.at(1)`, … are arguments of `step`.

        Raises:
            ValueError: a decoder without attention.
        """
        if not isinstance(self.steps, AttentiveCore):
            raise ValueError("a decoder without attention draws its noise in `forward`")
        return self._masks(batch, time)._replace(core=self.steps.noises(batch, time, self._like))

    @property
    def _like(self) -> Tensor:
        """A tensor with the parameters' dtype and device."""
        return self.head.linear.weight

    def _started(self, inputs: Tensor, state: DecoderState | None) -> DecoderState:
        if state is not None:
            return state
        if self.bridge is not None or self.first is not None:
            raise ValueError("this decoder starts from a source: pass the state and the memory that start(…) returns")
        return self.start(inputs.shape[0])[0]

    def _masks(self, batch: int, time: int) -> DecoderNoise:
        embedded = readout = None
        if self.token_dropout.active or self.input_dropout.active:
            ones = self._like.new_ones(batch, time, self.embedding.output_size)
            embedded = self.input_dropout(self.token_dropout(ones))
        if self.output_dropout.active:
            readout = self.output_dropout(self._like.new_ones(batch, time, self.steps.output_size))
        return DecoderNoise(embedded, readout, [])

    def _decoded(
        self, inputs: Tensor, embedded: Tensor, steps: Steps, memory: Memory, lengths: Tensor | None = None
    ) -> Decoded:
        """Compute the parameters of all steps in one product."""
        parameters = self.head(steps.readouts)
        if isinstance(self.attention, HardMonotonicAttention):
            found = self.attention.marginalize(
                steps.queries, parameters, inputs, memory, steps.state.attention, lengths
            )
            return Decoded(found.log_probabilities, found.weights, steps.state._replace(attention=found.state))
        if self.mixture is not None and steps.weights is not None:
            features = torch.cat([steps.contexts, steps.queries, embedded], dim=-1)
            parameters = self.mixture(parameters, features, steps.weights, memory)
        return Decoded(parameters, steps.weights, steps.state)
