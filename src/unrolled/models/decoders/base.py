"""Base class of decoders, which read a token and predict the next, with their state as a value."""

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
    """The state of a decoder between tokens. Axis 0 of every tensor is the batch."""

    core: Any
    attention: Any = None
    context: Tensor | None = None


def of_decoder(state: Any) -> DecoderState:
    """Check that a state is a `DecoderState`, and return it.

    Raises:
        ValueError: another value, such as the state of the core.
    """
    if not isinstance(state, DecoderState):
        raise ValueError(
            f"the state is {article(type(state).__name__)}, expected the DecoderState that the decoder's start returns"
        )
    return state


def core_of(state: Any) -> Any:
    """Return the core's state from the state of a decoder without attention.

    Raises:
        ValueError: the state of a decoder with attention, or another value.
    """
    core, attention, context = of_decoder(state)
    if attention is not None or context is not None:
        raise ValueError("state.attention and state.context are of another decoder: this one has no attention")
    return core


class Decoded(NamedTuple):
    """The predictions of a decoder for some tokens, and the state after them."""

    logits: Tensor  # (batch, time, vocabulary), or (batch, vocabulary) from `step`
    weights: Tensor | None  # (batch, time, source): attention weights
    state: DecoderState


class Decoder(nn.Module, ABC):
    """Base class of decoders, which predict the next token. The logits of a step don't depend on later tokens."""

    vocabulary_size: int
    attends: bool = False  # whether `Decoded.weights` are attention weights over the source

    @abstractmethod
    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, Any]:
        """Return the state before the first token, and the memory, an argument of `forward` and `step`."""

    @abstractmethod
    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None, lengths: Tensor | None = None
    ) -> Decoded:
        """Predict logits (batch, time, vocabulary) for tokens (batch, time).

        Without a state, a language model starts a new text. A decoder with a source needs the results of `start`.
        """

    @abstractmethod
    def step(self, tokens: Tensor, state: DecoderState | None = None, memory: Any = None) -> Decoded:
        """Predict logits (batch, vocabulary) for tokens (batch,), as `forward` does for one step."""


class Bridge(nn.ModuleList):
    """Computes a core's initial state from the summary of a source.

    Each tensor of the state is tanh(W s + b) (Cho et al. 2014, appendix A.1.2). Counters are not changed.

    Args:
        summary_size: number of features of the summary.
        core: the network whose state is computed.
    """

    def __init__(self, summary_size: int, core: Recurrent) -> None:
        initial = leaves(core.initial_state(1, like=next(core.parameters())))
        self.learnable_state = core.learnable_state()
        pairs = zip(initial, self.learnable_state, strict=True)
        super().__init__(nn.Linear(summary_size, leaf.shape[-1]) for leaf, learned in pairs if learned)

    def forward(self, summary: Tensor, initial: Any) -> Any:
        """Compute a state with the structure and dtypes of `initial` from a summary (batch, summary)."""
        expect(summary, "batch summary", name="encoded.summary")
        layers = iter(self)
        pairs = zip(leaves(initial), self.learnable_state, strict=True)
        return rebuild(
            initial, [torch.tanh(next(layers)(summary)).to(leaf.dtype) if learned else leaf for leaf, learned in pairs]
        )


def tie(output: nn.Linear, embedding: TokenEmbedding, width: str, *, scaled: bool) -> None:
    """Make an output layer share an embedding's weights (Press & Wolf 2017).

    With `scaled` the embedding is multiplied by √size (Vaswani et al. 2017, section 3.4): weights with the scale of an
    output layer are small for an embedding, which slows down early learning.

    Args:
        output: the output layer.
        embedding: the embedding.
        width: name of the output layer's input, for the error message.
        scaled: whether the embedding is scaled.

    Raises:
        ValueError: an embedding size that differs from the output layer's input size.
    """
    size = embedding.embedding_dim
    if size != output.in_features:
        raise ValueError(f"tied=True needs embedding_size equal to {width}, {output.in_features}, got {size}")
    output.weight = embedding.weight
    # The output layer's initialization: an embedding's N(0, 1) would give logits with standard deviation √hidden.
    nn.init.uniform_(embedding.weight, -(size**-0.5), size**-0.5)
    embedding.scale = size**0.5 if scaled else 1.0
