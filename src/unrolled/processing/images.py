"""Reading of images with Pillow, and their conversion to normalized tensors of one size."""

import io
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from unrolled.processing.transform import Transform
from unrolled.wording import article, counted

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 89_478_485
"""Default maximum number of pixels of an image: the size above which Pillow warns."""

_FITS = ("crop", "pad", "squash")
_limit = threading.Lock()
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of 16 bits


class ImageError(ValueError):
    """An image that can't be read."""


@dataclass(frozen=True)
class ImageTransform(Transform):
    """Converts an image to a tensor (channels, size, size). Checkpoints store the transform as plain data.

    Attributes:
        size: height and width in pixels.
        fit: how an image is made square: "crop" keeps the center, "pad" adds white borders, "squash" distorts.
        crop: fraction of the shorter side that "crop" keeps, such as 0.875 for networks trained on ImageNet.
        grey: whether the result has one channel instead of three.
        mean: subtracted from each channel, on a scale from 0 to 1.
        std: divisor of each channel, after the subtraction.

    Raises:
        ValueError: a size below 1, an unknown fit, a fraction outside (0, 1], or another number of means than channels.
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
                f"size={self.size}, fit={self.fit!r}, crop={self.crop}: expected a size of 1 or more, a fit of "
                f"{', '.join(_FITS)}, and a crop in (0, 1]"
            )
        if (
            len(self.mean) != self.channels
            or len(self.std) != self.channels
            or not all(0 < std < float("inf") for std in self.std)
        ):
            raise ValueError(
                f"mean={list(self.mean)}, std={list(self.std)}: expected one of each for "
                f"{counted(self.channels, 'channel')}, and no std of 0"
            )

    @property
    def channels(self) -> int:
        """Number of channels, 1 or 3."""
        return 1 if self.grey else 3

    def to_dict(self) -> dict[str, Any]:
        options = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        return {"_target_": "unrolled.ImageTransform", **options}

    def collate(self, encoded: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.stack(list(encoded)), torch.ones(len(encoded), dtype=torch.int64)

    def picture(self, image: "Image.Image") -> "Image.Image":
        """Crop and resize an RGB image, without normalization."""
        from PIL import Image, ImageOps

        side, size = (self.size, self.size), self.size
        if self.fit == "pad":
            image = ImageOps.pad(image, side, Image.Resampling.BICUBIC, color="white")
        elif self.fit == "crop":
            half = min(image.size) * self.crop / 2
            x, y = image.width / 2, image.height / 2
            box = (x - half, y - half, x + half, y + half)
            # Resizing is skipped if the size is the same.
            if image.size != side or self.crop < 1.0:
                image = image.resize(side, Image.Resampling.BICUBIC, box=box)
        elif image.size != (size, size):
            image = image.resize(side, Image.Resampling.BICUBIC)
        return image.convert("L") if self.grey else image

    def encode(self, value: Any, *, max_pixels: int = MAX_PIXELS) -> Tensor:
        """Convert a path, bytes, PIL image, array or tensor, see `read_image`, to (channels, size, size) in float32."""
        picture = self.picture(read_image(value, max_pixels=max_pixels))
        values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        values = values.view(self.size, self.size, self.channels).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(list(numbers)).view(-1, 1, 1) for numbers in (self.mean, self.std))
        return (values - mean) / std


def read_image(source: Any, name: str = "", *, max_pixels: int = MAX_PIXELS) -> "Image.Image":
    """Read an image as 8-bit RGB, rotated according to its EXIF data.

    Grayscale, palette and CMYK images are converted. Transparent images get a white background. 16-bit values are
    scaled to 8 bits.

    Args:
        source: a path, the bytes of a file, a PIL image, or an array or tensor: (height, width), (height, width,
            channels) or (channels, height, width) with 1, 3 or 4 channels; uint8, uint16, or floats from 0 to 1.
        name: name in error messages; the path by default.
        max_pixels: maximum number of pixels; a larger file is an error before it is decoded.

    Raises:
        ImageError: a missing, invalid, truncated or too large image, or an unsupported type, shape or dtype.
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
                raise ImageError("a folder; pass the files in it" if Path(source).is_dir() else "no such file")
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
    except Exception as error:  # Pillow's decoders raise any exception for damaged files
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name or 'an image'}: not readable as an image ({reason})") from None


def open_pixels(source: Any, name: str = "", *, color: bool, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Open an image of any size and return it as (channels, height, width) with values from 0 to 1.

    Args:
        source: what `read_image` reads; or a tensor (channels, height, width), uint8 or floats from 0 to 1.
        name: name in error messages; the path by default.
        color: whether the result has three channels instead of one; a tensor keeps its own.
        max_pixels: see `read_image`.

    Raises:
        ValueError: see `read_image`; a tensor with values outside [0, 1].
    """
    if isinstance(source, Tensor):
        values = source / 255 if source.dtype == torch.uint8 else source
        if values.numel() and not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError("an image's values must be bytes, or from 0 to 1")
        return values
    return read_pixels(source, name, color=color, max_pixels=max_pixels) / 255


def read_pixels(source: Any, name: str = "", *, color: bool, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read an image of any size, see `read_image`, as bytes (channels, height, width)."""
    image = read_image(source, name, max_pixels=max_pixels)
    picture = image if color else image.convert("L")
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()


def _decoded(file: BinaryIO, max_pixels: int) -> "Image.Image":
    from PIL import Image

    try:
        image = _opened(file, max_pixels)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{str(error).partition(',')[0]}, {_too_large(max_pixels)}") from None
    if image.format == "EPS":
        raise ImageError("PostScript is a program, which is not executed; convert it to a format such as PNG")
    if image.width * image.height > max_pixels:
        raise ImageError(f"{image.width} × {image.height} points, {_too_large(max_pixels)}")
    image.load()
    return image


def _opened(file: BinaryIO, max_pixels: int) -> "Image.Image":
    """Read the header of an image and check its size. Pillow's own limit, set per process, may be lower."""
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
    return f"and max_pixels={max_pixels}: shrink it, or raise max_pixels if there are 10 bytes of memory per pixel"


def _rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode in _DEEP or image.mode == "I":
        deep = image.convert("I")
        extrema: Any = deep.getextrema()
        low, high = float(extrema[0]), float(extrema[1])
        if low < 0 or high > 65535:
            raise ImageError(f"a gray value of {low if low < 0 else high:.0f}; 16-bit values range from 0 to 65535")
        return deep.point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode == "F":
        raise ImageError("floating-point pixels of unknown range; pass an array with values from 0 to 1 instead")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(array: Any) -> "Image.Image":
    from PIL import Image

    try:
        # A copy, since an array may be read-only, which tensors don't support.
        values = torch.as_tensor(array if isinstance(array, Tensor) else array.copy()).detach().cpu()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise ImageError(f"{article(type(array).__name__)} is not a path, bytes, PIL image, array or tensor") from None
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
    """Convert pixels of any supported dtype to uint8."""
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
