"""One encoded image: what is wrong with it, and its pixels in the size that is wanted."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from netlathe.training.augmentation import crop_box
from netlathe.training.images import Pixels

UNREADABLE = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""Exceptions that PIL raises on damaged files, depending on the format. Its "cannot identify" is an OSError."""
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")
"""Formats that are decoded, whatever a file is called: PIL knows some that start programs."""
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
"""Last bytes of a whole file, by format."""
_EDGE = 4096
"""Bytes at either end of a file by which it is known."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""Turns that make an image upright, by its EXIF orientation (JEITA CP-3451)."""
_GAP = 2.0
"""How many times the wanted size a JPEG's coarse decoding must have at least. At 2, as in PIL's own thumbnails, pixels
differ by less than 2 grey levels of 255 on average, and at 1 by up to 3.5, for no more speed."""


@dataclass(frozen=True)
class Cut:
    """A random cut: four numbers in 0..1 by which `crop_box` finds it, and the least share of the image that it is."""

    draws: Sequence[float]
    least_area: float


def decode(stream: BinaryIO, size: Pixels, mode: str, cut: Cut | None) -> tuple[Image.Image, bool]:
    """The image upright, in `size` and `mode` ('RGB' or 'L'), and whether it is a cut, which only an image larger than
    `size` becomes. Raises one of UNREADABLE."""
    with _opened(stream) as image:
        return _fitted(image, size, mode, cut)


def check(stream: BinaryIO) -> None:
    """Raises one of UNREADABLE for a file whose beginning or end is no image's. A file whose end is not that of its
    format is decoded: it may have been cut off, or have something behind it."""
    with _opened(stream) as image:
        pixels_at = stream.tell()
        stream.seek(-min(_EDGE, stream.seek(0, os.SEEK_END)), os.SEEK_END)
        end = stream.read()
        stream.seek(pixels_at)
        if image.format not in _ENDS or _ENDS[image.format] not in end:
            image.load()


def fingerprint(stream: BinaryIO) -> int:
    """A number in 64 bits that tells a file from another by its size and the bytes at its ends. Raises OSError."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    known = stream.read(_EDGE if size > 2 * _EDGE else size)
    if size > 2 * _EDGE:
        stream.seek(-_EDGE, os.SEEK_END)
        known += stream.read()
    return int.from_bytes(hashlib.blake2b(b"%d:" % size + known, digest_size=8).digest(), "little")


class TooDeepError(ValueError):
    """An image of more than 8 bits a channel."""


@contextmanager
def _opened(stream: BinaryIO) -> Iterator[Image.Image]:
    """Image by its beginning alone. From 90 million pixels on, where PIL only warns, that is raised; its other doubts,
    of metadata that is not needed, say nothing. Raises one of UNREADABLE."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(stream, formats=_FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise TooDeepError(f"holds more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
            yield image


def _fitted(image: Image.Image, size: Pixels, mode: str, cut: Cut | None) -> tuple[Image.Image, bool]:
    height, width = size
    turn = _TURNS.get(_orientation(image) or 1)
    is_turned = turn in (
        Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90
    )  # fmt: skip
    wide, high = image.size[::-1] if is_turned else image.size  # upright
    is_cut = cut is not None and wide > width and high > height
    box = crop_box((wide, high), cut.draws, cut.least_area) if is_cut and cut is not None else (0, 0, wide, high)
    coarse = min((box[2] - box[0]) / width, (box[3] - box[1]) / height) / _GAP
    if coarse >= 2:  # a JPEG is decoded at a half, a quarter or an eighth, in a fraction of the time
        image.draft(mode, (int(image.width / coarse), int(image.height / coarse)))
    picture = image if image.mode == mode else image.convert(mode)
    picture = picture if turn is None else picture.transpose(turn)
    if picture.size == (width, height) and not is_cut:
        picture.load()
        return picture, False
    left, right = (min(x * picture.width / wide, picture.width) for x in box[::2])
    top, bottom = (min(y * picture.height / high, picture.height) for y in box[1::2])
    return picture.resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom)), is_cut


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation, 1 to 8; None where there is none that can be read."""
    if "exif" not in image.info:
        return None
    try:
        value = image.getexif().get(_ORIENTATION)
    except UNREADABLE:
        return None
    return value if isinstance(value, int) else None
