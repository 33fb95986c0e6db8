"""Cache of the features of a frozen trunk, shared by all runs."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.models.images.encoder import ImageEncoder, trunk_hash
from unrolled.training.console.terminal import track_progress
from unrolled.training.data.arrays import Arrays, write_arrays
from unrolled.training.data.buckets import Ints
from unrolled.training.data.cache import cached

_log = logging.getLogger(__name__)
_BATCH_SIZE = 32

Images = Callable[[Ints], Tensor]  # indices of images -> (images, channels, height, width)


def cached_features(
    cache: Path,
    encoder: ImageEncoder,
    splits: Mapping[str, tuple[Ints, Images]],
    about: Mapping[str, Any],
    device: torch.device,
) -> dict[str, Arrays]:
    """Returns the trunk's features of each split's images; computes them unless they are in the cache.

    Args:
        cache: folder of all prepared data.
        encoder: the encoder with the trunk.
        splits: for each split, the indices of its images and a function that reads them.
        about: description of the images and their transform; part of the cache key, with the trunk's hash.
        device: device of the computation.
    """
    numbers = {split: [int(rows[0]), len(rows)] if len(rows) else [] for split, (rows, _) in splits.items()}
    described = {"trunk": trunk_hash(encoder.trunk), "numbers": numbers, **about}

    def make(folder: Path) -> Mapping[str, Any]:
        encoder.trunk.to(device)
        for split, (rows, read) in splits.items():
            _log.info(
                "%s computes features of %s images of the %s split",
                type(encoder.trunk).__name__,
                f"{len(rows):,}",
                split,
            )
            write_arrays(folder / f"{split}.arrow", _seen(encoder, rows, read, device))
        return described

    folder = cached(cache, "features", described, make).folder
    return {split: Arrays(folder / f"{split}.arrow") for split in splits}


def _seen(encoder: ImageEncoder, rows: Ints, read: Images, device: torch.device) -> Iterator[Tensor]:
    mode = encoder.training
    encoder.eval()
    with torch.no_grad():
        for start in track_progress(range(0, len(rows), _BATCH_SIZE), "image features"):
            yield from encoder.extract_features(read(rows[start : start + _BATCH_SIZE]).to(device)).cpu()
    encoder.train(mode)
