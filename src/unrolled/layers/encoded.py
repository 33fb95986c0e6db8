"""A source as others see it: words, frames and image regions look alike from here on."""

from typing import NamedTuple

from torch import Tensor


class Encoded(NamedTuple):
    """A source as a decoder or a classifier sees it."""

    values: Tensor  # (batch, source, features)
    lengths: Tensor | None  # (batch,), None when every row is full
    summary: Tensor  # (batch, features)
    tokens: Tensor | None = None  # (batch, source): ids, where the source has any
