"""Sequences as users have them: arrays, tensors, data frames and lists of them, converted to tensors and checked."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrolled.wording import counted

Array = NDArray[Any]


class Sequences(NamedTuple):
    """Sequences as tensors.

    Attributes:
        steps: (time, features) float64, one for each sequence.
        columns: names of the columns of a data frame of univariate series, or of the features; None without names.
        width: number of columns, where the input is a table with a series in each row; otherwise None.
    """

    steps: list[Tensor]
    columns: list[str] | None
    width: int | None

    @property
    def num_features(self) -> int:
        """Number of features of a step."""
        return self.steps[0].shape[1]


class Texts(NamedTuple):
    """Texts, each of which is a sequence of words or characters.

    Attributes:
        steps: the texts.
    """

    steps: list[str]


def as_texts(x: Any, name: str = "X") -> Texts | None:
    """Returns texts; None if there are none, or something else.

    Args:
        x: a list, an array or a column of a data frame.
        name: name of the argument, for messages.

    Raises:
        ValueError: an empty text, or texts beside something else.
    """
    if is_frame(x) or not (isinstance(x, list | tuple | np.ndarray) or hasattr(x, "to_numpy")):
        return None
    members = list(cast("Sequence[Any]", x)) if getattr(x, "ndim", 1) == 1 else []
    if not members or not isinstance(members[0], str):
        return None
    for number, member in enumerate(members):
        if not isinstance(member, str):
            raise ValueError(f"{name}[{number}] is {member!r:.60}, and {name}[0] is a text: all must be texts")
        if not member.strip():
            raise ValueError(f"{name}[{number}] is an empty text; remove it and its target")
    return Texts([str(member) for member in members])


def as_sequences(x: Any, padding: float | None = None, name: str = "X") -> Sequences:
    """Converts sequences to tensors.

    Args:
        x: a list of arrays, tensors or data frames (time, features) or (time,), of any lengths; an array, tensor or
            nested list (n, time, features); or one, or a data frame, (n, time), whose rows are series of one feature.
        padding: steps at the end of a row whose features all have this value, which may be NaN, are padding; None for
            arrays without padding.
        name: name of the argument, for messages.

    Raises:
        ValueError: no sequences, an empty one, values that are not finite, or different numbers of features.
        TypeError: something else than numbers.
    """
    if isinstance(x, str | bytes) or x is None:
        raise ValueError(f"{name} is {x!r:.60}: expected sequences of numbers")
    if hasattr(x, "tocsr"):
        raise TypeError(f"{name} is a sparse matrix, but sequences need dense data; use {name}.toarray()")
    frame = is_frame(x)
    columns = _names(x) if frame else None
    if frame or _is_array(x) or _is_rectangular(x):
        values = as_numbers(x, name)
        if values.dtype != object:
            return _of_array(values, columns, padding, name)
    members = list(cast("Sequence[Any]", x))
    if not members:
        raise ValueError(f"Found array with 0 sample(s): {name} is empty, a minimum of 1 sequence is required.")
    columns = _names(members[0]) if is_frame(members[0]) else None
    steps = [_of_member(member, f"{name}[{number}]") for number, member in enumerate(members)]
    features = steps[0].shape[1]
    wrong = next((number for number, each in enumerate(steps) if each.shape[1] != features), None)
    if wrong is not None:
        raise ValueError(
            f"{name}[{wrong}] has {counted(steps[wrong].shape[1], 'feature')}, but {name}[0] has {features}: all "
            "sequences need the same features, (time, features)"
        )
    return Sequences(steps, columns, None)


def is_frame(x: Any) -> bool:
    """Returns whether an object is a data frame of any library: it has columns and converts to an array."""
    return hasattr(x, "columns") and hasattr(x, "to_numpy")


def as_numbers(x: Any, name: str) -> Array:
    """Converts anything with numbers to an array; its dtype is object only if it holds sequences of several lengths.

    Raises:
        ValueError: complex numbers, or texts that are no numbers.
        TypeError: other objects.
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = x.float() if x.dtype == torch.bfloat16 else x
        return np.asarray(x.numpy())
    values: Array = np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x)
    if np.iscomplexobj(values):
        raise ValueError(f"Complex data not supported: {name} has complex numbers")
    if values.dtype == object and values.ndim == 1 and len(values) and _is_sequence(values[0]):
        return values
    if values.dtype.kind in "OUS":
        try:
            return values.astype(np.float64)
        except TypeError as error:  # of an object that is neither a number nor a text
            raise TypeError(f"{name}: argument must be a string or a number: {error}") from None
        except ValueError as error:
            raise ValueError(f"{name} has a value that is not a number: {error}") from None
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name} has values of type {values.dtype}, expected numbers")
    return values


def _of_array(values: Array, columns: list[str] | None, padding: float | None, name: str) -> Sequences:
    if values.ndim == 1:
        raise ValueError(
            f"Expected 2D array, got 1D array instead: {name} must be (n, time), (n, time, features) or a list of "
            "sequences. Reshape your data with array.reshape(1, -1) if it is a single sequence."
        )
    if values.ndim not in (2, 3):
        raise ValueError(f"{name} has {values.ndim} axes, expected (n, time) or (n, time, features)")
    if len(values) == 0:
        raise ValueError(f"Found array with 0 sample(s) (shape={values.shape}) while a minimum of 1 is required.")
    if 0 in values.shape[1:]:
        what = "feature(s)" if values.shape[-1] == 0 else "step(s)"
        raise ValueError(f"Found array with 0 {what} (shape={values.shape}) while a minimum of 1 is required.")
    width = values.shape[1] if values.ndim == 2 else None
    rows = values[..., None] if values.ndim == 2 else values
    steps = [
        _finite(_unpadded(row, padding), f"{name}[{number}]") for number, row in enumerate(rows.astype(np.float64))
    ]
    return Sequences(steps, columns, width)


def _of_member(member: Any, name: str) -> Tensor:
    if isinstance(member, str | bytes):
        raise ValueError(f"{name} is the text {member!r:.40}: expected numbers (time, features)")
    values = as_numbers(member, name)
    if values.ndim not in (1, 2) or values.dtype == object:
        raise ValueError(f"{name} has the shape {values.shape}, expected (time, features) or (time,)")
    if 0 in values.shape:
        raise ValueError(f"{name} is empty, with the shape {values.shape}: a sequence needs 1 step or more")
    return _finite(values.reshape(len(values), -1).astype(np.float64), name)


def _unpadded(row: Array, padding: float | None) -> Array:
    if padding is None:
        return row
    filled = np.isnan(row) if math.isnan(padding) else row == padding
    valid = np.flatnonzero(~filled.all(-1))
    return row[: valid[-1] + 1] if len(valid) else row[:0]


def _finite(values: Array, name: str) -> Tensor:
    if len(values) == 0:
        raise ValueError(f"{name} is empty: all its steps are padding")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        step, feature = wrong[0].tolist()
        shown = values[step, feature]
        what = "NaN" if np.isnan(shown) else "infinity"
        raise ValueError(
            f"Input contains {what}: step {step}, feature {feature} of {name} (counted from 0). Fill or remove such "
            "values; padding=… names a value that fills arrays after the end of a sequence"
        )
    return torch.from_numpy(np.ascontiguousarray(values))


def _is_array(x: Any) -> bool:
    return isinstance(x, Tensor) or hasattr(x, "__array__")


def _is_sequence(x: Any) -> bool:
    return not isinstance(x, str | bytes) and (hasattr(x, "__len__") or hasattr(x, "__array__"))


def _is_rectangular(x: Any) -> bool:
    """Returns whether nested lists of numbers are a table; lists of arrays are sequences, also of equal lengths."""
    if not isinstance(x, list | tuple):
        return False
    members = cast("Sequence[Any]", x)
    if all(isinstance(member, list | tuple) for member in members):
        try:
            return bool(members) and np.asarray(members).ndim >= 2
        except ValueError:  # of several lengths
            return False
    return not any(_is_sequence(member) for member in members)  # numbers: an error of its own


def _names(frame: Any) -> list[str] | None:
    """Returns the names of a data frame's columns, if they are texts."""
    names = list(frame.columns)
    texts = [isinstance(name, str) for name in names]
    if any(texts) and not all(texts):
        raise TypeError(
            "Feature names are only supported if all input features have string names, but the columns are "
            f"{', '.join(map(repr, names[:5]))}; convert them with frame.columns = frame.columns.astype(str)"
        )
    return names if names and all(texts) else None


def check_lengths(x: Sequence[Any], y: Any) -> None:
    """Checks that there is one target for each sequence.

    Raises:
        ValueError: there are more or fewer.
    """
    if len(x) != len(y):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {counted(len(x), 'sequence')}, and y "
            f"{counted(len(y), 'target')}"
        )
