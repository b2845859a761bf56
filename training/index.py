"""Findings on image files of an earlier call, kept in the user's cache: a file of the same name, size and time
of change is not opened again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import cache_directory, check_plain, digest, writing
from netlathe.archspace.packed import NPZ_DAMAGE, check_zip
from netlathe.training.folders import Stated

_VERSION = 1
_MOST_INDEXES = 100
"""Indexes that are kept; the ones that were written longest ago make way."""
_YOUNG_NS = 2_000_000_000
"""A file that changed less than 2 s before it was read may change once more in the same tick of its clock (2 s on
FAT)."""


_OF_FILES = ("file_names", "file_sizes", "file_times", "file_counts")


@dataclass(frozen=True)
class Index:
    """Index of what is at one path: `files`, of which each holds `counts` images, and columns with a value an image."""

    files: Stated
    counts: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    def column(self, name: str, file: int | None = None) -> NDArray[Any]:
        """A column, or what it says of the images of one file."""
        column = self.columns[name]
        if file is None:
            return column
        end = int(self.counts[: file + 1].sum())
        return column[end - int(self.counts[file]) : end]


def read_index(path: Path, columns: Iterable[str]) -> Index | None:
    """The index of what is at a path, with these columns; None where there is none that can be read."""
    try:
        place = _place(path)
        check_plain(place)
        check_zip(place, stored=True)
        with place.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
        names, sizes, times, counts = (arrays.pop(name) for name in _OF_FILES)
        index = Index(Stated(names, sizes, times), counts, arrays)
    except (FormatError, *NPZ_DAMAGE):
        return None
    return index if _is_sound(index) and set(columns) <= set(index.columns) else None


def write_index(path: Path, index: Index, read_at_ns: int) -> None:
    """Keeps the index of what is at a path, whose files were listed at that time. Without a cache that can be written
    to, it does nothing: the next call reads the files again."""
    files = index.files
    times = np.where(files.times < read_at_ns - _YOUNG_NS, files.times, -1)  # -1: of no file
    with suppress(OSError, RuntimeError):
        place = _place(path)
        with writing(place) as part, part.open("wb") as stream:
            of_files = zip(_OF_FILES, (files.names, files.sizes, times, index.counts), strict=True)
            np.savez(stream, **dict(of_files), **index.columns)  # type: ignore[arg-type]
        kept = sorted(place.parent.glob("*.npz"), key=lambda one: one.stat().st_mtime, reverse=True)
        for old in kept[_MOST_INDEXES:]:
            old.unlink()


def matches(index: Index, files: Stated) -> NDArray[np.int64]:
    """Where in the index each of these files is; -1 for one that is not, or has another size or time."""
    known = index.files
    if np.array_equal(known.names, files.names):
        at = np.arange(len(files.names))
    else:
        at = np.full(len(files.names), -1)
        _, here, there = np.intersect1d(files.names, known.names, assume_unique=True, return_indices=True)
        at[here] = there
    if not len(known.names):
        return at
    same = (known.sizes[at] == files.sizes) & (known.times[at] == files.times)
    return np.where(same, at, -1)


def _place(path: Path) -> Path:
    return cache_directory() / "images" / f"{digest(f'{_VERSION} {os.path.realpath(path)}')}.npz"


def _is_sound(index: Index) -> bool:
    files, counts = index.files, index.counts
    of_files = (files.sizes, files.times, counts)
    return (
        files.names.dtype.kind == "S"
        and files.names.ndim == 1
        and len(np.unique(files.names)) == len(files.names)
        and all(one.dtype == np.int64 and one.shape == files.names.shape for one in of_files)
        and bool((counts >= 0).all())
        and all(column.shape == (counts.sum(),) for column in index.columns.values())
    )
