"""What a report is about: a network that has run on one source, and what is to be explained of it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from unrolled.inspection.panels import Figure
from unrolled.inspection.recorder import Recording
from unrolled.processing.text.base import Tokenizer
from unrolled.wording import article

MAX_STEPS = 400
"""Maximum number of steps of a text; more than that no figure can show."""
START = "<start>"
READER = "encoder.core"  # the cells that read a source; the embedding of spelled words has others


class Explained(NamedTuple):
    """A number whose gradients are shown.

    Attributes:
        number: with its graph.
        what: what it is, such as "the loss of the last character".
        is_loss: whether less is better.
        part: beginning of the names of the cells whose gradients are shown.
        step: the step that it belongs to; None for the last one, which backwards is the first.
    """

    number: Tensor
    what: str
    is_loss: bool = True
    part: str = ""
    step: int | None = None


class Subject(NamedTuple):
    """A network that has run on one source.

    Attributes:
        network: the network.
        recording: its record, with graph.
        facts: names and values for the beginning of the report.
        explained: what is explained, the main thing first.
        symbols: a name for each step of the cells whose names begin with a part; empty for frames.
        saliency_of: the part whose inputs are weighed by what they contribute to the first number explained.
        figures: figures of this task.
        history: for a language model the inputs and targets, (1, time) each.
    """

    network: nn.Module
    recording: Recording
    facts: dict[str, str]
    explained: list[Explained]
    symbols: Mapping[str, Sequence[str]]
    saliency_of: str
    figures: list[Figure]
    history: tuple[Tensor, Tensor] | None = None


def symbols_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return the text of each id; words are followed by a space, so that they can be joined."""
    return [f"{name} " if tokenizer.unit == "word" else name for name in tokenizer.symbols(ids)]


def quoted(symbol: str) -> str:
    """Return a symbol in quotation marks, with white space made visible."""
    return f"“{visible(symbol).rstrip()}”"


def visible(symbol: str) -> str:
    """Return a symbol, with a sign for white space that stands alone."""
    return symbol if symbol.strip() else symbol.replace("\n", "↵").replace("\t", "→").replace(" ", "␣")


def text_of(source: Any) -> str:
    """Return a source that must be a text.

    Raises:
        ValueError: another source.
    """
    if not isinstance(source, str):
        raise ValueError(f"this network reads text, not {article(type(source).__name__)}")
    return source
