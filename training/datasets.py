"""Datasets of other libraries as they are: map-style torch datasets, and those of Hugging Face, by what they can do."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netlathe.archspace.errors import did_you_mean
from netlathe.training.arrays import classes_of, encode, fit, plain_labels
from netlathe.training.encoded import Encoded, EncodedSplit
from netlathe.training.errors import DataError
from netlathe.training.folders import SPLIT_NAMES
from netlathe.training.images import ImageSplit, MemorySplit, Pixels
from netlathe.training.parquet import LABEL_COLUMNS

Found = tuple[tuple[str, ...], dict[str, ImageSplit]]
"""Names of the classes, and splits."""


class Dataset(Protocol):
    """A map-style torch.utils.data.Dataset of (image, label), such as torchvision's, or a datasets.Dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, eq=False, repr=False)
class DatasetSplit(ImageSplit):
    """Items `rows` (N,) of a torch dataset, asked for whenever they are used, resized to `size`."""

    dataset: Dataset
    rows: Tensor
    labels: Tensor
    size: Pixels
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, *self.size

    def take(self, index: Tensor) -> DatasetSplit:
        return DatasetSplit(self.dataset, self.rows[index], self.labels[index], self.size, self.channels)

    def load(self, index: Tensor) -> Tensor:
        images = torch.empty((len(index), *self.shape), dtype=torch.uint8)
        for i, row in enumerate(self.rows[index].tolist()):
            images[i] = _image(self.dataset, row, self.size, self.channels)[0]
        return images


def from_torch(splits: Mapping[str, Dataset], size: Pixels, channels: int, in_memory_bytes: int) -> Found:
    """Images of torch datasets by split: read once where all pixels take no more than `in_memory_bytes`, else asked for
    whenever they are used. Raises DataError."""
    names = {split: type(data).__name__ for split, data in splits.items()}
    counts = {split: _length(data, names[split]) for split, data in splits.items()}
    is_held = sum(counts.values()) * channels * math.prod(size) <= in_memory_bytes
    pixels: dict[str, Tensor] = {}
    labels: dict[str, NDArray[Any]] = {}
    for split, data in splits.items():
        if counts[split] == 0:
            raise DataError(f"{names[split]}: holds no images")
        if is_held:
            items = [_image(data, row, size, channels) for row in range(counts[split])]
            pixels[split] = torch.stack([image for image, _ in items])
            labels[split] = np.array([label for _, label in items])
        else:
            own = _own_labels(data, counts[split])
            labels[split] = np.array([_item(data, row)[1] for row in range(counts[split])]) if own is None else own
    values = classes_of(np.concatenate(list(labels.values())), " and ".join(dict.fromkeys(names.values())))
    known = next((tuple(one) for one in (getattr(data, "classes", ()) for data in splits.values()) if one), ())
    found: dict[str, ImageSplit] = {}
    for split, data in splits.items():
        classes = encode(labels[split], values)
        found[split] = (
            MemorySplit(pixels[split], classes) if is_held
            else DatasetSplit(data, torch.arange(len(classes)), classes, size, channels)
        )  # fmt: skip
    return tuple(name_of(value, known) for value in values.tolist()), found


def is_table(data: object) -> bool:
    """Whether it is a dataset with columns, as Hugging Face's library has them."""
    return isinstance(getattr(data, "column_names", None), list) and hasattr(data, "features")


class TableRows(Encoded):
    """A column of encoded images, {'bytes': ..., 'path': ...}, of tables one behind another."""

    def __init__(self, tables: Sequence[Any], column: str) -> None:
        self.tables, self.column = list(tables), column
        self.ends = np.cumsum([len(table) for table in tables])
        self.marks = np.zeros(self.ends[-1], np.uint64)

    def name(self, row: int) -> str:
        table, inner = self._place(row)
        split = getattr(self.tables[table], "split", None)
        return f"{split or 'dataset'} row {inner}"

    def open(self, row: int) -> BinaryIO:
        table, inner = self._place(row)
        cell = self.tables[table][inner][self.column] or {}
        return (
            open(cell["path"], "rb")
            if cell.get("path") and not cell.get("bytes")
            else io.BytesIO(cell.get("bytes") or b"")
        )

    def _place(self, row: int) -> tuple[int, int]:
        table = int(np.searchsorted(self.ends, row, side="right"))
        return table, row - int(self.ends[table - 1]) if table else row


def from_tables(tables: Mapping[str, Any], size: Pixels, channels: int) -> Found:
    """Images of Hugging Face datasets by split, encoded as they are there. Raises DataError."""
    first = next(iter(tables.values()))
    features = dict(first.features)
    image = next((name for name, kind in features.items() if type(kind).__name__ == "Image"), None)
    label = next((name for name in LABEL_COLUMNS if name in features), None)
    if image is None or label is None:
        raise DataError(
            f"{type(first).__name__}: needs a column of images and one of labels ({', '.join(LABEL_COLUMNS)}); it has "
            f"{', '.join(features) or 'no columns'}"
        )
    labels = {split: np.asarray(list(table.with_format(None)[label])) for split, table in tables.items()}
    values = classes_of(np.concatenate(list(labels.values())), type(first).__name__)
    undecoded = [_undecoded(table, image) for table in tables.values()]
    source, start = TableRows(undecoded, image), 0
    splits: dict[str, ImageSplit] = {}
    for split, own in labels.items():
        rows = torch.arange(start, start + len(own))
        splits[split] = EncodedSplit(source, rows, encode(own, values), size, channels)
        start += len(own)
    known = tuple(getattr(features[label], "names", None) or ())
    return tuple(name_of(value, known) for value in values.tolist()), splits


def by_split(data: Mapping[Any, Any]) -> dict[str, Any]:
    """The data of each split, under the split's name here. Raises DataError for one that has none."""
    unknown = [str(name) for name in data if str(name).lower() not in SPLIT_NAMES]
    if unknown:
        meant = did_you_mean(unknown[0], SPLIT_NAMES)
        raise DataError(f"unknown split {unknown[0]!r:.60}{meant}; known: {', '.join(SPLIT_NAMES)}")
    return {SPLIT_NAMES[str(name).lower()]: one for name, one in data.items()}


def _undecoded(table: Any, column: str) -> Any:
    return (
        table.with_format(None).select_columns([column]).cast_column(column, type(table.features[column])(decode=False))
    )


def _length(data: Dataset, name: str) -> int:
    try:
        return len(data)
    except TypeError as error:
        raise DataError(
            f"{name}: images are read from a dataset that has a length and gives (image, label) by index ({error})"
        ) from error


def _item(data: Dataset, row: int) -> tuple[Any, Any]:
    """Image and label."""
    name = type(data).__name__
    try:
        item = data[row]
    except TypeError as error:
        raise DataError(
            f"{name}: images are read from a dataset that has a length and gives (image, label) by index ({error})"
        ) from error
    if not isinstance(item, Sequence) or len(item) != 2:
        raise DataError(f"{name}: item {row} is no pair of image and label")
    label = np.asarray(item[1])
    return item[0], plain_labels(label[None], 1, f"{name}: item {row}")[0] if label.ndim else label[()]


def _image(data: Dataset, row: int, size: Pixels, channels: int) -> tuple[Tensor, Any]:
    image, label = _item(data, row)
    pixels = image.permute(1, 2, 0) if isinstance(image, Tensor) and image.ndim == 3 else image
    return fit(np.asarray(pixels)[None], size, channels, f"{type(data).__name__}: item {row}")[0], label


def _own_labels(data: Dataset, count: int) -> NDArray[Any] | None:
    """The labels that a dataset lists, as torchvision's do, so that no image is read for them; None where it lists
    none, or others than its items have."""
    targets = getattr(data, "targets", None)
    if targets is None or len(targets) != count:
        return None
    labels = np.asarray(targets)
    seen = {0, count // 2, count - 1}
    return labels if labels.ndim == 1 and all(_item(data, row)[1] == labels[row] for row in seen) else None


def name_of(value: Any, known: Sequence[object]) -> str:
    """Name of a class: of a number, the one at its place among those that are known."""
    return str(known[value] if isinstance(value, int) and 0 <= value < len(known) else value)
