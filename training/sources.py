"""Sources of images, by what is given: a folder per class, shards, an .npz, arrays, a dataset, the built-in digits."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netlathe.training.arrays import classes_of, encode, from_arrays, from_digits, from_npz
from netlathe.training.datasets import Dataset, by_split, from_tables, from_torch, is_table, name_of
from netlathe.training.encoded import EncodedSplit, Files
from netlathe.training.errors import DataError
from netlathe.training.examined import Told, examined
from netlathe.training.folders import SPLIT_NAMES, Stated, list_folder
from netlathe.training.images import ImageData, ImageSplit, Pixels, make_data
from netlathe.training.index import Index, matches, read_index, write_index
from netlathe.training.parquet import open_parquet
from netlathe.training.shards import HELD_BYTES, Grouped, Labelled
from netlathe.training.source_paths import DIGITS, check_images_path, shards_at
from netlathe.training.tars import MEMBER_COLUMNS, Members, list_tars, stretches

Source = str | Path | tuple[Any, Any] | Dataset | Mapping[str, Any]
"""Source of images: a path, a pair of arrays, a dataset, or several of either by split."""


def load_images(
    source: Source,
    size: Pixels,
    *,
    channels: int = 3,
    seed: int = 0,
    limit: int | None = None,
    skip_unreadable: int = 0,
    in_memory_bytes: int = 2 << 30,
    told: Told | None = None,
) -> ImageData:
    """Images of `source`, resized to `size` and turned into `channels` (1: grey, 3: RGB).

    source: a name or path:
    - 'digits', scikit-learn's 1,797 handwritten digits of 8x8;
    - a folder with one folder per class, or train/ and test/ or val/ with such folders;
    - .tar shards as WebDataset has them, or .parquet files with a column of encoded images, a label column and perhaps
      a `split` column: one, a folder of them, or several by a pattern such as shards/train-{000..146}.tar. A file whose
      name or folder says train, val or test is of that split;
    - an .npz with x_train, y_train (x_test, y_test) or x, y;
    or an object:
    - a pair of arrays or tensors, images (N, H, W), (N, H, W, C) or (N, C, H, W) of uint8 or floats in 0..1, and labels
      (N,) or one-hot (N, classes);
    - a torch.utils.data.Dataset of (image, label): PIL images, arrays (H, W, C) or tensors (C, H, W). It is read once
      where the pixels fit into `in_memory_bytes`, else asked for items whenever they are used;
    - a datasets.Dataset of Hugging Face with an image column;
    - a mapping of train, test, validation to such pairs or datasets, as a DatasetDict.
    limit: at most so many per split.
    skip_unreadable: so many encoded images may be unreadable, and are left out, which `notes` says; with more, a
    DataError names all of them.
    in_memory_bytes: encoded images are held in memory if their pixels take no more than this, decoded when they are
    first wanted; else they are decoded whenever they are used.
    told: is called with (done, of how many) while encoded images are looked at for the first time.

    Encoded images are opened once, to see whether they can be read. What was seen is kept in the user's cache, and
    holds as long as their files' sizes and times of change do. Raises DataError.
    """
    if not _is_size(size):
        raise DataError(f"size {size!r:.40}: give height and width in pixels, as (224, 224)")
    if channels not in (1, 3):
        raise DataError(f"images are read in grey (1 channel) or RGB (3 channels), not with {channels} channels")
    if isinstance(source, str) and source == DIGITS:
        return from_digits(size, channels, seed, limit)
    found = _open(source, size, channels, in_memory_bytes)
    splits = _test_from_validation(found.splits)
    data = make_data(found.name, found.classes, splits, seed=seed, limit=limit, notes=found.notes)
    return examined(
        data, found.remember, in_memory_bytes=in_memory_bytes, skip_unreadable=skip_unreadable,
        told=told or (lambda done, total: None),
    )  # fmt: skip


def _is_size(size: object) -> bool:
    return (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(isinstance(one, int | np.integer) and one > 0 for one in size)
    )


@dataclass(frozen=True)
class _Found:
    """Contents of a source, no encoded image opened; `remember` keeps in the cache what is known of these."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, ImageSplit]
    notes: tuple[str, ...] = ()
    remember: Callable[[], None] = lambda: None


def _open(source: Source, size: Pixels, channels: int, in_memory_bytes: int) -> _Found:
    if isinstance(source, str | Path):
        return _open_path(Path(source), size, channels)
    if isinstance(source, tuple):
        if len(source) != 2:
            raise DataError(f"arrays: give a pair of arrays, images and labels, not {len(source)} of them")
        source = {"train": source}
    given: dict[str, Any] = by_split(source) if isinstance(source, Mapping) else {"train": source}
    first = next(iter(given.values()), None)
    if isinstance(first, tuple):
        pairs = {split: _as_arrays(pair) for split, pair in given.items()}
        return _Found("arrays", *from_arrays(pairs, size, channels, "arrays"))
    name = type(first).__name__
    if is_table(first):
        return _Found(name, *from_tables(given, size, channels))
    return _Found(name, *from_torch(given, size, channels, in_memory_bytes))


def _as_arrays(pair: tuple[Any, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    images, labels = (np.asarray(one) for one in pair)
    return images, labels


def _open_path(path: Path, size: Pixels, channels: int) -> _Found:
    if path.suffix == ".npz" and path.is_file():
        return _Found(path.stem, *from_npz(path, size, channels))
    check_images_path(path)
    shards = shards_at(path)
    return _from_shards(path, shards, size, channels) if shards else _from_folder(path, size, channels)


def _from_folder(path: Path, size: Pixels, channels: int) -> _Found:
    began = time.time_ns()
    listing = list_folder(path)
    index, marks = read_index(path, ["marks"]), np.zeros(len(listing.labels), np.uint64)
    if index:
        at = matches(index, listing.files)
        marks[at >= 0] = index.column("marks")[at[at >= 0]]
    counts = np.ones(len(marks), np.int64)
    whole = EncodedSplit(
        Files(str(path), listing.files.names, marks), torch.arange(len(marks)), torch.from_numpy(listing.labels), size,
        channels,
    )  # fmt: skip
    return _Found(
        path.stem,
        listing.classes,
        {split: whole.take(torch.arange(len(marks))[rows]) for split, rows in listing.splits.items()},
        listing.notes,
        lambda: write_index(path, Index(listing.files, counts, {"marks": marks}), began),
    )


def _from_shards(path: Path, shards: Sequence[Path], size: Pixels, channels: int) -> _Found:
    if len({one.suffix for one in shards}) > 1:
        raise DataError(f"{path}: holds .tar and .parquet files; give those of one kind, by a pattern such as *.tar")
    began = time.time_ns()
    is_parquet = shards[0].suffix == ".parquet"
    files, index = _stated(shards), read_index(path, ["marks", *(() if is_parquet else MEMBER_COLUMNS)])
    at = matches(index, files) if index else np.full(len(shards), -1)
    labelled = open_parquet(shards) if is_parquet else _open_tars(shards, index, at)
    source = labelled.source
    ends = np.cumsum(labelled.counts)
    for file, known in enumerate(at.tolist()):
        if index and known >= 0:
            source.marks[ends[file] - labelled.counts[file] : ends[file]] = index.column("marks", known)
    values = classes_of(labelled.labels, path)
    labels = encode(labelled.labels, values)
    whole = EncodedSplit(source, torch.arange(len(labels)), labels, size, channels)
    return _Found(
        path.stem,
        tuple(name_of(value, labelled.names) for value in values.tolist()),
        {split: whole.take(rows) for split, rows in _splits_of(path, shards, labelled).items()},
        _oversized(source, path),
        lambda: write_index(path, Index(files, labelled.counts, {**labelled.columns, "marks": source.marks}), began),
    )


def _stated(files: Sequence[Path]) -> Stated:
    about = [one.stat() for one in files]
    return Stated(
        np.array([os.fsencode(one) for one in files]),
        np.array([one.st_size for one in about]),
        np.array([one.st_mtime_ns for one in about]),
    )


def _open_tars(shards: Sequence[Path], index: Index | None, at: NDArray[np.int64]) -> Labelled:
    """Images of tar files; those that did not change are not listed again."""
    listed = list_tars([one for one, known in zip(shards, at.tolist(), strict=True) if known < 0])
    members = [
        Members(**{name: index.column(name, known) for name in MEMBER_COLUMNS})
        if index and known >= 0
        else next(listed)
        for known in at.tolist()
    ]
    return stretches(shards, members)


def _splits_of(path: Path, shards: Sequence[Path], labelled: Labelled) -> dict[str, Tensor]:
    """Rows by split: what the images say themselves, or the names of their files."""
    splits = labelled.splits
    if splits is None:
        of_file = [_split_in(path, one) for one in shards]
        if "train" not in of_file and None not in of_file:
            raise DataError(
                f"{path}: no shard is of the training split, only of {', '.join(sorted(set(map(str, of_file))))}"
            )
        splits = np.repeat(np.array([split or "train" for split in of_file]), labelled.counts)
    return {str(split): torch.from_numpy(np.flatnonzero(splits == split)) for split in np.unique(splits)}


def _split_in(path: Path, shard: Path) -> str | None:
    """The split that a shard's name says, or its folder's below `path`."""
    words = re.split(r"[-_.]", shard.stem.lower())
    if path.is_dir() and shard.parent != path:
        words.append(shard.parent.name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def _oversized(source: Grouped, path: Path) -> tuple[str, ...]:
    """A note on groups that are larger than what a process means to hold."""
    largest = int(source.sizes.max(initial=0))
    if largest <= HELD_BYTES:
        return ()
    return (
        f"{path}: has a row group of {largest >> 20} MB, which each process that reads it holds in memory; with "
        f"smaller ones (row_group_size=1000) it is at most {HELD_BYTES >> 20} MB",
    )


def _test_from_validation(splits: Mapping[str, ImageSplit]) -> dict[str, ImageSplit]:
    """ImageNet-style sets have train and val only: val then is what accuracy is reported on."""
    if "validation" in splits and "test" not in splits and "train" in splits:
        return {"train": splits["train"], "test": splits["validation"]}
    return dict(splits)
