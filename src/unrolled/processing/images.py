"""Any picture as a tensor: read, made RGB or grey, brought to one size, normalized. Pillow does the reading."""

import inspect
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from unrolled.wording import article, counted

if TYPE_CHECKING:
    from PIL import Image

_FITS = ("crop", "pad", "squash")
_limit = threading.Lock()
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of 16 bits


class ImageError(ValueError):
    """A picture that cannot be used: says which one, and why."""


@dataclass(frozen=True)
class ImageTransform:
    """From any picture to (channels, size, size) numbers, as plain data that a checkpoint can carry.

    Attributes:
        size: pixels of each side.
        fit: how a picture that is not square becomes so: "crop" keeps the middle, "pad" adds white, "squash" distorts.
        crop: share of the shorter side that "crop" keeps, such as 0.875 for networks trained on ImageNet.
        grey: one channel instead of three.
        mean: subtracted from each channel, on a scale from 0 to 1.
        std: then divides each channel.

    Raises:
        ValueError: a size below 1, an unknown fit, a share outside (0, 1], or as many means as there are no channels.
    """

    size: int = 224
    fit: str = "crop"
    crop: float = 1.0
    grey: bool = False
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.size < 1 or self.fit not in _FITS or not 0.0 < self.crop <= 1.0:
            raise ValueError(
                f"size={self.size} is 1 or more, fit={self.fit!r} one of {', '.join(_FITS)}, "
                f"crop={self.crop} a share in (0, 1]"
            )
        if (
            len(self.mean) != self.channels
            or len(self.std) != self.channels
            or not all(0 < std < float("inf") for std in self.std)
        ):
            raise ValueError(
                f"mean={list(self.mean)} and std={list(self.std)}: one of each for "
                f"{counted(self.channels, 'channel')}, and no std of 0"
            )

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.grey else 3

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "ImageTransform":
        """The transform that `to_dict` described.

        Raises:
            ValueError: a name that no transform has.
        """
        known = inspect.signature(cls).parameters
        unknown = [name for name in plain if name not in known]
        if unknown:
            raise ValueError(f"an image transform has no {unknown[0]!r}; it takes {', '.join(known)}")
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def picture(self, image: "Image.Image") -> "Image.Image":
        """What of an RGB picture the network will see, before it is normalized."""
        from PIL import Image, ImageOps

        side, size = (self.size, self.size), self.size
        if self.fit == "pad":
            image = ImageOps.pad(image, side, Image.Resampling.BICUBIC, color="white")
        elif self.fit == "crop":
            half = min(image.size) * self.crop / 2
            x, y = image.width / 2, image.height / 2
            box = (x - half, y - half, x + half, y + half)
            # Nothing is computed anew where nothing changes.
            if image.size != side or self.crop < 1.0:
                image = image.resize(side, Image.Resampling.BICUBIC, box=box)
        elif image.size != (size, size):
            image = image.resize(side, Image.Resampling.BICUBIC)
        return image.convert("L") if self.grey else image

    def __call__(self, image: Any) -> Tensor:
        """A path, bytes, PIL image, array or tensor, see `read_image` -> (channels, size, size) float32."""
        picture = self.picture(read_image(image))
        values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        values = values.view(self.size, self.size, self.channels).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(list(numbers)).view(-1, 1, 1) for numbers in (self.mean, self.std))
        return (values - mean) / std


MAX_PIXELS = 89_478_485
"""The largest picture that is read unless another size is asked for: the one from which on Pillow warns."""


def read_image(source: Any, name: str = "", *, max_pixels: int = MAX_PIXELS) -> "Image.Image":
    """Any picture as an RGB image of 8 bits, turned the way that its EXIF data say.

    Grey, palette and CMYK pictures are converted; what is transparent is laid on white; 16 bits are scaled to 8.

    Args:
        source: a path, the bytes of a file, a PIL image, or an array or tensor: (height, width), (height, width,
            channels) or (channels, height, width) with 1, 3 or 4 channels; uint8, uint16, or floats from 0 to 1.
        name: what an error calls it; by default the path.
        max_pixels: a file with a larger picture is refused before it is decoded.

    Raises:
        ImageError: it is not there, is no picture, is cut off or too large, or holds what none of this describes.
    """
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError:
        raise ImageError("reading images needs Pillow: pip install 'unrolled[vision]'") from None
    if isinstance(source, (str, Path)):
        name = name or str(source)
    try:
        if isinstance(source, (str, Path)):
            if not Path(source).is_file():
                raise ImageError("a folder; name the files in it" if Path(source).is_dir() else "no such file")
            with Path(source).open("rb") as file:
                image: Image.Image = _decoded(file, max_pixels)
        elif isinstance(source, (bytes, bytearray)):
            image = _decoded(io.BytesIO(source), max_pixels)
        elif isinstance(source, Image.Image):
            image = source
            image.load()
        else:
            image = _from_array(source)
        return _rgb(ImageOps.exif_transpose(image))
    except ImageError as error:
        raise ImageError(f"{name}: {error}" if name else str(error)) from None
    except Exception as error:  # Pillow tells of damage by whatever its decoders stumble over
        said = str(error) or type(error).__name__
        raise ImageError(f"{name or 'an image'}: not readable as a picture ({said})") from None


def _decoded(file: BinaryIO, max_pixels: int) -> "Image.Image":
    from PIL import Image

    try:
        image = _opened(file, max_pixels)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{str(error).partition(',')[0]}, {_too_large(max_pixels)}") from None
    if image.format == "EPS":
        raise ImageError("PostScript is a program, which is not run; give a picture such as PNG")
    if image.width * image.height > max_pixels:
        raise ImageError(f"{image.width} × {image.height} points, {_too_large(max_pixels)}")
    image.load()
    return image


def _opened(file: BinaryIO, max_pixels: int) -> "Image.Image":
    """A picture whose header is read; Pillow has a limit of its own, for the whole process, that may be lower."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or max_pixels <= limit:
        return Image.open(file)
    with _limit:
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _too_large(max_pixels: int) -> str:
    return f"and max_pixels={max_pixels}: shrink it, or raise max_pixels if there are 10 bytes of memory for each point"


def _rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode in _DEEP or image.mode == "I":
        deep = image.convert("I")
        extrema: Any = deep.getextrema()
        low, high = float(extrema[0]), float(extrema[1])
        if low < 0 or high > 65535:
            raise ImageError(f"a grey value of {low if low < 0 else high:.0f}; 16 bits go from 0 to 65535")
        return deep.point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode == "F":
        raise ImageError("floating-point pixels of unknown range; give an array with values from 0 to 1 instead")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(array: Any) -> "Image.Image":
    from PIL import Image

    try:
        # A copy, since an array over somebody else's memory may be read-only, which a tensor cannot be.
        values = torch.as_tensor(array if isinstance(array, Tensor) else array.copy()).detach().cpu()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise ImageError(f"{article(type(array).__name__)} is no path, bytes, PIL image, array or tensor") from None
    if values.dim() == 3 and values.shape[-1] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = values.permute(1, 2, 0)
    values = values.unsqueeze(-1) if values.dim() == 2 else values
    if values.dim() != 3 or values.shape[-1] not in (1, 3, 4) or values.numel() == 0:
        raise ImageError(
            f"an array of shape {tuple(values.shape)}; expected (height, width) or that with 1, 3 or 4 channels, "
            "first or last"
        )
    values = _bytes(values)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[values.shape[-1]]
    return Image.frombytes(mode, (values.shape[1], values.shape[0]), values.contiguous().numpy().tobytes())


def _bytes(values: Tensor) -> Tensor:
    """Pixels of any kind as uint8."""
    if values.dtype == torch.uint8:
        return values
    if values.dtype == torch.uint16:
        return (values.to(torch.int32) / 257).round().to(torch.uint8)
    if values.is_floating_point():
        low, high = float(values.min()), float(values.max())
        if not (low >= 0.0 and high <= 1.0):  # NaN fails too
            raise ImageError(f"an array of floats from {low:g} to {high:g}; expected 0 to 1")
        return (values * 255).round().to(torch.uint8)
    raise ImageError(f"an array of {values.dtype}; expected uint8, uint16, or floats from 0 to 1")
