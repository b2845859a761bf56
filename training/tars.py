"""WebDataset shards: tar files in which a sample's files follow one another and share a name up to its dot."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.training.errors import DataError
from netlathe.training.folders import IMAGE_SUFFIXES, is_hidden
from netlathe.training.parquet import LABEL_COLUMNS
from netlathe.training.shards import Grouped, Labelled
from netlathe.training.stream import fetch, workers_for

_GROUP_BYTES = 1 << 20
"""Stretch of a tar file that is read at once: long enough for a disk, and so short that a window has a hundred."""
_MOST_LABEL_BYTES = 1 << 16
_WORTH = 5000
"""Images that a shard counts as, where processes are counted that list them."""
TAR_DAMAGE = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, LookupError, TypeError)


class Stretches(Grouped):
    """Images in tar files. `members`, one row an image: the file, where in it, how many bytes."""

    def __init__(self, files: Sequence[Path], names: NDArray[np.bytes_], members: NDArray[np.int64]) -> None:
        self.files, self.names, self.members = list(files), names, members
        file, offset, length = members.T
        stretch = file * (1 << 40) + offset // _GROUP_BYTES
        _, rows = np.unique(stretch, return_counts=True)
        super().__init__(rows, np.add.reduceat(length, np.r_[0, np.cumsum(rows)[:-1]]) if len(rows) else rows)

    def name(self, row: int) -> str:
        return f"{self.files[self.members[row, 0]]}: {os.fsdecode(self.names[row])}"

    def read(self, group: int) -> Sequence[Any]:
        rows = self.members[self.starts[group] : self.starts[group + 1]]
        begin = int(rows[0, 1])
        with open(self.files[rows[0, 0]], "rb") as stream:
            stream.seek(begin)
            content = memoryview(stream.read(int(rows[-1, 1] + rows[-1, 2]) - begin))
        return [content[at - begin : at - begin + length] for _, at, length in rows.tolist()]


@dataclass(frozen=True)
class Members:
    """Images of one tar file: names in it, where their bytes begin, how many they are, and their labels as text."""

    names: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.bytes_]


MEMBER_COLUMNS = tuple(field.name for field in fields(Members))


def list_tars(files: Sequence[Path]) -> Iterator[Members]:
    """The images of each tar file, by its headers and its labels: `.cls`, a `label` in `.json`, or else the folder
    that an image lies in. Raises DataError for a file that is no tar, or is compressed, and for an
    image without label."""
    return fetch(_Listing(list(files)).__getitem__, range(len(files)), workers_for(_WORTH * len(files)))


def stretches(files: Sequence[Path], members: Sequence[Members]) -> Labelled:
    """Images of tar files with their labels."""
    counts = np.array([len(one.names) for one in members])
    columns = {name: np.concatenate([getattr(one, name) for one in members]) for name in MEMBER_COLUMNS}
    at = np.stack([np.repeat(np.arange(len(files)), counts), columns["offsets"], columns["lengths"]], axis=1)
    labels = _as_numbers(np.char.decode(columns["labels"], "utf-8", "replace"))
    return Labelled(Stretches(files, columns["names"], at), counts, labels, columns=columns)


@dataclass(frozen=True)
class _Listing:
    files: list[Path]

    def __getitem__(self, index: int) -> Members:
        path = self.files[index]
        try:
            with path.open("rb") as stream:
                if stream.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7"):
                    raise DataError(
                        f"{path}: is compressed, so that no image in it can be reached; unpack it to a .tar"
                    )
            with tarfile.open(path, "r:") as file:
                return _members(file, path)
        except TAR_DAMAGE as error:
            raise DataError(f"{path}: cannot be read as a tar file ({error!r:.200})") from error


def _members(file: tarfile.TarFile, path: Path) -> Members:
    whole = path.stat().st_size
    if whole % tarfile.BLOCKSIZE:
        raise DataError(
            f"{path}: has been cut off, or is no tar file ({whole} bytes are no whole blocks); copy it again"
        )
    images: list[tuple[str, int, int]] = []
    keys: list[str] = []
    labels: dict[str, str] = {}
    for member in file:
        folder, _, base = member.name.rpartition("/")
        if (
            not member.isreg()
            or member.issparse()
            or any(is_hidden(part) for part in member.name.split("/") if part != ".")
        ):
            continue
        if member.offset_data + member.size > whole:
            raise DataError(f"{path}: ends within {member.name}; copy it again")
        name, _, ending = base.partition(".")
        key, ending = f"{folder}/{name}", ending.lower()
        if os.path.splitext(base)[1].lower() in IMAGE_SUFFIXES:
            images.append((member.name, member.offset_data, member.size))
            keys.append(key)
            if folder.strip("./"):
                labels.setdefault(key, folder.rpartition("/")[2])
        elif ending in ("cls", "json") and member.size <= _MOST_LABEL_BYTES:
            stream = file.extractfile(member)
            label = _label_in(ending, stream.read() if stream else b"")
            labels.update({} if label is None else {key: label})
    unlabelled = [name for (name, _, _), key in zip(images, keys, strict=True) if key not in labels]
    if unlabelled:
        raise DataError(
            f"{path}: {len(unlabelled)} images have no label, among them {unlabelled[0]}; put it beside them as .cls "
            "or .json, or images into a folder per class"
        )
    names, offsets, lengths = zip(*images, strict=True) if images else ((), (), ())
    return Members(
        np.array([os.fsencode(name) for name in names], "S"), np.array(offsets, np.int64), np.array(lengths, np.int64),
        np.array([labels[key].encode() for key in keys], "S"),
    )  # fmt: skip


def _label_in(ending: str, content: bytes) -> str | None:
    text = content.decode("utf-8", "replace").strip()
    if ending == "cls":
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name = next((name for name in LABEL_COLUMNS if isinstance(found, dict) and name in found), None)
    return None if name is None else str(found[name])


def _as_numbers(texts: NDArray[np.str_]) -> NDArray[np.generic]:
    """Labels as whole numbers, so that 10 comes behind 9, where all are some."""
    try:
        return texts.astype(np.int64)
    except (ValueError, OverflowError):
        return texts
