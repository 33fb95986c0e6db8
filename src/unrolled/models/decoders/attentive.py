"""A decoder with attention to the source at each step.

    s_t = core([E y_{t-1}; r_{t-1}], s_{t-1})      r_{t-1} with input feeding only
    c_t = attention(s_t)
    r_t = tanh(W [s_t; c_t])
    p(y_t | y_<t, x) = softmax(V r_t + b)

Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", eq. 5-6 and section
3.3, with any `Attention`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unrolled.cells.hooks import has_hooks
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
    """The noise of a sequence of `time` steps; None where dropout is inactive."""

    embedded: Tensor | None  # (batch, time, embedding)
    readout: Tensor | None  # (batch, time, readout)
    core: list[Any]  # one item per step, from the decoder's wiring

    def at(self, step: int) -> "DecoderNoise":
        """Return the noise of one step."""
        embedded, readout = (None if mask is None else mask[:, step : step + 1] for mask in self[:2])
        return DecoderNoise(embedded, readout, self.core[step : step + 1])


class _Steps(NamedTuple):
    """The results of all steps, (batch, time, …) each, and the state after them."""

    queries: Tensor
    contexts: Tensor
    readouts: Tensor
    weights: Tensor | None
    state: DecoderState


class AttentiveDecoder(Decoder):
    """An embedding, a recurrent network, attention, a readout layer and a linear output layer.

    Args:
        vocabulary_size: number of token ids.
        embedding_size: number of features of a token.
        core: a partial `Recurrent`, called with its input size; it is unidirectional.
        attention: a partial `Attention`, called with source_size and query_size.
        source_size: number of features of `Encoded.values` and `Encoded.summary`.
        hidden_size: overrides the core's hidden_size.
        num_layers: overrides the core's num_layers.
        token_dropout: probability that the whole embedding of a token is zeroed.
        input_dropout: dropout probability of the embedded tokens.
        output_dropout: dropout probability of the readout, which the output layer and the next step use.
        variational_dropout: whether both have one mask for all steps of a sequence (Gal & Ghahramani 2016).
        input_feeding: whether the core reads the last readout together with the token (Luong et al. 2015, section 3.3),
            so that it depends on previous attention. Without it the core processes all steps at once, which is faster.
        readout_size: number of features of the readout; by default that of the core's output, or of the embedding if
            tied.
        tied: whether the output layer shares the embedding's weights (Press & Wolf 2017).
        scaled_embedding: whether a tied embedding is multiplied by √embedding_size, which speeds up early learning.
        copy: whether a prediction can copy a token of the source (See et al. 2017). The logits are then log
            probabilities. Source and target must share one vocabulary.
        wiring: a partial `AttentionWiring`, the order of reading the token and attending to the source. The default,
            `LuongWiring`, attends after the core's step; captioning uses `BahdanauWiring` and `TopDownWiring`.

    Raises:
        ValueError: a wiring without input feeding; `tied` with an embedding size other than the readout size; `copy`
            with an attention without weights; invalid options of the core or the attention.
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
            raise ValueError("input_feeding=False supports only the wiring LuongWiring; leave wiring out")
        self.wiring = LuongWiring(sizes, finish, feeding=input_feeding) if wiring is None else wiring(sizes, finish)
        self.core = finish(embedding_size + self.wiring.input_size)
        if not isinstance(self.core, Recurrent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"a decoder with attention needs a recurrent model, such as gru, but {type(self.core).__name__} "
                "has no state"
            )
        self.attention = attention(source_size=source_size, query_size=query_size)
        self.readout = nn.Linear(query_size + self.attention.value_size, readout_size)
        self.output = nn.Linear(readout_size, vocabulary_size)
        if tied:
            tie(self.output, self.embedding, "the readout", scaled=scaled_embedding)
        self.bridge = Bridge(source_size, self.core)
        if copy and not self.attention.has_weights:
            raise ValueError(f"copy=True needs attention weights, and {type(self.attention).__name__} has none")
        features_size = self.attention.value_size + query_size + embedding_size
        self.mixture = CopyMixture(features_size) if copy else None
        self.attends = self.attention.has_weights

    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, Memory]:
        """Return the state before the first token, computed from the summary, and the source prepared for attention."""
        if encoded is None:
            raise ValueError("this decoder attends to a source: pass `encoded`")
        expect(encoded.summary, "batch summary", batch=batch, name="encoded.summary")
        if self.copy and encoded.tokens is None:
            raise ValueError("copy=True needs the token ids of the source, and encoded.tokens is None")
        weight = self.output.weight
        memory = self.attention.prepare(encoded)
        core = self.bridge(encoded.summary, self.core.initial_state(batch, like=weight))
        context = self.wiring.initial_context(encoded, weight)
        return DecoderState(self.wiring.start(core, encoded), self.attention.start(memory), context), memory

    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None, lengths: Tensor | None = None
    ) -> Decoded:
        """Predict logits (batch, time, vocabulary) for tokens (batch, time), of which `lengths` (batch,) are valid."""
        expect(tokens, "batch time", name="tokens")
        state = _require_state(state)
        batch, time = tokens.shape
        if lengths is not None and all_full(lengths, batch, time):
            lengths = None
        if time == 0:
            weights = memory.values.new_zeros(batch, 0, memory.values.shape[1]) if self.attention.has_weights else None
            return Decoded(self.output.weight.new_zeros(batch, 0, self.vocabulary_size), weights, state)
        noise = self._masks(batch, time)
        embedded = _times(self.embedding(tokens), noise.embedded)
        self._check_state(state, memory, embedded)
        if self.input_feeding:
            noise = noise._replace(core=self.wiring.noises(self.core, batch, time, embedded))
            steps = self._run_steps(embedded, state, memory, lengths, noise)
        else:
            steps = self._run_parallel(embedded, state, memory, lengths, noise)
        return self._decoded(embedded, steps, memory, lengths)

    def step(
        self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None, noise: DecoderNoise | None = None
    ) -> Decoded:
        """Predict logits (batch, vocabulary) for tokens (batch,). In training mode, `noise` is drawn by default."""
        expect(tokens, "batch", name="tokens")
        state = _require_state(state)
        noise = noise or self.noise(len(tokens), 1)
        embedded = _times(self.embedding(tokens.unsqueeze(1)), noise.embedded)
        self._check_state(state, memory, embedded)
        decoded = self._decoded(embedded, self._run_steps(embedded, state, memory, None, noise), memory, None)
        weights = None if decoded.weights is None else decoded.weights.squeeze(1)
        return Decoded(decoded.logits.squeeze(1), weights, decoded.state)

    def noise(self, batch: int, time: int) -> DecoderNoise:
        """Draw the noise of a sequence. Its items `noise.at(0)`, `noise.at(1)`, … are arguments of `step`."""
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
        """Check a decoder's state, once for all steps of a sequence."""
        if len(memory.values) != len(like):
            raise ShapeError(f"the memory has {counted(len(memory.values), 'row')}, the tokens have {len(like)}")
        self.wiring.check(self.core, of_decoder(state).core, like)
        attention = outline(self.attention.start(memory), like=memory.values)
        check(state.attention, attention, like=like, name="state.attention")
        context = None if self.wiring.context_size is None else Leaf((self.wiring.context_size,), None)
        check(state.context, context, like=like, name="state.context")

    def _run_steps(
        self, embedded: Tensor, state: DecoderState, memory: Memory, lengths: Tensor | None, noise: DecoderNoise
    ) -> _Steps:
        """Run step by step, since the core reads the last step's readout or context."""
        project = self._projection(embedded)
        masks = [None] * embedded.shape[1] if noise.readout is None else noise.readout.unbind(1)
        states = [state]
        results: list[tuple[Tensor, Tensor, Tensor]] = []
        all_weights: list[Tensor] = []
        for step, (mask, of_core) in enumerate(zip(masks, noise.core, strict=True)):
            query, (context, weights, attention), core = self.wiring.advance(
                self.core, self.attention, partial(project, step), state, memory, of_core
            )
            readout = _times(self._read_out(query, context), mask)
            state = DecoderState(core, attention, self.wiring.next_context(state.context, query, readout))
            states.append(state)
            results.append((query, context, readout))
            if weights is not None:
                all_weights.append(weights)
        queries, contexts, readouts = (torch.stack(column, 1) for column in zip(*results, strict=True))
        weights = torch.stack(all_weights, 1) if all_weights else None
        return _Steps(queries, contexts, readouts, weights, state_at(states, lengths))

    def _projection(self, embedded: Tensor) -> Callable[[int, Tensor | None], tuple[Tensor | None, Tensor | None]]:
        """Return a function of a step and the fed features: the first cell's projection, and its inputs if needed.

        If the projection is known to be affine, the tokens' part of it is computed here for all steps at once.
        """
        cell: Any = self.core.cells[0]
        needs_inputs = self.core.residual and cell.input_size == cell.output_size
        if has_hooks(cell):  # each step is a separate call, with the weights of that call

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

    def _run_parallel(
        self, embedded: Tensor, state: DecoderState, memory: Memory, lengths: Tensor | None, noise: DecoderNoise
    ) -> _Steps:
        """Run all steps at once, since the core doesn't read contexts."""
        queries, core = self.core(embedded, state.core, lengths)
        contexts, weights, attention = self.attention.over_time(queries, memory, state.attention, lengths)
        readouts = _times(self._read_out(queries, contexts), noise.readout)
        return _Steps(queries, contexts, readouts, weights, DecoderState(core, attention))

    def _read_out(self, query: Tensor, context: Tensor) -> Tensor:
        return torch.tanh(self.readout(torch.cat([query, context], dim=-1)))

    def _decoded(self, embedded: Tensor, steps: _Steps, memory: Memory, lengths: Tensor | None) -> Decoded:
        """Compute the logits of all steps in one product, and set the weights after the end of a sequence to zero."""
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
    """Return the output size of a core before its input size is known, from a core without storage."""
    with torch.device("meta"):
        return core(1).output_size


def _require_state(state: DecoderState | None) -> DecoderState:
    if state is None:
        raise ValueError("this decoder attends to a source: pass the state and the memory that start(…) returns")
    return state
