"""What a decoder is: it reads a token, predicts the next, and hands its memory on as a value."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.layers.encoded import Encoded
from unrolled.layers.recurrent import Recurrent
from unrolled.models.encoders import TokenEmbedding
from unrolled.shapes import expect
from unrolled.state import leaves, rebuild
from unrolled.wording import article


class DecoderState(NamedTuple):
    """All that a decoder remembers between tokens. Every leaf has the batch on axis 0."""

    core: Any
    attention: Any = None
    context: Tensor | None = None


def of_decoder(state: Any) -> DecoderState:
    """A decoder's state, as given.

    Raises:
        ValueError: anything else, such as that of its core alone.
    """
    if not isinstance(state, DecoderState):
        raise ValueError(
            f"the state is {article(type(state).__name__)}, expected the DecoderState that the decoder's start gives"
        )
    return state


def core_of(state: Any) -> Any:
    """What a decoder without attention remembers: its core's state and nothing else.

    Raises:
        ValueError: anything else than such a state.
    """
    core, attention, context = of_decoder(state)
    if attention is not None or context is not None:
        raise ValueError("state.attention and state.context are of another decoder: this one has no attention")
    return core


class Decoded(NamedTuple):
    """What a decoder says of a piece of text, and where it stands after it."""

    logits: Tensor  # (batch, time, vocabulary), or (batch, vocabulary) from `step`
    weights: Tensor | None  # (batch, time, source): what attention looked at
    state: DecoderState


class Decoder(nn.Module, ABC):
    """Reads a token, predicts the next. Logits at a step never depend on later tokens."""

    vocabulary_size: int
    attends: bool = False  # whether `Decoded.weights` say how much was looked at each place of the source

    @abstractmethod
    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, Any]:
        """The state before the first token, and the memory that `forward` and `step` want with it."""

    @abstractmethod
    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None, lengths: Tensor | None = None
    ) -> Decoded:
        """Tokens (batch, time) -> logits (batch, time, vocabulary).

        Without a state, a language model begins a text; a decoder that is told a source wants those of `start`.
        """

    @abstractmethod
    def step(self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None) -> Decoded:
        """Tokens (batch,) -> logits (batch, vocabulary): what `forward` gives for this one step."""


class Bridge(nn.ModuleList):
    """From the summary of a source to a core's first state, each leaf tanh(W s + b) (Cho et al. 2014, appendix A.1.2).

    A leaf that only counts steps stays as it is.

    Args:
        summary_size: features of the summary.
        core: whose state it makes.
    """

    def __init__(self, summary_size: int, core: Recurrent) -> None:
        initial = leaves(core.initial_state(1, like=next(core.parameters())))
        self.learnable_state = core.learnable_state()
        pairs = zip(initial, self.learnable_state, strict=True)
        super().__init__(nn.Linear(summary_size, leaf.shape[-1]) for leaf, learned in pairs if learned)

    def forward(self, summary: Tensor, initial: Any) -> Any:
        """Summary (batch, summary) and a state to be like -> a state of the same structure and precision."""
        expect(summary, "batch summary", name="encoded.summary")
        layers = iter(self)
        pairs = zip(leaves(initial), self.learnable_state, strict=True)
        return rebuild(
            initial, [torch.tanh(next(layers)(summary)).to(leaf.dtype) if learned else leaf for leaf, learned in pairs]
        )


def tie(output: nn.Linear, embedding: TokenEmbedding, width: str, *, scaled: bool) -> None:
    """Let an output layer share an embedding's weights (Press & Wolf 2017).

    With `scaled` the embedding is read times √size (Vaswani et al. 2017, section 3.4): weights of an output layer's
    size are small beside those of an embedding, and learning begins late.

    Raises:
        ValueError: an embedding as wide as something else than the output layer's input, which `width` names.
    """
    size = embedding.embedding_dim
    if size != output.in_features:
        raise ValueError(f"tied=True needs embedding_size equal to {width}, {output.in_features}, got {size}")
    output.weight = embedding.weight
    # The output layer's scale: an embedding's unit normal would give logits of the size of √hidden.
    nn.init.uniform_(embedding.weight, -(size**-0.5), size**-0.5)
    embedding.scale = size**0.5 if scaled else 1.0
