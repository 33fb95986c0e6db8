"""When a decoder reads a word and when it attends to the source.

`AttentiveDecoder` does what these have in common. A wiring says what the core reads beside the word, which layer asks
the attention, and what is kept for the next step; it is built before the core, since it decides the core's input size.
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

# What the core's first cell projects at a step, given what is fed to it; and its inputs where they are needed.
Project = Callable[[Tensor | None], tuple[Tensor | None, Tensor | None]]


class Sizes(NamedTuple):
    """Features of what a wiring joins."""

    source: int
    query: int  # the core's output
    readout: int


class AttentionWiring(nn.Module, ABC):
    """What happens between a word and the readout.

    Args:
        sizes: of source, core and readout.
        core: makes a core of the decoder's kind from an input size.
    """

    input_size: int  # features that the core reads beside the word
    context_size: int | None = None  # features of what is kept for the next step; None where nothing is

    def __init__(self, sizes: Sizes, core: Callable[[int], Recurrent]) -> None:
        super().__init__()
        self.sizes = sizes

    @abstractmethod
    def first(self, encoded: Encoded, like: Tensor) -> Tensor | None:
        """What is kept for the first step: (batch, features)."""

    @abstractmethod
    def following(self, kept: Tensor | None, query: Tensor, readout: Tensor) -> Tensor | None:
        """What is kept for the next step, from what was kept for this one."""

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
        """One step: the query that is read out, what attention found, and the next state of all cores."""

    def start(self, core: Any, encoded: Encoded) -> Any:
        """The first state of all cores, given that of the decoder's."""
        return core

    def check(self, core: Recurrent, state: Any, like: Tensor) -> None:
        """Check the state of all cores before the first step of a pass; see `Recurrent.check_state`."""
        core.check_state(state, like=like, name="state.core")

    def noises(self, core: Recurrent, batch: int, time: int, like: Tensor) -> list[Any]:
        """The noise of each step of one pass."""
        return core.noises(batch, time, like=like)


class LuongWiring(AttentionWiring):
    """The core reads the word and asks; its next step reads the readout (Luong et al. 2015, section 3.3).

    Args:
        sizes: see `AttentionWiring`.
        core: see `AttentionWiring`.
        feeding: let the next step read the readout; without it nothing is kept.
    """

    def __init__(self, sizes: Sizes, core: Callable[[int], Recurrent], *, feeding: bool = True) -> None:
        super().__init__(sizes, core)
        self.feeding = feeding
        self.input_size = sizes.readout * feeding
        self.context_size = sizes.readout if feeding else None

    def first(self, encoded: Encoded, like: Tensor) -> Tensor | None:
        return like.new_zeros(len(encoded.summary), self.sizes.readout) if self.feeding else None

    def following(self, kept: Tensor | None, query: Tensor, readout: Tensor) -> Tensor | None:
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
    """The last output asks, and the core reads the word together with what was seen.

        c_t = β_t attention(q_{t-1}),  β_t = σ(w · q_{t-1} + b)
        q_t = core([E y_{t-1}; c_t])

    Xu et al. 2015, "Show, Attend and Tell", eq. 1-6 and 13 and section 4.2.1; without the gate Bahdanau et al. 2015.
    q_0 is made from the summary of the source by a layer with a tanh.

    Args:
        sizes: see `AttentionWiring`.
        core: see `AttentionWiring`.
        gated: weigh what was seen by β_t, so that a word that nothing in the source tells can be left to the language.
    """

    def __init__(self, sizes: Sizes, core: Callable[[int], Recurrent], *, gated: bool = True) -> None:
        super().__init__(sizes, core)
        self.input_size = sizes.source
        self.context_size = sizes.query
        self.query = nn.Linear(sizes.source, sizes.query)
        self.gate = nn.Linear(sizes.query, 1) if gated else None

    def first(self, encoded: Encoded, like: Tensor) -> Tensor:
        return torch.tanh(self.query(encoded.summary))

    def following(self, kept: Tensor | None, query: Tensor, readout: Tensor) -> Tensor:
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
        asking = cast(Tensor, state.context)
        found: Attended = attention(asking, memory, state.attention)
        if self.gate is not None:
            found = found._replace(context=found.context * torch.sigmoid(self.gate(asking)))
        projected, inputs = project(found.context)
        query, after = core.advance(projected, state.core, noise, inputs)
        return query, found, after


class TopDownWiring(AttentionWiring):
    """Two cores: the first reads the word and asks, the second reads what was seen and writes.

        a_t = core([E y_{t-1}; q_{t-1}; s]),  c_t = attention(a_t),  q_t = language([c_t; a_t])

    Anderson et al. 2018, "Bottom-Up and Top-Down Attention for Image Captioning and VQA", section 3.2, where s is the
    summary of the source. The first states are made from the summary.

    Args:
        sizes: see `AttentionWiring`.
        core: see `AttentionWiring`.
    """

    def __init__(self, sizes: Sizes, core: Callable[[int], Recurrent]) -> None:
        super().__init__(sizes, core)
        self.input_size = self.context_size = sizes.query + sizes.source
        self.language = core(sizes.source + sizes.query)
        self.bridge = Bridge(sizes.source, self.language)

    def first(self, encoded: Encoded, like: Tensor) -> Tensor:
        return torch.cat([like.new_zeros(len(encoded.summary), self.sizes.query), encoded.summary], dim=-1)

    def following(self, kept: Tensor | None, query: Tensor, readout: Tensor) -> Tensor:
        return torch.cat([query, cast(Tensor, kept)[:, self.sizes.query :]], dim=-1)

    def start(self, core: Any, encoded: Encoded) -> Any:
        like = next(self.language.parameters())
        initial = self.language.initial_state(len(encoded.summary), like=like)
        return core, self.bridge(encoded.summary, initial)

    def check(self, core: Recurrent, state: Any, like: Tensor) -> None:
        if not isinstance(state, tuple) or len(cast("tuple[Any, ...]", state)) != 2:
            raise ValueError("state.core is no pair, expected the states of both cores")
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
        asking, asked = core.advance(projected, state.core[0], noise[0], inputs)
        found: Attended = attention(asking, memory, state.attention)
        seen = torch.cat([found.context, asking], dim=-1)
        query, written = self.language.step(seen, state.core[1], noise[1])
        return query, found, (asked, written)
