"""The shape check of all public functions."""

from functools import lru_cache
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from unrolled.wording import article


class ShapeError(ValueError):
    """A tensor with an unexpected shape."""


def expect(tensor: Tensor, axes: str, *, name: str = "tensor", **sizes: int) -> None:
    """Check the number and the sizes of a tensor's axes.

        expect(inputs, "batch time input", input=3, name="inputs")

    Args:
        tensor: the tensor to check.
        axes: one word per axis. A leading "..." stands for any number of axes, including none.
        name: the tensor's name in the error message.
        sizes: required sizes of axes; axes that are not listed may have any size.

    Raises:
        ShapeError: not a tensor, another number of axes, or an axis of another size.
        ValueError: a size for an axis that `axes` doesn't name.
    """
    if not isinstance(tensor, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise ShapeError(_no_tensor(tensor, axes, name))
    open_ended, words = _parsed(axes)
    if any(name not in words for name in sizes):
        raise ValueError(f"a size is given for {sorted(sizes.keys() - set(words))}, but the axes are {axes!r}")
    shape = tuple(tensor.shape)
    surplus = len(shape) - len(words)
    fits = surplus >= 0 if open_ended else surplus == 0
    if fits and all(sizes.get(word, size) == size for word, size in zip(words, shape[surplus:], strict=True)):
        return
    expected = ", ".join(["..."] * open_ended + [f"{word}={sizes[word]}" if word in sizes else word for word in words])
    raise ShapeError(f"{name} has the shape {shape}, expected ({expected})")


@lru_cache(maxsize=256)
def _parsed(axes: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether further axes may come first, and the words of the other axes."""
    words = tuple(axes.split())
    return words[0] == "...", words[words[0] == "..." :]


def _no_tensor(given: Any, axes: str, name: str) -> str:
    """Return a message with the conversion that makes a tensor of a packed sequence, an array or a list."""
    expected = f"{name} must be a tensor ({', '.join(axes.split())}), not {article(type(given).__name__)}"
    if isinstance(given, PackedSequence):
        return f"{expected}: values, lengths = torch.nn.utils.rnn.pad_packed_sequence({name}, batch_first=True)"
    return f"{expected}: torch.as_tensor({name}) makes one of lists, numbers and arrays"
