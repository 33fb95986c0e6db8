"""Base class of decoders, which read a token or a frame and predict the next, with their state as a value."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.heads.base import Head
from unrolled.heads.categorical import CategoricalHead
from unrolled.layers.attention import Attention, Memory
from unrolled.layers.encoded import Encoded
from unrolled.layers.recurrent import Recurrent
from unrolled.resets import Stretches
from unrolled.shapes import ShapeError, expect
from unrolled.state import Leaf, check, leaves, outline, rebuild
from unrolled.wording import article, counted


class DecoderState(NamedTuple):
    """The state of a decoder between steps. Axis 0 of every tensor is the batch."""

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


def check_attention(
    attention: Attention, state: DecoderState, memory: Any, context_size: int | None, like: Tensor
) -> None:
    """Check the memory and what a state carries of attention, once for all steps of a sequence.

    Args:
        attention: the decoder's attention.
        state: the state before the sequence.
        memory: what `Decoder.start` returned.
        context_size: number of features of `state.context`; None for no context.
        like: a tensor with the batch and the dtype of the inputs.

    Raises:
        ShapeError: another number of rows or features.
        ValueError: a memory or a state of another decoder.
    """
    if not isinstance(memory, Memory):
        raise ValueError(f"the memory is {article(type(memory).__name__)}, expected what `start` returned")
    if memory.values.shape[0] != like.shape[0]:
        raise ShapeError(f"the memory has {counted(memory.values.shape[0], 'row')}, the inputs have {like.shape[0]}")
    _, window, context = of_decoder(state)
    check(window, outline(attention.start(memory), like=memory.values), like=like, name="state.attention")
    check(context, None if context_size is None else Leaf((context_size,), None), like=like, name="state.context")


class Decoded(NamedTuple):
    """The predictions of a decoder for some inputs, and the state after them."""

    parameters: Tensor  # (batch, time, outputs), or (batch, outputs) from `step`: the head's, such as logits
    weights: Tensor | None  # (batch, time, source): attention weights
    state: DecoderState


class Decoder(nn.Module, ABC):
    """Base class of decoders, which predict the next input. The predictions of a step don't depend on later inputs.

    Attributes:
        head: the distribution of the next input. Its losses, predictions and samples are computed from
            `Decoded.parameters`.
        input_axes: names of the axes of `inputs` after batch and time: "" for token ids, "features" for frames.
        condition_size: number of features that the decoder reads beside each input; 0 for none.
        attends: whether `Decoded.weights` are attention weights over the source.
    """

    head: Head
    input_axes: str = ""
    condition_size: int = 0
    attends: bool = False

    @property
    def vocabulary_size(self) -> int:
        """The number of token ids.

        Raises:
            ValueError: a decoder that predicts something else.
        """
        if not isinstance(self.head, CategoricalHead):
            raise ValueError(f"this decoder predicts no tokens: its head is {article(type(self.head).__name__)}")
        return self.head.num_classes

    @abstractmethod
    def start(self, batch: int, encoded: Encoded | None = None) -> tuple[DecoderState, Any]:
        """Return the state before the first input, and the memory, an argument of `forward` and `step`."""

    @abstractmethod
    def forward(
        self,
        inputs: Tensor,
        state: DecoderState | None = None,
        memory: Any = None,
        lengths: Tensor | None = None,
        conditions: Tensor | None = None,
        resets: Tensor | Stretches | None = None,
    ) -> Decoded:
        """Predict the input after each one.

        Without a state, a decoder without a source starts a new sequence. Others need the results of `start`.

        Args:
            inputs: (batch, time) token ids, or (batch, time, features) frames.
            state: the state before them.
            memory: the memory that `start` returned.
            lengths: (batch,) numbers of valid inputs; None without padding.
            conditions: (batch, time, condition_size), what is known of each step beside its input, such as the hour.
            resets: (batch, time) bool, true where a new sequence begins within a row; see `Recurrent.forward`.

        Raises:
            ShapeError: tensors whose shapes don't match.
            ValueError: a state of another decoder; marks for a decoder with a source, which has one per row.
        """

    @abstractmethod
    def step(
        self,
        inputs: Tensor,
        state: DecoderState | None = None,
        memory: Any = None,
        *,
        conditions: Tensor | None = None,
    ) -> Decoded:
        """Predict the input after (batch,) tokens or (batch, features) frames, as `forward` does for one step."""


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
