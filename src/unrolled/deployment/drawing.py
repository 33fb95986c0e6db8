"""Images that a trained network draws, or draws again, and pictures of how it does so."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.layers.grid_attention import GaussianGrid
from unrolled.models.draw import DRAW, Bound, Glimpse
from unrolled.processing.images import MAX_PIXELS
from unrolled.processing.pixels import PixelTransform
from unrolled.wording import article

if TYPE_CHECKING:
    from PIL import Image

_CELL = 84  # pixels of a canvas in a picture, about
_GAP = 6  # pixels between two of them
_WRITTEN, _READ, _BACKGROUND = (215, 40, 40), (40, 150, 70), (255, 255, 255)


class Reconstruction(NamedTuple):
    """Images, and how a network drew them again.

    Attributes:
        images: (batch, channels, height, width), as the network read them.
        glimpses: the steps of drawing.
        bound: the bound on −log p(image), in nats.
    """

    images: Tensor
    glimpses: list[Glimpse]
    bound: Bound


def drawer_of(bundle: Bundle) -> tuple[DRAW, PixelTransform]:
    """Return the network of a bundle that draws, and the transform of its images.

    Raises:
        ValueError: the bundle contains another network.
    """
    network, transform = bundle.network, bundle.processor.source
    if not isinstance(network, DRAW) or not isinstance(transform, PixelTransform):
        raise ValueError(f"drawing needs a DRAW network; this checkpoint contains {article(type(network).__name__)}")
    return network, transform


def draw_images(bundle: Bundle, num: int, *, generator: torch.Generator | None = None) -> list[Glimpse]:
    """Draw new images; the probabilities of their pixels are `glimpses[-1].canvas.sigmoid()`.

    Args:
        bundle: a DRAW network from `load_bundle`.
        num: number of images.
        generator: random number generator on the network's device; None for torch's global generator.

    Raises:
        ValueError: a network of another kind, or less than one image.
    """
    network, _ = drawer_of(bundle)
    if num < 1:
        raise ValueError(f"num={num}: expected 1 image or more")
    with torch.no_grad():
        return network.generate(prior_draws(network, num, generator))


def reconstruct(
    bundle: Bundle,
    images: Iterable[Any],
    *,
    generator: torch.Generator | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Reconstruction:
    """Draw given images again.

    Args:
        bundle: a DRAW network from `load_bundle`.
        images: what `read_image` opens: paths, bytes of files, PIL images, arrays.
        generator: random number generator on the network's device; None for torch's global generator.
        max_pixels: maximum number of pixels; a larger image is refused before it is decoded.

    Raises:
        ValueError: a network of another kind, no image, or one that can't be read.
    """
    network, transform = drawer_of(bundle)
    encoded = [transform.encode(image, max_pixels=max_pixels) for image in images]
    if not encoded:
        raise ValueError("there is no image to draw again; pass one or more")
    read = transform.collate(encoded)[0].to(network.initial_canvas)
    with torch.no_grad():
        glimpses = network(read, prior_draws(network, len(read), generator))
        return Reconstruction(read, glimpses, network.bound(read, glimpses))


def prior_draws(network: DRAW, num: int, generator: torch.Generator | None) -> Tensor:
    """Return draws (num, glimpses, latent) of the prior of a network's latent variables."""
    like, shape = network.initial_canvas, (num, network.num_glimpses, network.latent_size)
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def picture_of(
    glimpses: Sequence[Glimpse], images: Tensor | None = None, *, columns: int = 10, boxes: bool = True
) -> "Image.Image":
    """Show how images were drawn: a row for each, with canvases in time from left to right.

    Args:
        glimpses: the steps of drawing.
        images: (batch, channels, height, width) from 0 to 1, shown before the canvases; None for none.
        columns: maximum number of canvases in a row, evenly spaced in time, the last included; with 1, several images
            stand in a row.
        boxes: whether a frame shows where the network read (green) and wrote (red). It goes through the centers of the
            outer filters, and is the thicker the wider they are.

    Raises:
        ValueError: less than one column, or no glimpse.
    """
    if columns < 1 or not glimpses:
        raise ValueError(f"columns={columns}, {len(glimpses)} glimpses: expected 1 or more of both")
    count = min(columns, len(glimpses))
    chosen = [round((place + 1) * len(glimpses) / count) - 1 for place in range(count)]
    rows = [
        [*([] if images is None else [_cell(images[row])]), *(_canvas(glimpses[at], row, boxes=boxes) for at in chosen)]
        for row in range(len(glimpses[0].canvas))
    ]
    if count == 1 and images is None:
        every = [cell for row in rows for cell in row]
        side = -(-len(every) // max(1, round(len(every) ** 0.5)))
        rows = [every[begin : begin + side] for begin in range(0, len(every), side)]
    return _sheet(rows)


def _sheet(rows: Sequence[Sequence["Image.Image"]]) -> "Image.Image":
    from PIL import Image

    width, height = (edge + _GAP for edge in rows[0][0].size)
    sheet = Image.new("RGB", (width * len(rows[0]) + _GAP, height * len(rows) + _GAP), _BACKGROUND)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            sheet.paste(cell, (x * width + _GAP, y * height + _GAP))
    return sheet


def _scale(height: int, width: int) -> int:
    """Return the number of a picture's pixels for one of a canvas."""
    return max(1, round(_CELL / max(height, width)))


def _cell(image: Tensor) -> "Image.Image":
    """Return an image (channels, height, width) from 0 to 1, enlarged."""
    from PIL import Image

    channels, height, width = image.shape
    scale = _scale(height, width)
    values = (image.float().cpu() * 255).round().to(torch.uint8).expand(3 if channels == 1 else channels, -1, -1)
    content = bytes(values.permute(1, 2, 0).flatten().tolist())
    small = Image.frombytes("RGB", (width, height), content)
    return small.resize((width * scale, height * scale), Image.Resampling.NEAREST)


def _canvas(glimpse: Glimpse, row: int, *, boxes: bool) -> "Image.Image":
    from PIL import ImageDraw

    cell = _cell(glimpse.canvas[row].sigmoid())
    scale = _scale(*glimpse.canvas.shape[2:])
    for grid, color in ((glimpse.read, _READ), (glimpse.written, _WRITTEN)) if boxes else ():
        if grid is not None:
            left, top, right, bottom, thick = (scale * number for number in _box(grid, row))
            line = max(1, round(thick / 4))
            ImageDraw.Draw(cell).rectangle((left, top, right, bottom), outline=color, width=line)
    return cell


def _box(grid: GaussianGrid, row: int) -> tuple[float, float, float, float, float]:
    """Return left, top, right and bottom of a grid in pixels from the image's corner, and its filters' deviation."""
    y, x, stride, deviation = (float(each[row]) for each in (grid.center_y, grid.center_x, grid.stride, grid.deviation))
    half = max((grid.rows.shape[1] - 1) / 2 * stride, 0.5)
    return x - 0.5 - half, y - 0.5 - half, x - 0.5 + half, y - 0.5 + half, deviation
