"""The one shape check, and the one text of its error."""

from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from unrolled.wording import article


class ShapeError(ValueError):
    """A tensor whose axes are not the ones that were promised."""


def expect(tensor: Tensor, axes: str, *, name: str = "tensor", **sizes: int) -> None:
    """Check the axes of a tensor, where a comment would only claim them.

        expect(inputs, "batch time input", input=3, name="inputs")

    Args:
        tensor: what is checked.
        axes: one word per axis. A leading "..." stands for any number of axes, none included.
        name: what the error calls the tensor.
        sizes: the size that an axis must have; axes that are left out may have any.

    Raises:
        ShapeError: no tensor at all, another number of axes, or an axis of another size.
        ValueError: a size for an axis that `axes` doesn't name.
    """
    if not isinstance(tensor, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise ShapeError(_no_tensor(tensor, axes, name))
    words = axes.split()
    open_ended = words[0] == "..."
    if open_ended:
        words = words[1:]
    if not sizes.keys() <= set(words):
        raise ValueError(f"a size is given for {sorted(sizes.keys() - set(words))}, but the axes are {axes!r}")
    shape = tuple(tensor.shape)
    surplus = len(shape) - len(words)
    fits = surplus >= 0 if open_ended else surplus == 0
    if fits and all(sizes.get(word, size) == size for word, size in zip(words, shape[surplus:], strict=True)):
        return
    expected = ", ".join(["..."] * open_ended + [f"{word}={sizes[word]}" if word in sizes else word for word in words])
    raise ShapeError(f"{name} has the shape {shape}, expected ({expected})")


def _no_tensor(given: Any, axes: str, name: str) -> str:
    """What somebody used to torch.nn or numpy has to write instead."""
    expected = f"{name} must be a tensor ({', '.join(axes.split())}), not {article(type(given).__name__)}"
    if isinstance(given, PackedSequence):
        return f"{expected}: values, lengths = torch.nn.utils.rnn.pad_packed_sequence({name}, batch_first=True)"
    return f"{expected}: torch.as_tensor({name}) makes one of lists, numbers and arrays"
