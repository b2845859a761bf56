"""Encoded images that memory has room for: decoded all at once, by all cores, when the first of them is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from netlathe.training.encoded import EncodedSplit
from netlathe.training.images import ImageSplit
from netlathe.training.stream import chunks

CHUNK = 256
"""Images that a process decodes at a time."""


class Held:
    """Pixels of a split: uint8 (N, C, H, W), decoded when they are first asked for."""

    def __init__(self, split: EncodedSplit, images: Tensor | None = None) -> None:
        self.split = split
        self._images = images

    @property
    def images(self) -> Tensor:
        """Raises DataError for an image that cannot be read."""
        if self._images is None:
            images = torch.empty((len(self.split), *self.split.shape), dtype=torch.uint8)
            start = 0
            for part, _ in chunks(self.split, CHUNK, workers=None):
                images[start : start + len(part)] = part
                start += len(part)
            self._images = images
        return self._images


@dataclass(frozen=True, eq=False, repr=False)
class HeldSplit(ImageSplit):
    """Images `rows` (N,) of those that are held."""

    held: Held
    rows: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.held.split.shape

    @property
    def images(self) -> Tensor:
        """uint8 (N, C, H, W)."""
        return self.held.images[self.rows]

    def take(self, index: Tensor) -> HeldSplit:
        return HeldSplit(self.held, self.rows[index], self.labels[index])

    def load(self, index: Tensor) -> Tensor:
        return self.held.images[self.rows[index]]

    def prepare(self) -> None:
        _ = self.held.images

    def digest(self) -> str:
        return self.held.split.take(self.rows).digest()

    def _joined(self, other: ImageSplit) -> ImageSplit:
        if not isinstance(other, HeldSplit) or other.held is not self.held:
            return super()._joined(other)
        return HeldSplit(self.held, torch.cat([self.rows, other.rows]), torch.cat([self.labels, other.labels]))
