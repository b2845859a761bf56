"""Images from arrays: in memory, in an .npz, the built-in digits; and labels of any form as classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from netlathe.archspace.packed import NPZ_DAMAGE, check_zip
from netlathe.training.errors import DataError
from netlathe.training.images import ImageData, ImageSplit, MemorySplit, Pixels, make_data

Arrays = tuple[NDArray[Any], NDArray[Any]]
"""Images and labels."""
_PART = 4096
"""Images that are turned into bytes, or resized, at a time."""


def from_digits(size: Pixels, channels: int, seed: int, limit: int | None) -> ImageData:
    """scikit-learn's digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
    split = MemorySplit(fit(images, size, channels, "digits"), torch.from_numpy(digits.target.astype(np.int64)))
    classes = tuple(str(name) for name in digits.target_names)
    # A mirrored digit is another sign.
    return make_data("digits", classes, {"train": split}, seed=seed, mirror=False, limit=limit)


def from_arrays(
    found: Mapping[str, Arrays], size: Pixels, channels: int, name: str
) -> tuple[tuple[str, ...], dict[str, ImageSplit]]:
    """Names of the classes, and splits, of images and labels by split. Raises DataError."""
    labels = {split: plain_labels(y, len(x), f"{name} ({split})") for split, (x, y) in found.items()}
    values = classes_of(np.concatenate(list(labels.values())), name)
    splits: dict[str, ImageSplit] = {
        split: MemorySplit(fit(x, size, channels, f"{name} ({split})"), encode(labels[split], values))
        for split, (x, _) in found.items()
    }
    return tuple(str(value) for value in values), splits


def from_npz(path: Path, size: Pixels, channels: int) -> tuple[tuple[str, ...], dict[str, ImageSplit]]:
    """Names of the classes, and splits, of an .npz. Raises DataError."""
    try:
        check_zip(path)
        return _read_npz(path, size, channels)
    except NPZ_DAMAGE as error:
        raise DataError(f"{path}: cannot be read as an .npz of plain arrays ({error!r:.200})") from error


def _read_npz(path: Path, size: Pixels, channels: int) -> tuple[tuple[str, ...], dict[str, ImageSplit]]:
    pairs = {"train": (("x_train", "y_train"), ("x", "y"), ("images", "labels")), "test": (("x_test", "y_test"),)}
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        found = {
            split: (np.asarray(file[x]), np.asarray(file[y]))
            for split, names in pairs.items()
            for x, y in names
            if x in file.files and y in file.files
        }
        names = ", ".join(file.files)
    if "train" not in found:
        raise DataError(f"{path}: holds {names or 'nothing'}; expected x_train and y_train, or x and y")
    return from_arrays(found, size, channels, str(path))


def plain_labels(labels: NDArray[Any], count: int, where: str) -> NDArray[Any]:
    """Labels (N,), one an image, from these, a column of these (N, 1), or one-hot rows (N, classes), which become the
    place of their one. Raises DataError where there are not `count`."""
    if labels.ndim == 2 and labels.shape[1] > 1 and len(labels) == count:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
            raise DataError(
                f"{where}: labels of {labels.shape} must be one-hot, a single 1 in each row; of class probabilities, "
                "give the most probable class (argmax)"
            )
        return np.asarray(np.argmax(labels, axis=1))
    if labels.size != count:
        raise DataError(f"{where}: {count} images but {labels.size} labels")
    return labels.ravel()


def classes_of(labels: NDArray[Any], where: Path | str) -> NDArray[Any]:
    """The distinct labels, sorted. Raises DataError where some are missing, or are measurements rather than classes."""
    missing = int(pd.isna(labels).sum())
    if missing:
        raise DataError(f"{where}: {missing} labels are missing; remove those images or label them")
    values = np.unique(labels)
    if np.issubdtype(values.dtype, np.floating) and (broken := values[values != np.rint(values)]).size:
        raise DataError(
            f"{where}: labels are numbers such as {broken[0]:.6g}, which name no classes; a classifier is trained on "
            "classes, so give their numbers or names (of measurements, ranges of them)"
        )
    return values


def encode(labels: NDArray[Any], values: NDArray[Any]) -> Tensor:
    """Labels as indices into the sorted distinct values."""
    return torch.from_numpy(np.searchsorted(values, labels).astype(np.int64))


def fit(images: NDArray[Any], size: Pixels, channels: int, where: str) -> Tensor:
    """Array of (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in 0..1 -> uint8 (N, channels, *size)."""
    array = images[..., None] if images.ndim == 3 else images
    if array.ndim == 4 and array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise DataError(
            f"{where}: images must have shape (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, got "
            f"{images.shape}"
        )
    to_uint8 = _to_uint8(array, where)
    parts = (array[start : start + _PART] for start in range(0, len(array), _PART))
    return torch.cat([_fit(to_uint8(part), size, channels) for part in parts])


def _fit(array: NDArray[np.uint8], size: Pixels, channels: int) -> Tensor:
    own = np.require(array, requirements=["C", "W"])  # torch warns of arrays that it could not write to
    x = torch.from_numpy(own).permute(0, 3, 1, 2)
    if x.shape[1] != channels:
        x = x.expand(-1, 3, -1, -1) if channels == 3 else x.float().mean(1, keepdim=True).round().to(torch.uint8)
    if tuple(x.shape[2:]) != size:
        x = torch.nn.functional.interpolate(x.float(), size, mode="bilinear", antialias=True)
        x = x.round().clamp(0, 255).to(torch.uint8)
    return x.contiguous()


def _to_uint8(array: NDArray[Any], where: str) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """A function that turns parts of an array into bytes, by the range of the whole. Raises DataError where pixels have
    no such range."""
    if array.dtype == np.uint8:
        return lambda part: part
    if array.dtype == np.bool_:
        return lambda part: part.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.number):
        raise DataError(f"{where}: pixels must be numbers, got {array.dtype}")
    least, most = array.min(), array.max()  # NaN where any is
    if not (least >= 0 and most <= 255):
        raise DataError(f"{where}: pixel values must lie in 0..255 (uint8) or 0..1 (float)")
    if np.issubdtype(array.dtype, np.integer) and most <= 1:
        raise DataError(f"{where}: integer pixels of 0 and 1 would be nearly black; store 0..255, floats or booleans")
    scale = 255.0 if np.issubdtype(array.dtype, np.floating) and most <= 1 else 1.0
    return lambda part: np.rint(part.astype(np.float64) * scale).astype(np.uint8)
