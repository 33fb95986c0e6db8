"""Pictures in every form that they come in, and those that are none."""

import io
import resource
import struct
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.descriptions import build
from unrolled.processing.images import ImageError, ImageTransform, read_image

Image = pytest.importorskip("PIL.Image")
np = pytest.importorskip("numpy")

PLAIN: dict[str, Any] = {"size": 4, "mean": [0.0] * 3, "std": [1.0] * 3}


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixel(source: Any) -> tuple[int, ...]:
    image = read_image(source)
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def test_grey_palette_cmyk_and_16_bits_become_rgb() -> None:
    assert pixel(Image.new("L", (2, 2), 77)) == (77, 77, 77)
    assert pixel(Image.new("1", (2, 2), 1)) == (255, 255, 255)
    assert pixel(Image.new("CMYK", (2, 2), (255, 0, 0, 0))) == (0, 255, 255)
    assert pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")) == pytest.approx((255, 0, 0), abs=3)
    palette = Image.new("P", (2, 2), 3)
    palette.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 9, 8, 7])
    assert pixel(palette) == (9, 8, 7)
    deep = Image.fromarray(np.full((2, 2), 0x8080, dtype=np.uint16))
    assert pixel(deep) == (128, 128, 128)
    assert pixel(encoded(deep)) == (128, 128, 128)


def test_what_is_transparent_lies_on_white() -> None:
    assert pixel(Image.new("RGBA", (2, 2), (10, 20, 30, 0))) == (255, 255, 255)
    assert pixel(Image.new("RGBA", (2, 2), (10, 20, 30, 255))) == (10, 20, 30)
    assert pixel(Image.new("LA", (2, 2), (0, 0))) == (255, 255, 255)
    keyed = encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))
    assert pixel(keyed) == (255, 255, 255)


def test_a_turned_photograph_is_turned_back() -> None:
    image = Image.new("RGB", (4, 2), "white")
    image.putpixel((0, 0), (255, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise

    turned = read_image(encoded(image, exif=exif))

    assert turned.size == (2, 4)
    assert turned.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "array",
    [
        np.full((3, 5), 51, dtype=np.uint8),
        np.full((3, 5, 1), 51, dtype=np.uint8),
        np.full((3, 5, 3), 51, dtype=np.uint8),
        np.full((3, 5), 51 * 257, dtype=np.uint16),
        np.full((3, 5, 3), 0.2, dtype=np.float32),
        torch.full((3, 3, 5), 0.2),
        torch.full((1, 3, 5), 51, dtype=torch.uint8),
    ],
)
def test_arrays_of_every_layout_are_the_same_picture(array: Any) -> None:
    assert read_image(array).size == (5, 3)
    assert pixel(array) == (51, 51, 51)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((2, 2, 2), dtype=np.uint8), "an array of shape (2, 2, 2)"),
        (np.full((2, 2), 7.0), "floats from 7 to 7; expected 0 to 1"),
        (np.full((2, 2), np.nan), "expected 0 to 1"),
        (np.zeros((2, 2), dtype=np.int64), "an array of torch.int64"),
        (np.zeros((0, 2), dtype=np.uint8), "an array of shape"),
        (object(), "an object is not a path, bytes, PIL image, array or tensor"),
        (b"no picture at all", "not readable as an image"),
        ("not/there.png", "not/there.png: no such file"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(source: Any, said: str) -> None:
    with pytest.raises(ImageError) as refused:
        read_image(source)

    assert said in str(refused.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_picture_that_is_cut_off_is_named(tmp_path: Path, kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    content = encoded(noise, kind)
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(ImageError, match=path.name):
        read_image(path)


def test_a_crop_keeps_the_middle_and_squash_and_pad_keep_all() -> None:
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (2, 0, 6, 4))

    cropped = ImageTransform(**PLAIN).encode(image)
    squashed = ImageTransform(**PLAIN, fit="squash").encode(image)
    padded = ImageTransform(**PLAIN, fit="pad").encode(image)

    assert cropped.shape == (3, 4, 4)
    assert cropped.min() == 1.0
    assert squashed[:, :, 0].max() < 0.3
    assert squashed[:, :, 1].min() > 0.7
    assert padded[:, 0].min() == 1.0  # the border
    assert padded[:, 1, 0].max() < 0.3


def test_numbers_are_normalized_by_channel() -> None:
    transform = ImageTransform(size=2, mean=[0.5, 0.0, 1.0], std=[0.5, 1.0, 2.0])

    values = transform.encode(Image.new("RGB", (2, 2), (255, 51, 0)))

    torch.testing.assert_close(values[:, 0, 0], torch.tensor([1.0, 0.2, -0.5]))
    grey = ImageTransform(size=2, grey=True, mean=[0.0], std=[1.0]).encode(Image.new("RGB", (2, 2), (51, 51, 51)))
    torch.testing.assert_close(grey, torch.full((1, 2, 2), 0.2))


def test_a_transform_is_plain_data_and_comes_back() -> None:
    transform = ImageTransform(size=3, fit="pad", grey=True, mean=[0.1], std=[0.2])

    assert build(transform.to_dict()).to_dict() == transform.to_dict()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size=0"),
        ({"fit": "stretch"}, "'stretch'"),
        ({"crop": 0.0}, "crop=0.0"),
        ({"grey": True}, "for 1 channel"),
        ({"std": [1.0, 1.0, 0.0]}, "no std of 0"),
        ({"sizes": 3}, "no 'sizes'"),
    ],
)
def test_an_impossible_transform_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build({"_target_": "unrolled.ImageTransform", **options})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_a_picture_of_too_many_points_is_refused_before_it_is_decoded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    Image.new("RGB", (300, 200), "red").save(path, kind)

    assert read_image(path, max_pixels=60_000).size == (300, 200)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)  # what decodes
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match=r"300 × 200 points, and max_pixels=59999: shrink it, or raise max_pixels"):
            read_image(source, max_pixels=59_999)


@pytest.mark.parametrize("edge", [10_000, 14_000])
def test_a_small_file_of_a_large_picture_takes_no_memory(tmp_path: Path, edge: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(3 * edge + 1) * 50)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.warns() if edge == 10_000 else nullcontext(), pytest.raises(ImageError, match="max_pixels=89478485"):
        read_image(tmp_path / "a.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB


def test_a_limit_above_pillows_own_is_this_calls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    content = encoded(Image.new("L", (100, 30), 7))

    assert read_image(content, max_pixels=3000).getpixel((5, 5)) == (7, 7, 7)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(ImageError, match="max_pixels=1000"):
        read_image(content, max_pixels=1000)


def test_postscript_is_not_run(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")

    with pytest.raises(ImageError, match="PostScript is a program"):
        read_image(tmp_path / "a.eps")
