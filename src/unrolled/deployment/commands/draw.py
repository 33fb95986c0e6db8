"""The command draw: draws images, or draws given ones again."""

import argparse
from pathlib import Path
from typing import Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common, add_pixels
from unrolled.deployment.commands.running import generator_of, load


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "draw",
        _run,
        about="draw images",
        description="Write a picture of how a network draws new images, or given ones again: a row for each, with the "
        "canvas in time from left to right, and frames where the network reads (green) and writes (red). For a given "
        "image, print its path, the bound on its negative log-likelihood in nats, and the bound's parts, "
        "reconstruction and KL divergence, tab-separated.",
        example="python -m unrolled draw best.ckpt --num 16 --out canvases.png",
    )
    add_checkpoint(command)
    command.add_argument("images", type=Path, nargs="*", metavar="IMAGE", help="images to draw again")
    command.add_argument("--num", type=int, default=16, help="number of new images (default: %(default)s)")
    command.add_argument(
        "--out", type=Path, default=Path("canvases.png"), help="the picture, such as a PNG file (default: %(default)s)"
    )
    command.add_argument(
        "--columns", type=int, default=10, help="canvases in a row; 1: the last ones alone (default: %(default)s)"
    )
    command.add_argument("--no-boxes", action="store_true", help="no frames where the network reads and writes")
    add_pixels(command)
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled import durable
    from unrolled.deployment.drawing import draw_images, picture_of, reconstruct

    form = _format(options.out)
    if options.columns < 1:
        raise ValueError(f"--columns {options.columns}: expected 1 or more")
    generator = generator_of(options)
    bundle = load(options, options.checkpoint)
    if options.images:
        found = reconstruct(bundle, options.images, generator=generator, max_pixels=options.max_pixels)
        for path, *numbers in zip(options.images, found.bound.total, *found.bound, strict=True):
            print(path, *(f"{float(number):.2f}" for number in numbers), sep="\t", flush=True)
        images, glimpses = found.images, found.glimpses
    else:
        images, glimpses = None, draw_images(bundle, options.num, generator=generator)
    picture = picture_of(glimpses, images, columns=options.columns, boxes=not options.no_boxes)
    durable.replace(options.out, lambda partial: picture.save(partial, format=form))


def _format(path: Path) -> str:
    """Return Pillow's name of the format of a file.

    Raises:
        ValueError: a suffix that no format has, or no Pillow.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ValueError("pictures need Pillow: pip install 'unrolled[vision]'") from None
    form = Image.registered_extensions().get(path.suffix.lower())
    if form not in Image.SAVE:
        raise ValueError(f"--out {path}: a picture ends in .png, or in the suffix of another format, such as .webp")
    return form
