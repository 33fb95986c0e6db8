"""An encoder of images, with a grid of regions for attention, or one vector."""

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
    """A convolutional trunk, followed by a projection of the features of each region.

    The source is images (batch, channels, height, width), or their features (batch, region, trunk_size) as
    `extract_features` returns them. The features of a frozen trunk can be computed once and stored.

    Args:
        trunk: a network that returns (batch, features, rows, columns).
        trunk_size: number of those features; `trunk.output_size` by default.
        size: number of features of a region after a linear layer; None for no such layer.
        regions: "grid" for the regions of the image, "vector" for their mean.
        dropout: dropout probability of the trunk's features, with one mask for all regions of an image.
        norm: normalization of the regions after the projection, which makes their scale independent of the trunk.
            "layer" for layer normalization. "batch" for batch normalization of each feature over all regions of a batch
            (Ioffe & Szegedy 2015), which suits a trunk that is trained from scratch, since it removes what all images
            have in common. None for no normalization.

    Raises:
        ValueError: a trunk of unknown output size, a size below one, unknown regions or norm.
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
            raise ValueError(f"{type(trunk).__name__} has no output_size: set trunk_size to its number of features")
        if regions not in _REGIONS or (size is not None and size < 1):
            raise ValueError(
                f"regions={regions!r}, expected one of {', '.join(_REGIONS)}; size={size}, expected 1 or more, or None"
            )
        self.trunk = trunk
        self.trunk_size = width
        self.regions = regions
        self.dropout = SequenceDropout(dropout, variational=True)
        self.project = None if size is None else nn.Linear(width, size)
        self.output_size = width if size is None else size
        if norm not in _NORMS:
            raise ValueError(f"norm is {norm!r}, expected one of {', '.join(map(str, _NORMS))}")
        self.norm = None if norm is None else _NORMS[norm](self.output_size)

    def extract_features(self, images: Tensor) -> Tensor:
        """Return the trunk's features (batch, region, trunk_size) of images (batch, channels, height, width)."""
        expect(images, "batch channels height width", name="images")
        # Convolutions are fastest in the channels-last format, on CPUs and on GPUs.
        features = self.trunk(images.contiguous(memory_format=torch.channels_last))
        expect(features, "batch features rows columns", features=self.trunk_size, name="the trunk's output")
        return features.flatten(2).transpose(1, 2)

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Encode images, or the result of `extract_features`, with values (batch, region, output_size)."""
        features = self.extract_features(source) if source.dim() == 4 else source
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
    """Return a digest that is equal for trunks with the same structure and the same weights."""
    digest = hashlib.sha256(f"{type(trunk).__module__}.{type(trunk).__qualname__}\n{trunk!r}".encode())
    for name, tensor in trunk.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b"")
    return digest.hexdigest()
