"""One image: upright, as large as is wanted, and whether it is whole."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from netlathe.training.augmentation import MODERATE_AREA
from netlathe.training.decoding import UNREADABLE, Cut, check, decode, fingerprint

RNG = np.random.default_rng(0)


def smooth(width: int, height: int) -> Image.Image:
    small = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(content: bytes, size: tuple[int, int], draws: list[float] | None = None, mode: str = "RGB") -> np.ndarray:
    cut = None if draws is None else Cut(draws, MODERATE_AREA)
    return np.asarray(decode(io.BytesIO(content), size, mode, cut)[0]).astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("draws", [None, [0.3, 0.8, 0.9, 0.1]], ids=["whole", "cut"])
def test_images_are_upright_as_their_exif_says(orientation: int, draws: list[float] | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(smooth(90, 60), "JPEG", quality=95, exif=exif)
    upright = saved(ImageOps.exif_transpose(Image.open(io.BytesIO(content))), "PNG")
    assert np.abs(pixels(content, (20, 30), draws) - pixels(upright, (20, 30), draws)).mean() < 1


@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01A\0\0\0"])
def test_exif_that_says_nothing_turns_nothing(exif: bytes) -> None:
    image = smooth(90, 60)
    content, plain = saved(image, "JPEG", exif=exif), saved(image, "JPEG")
    assert np.array_equal(pixels(content, (20, 30)), pixels(plain, (20, 30)))


@pytest.mark.parametrize("size", [(32, 32), (24, 48), (100, 100)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("draws", [None, [0.3, 0.8, 0.9, 0.1]], ids=["whole", "cut"])
def test_a_large_jpeg_decoded_coarsely_is_the_same_image(
    size: tuple[int, int], mode: str, draws: list[float] | None
) -> None:
    image = smooth(403, 301)
    content = saved(image, "JPEG", quality=95)
    exact = pixels(saved(Image.open(io.BytesIO(content)), "PNG"), size, draws, mode)
    assert np.abs(pixels(content, size, draws, mode) - exact).mean() < 3


def test_an_image_that_fills_the_size_is_left_as_it_is() -> None:
    content = saved(smooth(30, 20), "PNG")
    assert np.array_equal(pixels(content, (20, 30)), np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
def test_half_a_file_is_told_from_a_whole_one_by_its_end(kind: str) -> None:
    content = saved(smooth(300, 200), kind)
    check(io.BytesIO(content))
    check(io.BytesIO(content + b"behind it" * 1000))
    with pytest.raises(UNREADABLE):
        check(io.BytesIO(content[: len(content) // 2]))


def test_a_fingerprint_tells_sizes_and_both_ends() -> None:
    content = RNG.bytes(50_000)
    prints = {
        fingerprint(io.BytesIO(one))
        for one in (content, content + b"0", b"0" + content[1:], content[:-1] + b"0", content[:100], b"")
    }
    assert len(prints) == 6
    assert fingerprint(io.BytesIO(content)) in prints
