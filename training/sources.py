"""Sources of images: the built-in digits, a folder per class, an .npz, a Parquet of encoded images."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from netlathe.archspace.files import odd_kind
from netlathe.archspace.packed import NPZ_DAMAGE, check_zip
from netlathe.archspace.parquet import PARQUET_DAMAGE, check_parquet
from netlathe.training.encoded import Cells, EncodedSplit, Files
from netlathe.training.errors import DataError
from netlathe.training.images import ImageData, ImageSplit, MemorySplit, Pixels, make_data
from netlathe.training.stream import chunks, fetch

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".gif")
_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_LABEL_COLUMNS = ("label", "labels", "class", "target", "y", "fine_label")


class SizedImages(Protocol):
    """A map-style torch.utils.data.Dataset of (image, label), such as torchvision's."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Source = str | Path | tuple[Any, Any] | SizedImages

_CHUNK = 256
_WORTH_WORKERS = 5000  # Starting processes costs about as much as decoding a thousand small images.


def load_images(
    source: Source,
    size: Pixels,
    *,
    channels: int = 3,
    seed: int = 0,
    limit: int | None = None,
    in_memory_bytes: int = 2 << 30,
) -> ImageData:
    """Images of `source`, resized to `size` and turned into `channels` (1: grey, 3: RGB).

    source: a pair of arrays, images (N, H, W) or (N, H, W, C) of uint8 or floats in 0..1 and labels (N,); a
    torch.utils.data.Dataset of (image, label), read once into memory: PIL images, arrays (H, W, C) or tensors
    (C, H, W); or a name or path: 'digits' (scikit-learn's 1,797 handwritten digits of 8x8), a folder with one folder
    per class (or train/ and test/ or val/ with such folders), an .npz with x_train, y_train (x_test, y_test) or x, y,
    or a .parquet with a column of encoded images, a label column and perhaps a `split` column.
    limit: at most so many per split.
    in_memory_bytes: a folder or a .parquet is decoded at once if its pixels take no more than this; else its images
    are only opened here, and decoded whenever they are used (the .parquet's encoded bytes stay in memory).
    Raises DataError.
    """
    if not _is_size(size):
        raise DataError(f"size {size!r:.40}: give height and width in pixels, as (224, 224)")
    if channels not in (1, 3):
        raise DataError(f"images are read in grey (1 channel) or RGB (3 channels), not with {channels} channels")
    if isinstance(source, tuple):
        return _from_pair(source, size, channels, seed, limit)
    if not isinstance(source, str | Path):
        return _from_dataset(source, size, channels, seed, limit)
    if source == "digits":
        return _digits(size, channels, seed, limit)
    path = Path(source)
    if path.is_dir():
        classes, splits = _from_folder(path, size, channels)
    elif path.exists() and not path.is_file():
        raise DataError(f"{source}: is {odd_kind(path)}; give a folder of images, an .npz, a .parquet, or 'digits'")
    elif not path.is_file():
        raise DataError(f"{source}: no such file or folder; give a folder of images, an .npz, a .parquet, or 'digits'")
    elif path.suffix == ".npz":
        classes, splits = _from_npz(path, size, channels)
    elif path.suffix == ".parquet":
        classes, splits = _from_parquet(path, size, channels)
    else:
        raise DataError(f"{source}: images are read from a folder, an .npz or a .parquet, not from {path.suffix!r}")
    data = make_data(path.stem, classes, _test_from_validation(splits), seed=seed, limit=limit)
    return _decoded_or_checked(data, in_memory_bytes)


def _is_size(size: object) -> bool:
    return (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(isinstance(one, int | np.integer) and one > 0 for one in size)
    )


def _decoded_or_checked(data: ImageData, in_memory_bytes: int) -> ImageData:
    splits = (data.train, data.validation, data.test)
    encoded = [split for split in splits if isinstance(split, EncodedSplit)]
    if sum(len(split) * math.prod(split.shape) for split in encoded) <= in_memory_bytes:
        train, validation, test = map(_decoded, splits)
        return replace(data, train=train, validation=validation, test=test)
    for split in encoded:
        for _ in fetch(_Checks(split).check, range(0, len(split), _CHUNK), _workers(split)):
            pass
    return data


def _decoded(split: ImageSplit) -> ImageSplit:
    if not isinstance(split, EncodedSplit):
        return split
    images = torch.empty((len(split), *split.shape), dtype=torch.uint8)
    start = 0
    for part, _ in chunks(split, _CHUNK, workers=_workers(split)):
        images[start : start + len(part)] = part
        start += len(part)
    return MemorySplit(images, split.labels)


@dataclass(frozen=True)
class _Checks:
    split: EncodedSplit

    def check(self, start: int) -> None:
        self.split.check(torch.arange(start, min(start + _CHUNK, len(self.split))))


def _workers(split: ImageSplit) -> int:
    """Number of processes: as many as there are cores, where starting them is safe and worth it."""
    if sys.platform != "linux" or len(split) < _WORTH_WORKERS or multiprocessing.current_process().daemon:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, cores)


def _digits(size: Pixels, channels: int, seed: int, limit: int | None) -> ImageData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
    split = MemorySplit(_fit(images, size, channels, "digits"), torch.from_numpy(digits.target.astype(np.int64)))
    classes = tuple(str(name) for name in digits.target_names)
    # A mirrored digit is another sign.
    return make_data("digits", classes, {"train": split}, seed=seed, mirror=False, limit=limit)


def _from_pair(
    pair: tuple[Any, Any], size: Pixels, channels: int, seed: int, limit: int | None, name: str = "arrays"
) -> ImageData:
    if len(pair) != 2:
        raise DataError(f"{name}: give a pair of arrays, images and labels, not {len(pair)} of them")
    images, labels = (np.asarray(one) for one in pair)
    values = _classes(labels, name)
    split = MemorySplit(_fit(images, size, channels, name), _encode(labels, values, len(images), name))
    return make_data(name, tuple(str(v) for v in values), {"train": split}, seed=seed, limit=limit)


def _from_dataset(data: SizedImages, size: Pixels, channels: int, seed: int, limit: int | None) -> ImageData:
    name = type(data).__name__
    try:
        count = len(data)
        items = [data[index] for index in range(count)]
    except TypeError as error:
        raise DataError(
            f"{name}: images are read from a dataset that has a length and gives (image, label) by index ({error})"
        ) from error
    images, labels = [], []
    for index, item in enumerate(items):
        if not isinstance(item, Sequence) or len(item) != 2:
            raise DataError(f"{name}: item {index} is no pair of image and label")
        pixels = item[0].permute(1, 2, 0) if isinstance(item[0], Tensor) and item[0].ndim == 3 else item[0]
        images.append(_fit(np.asarray(pixels)[None], size, channels, f"{name}: item {index}"))
        labels.append(int(item[1]))
    if not images:
        raise DataError(f"{name}: holds no images")
    values = np.unique(np.array(labels))
    encoded = _encode(np.array(labels), values, len(labels), name)
    classes = tuple(getattr(data, "classes", ()))
    names = tuple(str(classes[v] if len(classes) > v >= 0 else v) for v in values.tolist())
    split = MemorySplit(torch.cat(images), encoded)
    return make_data(name, names, {"train": split}, seed=seed, limit=limit)


def _test_from_validation(splits: dict[str, ImageSplit]) -> dict[str, ImageSplit]:
    """ImageNet-style sets have train and val only: val then is what accuracy is reported on."""
    if "validation" in splits and "test" not in splits:
        return {"train": splits["train"], "test": splits["validation"]} if "train" in splits else splits
    return splits


def _from_folder(path: Path, size: Pixels, channels: int) -> tuple[tuple[str, ...], dict[str, ImageSplit]]:
    folders = _split_folders(path)
    if "train" not in folders:
        names = ", ".join(sorted(p.name for p in folders.values()))
        raise DataError(f"{path}: has {names}/ but no train/; add the training images")
    classes = tuple(p.name for p in _subfolders(folders["train"]))
    splits: dict[str, ImageSplit] = {}
    for split, folder in folders.items():
        found = tuple(p.name for p in _subfolders(folder))
        if found != classes:
            odd = sorted(set(found) ^ set(classes))
            raise DataError(f"{folder}: its class folders differ from those of the training split ({', '.join(odd)})")
        files = [(i, f) for i, name in enumerate(classes) for f in _image_files(folder / name)]
        if not files:
            raise DataError(
                f"{folder}: no images found; expected one folder per class with files of {', '.join(IMAGE_SUFFIXES)}"
            )
        paths = Files(np.array([os.fsencode(f) for _, f in files]))
        labels = torch.tensor([label for label, _ in files])
        splits[split] = EncodedSplit(paths, torch.arange(len(files)), labels, size, channels)
    return classes, splits


def _split_folders(path: Path) -> dict[str, Path]:
    """Folders by split; a folder without any is the training split itself."""
    folders = {_SPLIT_NAMES[p.name.lower()]: p for p in _subfolders(path) if p.name.lower() in _SPLIT_NAMES}
    return folders or {"train": path}


def folders_of_classes(path: Path) -> list[Path]:
    """The folders in which each folder is a class, where images come from this one."""
    return list(_split_folders(path).values())


def _subfolders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    """Raises DataError for one that is a named pipe or the like, which would be waited for."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir())
    for path in found:
        if path.exists() and (kind := odd_kind(path)):
            raise DataError(f"{path}: is {kind}, and no image; remove it")
    return found


def _from_npz(path: Path, size: Pixels, channels: int) -> tuple[tuple[str, ...], dict[str, ImageSplit]]:
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
    values = _classes(np.concatenate([y.ravel() for _, y in found.values()]), path)
    splits: dict[str, ImageSplit] = {}
    for split, (x, y) in found.items():
        where = f"{path} ({split})"
        splits[split] = MemorySplit(_fit(x, size, channels, where), _encode(y, values, len(x), where))
    return tuple(str(v) for v in values), splits


def _from_parquet(path: Path, size: Pixels, channels: int) -> tuple[tuple[str, ...], dict[str, ImageSplit]]:
    try:
        return _read_parquet(path, size, channels)
    except PARQUET_DAMAGE as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error!r:.200})") from error


def _read_parquet(path: Path, size: Pixels, channels: int) -> tuple[tuple[str, ...], dict[str, ImageSplit]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        columns = file.schema_arrow.names
        image_column = next((c for c in columns if _holds_bytes(file.schema_arrow.field(c).type)), None)
        label_column = next((c for c in _LABEL_COLUMNS if c in columns), None)
        if image_column is None or label_column is None:
            raise DataError(
                f"{path}: needs a column of encoded images (bytes) and one of labels "
                f"({', '.join(_LABEL_COLUMNS)}); it has {', '.join(columns) or 'no columns'}"
            )
        wanted = [c for c in (image_column, label_column, "split") if c in columns]
        check_parquet(file, path.stat().st_size)
        table = file.read(wanted)
    labels = table.column(label_column).to_pandas().to_numpy()
    values = _classes(labels, path)
    classes = _encode(labels, values, len(table), str(path))
    cells = Cells(str(path), _bytes_of(table.column(image_column)))
    splits: dict[str, ImageSplit] = {}
    for split, rows in _rows_of_splits(table, path):
        splits[split] = EncodedSplit(cells, rows, classes[rows], size, channels)
    return tuple(str(v) for v in values), splits


def _holds_bytes(kind: Any) -> bool:
    """Whether a column type is that of encoded images: plain, or the {'bytes', 'path'} struct of some data sets."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _bytes_of(column: Any) -> Any:
    import pyarrow.compute

    return pyarrow.compute.struct_field(column, "bytes") if pyarrow.types.is_struct(column.type) else column


def _rows_of_splits(table: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    if "split" not in table.column_names:
        yield "train", torch.arange(len(table))
        return
    names = table.column("split").to_pandas().astype(str).str.lower()
    unknown = set(names) - set(_SPLIT_NAMES)
    if unknown:
        raise DataError(f"{path}: unknown split {sorted(unknown)[0]!r}; known: {', '.join(_SPLIT_NAMES)}")
    splits = names.map(_SPLIT_NAMES).to_numpy()
    for split in np.unique(splits):
        yield str(split), torch.from_numpy(np.flatnonzero(splits == split))


def _classes(labels: NDArray[np.generic], path: Path | str) -> NDArray[np.generic]:
    """The distinct labels, sorted."""
    missing = int(pd.isna(labels).sum())
    if missing:
        raise DataError(f"{path}: {missing} labels are missing; remove those images or label them")
    return np.unique(labels)


def _encode(labels: NDArray[np.generic], values: NDArray[np.generic], count: int, where: str) -> Tensor:
    """Labels as indices into the sorted distinct values."""
    if labels.size != count:
        raise DataError(f"{where}: {count} images but {labels.size} labels")
    return torch.from_numpy(np.searchsorted(values, labels.ravel()).astype(np.int64))


def _fit(images: NDArray[np.generic], size: Pixels, channels: int, where: str) -> Tensor:
    """Array of (N, H, W) or (N, H, W, C), uint8 or floats in 0..1 -> uint8 (N, channels, *size)."""
    array = images[..., None] if images.ndim == 3 else images
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise DataError(f"{where}: images must have shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), got {images.shape}")
    if array.dtype != np.uint8:
        array = _to_uint8(array, where)
    x = torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2)
    if x.shape[1] != channels:
        x = x.expand(-1, 3, -1, -1) if channels == 3 else x.float().mean(1, keepdim=True).round().to(torch.uint8)
    if tuple(x.shape[2:]) != size:
        x = _resize(x, size)
    return x.contiguous()


def _to_uint8(array: NDArray[np.generic], where: str) -> NDArray[np.uint8]:
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.number):
        raise DataError(f"{where}: pixels must be numbers, got {array.dtype}")
    values = array.astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
        raise DataError(f"{where}: pixel values must lie in 0..255 (uint8) or 0..1 (float)")
    if np.issubdtype(array.dtype, np.integer) and values.max() <= 1:
        raise DataError(f"{where}: integer pixels of 0 and 1 would be nearly black; store 0..255, floats or booleans")
    scale = 255.0 if np.issubdtype(array.dtype, np.floating) and values.max() <= 1 else 1.0
    return np.rint(values * scale).astype(np.uint8)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    parts = [
        torch.nn.functional.interpolate(part.float(), tuple(size), mode="bilinear", antialias=True)
        for part in torch.split(x, 4096)
    ]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])
