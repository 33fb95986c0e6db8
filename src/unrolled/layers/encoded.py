"""The output of encoders, with the same structure for words, frames and image regions."""

from typing import NamedTuple

from torch import Tensor


class Encoded(NamedTuple):
    """An encoded source, the input of a decoder or a classifier."""

    values: Tensor  # (batch, source, features)
    lengths: Tensor | None  # (batch,), None without padding
    summary: Tensor  # (batch, features)
    tokens: Tensor | None = None  # (batch, source): token ids, if the source has any
