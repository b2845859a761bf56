"""How a network takes an image's bytes: the mean and the standard deviation that its pixels are given by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netlathe.training.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """Pixel values of a network's input: (byte / 255 - mean) / std.

    mean, std: one number for all channels, or one per channel. Raises DataError for numbers of which there are neither
    one nor three, or which are no such mean and deviation.
    """

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        if {len(self.mean), len(self.std)} - {1, 3}:
            raise DataError(f"normalization {self}: give one number, or three, as mean and as standard deviation")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise DataError(f"normalization {self}: a mean is a number, a standard deviation one above zero")

    def __str__(self) -> str:
        own = (name for name, known in NORMALIZATIONS.items() if known == self)
        return next(own, "/".join(",".join(f"{x:g}" for x in one) for one in (self.mean, self.std)))

    @classmethod
    def parse(cls, text: str) -> Normalization:
        """'imagenet', '-1..1', '0..1', '0..255', or MEAN/STD with pixels from 0 to 1, as '0.45/0.22' or
        '0.49,0.48,0.45/0.25,0.24,0.26'. Raises DataError for anything else."""
        if text in NORMALIZATIONS:
            return NORMALIZATIONS[text]
        try:
            mean, std = (tuple(map(float, part.split(","))) for part in text.split("/"))
        except ValueError as error:
            raise DataError(
                f"normalization {text!r:.80}: give {', '.join(NORMALIZATIONS)}, or MEAN/STD of pixels from 0 to 1, as "
                "0.485,0.456,0.406/0.229,0.224,0.225"
            ) from error
        return cls(mean, std)

    def fits(self, channels: int) -> bool:
        """Whether images of so many channels can be given so."""
        return max(len(self.mean), len(self.std)) in (1, channels)

    def check(self, channels: int) -> None:
        """Raises DataError where it does not fit."""
        if not self.fits(channels):
            raise DataError(f"normalization {self}: has three numbers, the images have {channels} channel")

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32 (N, C, H, W) as networks take them, channels last in memory (depthwise
        convolutions train 3 to 5 times faster so)."""
        import torch  # which a name that is parsed does not need

        mean, std = (torch.tensor(one, dtype=torch.float64)[:, None, None] for one in (self.mean, self.std))
        scaled = images.float().div_((255 * std).float()).sub_((mean / std).float())
        return scaled.contiguous(memory_format=torch.channels_last)


SYMMETRIC = Normalization()
"""Values from -1 to 1, as netlathe's own networks take them."""
NORMALIZATIONS = {
    "-1..1": SYMMETRIC,
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0..1": Normalization((0.0,), (1.0,)),
    "0..255": Normalization((0.0,), (1 / 255,)),
}
"""Those that models mostly take, by name."""
