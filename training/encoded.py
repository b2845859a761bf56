"""Images that stay encoded and are decoded when they are asked for: more of them than memory holds."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from netlathe.training.errors import DataError
from netlathe.training.images import ImageSplit, Pixels, augment

# What PIL raises on damaged files, depending on the format. Its "cannot identify" is an OSError.
_UNREADABLE = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")
"""Formats that are decoded, whatever a file is called: PIL knows some that start programs."""

# A crop for training takes at least this share of the image. The crop is that of Inception (arXiv:1409.4842: area
# uniform from 8 % up, aspect ratio from 3/4 to 4/3); small networks do better without its smallest crops
# (MobileNets, arXiv:1704.04861, section 4).
LEAST_AREA = 0.35
WIDEST_RATIO = 4 / 3


class Encoded(Protocol):
    """Encoded images by row."""

    def name(self, row: int) -> str:
        """Name of the image in errors."""

    def open(self, row: int) -> str | io.BytesIO:
        """File or stream for PIL to open."""


@dataclass(frozen=True, eq=False)
class Files:
    """Image files. `paths`: bytes of one width, since workers share an array, but soon copy a list of strings."""

    paths: NDArray[np.bytes_]

    def name(self, row: int) -> str:
        return self.open(row)

    def open(self, row: int) -> str:
        return os.fsdecode(self.paths[row])


@dataclass(frozen=True, eq=False)
class Cells:
    """A Parquet file's column of encoded images, in memory (pyarrow's ChunkedArray of binary)."""

    file: str
    column: Any

    def name(self, row: int) -> str:
        return f"{self.file} row {row}"

    def open(self, row: int) -> io.BytesIO:
        return io.BytesIO(self.column[row].as_py() or b"")


def _opened(source: str | io.BytesIO) -> Image.Image:
    """Image by its beginning alone. From 90 million pixels on, where PIL only warns, that is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(source, formats=_FORMATS)


@dataclass(frozen=True, eq=False, repr=False)
class EncodedSplit(ImageSplit):
    """Images `rows` (N,) of a source, decoded on demand, resized to `size` and turned into `channels` (1: grey,
    3: RGB)."""

    source: Encoded
    rows: Tensor
    labels: Tensor
    size: Pixels
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, *self.size

    def take(self, index: Tensor) -> EncodedSplit:
        return EncodedSplit(self.source, self.rows[index], self.labels[index], self.size, self.channels)

    def load(self, index: Tensor) -> Tensor:
        return self._decoded(index, None)[0]

    def augmented(
        self, index: Tensor, generator: torch.Generator, *, mirror: bool, kept: Tensor | None = None
    ) -> Tensor:
        """Cuts a random part out of each image that is larger than the network's input; shifts the others."""
        draws = torch.rand((len(index), 4), generator=generator, dtype=torch.float64)
        wanted = slice(None) if kept is None else kept
        images, cut = self._decoded(index[wanted], draws[wanted])
        return augment(images, generator, mirror=mirror, still=cut, kept=kept)

    def check(self, index: Tensor) -> None:
        """Opens the images without decoding them. Raises DataError for one that is no image."""
        for row in self.rows[index].tolist():
            name = self.source.name(row)
            try:
                with _opened(self.source.open(row)) as image:
                    _check_depth(image, name)
            except _UNREADABLE as error:
                raise _unreadable(name, error) from error

    def _joined(self, other: ImageSplit) -> ImageSplit:
        if not isinstance(other, EncodedSplit) or other.source is not self.source:
            return super()._joined(other)
        rows, labels = torch.cat([self.rows, other.rows]), torch.cat([self.labels, other.labels])
        return EncodedSplit(self.source, rows, labels, self.size, self.channels)

    def _decoded(self, index: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """uint8 images (n, C, H, W), and which of them are cuts (n,). draws: (n, 4) in 0..1, or None to cut none."""
        rows = self.rows[index].tolist()
        chosen = draws.tolist() if draws is not None else [None] * len(rows)
        images = np.empty((len(rows), *self.size, self.channels), np.uint8)
        cut = torch.zeros(len(rows), dtype=torch.bool)
        for i, (row, four) in enumerate(zip(rows, chosen, strict=True)):
            picture, cut[i] = self._picture(row, four)
            images[i] = np.asarray(picture).reshape(images.shape[1:])
        return torch.from_numpy(images).permute(0, 3, 1, 2), cut

    def _picture(self, row: int, draws: list[float] | None) -> tuple[Image.Image, bool]:
        name, (height, width) = self.source.name(row), self.size
        try:
            with _opened(self.source.open(row)) as image:
                _check_depth(image, name)
                picture = image.convert("RGB" if self.channels == 3 else "L")
            larger = picture.width > width and picture.height > height
            box = crop_box(picture.size, draws) if draws and larger else None
            if box or picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR, box)
        except _UNREADABLE as error:
            raise _unreadable(name, error) from error
        return picture, box is not None


def crop_box(size: tuple[int, int], draws: list[float]) -> tuple[int, int, int, int]:
    """A random part (left, top, right, bottom) of an image of `size` (width, height).

    draws: four numbers in 0..1 for its area, its shape and its place. A side that would be longer than the image's is
    as long as the image's.
    """
    width, height = size
    area = width * height * (LEAST_AREA + (1 - LEAST_AREA) * draws[0])
    ratio = WIDEST_RATIO ** (2 * draws[1] - 1)
    wide, high = (max(1, round(side)) for side in ((area * ratio) ** 0.5, (area / ratio) ** 0.5))
    wide, high = min(wide, width), min(high, height)
    left, top = int(draws[2] * (width - wide + 1)), int(draws[3] * (height - high + 1))
    return left, top, left + wide, top + high


def _check_depth(image: Image.Image, name: str) -> None:
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{name}: holds more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(f"{name}: not a readable image ({error!s:.200}); remove or replace it")
