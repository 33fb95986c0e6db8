"""A decoder that looks at the source before each prediction.

    s_t = core([E y_{t-1}; r_{t-1}], s_{t-1})      r_{t-1} with input feeding only
    c_t = attention(s_t)
    r_t = tanh(W [s_t; c_t])
    p(y_t | y_<t, x) = softmax(V r_t + b)

Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", eq. 5-6 and section
3.3, with the attention that one likes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unrolled.cells.hooks import hooked
from unrolled.cells.pointwise import PointwiseCell
from unrolled.layers.attention import Attention, Memory
from unrolled.layers.dropout import SequenceDropout, TokenDropout
from unrolled.layers.encoded import Encoded
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.base import Bridge, Decoded, Decoder, DecoderState, of_decoder, tie
from unrolled.models.decoders.copying import CopyMixture
from unrolled.models.decoders.wiring import AttentionWiring, LuongWiring, Sizes
from unrolled.models.encoders import TokenEmbedding, complete
from unrolled.sequences import all_full, mask_from_lengths
from unrolled.shapes import ShapeError, expect
from unrolled.state import Leaf, check, outline, state_at
from unrolled.wording import counted


class DecoderNoise(NamedTuple):
    """The noise of one pass over `time` steps, None where nothing is dropped."""

    embedded: Tensor | None  # (batch, time, embedding)
    readout: Tensor | None  # (batch, time, readout)
    core: list[Any]  # one for each step, as the wiring of the decoder wants it

    def at(self, step: int) -> "DecoderNoise":
        """The noise of one step."""
        embedded, readout = (None if mask is None else mask[:, step : step + 1] for mask in self[:2])
        return DecoderNoise(embedded, readout, self.core[step : step + 1])


class _Steps(NamedTuple):
    """What the steps of a pass give: (batch, time, …) each, and the state behind them."""

    queries: Tensor
    contexts: Tensor
    readouts: Tensor
    weights: Tensor | None
    state: DecoderState


class AttentiveDecoder(Decoder):
    """Embedding, recurrent net, attention, readout, linear output.

    Args:
        vocabulary_size: number of token ids.
        embedding_size: features of a token.
        core: a partial `Recurrent`, to be completed with its input size; always read forwards.
        attention: a partial `Attention`, to be completed with source_size and query_size.
        source_size: features of `Encoded.values` and `Encoded.summary`.
        hidden_size: overrides the core's own.
        num_layers: overrides the core's own.
        token_dropout: share of the tokens whose embedding is zeroed as a whole.
        input_dropout: dropout on the embedded tokens.
        output_dropout: dropout on the readout, on its way to the output and to the next step.
        variational_dropout: both with one mask for all steps of a pass (Gal & Ghahramani 2016), or a new one at each.
        input_feeding: the core reads the last readout beside the token (Luong et al. 2015, section 3.3), so that it
            knows what was looked at. Without it all steps of a pass go through the core at once, which is faster.
        readout_size: features of the readout; by default the core's output, or the embedding's when tied.
        tied: the output layer shares the embedding's weights (Press & Wolf 2017).
        scaled_embedding: where it is tied, the embedding is read times √embedding_size, so that learning begins sooner.
        copy: a prediction may point at a word of the source (See et al. 2017): the logits are then log probabilities.
            Source and target must share one vocabulary.
        wiring: a partial `AttentionWiring`: when the core reads the token and when it attends. By default it attends
            after it has read, `LuongWiring`; captioning has `BahdanauWiring` and `TopDownWiring`.

    Raises:
        ValueError: another wiring without input feeding, which knows no other way; tied with an embedding as wide as
            something else than the readout; copying with an attention that has no weights; what the core and the
            attention refuse.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        core: Callable[..., Recurrent],
        attention: Callable[..., Attention],
        source_size: int,
        *,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        token_dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        variational_dropout: bool = True,
        input_feeding: bool = True,
        readout_size: int | None = None,
        tied: bool = False,
        scaled_embedding: bool = False,
        copy: bool = False,
        wiring: Callable[..., AttentionWiring] | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.embedding = TokenEmbedding(vocabulary_size, embedding_size)
        self.token_dropout = TokenDropout(token_dropout)
        self.input_dropout = SequenceDropout(input_dropout, variational=variational_dropout)
        self.output_dropout = SequenceDropout(output_dropout, variational=variational_dropout)
        self.input_feeding = input_feeding
        self.copy = copy
        finish = partial(complete, core, hidden_size=hidden_size, num_layers=num_layers)
        if readout_size is None:
            readout_size = embedding_size if tied else _output_size(finish)
        query_size = _output_size(finish)
        sizes = Sizes(source_size, query_size, readout_size)
        if wiring is not None and not input_feeding:
            raise ValueError("input_feeding=False goes with the wiring LuongWiring alone; leave wiring out")
        self.wiring = LuongWiring(sizes, finish, feeding=input_feeding) if wiring is None else wiring(sizes, finish)
        self.core = finish(embedding_size + self.wiring.input_size)
        if not isinstance(self.core, Recurrent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"a decoder with attention remembers what it wrote, {type(self.core).__name__} nothing; "
                "give it a recurrent model, such as gru"
            )
        self.attention = attention(source_size=source_size, query_size=query_size)
        self.readout = nn.Linear(query_size + self.attention.value_size, readout_size)
        self.output = nn.Linear(readout_size, vocabulary_size)
        if tied:
            tie(self.output, self.embedding, "the readout", scaled=scaled_embedding)
        self.bridge = Bridge(source_size, self.core)
        if copy and not self.attention.weighs:
            raise ValueError(
                f"copy=True points with the weights of attention, and {type(self.attention).__name__} has none"
            )
        features_size = self.attention.value_size + query_size + embedding_size
        self.mixture = CopyMixture(features_size) if copy else None
        self.attends = self.attention.weighs

    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, Memory]:
        """The state before the first token, made from the summary, and the source prepared for attention."""
        if encoded is None:
            raise ValueError("this decoder looks at a source: give it `encoded`")
        expect(encoded.summary, "batch summary", batch=batch, name="encoded.summary")
        if self.copy and encoded.tokens is None:
            raise ValueError("copy=True needs the ids of the source, encoded.tokens, and this encoder gave none")
        weight = self.output.weight
        memory = self.attention.prepare(encoded)
        core = self.bridge(encoded.summary, self.core.initial_state(batch, like=weight))
        kept = self.wiring.first(encoded, weight)
        return DecoderState(self.wiring.start(core, encoded), self.attention.start(memory), kept), memory

    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None, lengths: Tensor | None = None
    ) -> Decoded:
        """Tokens (batch, time), of which the first `lengths` (batch,) are valid -> logits (batch, time, vocabulary)."""
        expect(tokens, "batch time", name="tokens")
        state = _told(state)
        batch, time = tokens.shape
        if lengths is not None and all_full(lengths, batch, time):
            lengths = None
        if time == 0:
            weights = memory.values.new_zeros(batch, 0, memory.values.shape[1]) if self.attention.weighs else None
            return Decoded(self.output.weight.new_zeros(batch, 0, self.vocabulary_size), weights, state)
        noise = self._masks(batch, time)
        embedded = _times(self.embedding(tokens), noise.embedded)
        self._check_state(state, memory, embedded)
        if self.input_feeding:
            noise = noise._replace(core=self.wiring.noises(self.core, batch, time, embedded))
            steps = self._feed(embedded, state, memory, lengths, noise)
        else:
            steps = self._at_once(embedded, state, memory, lengths, noise)
        return self._decoded(embedded, steps, memory, lengths)

    def step(
        self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None, noise: DecoderNoise | None = None
    ) -> Decoded:
        """Tokens (batch,) -> logits (batch, vocabulary). In training mode with fresh noise, unless it is given some."""
        expect(tokens, "batch", name="tokens")
        state = _told(state)
        noise = noise or self.noise(len(tokens), 1)
        embedded = _times(self.embedding(tokens.unsqueeze(1)), noise.embedded)
        self._check_state(state, memory, embedded)
        decoded = self._decoded(embedded, self._feed(embedded, state, memory, None, noise), memory, None)
        weights = None if decoded.weights is None else decoded.weights.squeeze(1)
        return Decoded(decoded.logits.squeeze(1), weights, decoded.state)

    def noise(self, batch: int, time: int) -> DecoderNoise:
        """The noise of one pass, for `step`: who steps through a text hands it `noise.at(0)`, `noise.at(1)`, …"""
        return self._masks(batch, time)._replace(core=self.wiring.noises(self.core, batch, time, self.output.weight))

    def _masks(self, batch: int, time: int) -> DecoderNoise:
        embedded = readout = None
        like = self.output.weight
        if self.token_dropout.active or self.input_dropout.active:
            ones = like.new_ones(batch, time, self.embedding.embedding_dim)
            embedded = self.input_dropout(self.token_dropout(ones))
        if self.output_dropout.active:
            readout = self.output_dropout(like.new_ones(batch, time, self.readout.out_features))
        return DecoderNoise(embedded, readout, [])

    def _check_state(self, state: DecoderState, memory: Memory, like: Tensor) -> None:
        """Check all that a state remembers, once for all steps of a pass."""
        if len(memory.values) != len(like):
            raise ShapeError(f"the memory has {counted(len(memory.values), 'row')}, the tokens have {len(like)}")
        self.wiring.check(self.core, of_decoder(state).core, like)
        remembered = outline(self.attention.start(memory), like=memory.values)
        check(state.attention, remembered, like=like, name="state.attention")
        kept = None if self.wiring.context_size is None else Leaf((self.wiring.context_size,), None)
        check(state.context, kept, like=like, name="state.context")

    def _feed(
        self, embedded: Tensor, state: DecoderState, memory: Memory, lengths: Tensor | None, noise: DecoderNoise
    ) -> _Steps:
        """Step by step, since what attention found is read at the next step."""
        project = self._projection(embedded)
        masks = [None] * embedded.shape[1] if noise.readout is None else noise.readout.unbind(1)
        states = [state]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        looked: list[Tensor] = []
        for step, (mask, of_core) in enumerate(zip(masks, noise.core, strict=True)):
            query, (context, weights, attention), core = self.wiring.advance(
                self.core, self.attention, partial(project, step), state, memory, of_core
            )
            readout = _times(self._read_out(query, context), mask)
            state = DecoderState(core, attention, self.wiring.following(state.context, query, readout))
            states.append(state)
            found.append((query, context, readout))
            if weights is not None:
                looked.append(weights)
        queries, contexts, readouts = (torch.stack(column, 1) for column in zip(*found, strict=True))
        weights = torch.stack(looked, 1) if looked else None
        return _Steps(queries, contexts, readouts, weights, state_at(states, lengths))

    def _projection(self, embedded: Tensor) -> Callable[[int, Tensor | None], tuple[Tensor | None, Tensor | None]]:
        """What the core's first cell projects at a step, given what is fed; and its inputs where they are needed.

        Where the projection is known to be affine, the tokens' share of it is computed here, for all steps at once.
        """
        cell: Any = self.core.cells[0]
        needs_inputs = self.core.residual and cell.input_size == cell.output_size
        if hooked(cell):  # each step is a call of its own, and looks at the weights of that call

            def called(step: int, fed: Tensor | None) -> tuple[None, Tensor]:
                return None, embedded[:, step] if fed is None else torch.cat([embedded[:, step], fed], dim=-1)

            return called
        if not self.input_feeding:
            every = cell.project(embedded).unbind(1)
            return lambda step, _: (every[step], embedded[:, step] if needs_inputs else None)
        if needs_inputs or not isinstance(cell, PointwiseCell) or type(cell).project is not PointwiseCell.project:

            def whole(step: int, fed: Tensor | None) -> tuple[Tensor, Tensor | None]:
                inputs = embedded[:, step] if fed is None else torch.cat([embedded[:, step], fed], dim=-1)
                return cell.project(inputs), inputs

            return whole
        size = embedded.shape[-1]
        of_token, of_readout = cell.weight_ih[:, :size], cell.weight_ih[:, size:].t()
        shares = linear(embedded, of_token, cell.bias_ih)
        masks = [mask.unbind(1) for mask in cell.step_masks(tuple(embedded.shape[:2]), like=shares)]
        every = shares.unbind(1)

        def split(step: int, fed: Tensor | None) -> tuple[Tensor, None]:
            projected = every[step] if fed is None else torch.addmm(every[step], fed, of_readout)
            return torch.cat([projected, *(mask[step] for mask in masks)], dim=-1) if masks else projected, None

        return split

    def _at_once(
        self, embedded: Tensor, state: DecoderState, memory: Memory, lengths: Tensor | None, noise: DecoderNoise
    ) -> _Steps:
        """All steps together: nothing that attention finds is read by the core."""
        queries, core = self.core(embedded, state.core, lengths)
        contexts, weights, attention = self.attention.over_time(queries, memory, state.attention, lengths)
        readouts = _times(self._read_out(queries, contexts), noise.readout)
        return _Steps(queries, contexts, readouts, weights, DecoderState(core, attention))

    def _read_out(self, query: Tensor, context: Tensor) -> Tensor:
        return torch.tanh(self.readout(torch.cat([query, context], dim=-1)))

    def _decoded(self, embedded: Tensor, steps: _Steps, memory: Memory, lengths: Tensor | None) -> Decoded:
        """Logits of all steps in one product. Behind the end of a text the weights are zero."""
        queries, contexts, readouts, weights, state = steps
        if lengths is not None and weights is not None:
            valid = mask_from_lengths(lengths.to(weights.device), weights.shape[1])
            weights = weights.masked_fill(~valid.unsqueeze(-1), 0.0)
        logits = self.output(readouts)
        if self.mixture is not None and weights is not None:
            features = torch.cat([contexts, queries, embedded], dim=-1)
            logits = self.mixture(logits, features, weights, memory)
        return Decoded(logits, weights, state)


def _times(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask


def _output_size(core: Callable[[int], Recurrent]) -> int:
    """What a core gives, before what it reads is known: asked of one without storage, which draws no weights."""
    with torch.device("meta"):
        return core(1).output_size


def _told(state: DecoderState | None) -> DecoderState:
    if state is None:
        raise ValueError("this decoder looks at a source: give it the state and the memory that start(…) makes of one")
    return state
