"""Intensities of pixels: what is encoded comes back, in its size, binary or not."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from unrolled import PixelTransform, Processor, ShapeError, build_processor


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("size", [(6, 5), (3, 4)])
def test_an_image_comes_back_as_bytes(
    size: tuple[int, int], binary: bool, channels: int, generator: torch.Generator
) -> None:
    transform = PixelTransform(size, channels, binary)
    image = torch.randint(256, (channels, 6, 5), generator=generator, dtype=torch.uint8)

    encoded = transform.encode(image)

    assert encoded.shape == (channels, *size)
    assert torch.equal(transform.decode(encoded, given=image), transform.normalize(image))
    assert 0.0 <= float(encoded.min()) <= float(encoded.max()) <= 1.0
    if binary:
        assert set(encoded.unique().tolist()) <= {0.0, 1.0}
    if size == (6, 5) and not binary:
        assert torch.equal(transform.decode(encoded), image)  # nothing is lost
    if size == (6, 5) and binary:
        assert torch.equal(encoded, (image >= 128).float())  # a byte of ½ or more
    twin = build_processor(Processor(transform).to_dict()).source
    assert torch.equal(twin.encode(image), encoded)
    batch, lengths = transform.collate([encoded, encoded])
    assert batch.shape == (2, channels, *size)
    assert lengths.tolist() == [1, 1]


def test_files_are_opened_and_resized_to_means(tmp_path: Path) -> None:
    Image.new("L", (8, 4), 51).save(tmp_path / "gray.png")

    found = PixelTransform((2, 2)).encode(tmp_path / "gray.png")

    torch.testing.assert_close(found, torch.full((1, 2, 2), 0.2))
    with pytest.raises(ValueError, match=r"missing\.png: no such file"):
        PixelTransform((2, 2)).encode(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="max_pixels=8"):
        PixelTransform((2, 2)).encode(tmp_path / "gray.png", max_pixels=8)


def test_sizes_and_channels_are_checked() -> None:
    for size, channels in (((0, 2), 1), ((2,), 1), ((2, 2), 2)):
        with pytest.raises(ValueError, match="expected a height and a width of 1 or more, and 1 or 3"):
            PixelTransform(size, channels)
    with pytest.raises(ShapeError, match="image has the shape"):
        PixelTransform((2, 2), 3).intensities(torch.zeros(1, 2, 2))
