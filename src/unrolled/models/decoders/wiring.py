"""The order in which a decoder reads a token and attends to the source.

A wiring determines what an `AutoregressiveDecoder`'s core reads in addition to the input, which output is the query of
its attention, and which features are passed to the next step as its context. It is built before the core, since it
determines the core's input size.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled.layers.attention import Attended, Attention, Memory
from unrolled.layers.encoded import Encoded
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.base import Bridge, DecoderState

# From the features fed to the core, the projection of its first cell at a step, and the cell's inputs if needed.
Project = Callable[[Tensor | None], tuple[Tensor | None, Tensor | None]]


class Sizes(NamedTuple):
    """Numbers of features of source, query and readout."""

    source: int
    query: int  # the core's output
    readout: int


class AttentionWiring(nn.Module, ABC):
    """Base class of wirings: the step of a decoder between the embedded token and the readout.

    Args:
        sizes: numbers of features of source, query and readout.
        core: creates a core with the decoder's options, given an input size.
    """

    input_size: int  # number of features that the core reads in addition to the token
    context_size: int | None = None  # number of features passed to the next step; None for no context

    def __init__(self, sizes: Sizes, core: Callable[[int], Recurrent]) -> None:
        super().__init__()
        self.sizes = sizes

    @abstractmethod
    def initial_context(self, encoded: Encoded, like: Tensor) -> Tensor | None:
        """Return the context of the first step, (batch, features)."""

    @abstractmethod
    def next_context(self, context: Tensor | None, query: Tensor, readout: Tensor) -> Tensor | None:
        """Return the context of the next step, given that of this step."""

    @abstractmethod
    def advance(
        self,
        core: Recurrent,
        attention: Attention,
        project: Project,
        state: DecoderState,
        memory: Memory,
        noise: Any,
    ) -> tuple[Tensor, Attended, Any]:
        """Compute a step: the query for the readout, the result of attention, and the next state of all cores."""

    def start(self, core: Any, encoded: Encoded) -> Any:
        """Return the initial state of all cores, given that of the decoder's core."""
        return core

    def check(self, core: Recurrent, state: Any, like: Tensor) -> None:
        """Check the state of all cores before the first step of a sequence; see `Recurrent.check_state`."""
        core.check_state(state, like=like, name="state.core")

    def noises(self, core: Recurrent, batch: int, time: int, like: Tensor) -> list[Any]:
        """Draw the noise of each step of a sequence."""
        return core.noises(batch, time, like=like)


class LuongWiring(AttentionWiring):
    """The core reads the token, and its output is the query (Luong et al. 2015, section 3.3).

    With input feeding, the core also reads the readout of the previous step.

    Args:
        sizes: see `AttentionWiring`.
        core: see `AttentionWiring`.
        feeding: whether the core reads the previous readout; without it there is no context.
    """

    def __init__(self, sizes: Sizes, core: Callable[[int], Recurrent], *, feeding: bool = True) -> None:
        super().__init__(sizes, core)
        self.feeding = feeding
        self.input_size = sizes.readout * feeding
        self.context_size = sizes.readout if feeding else None

    def initial_context(self, encoded: Encoded, like: Tensor) -> Tensor | None:
        return like.new_zeros(encoded.summary.shape[0], self.sizes.readout) if self.feeding else None

    def next_context(self, context: Tensor | None, query: Tensor, readout: Tensor) -> Tensor | None:
        return readout if self.feeding else None

    def advance(
        self,
        core: Recurrent,
        attention: Attention,
        project: Project,
        state: DecoderState,
        memory: Memory,
        noise: Any,
    ) -> tuple[Tensor, Attended, Any]:
        projected, inputs = project(state.context)
        query, after = core.advance(projected, state.core, noise, inputs)
        return query, attention(query, memory, state.attention), after


class BahdanauWiring(AttentionWiring):
    """The core's previous output is the query, and the core reads the token together with the attended source.

        c_t = β_t attention(q_{t-1}),  β_t = σ(w · q_{t-1} + b)
        q_t = core([E y_{t-1}; c_t])

    Xu et al. 2015, "Show, Attend and Tell", eq. 1-6 and 13 and section 4.2.1; without the gate Bahdanau et al. 2015.
    q_0 is computed from the summary of the source by a tanh layer.

    Args:
        sizes: see `AttentionWiring`.
        core: see `AttentionWiring`.
        gated: whether the attended source is multiplied by β_t, so that tokens can be predicted without the source.
    """

    def __init__(self, sizes: Sizes, core: Callable[[int], Recurrent], *, gated: bool = True) -> None:
        super().__init__(sizes, core)
        self.input_size = sizes.source
        self.context_size = sizes.query
        self.query = nn.Linear(sizes.source, sizes.query)
        self.gate = nn.Linear(sizes.query, 1) if gated else None

    def initial_context(self, encoded: Encoded, like: Tensor) -> Tensor:
        return torch.tanh(self.query(encoded.summary))

    def next_context(self, context: Tensor | None, query: Tensor, readout: Tensor) -> Tensor:
        return query

    def advance(
        self,
        core: Recurrent,
        attention: Attention,
        project: Project,
        state: DecoderState,
        memory: Memory,
        noise: Any,
    ) -> tuple[Tensor, Attended, Any]:
        last = cast(Tensor, state.context)
        attended: Attended = attention(last, memory, state.attention)
        if self.gate is not None:
            attended = attended._replace(context=attended.context * torch.sigmoid(self.gate(last)))
        projected, inputs = project(attended.context)
        query, after = core.advance(projected, state.core, noise, inputs)
        return query, attended, after


class TopDownWiring(AttentionWiring):
    """Two cores: the output of the first is the query, and the second reads the attended source.

        a_t = core([E y_{t-1}; q_{t-1}; s]),  c_t = attention(a_t),  q_t = language([c_t; a_t])

    Anderson et al. 2018, "Bottom-Up and Top-Down Attention for Image Captioning and VQA", section 3.2, where s is the
    summary of the source. The initial states are computed from the summary.

    Args:
        sizes: see `AttentionWiring`.
        core: see `AttentionWiring`.
    """

    def __init__(self, sizes: Sizes, core: Callable[[int], Recurrent]) -> None:
        super().__init__(sizes, core)
        self.input_size = self.context_size = sizes.query + sizes.source
        self.language = core(sizes.source + sizes.query)
        self.bridge = Bridge(sizes.source, self.language)

    def initial_context(self, encoded: Encoded, like: Tensor) -> Tensor:
        return torch.cat([like.new_zeros(encoded.summary.shape[0], self.sizes.query), encoded.summary], dim=-1)

    def next_context(self, context: Tensor | None, query: Tensor, readout: Tensor) -> Tensor:
        return torch.cat([query, cast(Tensor, context)[:, self.sizes.query :]], dim=-1)

    def start(self, core: Any, encoded: Encoded) -> Any:
        like = next(self.language.parameters())
        initial = self.language.initial_state(encoded.summary.shape[0], like=like)
        return core, self.bridge(encoded.summary, initial)

    def check(self, core: Recurrent, state: Any, like: Tensor) -> None:
        if not isinstance(state, tuple) or len(cast("tuple[Any, ...]", state)) != 2:
            raise ValueError("state.core is not a pair, expected the states of both cores")
        core.check_state(state[0], like=like, name="state.core[0]")
        self.language.check_state(state[1], like=like, name="state.core[1]")

    def noises(self, core: Recurrent, batch: int, time: int, like: Tensor) -> list[Any]:
        pairs = (each.noises(batch, time, like=like) for each in (core, self.language))
        return list(zip(*pairs, strict=True))

    def advance(
        self,
        core: Recurrent,
        attention: Attention,
        project: Project,
        state: DecoderState,
        memory: Memory,
        noise: Any,
    ) -> tuple[Tensor, Attended, Any]:
        projected, inputs = project(state.context)
        output, first = core.advance(projected, state.core[0], noise[0], inputs)
        attended: Attended = attention(output, memory, state.attention)
        query, second = self.language.step(torch.cat([attended.context, output], dim=-1), state.core[1], noise[1])
        return query, attended, (first, second)
