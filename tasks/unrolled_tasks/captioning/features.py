"""What a trunk that never learns says of images: looked at once, kept in a file that all runs share."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.models.images.encoder import ImageEncoder, trunk_hash
from unrolled.training.console.terminal import waiting
from unrolled.training.data.arrays import Arrays, write_arrays
from unrolled.training.data.buckets import Ints
from unrolled.training.data.cache import made_once

_log = logging.getLogger(__name__)
_LOOKED = 32  # images that a trunk looks at together

Images = Callable[[Ints], Tensor]  # numbers of images to (images, channels, height, width)


def cached_features(
    cache: Path,
    encoder: ImageEncoder,
    splits: Mapping[str, tuple[Ints, Images]],
    about: Mapping[str, Any],
    device: torch.device,
) -> dict[str, Arrays]:
    """What the encoder's trunk says of each split's images, from the cache if any run has asked before.

    Args:
        cache: folder of all prepared data.
        encoder: whose trunk looks.
        splits: of each its name, the numbers of its images, and how they are read.
        about: which images they are and how they are shown; with the trunk's hash it makes the name of the folder.
        device: where the trunk looks.
    """
    numbers = {split: [int(rows[0]), len(rows)] if len(rows) else [] for split, (rows, _) in splits.items()}
    described = {"trunk": trunk_hash(encoder.trunk), "numbers": numbers, **about}
    name = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]

    def make(folder: Path) -> None:
        encoder.trunk.to(device)
        for split, (rows, read) in splits.items():
            _log.info(
                "%s looks at %s images of the %s split, once", type(encoder.trunk).__name__, f"{len(rows):,}", split
            )
            write_arrays(folder / f"{split}.arrow", _seen(encoder, rows, read, device))
        (folder / "about.json").write_text(json.dumps(described), encoding="utf-8")

    folder = made_once(cache / f"features-{name}", make)
    return {split: Arrays(folder / f"{split}.arrow") for split in splits}


def _seen(encoder: ImageEncoder, rows: Ints, read: Images, device: torch.device) -> Iterator[Tensor]:
    mode = encoder.training
    encoder.eval()
    with torch.no_grad():
        for start in waiting(range(0, len(rows), _LOOKED), "images looked at"):
            yield from encoder.look(read(rows[start : start + _LOOKED]).to(device)).cpu()
    encoder.train(mode)
