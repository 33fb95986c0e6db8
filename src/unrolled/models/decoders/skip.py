"""A deep decoder with skip connections, whose first layer attends to a source: the networks of Graves 2013.

    h¹_t = core¹([E x_t; w_{t−1}], h¹_{t−1})
    w_t = attention(h¹_t)
    hⁿ_t = coreⁿ([E x_t; w_t; hⁿ⁻¹_t], hⁿ_{t−1})
    x_{t+1} ~ head([h¹_t; …; hᴺ_t])

"Generating Sequences With Recurrent Neural Networks", eq. 1-5 and 52-53: without attention the prediction network of
section 2, with a `WindowAttention` the synthesis network of section 5.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled.heads.base import Head
from unrolled.layers.attention import Attention, Memory
from unrolled.layers.dropout import SequenceDropout
from unrolled.layers.encoded import Encoded
from unrolled.layers.feedforward import FeedForward
from unrolled.layers.observing import observed_steps
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.base import Decoded, Decoder, DecoderState, check_attention, of_decoder
from unrolled.models.embeddings import InputEmbedding, check_conditions, checked_embedding, without_padding
from unrolled.models.encoders import complete
from unrolled.resets import Stretches
from unrolled.sequences import all_full, mask_from_lengths
from unrolled.shapes import expect
from unrolled.state import state_at
from unrolled.wording import counted


class _First(NamedTuple):
    """The results of the first layer: outputs, contexts and weights (batch, time, …), and the state after them."""

    outputs: Tensor
    contexts: Tensor | None
    weights: Tensor | None
    state: DecoderState


class SkipDecoder(Decoder):
    """Layers that all read the input, a head that reads all layers, and attention at the first layer.

    With attention, only the first layer runs step by step: the others read whole sequences.

    Args:
        embedding: an `InputEmbedding` of the inputs.
        core: a partial `Recurrent`, called once for each layer with its input size; its `dropout` applies to what a
            layer reads of the one below.
        head: a partial `Head`, called with its input size.
        attention: a partial `Attention`, called with source_size and query_size; None for no source.
        source_size: number of features of `Encoded.values`; needed with attention.
        hidden_size: overrides the core's hidden_size.
        num_layers: overrides the core's num_layers.
        output_dropout: dropout probability of the head's input, with one mask for all steps of a sequence.

    Raises:
        ValueError: attention without source_size or the reverse, attention to a core without a state, invalid options
            of a part.
    """

    def __init__(
        self,
        embedding: InputEmbedding,
        core: Callable[..., Recurrent | FeedForward],
        head: Callable[..., Head],
        attention: Callable[..., Attention] | None = None,
        *,
        source_size: int | None = None,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        output_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if (attention is None) != (source_size is None):
            raise ValueError("attention and source_size, the source's number of features, need each other")
        self.embedding = checked_embedding(embedding)
        self.input_axes = embedding.input_axes
        with torch.device("meta"):
            whole = complete(core, 1, hidden_size=hidden_size, num_layers=num_layers)
        if attention is not None and not isinstance(whole, Recurrent):
            raise ValueError(
                f"a decoder with attention needs a recurrent model, such as lstm, but {type(whole).__name__} has no "
                "state"
            )
        size = embedding.output_size
        query = complete(core, size, hidden_size=hidden_size, num_layers=1).output_size
        self.attention = None if attention is None else attention(source_size=source_size, query_size=query)
        self.attends = self.attention is not None and self.attention.has_weights
        size += 0 if self.attention is None else self.attention.value_size
        sizes = [size, *[size + query] * (whole.num_layers - 1)]
        self.layers = nn.ModuleList(complete(core, each, hidden_size=hidden_size, num_layers=1) for each in sizes)
        self.output_dropout = SequenceDropout(output_dropout, variational=True)
        self.head = head(input_size=query * len(self.layers))

    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, Any]:
        """Return the state before the first input, and the source prepared for attention, or None without attention."""
        like = self.head.linear.weight
        core = tuple(layer.initial_state(batch, like=like) for layer in self._layers)
        if (encoded is None) != (self.attention is None):
            given = "starts from a source: pass `encoded`" if encoded is None else "was built without a source"
            raise ValueError(f"this decoder {given}")
        if encoded is None or self.attention is None:
            return DecoderState(core), None
        expect(encoded.values, "batch source features", batch=batch, name="encoded.values")
        memory = self.attention.prepare(encoded)
        return DecoderState(
            core, self.attention.start(memory), like.new_zeros(batch, self.attention.value_size)
        ), memory

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
        expect(inputs, f"batch time {self.input_axes}", name="inputs")
        check_conditions(conditions, 0, *inputs.shape[:2])
        if resets is not None and self.attention is not None:
            raise ValueError("a decoder with a source has one source per row, so `resets` can't begin another sequence")
        if state is None and self.attention is not None:
            raise ValueError("this decoder starts from a source: pass the state and the memory that start(…) returns")
        state = self.start(inputs.shape[0])[0] if state is None else state
        if lengths is not None and all_full(lengths, *inputs.shape[:2]):
            lengths = None
        embedded = self.embedding(without_padding(inputs, lengths))
        self._check(state, memory, embedded)
        if self.attention is None:
            outputs, core = self._layers[0](embedded, state.core[0], lengths, resets)
            first = _First(outputs, None, None, DecoderState(core))
        else:
            first = self._attended(self.attention, embedded, state, memory, lengths)
        read = embedded if first.contexts is None else torch.cat([embedded, first.contexts], dim=-1)
        outputs, after = [first.outputs], [first.state.core]
        for layer, before in zip(self._layers[1:], state.core[1:], strict=True):
            values, core = layer(torch.cat([read, layer.dropout(outputs[-1])], dim=-1), before, lengths, resets)
            outputs.append(values)
            after.append(core)
        parameters = self.head(self.output_dropout(torch.cat(outputs, dim=-1)))
        return Decoded(parameters, first.weights, first.state._replace(core=tuple(after)))

    def step(
        self,
        inputs: Tensor,
        state: DecoderState | None = None,
        memory: Any = None,
        *,
        conditions: Tensor | None = None,
    ) -> Decoded:
        """See `Decoder.step`; returns parameters (batch, outputs). In training mode each step draws its own noise."""
        expect(inputs, f"batch {self.input_axes}", name="inputs")
        check_conditions(conditions, 0, inputs.shape[0])
        decoded = self(inputs.unsqueeze(1), state, memory)
        weights = None if decoded.weights is None else decoded.weights.squeeze(1)
        return Decoded(decoded.parameters.squeeze(1), weights, decoded.state)

    @property
    def _layers(self) -> list[Recurrent]:
        return cast("list[Recurrent]", list(self.layers))

    def _attended(
        self, attention: Attention, embedded: Tensor, state: DecoderState, memory: Memory, lengths: Tensor | None
    ) -> _First:
        """Run the first layer step by step, since it reads what its last output has attended to."""
        layer = self._layers[0]
        batch, time = embedded.shape[:2]
        core, window, context = state.core[0], state.attention, cast(Tensor, state.context)
        states = [DecoderState(core, window, context)]
        contexts: list[Tensor] = []
        outputs: list[Tensor] = []
        all_weights: list[Tensor] = []
        with observed_steps(layer, embedded, lengths):
            for given, noise in zip(embedded.unbind(1), layer.noises(batch, time, like=embedded), strict=True):
                output, core = layer.advance(None, core, noise, torch.cat([given, context], dim=-1))
                context, weights, window = attention(output, memory, window)
                states.append(DecoderState(core, window, context))
                outputs.append(output)
                contexts.append(context)
                if weights is not None:
                    all_weights.append(weights)
        source = memory.values.shape[1]
        read = _stacked(contexts, embedded, attention.value_size)
        weights = _stacked(all_weights, embedded, source) if attention.has_weights else None
        found = _stacked(outputs, embedded, layer.output_size)
        if lengths is not None:
            padding = ~mask_from_lengths(lengths.to(embedded.device), time).unsqueeze(-1)
            found, read = found.masked_fill(padding, 0.0), read.masked_fill(padding, 0.0)
            weights = None if weights is None else weights.masked_fill(padding, 0.0)
        return _First(found, read, weights, state_at(states, lengths))

    def _check(self, state: DecoderState, memory: Any, embedded: Tensor) -> None:
        core, attention, context = of_decoder(state)
        if not isinstance(core, tuple) or len(cast("tuple[Any, ...]", core)) != len(self.layers):
            raise ValueError(f"state.core is not that of this decoder, which has {counted(len(self.layers), 'layer')}")
        if self.attention is None:
            if attention is not None or context is not None or memory is not None:
                raise ValueError("the state or the memory is of another decoder: this one has no attention")
            return
        check_attention(self.attention, state, memory, self.attention.value_size, embedded)
        self._layers[0].check_state(core[0], like=embedded, name="state.core[0]")


def _stacked(steps: list[Tensor], like: Tensor, size: int) -> Tensor:
    """Stack (batch, size) of each step as (batch, time, size), also without a step."""
    return torch.stack(steps, dim=1) if steps else like.new_zeros(like.shape[0], 0, size)
