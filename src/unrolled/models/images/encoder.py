"""Images as `Encoded`: a grid of regions for attention, or one vector."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.layers.dropout import SequenceDropout
from unrolled.layers.encoded import Encoded
from unrolled.models.encoders import Encoder
from unrolled.shapes import expect

_REGIONS = ("grid", "vector")


class RegionNorm(nn.BatchNorm1d):
    """Batch normalization of values (batch, region, features) over batch and regions."""

    def forward(self, input: Tensor) -> Tensor:  # nn.BatchNorm1d's name
        return super().forward(input.flatten(0, 1)).view_as(input)


_NORMS: dict[str | None, Any] = {None: None, "layer": nn.LayerNorm, "batch": RegionNorm}


class ImageEncoder(Encoder):
    """A convolutional trunk, and a projection of what it finds at each place.

    It reads pictures (batch, channels, height, width), or what its trunk has said of them before (batch, region,
    trunk_size), as `look` gives it: a trunk that doesn't change need not look at the same picture twice.

    Args:
        trunk: gives (batch, features, rows, columns).
        trunk_size: those features; by default `trunk.output_size`.
        size: features of a region after a linear layer; None leaves them as the trunk gives them.
        regions: "grid" keeps the places apart, "vector" makes one mean of them.
        dropout: on what the trunk gives, the same features at all places of an image.
        norm: of regions behind the projection, so that the decoder sees one scale, whatever the trunk's is. "layer":
            each region by itself. "batch": each feature over all regions of a batch (Ioffe & Szegedy 2015), which a
            trunk that learns from scratch wants: what all its pictures have in common would hide what tells them
            apart. None: neither.

    Raises:
        ValueError: a trunk that doesn't tell its size, a size below one, an unknown kind of regions or norm.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        trunk_size: int | None = None,
        size: int | None = None,
        regions: str = "grid",
        dropout: float = 0.0,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        width = getattr(trunk, "output_size", None) if trunk_size is None else trunk_size
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"{type(trunk).__name__} has no output_size: say how many features it gives by trunk_size")
        if regions not in _REGIONS or (size is not None and size < 1):
            raise ValueError(f"regions={regions!r} is one of {', '.join(_REGIONS)}; size={size} is 1 or more, or None")
        self.trunk = trunk
        self.trunk_size = width
        self.regions = regions
        self.dropout = SequenceDropout(dropout, variational=True)
        self.project = None if size is None else nn.Linear(width, size)
        self.output_size = width if size is None else size
        if norm not in _NORMS:
            raise ValueError(f"norm={norm!r} is one of {', '.join(map(str, _NORMS))}")
        self.norm = None if norm is None else _NORMS[norm](self.output_size)

    def look(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> what the trunk says of them, (batch, region, trunk_size)."""
        expect(images, "batch channels height width", name="images")
        # Features of a place side by side in memory: what a convolution is fastest with, on processors and on GPUs.
        found = self.trunk(images.contiguous(memory_format=torch.channels_last))
        expect(found, "batch features rows columns", features=self.trunk_size, name="what the trunk gives")
        return found.flatten(2).transpose(1, 2)

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Images, or what `look` gave for them -> Encoded with (batch, region, output_size) values."""
        features = self.look(source) if source.dim() == 4 else source
        expect(features, "batch region features", features=self.trunk_size, name="image features")
        if self.regions == "vector":
            features = features.mean(1, keepdim=True)
        values = self.dropout(features)
        if self.project is not None:
            values = self.project(values)
        if self.norm is not None:
            values = self.norm(values)
        return Encoded(values, None, values.mean(1))


def trunk_hash(trunk: nn.Module) -> str:
    """Equal for trunks of the same make with the same weights."""
    digest = hashlib.sha256(f"{type(trunk).__module__}.{type(trunk).__qualname__}\n{trunk!r}".encode())
    for name, tensor in trunk.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b"")
    return digest.hexdigest()
