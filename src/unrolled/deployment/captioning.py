"""Image captioning with a trained network or an ensemble."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.decoding import (
    Attended,
    Candidate,
    attended,
    best_candidate,
    candidates,
    ensemble_members,
    search,
    start_decoding,
)
from unrolled.generation.beam import Hypotheses
from unrolled.generation.limits import RowError
from unrolled.generation.search import Search
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.images.encoder import ImageEncoder
from unrolled.processing.images import MAX_PIXELS, ImageError, ImageTransform
from unrolled.processing.text.base import Tokenizer
from unrolled.wording import article

CAPTIONS = Search(max_ratio=0.0, max_extra=30)
"""Default options of a caption search: at most 30 tokens, since an image has no length."""


def caption(
    bundles: Bundle | Sequence[Bundle],
    images: Iterable[Any],
    *,
    options: Search = CAPTIONS,
    batch_size: int = 16,
    max_pixels: int = MAX_PIXELS,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Yield a caption for each image, in order.

    Args:
        bundles: a captioning network from `load_bundle`, or several with the same processor, used as an ensemble.
        images: paths, bytes of files, PIL images, arrays or tensors; see `unrolled.processing.images.read_image`.
        options: search options.
        batch_size: number of images in a batch.
        max_pixels: maximum number of pixels of an image; a larger file is an error before it is decoded.
        generator: random number generator for options.temperature.

    Raises:
        ValueError: networks of another kind, or with different codecs; invalid options.
        ImageError: an image that can't be read.
    """
    options = options._replace(n_best=1)
    how: dict[str, Any] = {"batch_size": batch_size, "max_pixels": max_pixels, "generator": generator}
    found = captions(bundles, images, options=options, **how)
    return (best_candidate(f"image {number}", row).text for number, row in enumerate(found, start=1) if row is not None)


def captions(
    bundles: Bundle | Sequence[Bundle],
    images: Iterable[Any],
    *,
    options: Search = CAPTIONS,
    batch_size: int = 16,
    max_pixels: int = MAX_PIXELS,
    generator: torch.Generator | None = None,
    on_error: Callable[[ImageError], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[list[Candidate] | None]:
    """Yield the `options.n_best` captions of each image, the best first.

    Args:
        bundles: see `caption`.
        images: see `caption`.
        options: see `caption`.
        batch_size: see `caption`.
        max_pixels: see `caption`.
        generator: see `caption`.
        on_error: called with the error of each image that can't be read, for which None is yielded; by default the
            error is raised.
        progress: called regularly with the number of finished images.

    Raises:
        ValueError: see `caption`.
    """
    networks, transform, tokenizer = captioner_of(bundles)
    options.checked()
    if isinstance(images, str | bytes):
        raise ValueError(f"images is {images!r:.60}, expected a list of images")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected 1 or more")
    tensors = (_readable(transform, image, max_pixels, on_error) for image in images)
    return _stream(networks, tokenizer, tensors, options, batch_size, generator, progress)


def captioner_of(bundles: Bundle | Sequence[Bundle]) -> tuple[list[EncoderDecoder], ImageTransform, Tokenizer]:
    """Return the networks of a captioner or an ensemble, and their common transforms of images and of texts.

    Raises:
        ValueError: a bundle contains another network, or networks with different processors.
    """
    networks, processor = ensemble_members(bundles, ImageTransform, "captions")
    transform, tokenizer = cast("tuple[ImageTransform, Tokenizer]", processor)
    for network in networks:
        if not isinstance(network.encoder, ImageEncoder):
            raise ValueError(
                f"captioning needs an ImageEncoder; this network has {article(type(network.encoder).__name__)}"
            )
    return networks, transform, tokenizer


def caption_attended(
    bundles: Bundle | Sequence[Bundle],
    image: Any,
    *,
    options: Search = CAPTIONS,
    max_pixels: int = MAX_PIXELS,
    generator: torch.Generator | None = None,
) -> Attended:
    """Return the captions of an image, with the attention over its regions, which are numbered row by row.

    Args:
        bundles: see `caption` for this and the other arguments.
        image: the image.
        options: see `caption`; sampling with a temperature tells no attention.
        max_pixels: see `caption`.
        generator: see `caption`.

    Raises:
        ValueError: see `caption`.
        ImageError: an image that can't be read.
    """
    networks, transform, tokenizer = captioner_of(bundles)
    options.checked()
    read = transform.encode(image, max_pixels=max_pixels)[None]
    try:
        found = _search(networks, tokenizer, read.to(next(networks[0].parameters()).device), options, generator)
    except RowError as error:
        raise ValueError(error.reason) from None
    return attended(found, tokenizer, [[]])[0]


def _stream(
    networks: Sequence[EncoderDecoder],
    tokenizer: Tokenizer,
    images: Iterator[Tensor | None],
    options: Search,
    batch_size: int,
    generator: torch.Generator | None,
    progress: Callable[[int], None] | None,
) -> Iterator[list[Candidate] | None]:
    device = next(networks[0].parameters()).device
    done = 0
    while chunk := list(islice(images, batch_size)):
        seen = [tensor for tensor in chunk if tensor is not None]
        try:
            found = _search(networks, tokenizer, torch.stack(seen).to(device), options, generator) if seen else None
        except RowError as error:
            places = [place for place, tensor in enumerate(chunk, start=done + 1) if tensor is not None]
            raise ValueError(f"image {places[error.row]}: {error.reason}") from None
        rows = iter([] if found is None else candidates(found, tokenizer))
        done += len(chunk)
        if progress is not None:
            progress(done)
        yield from (None if tensor is None else next(rows) for tensor in chunk)


def _readable(
    transform: ImageTransform, image: Any, max_pixels: int, on_error: Callable[[ImageError], None] | None
) -> Tensor | None:
    try:
        return transform.encode(image, max_pixels=max_pixels)
    except ImageError as error:
        if on_error is None:
            raise
        on_error(error)
        return None


def _search(
    networks: Sequence[EncoderDecoder],
    tokenizer: Tokenizer,
    images: Tensor,
    options: Search,
    generator: torch.Generator | None,
) -> Hypotheses:
    with torch.no_grad():
        decoder, state, memory = start_decoding(networks, images)
        lengths = torch.zeros(len(images), dtype=torch.long, device=images.device)
        return search(decoder, state, memory, tokenizer, lengths, options, generator)
