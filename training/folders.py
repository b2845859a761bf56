"""Folders of images, one per class: what is in them, without opening any file."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.files import odd_kind
from netlathe.training.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".gif")
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_LISTED = 5
"""Names that a note lists."""


@dataclass(frozen=True)
class Stated:
    """Files by name, with size and time of change: by these, a file that was known is known again."""

    names: NDArray[np.bytes_]
    """Relative to their folder."""
    sizes: NDArray[np.int64]
    """In bytes; -1 for what a link leads to nowhere."""
    times: NDArray[np.int64]
    """Times of the last change, in ns."""


@dataclass(frozen=True)
class Listing:
    """Images of a folder: files, which class and split each is of, and what else was found."""

    classes: tuple[str, ...]
    files: Stated
    labels: NDArray[np.int64]
    splits: dict[str, slice]
    """Rows by split."""
    notes: tuple[str, ...]


@dataclass
class _Passed:
    """Files and folders that were passed over."""

    hidden: int = 0
    folders: list[str] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)

    def notes(self, path: Path) -> tuple[str, ...]:
        hidden = [f"{self.hidden} hidden file{'s'[: self.hidden > 1]} or folders"] if self.hidden else []
        skipped = [*hidden, *([_listed("the folder", self.folders)] if self.folders else [])]
        ignored = [f"{count} {suffix or 'without an ending'}" for suffix, count in sorted(self.suffixes.items())]
        notes = []
        if skipped:
            notes.append(f"{path}: skipped {' and '.join(skipped)}, as no images are expected there")
        if ignored:
            notes.append(
                f"{path}: ignored files that are not {', '.join(IMAGE_SUFFIXES)} ({', '.join(ignored)}); convert them "
                "if they are images"
            )
        return tuple(notes)


_File = tuple[str, int, int]
"""Name relative to the folder, size, time of change."""


def list_folder(path: Path) -> Listing:
    """Images of a folder with one folder per class, or with train/ and test/ or val/ of such. Raises DataError for one
    without images, and for what is no file but has an image's name."""
    passed = _Passed()
    folders = split_folders(path)
    if "train" not in folders:
        names = ", ".join(sorted(p.name for p in folders.values()))
        raise DataError(f"{path}: has {names}/ but no train/; add the training images")
    found = {split: _by_class(path, folder, passed) for split, folder in folders.items()}
    if folders["train"] != path:
        passed.folders += [one.name for one in _subfolders(path, passed) if one not in folders.values()]
    classes = tuple(sorted(set().union(*found.values())))
    files: list[_File] = []
    labels: list[int] = []
    splits: dict[str, slice] = {}
    for split, by_class in found.items():
        start = len(files)
        for label, name in enumerate(classes):
            files += by_class.get(name, [])
            labels += [label] * len(by_class.get(name, []))
        splits[split] = slice(start, len(files))
    names_, sizes, times = zip(*files, strict=True)
    stated = Stated(np.array([os.fsencode(name) for name in names_]), np.array(sizes), np.array(times))
    return Listing(classes, stated, np.array(labels), splits, passed.notes(path))


def split_folders(path: Path) -> dict[str, Path]:
    """Folders by split; a folder without any is the training split itself. Raises DataError for two of one split."""
    folders: dict[str, Path] = {}
    for folder in _subfolders(path, _Passed()):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in folders:
            raise DataError(
                f"{path}: {folders[split].name}/ and {folder.name}/ are the same split; join or rename them"
            )
        if split:
            folders[split] = folder
    return folders or {"train": path}


def _by_class(root: Path, folder: Path, passed: _Passed) -> dict[str, list[_File]]:
    """Files of each class of a split's folder that has any. Raises DataError where none has."""
    by_class: dict[str, list[_File]] = {}
    loose = 0
    for one in _subfolders(folder, passed):
        files = sorted(_files(one, str(one.relative_to(root)), passed), key=lambda file: file[0].split(os.sep))
        if files:
            by_class[one.name] = files
        else:
            passed.folders.append(str(one.relative_to(root)))
    for entry in _entries(folder):
        if not entry.is_dir() and not entry.name.startswith("."):
            loose += _suffix(entry.name) in IMAGE_SUFFIXES
            passed.suffixes[_suffix(entry.name)] += _suffix(entry.name) not in IMAGE_SUFFIXES
    if not by_class:
        there = f"; {loose} images lie in no class folder" if loose else ""
        raise DataError(
            f"{folder}: no images found; expected one folder per class with files of {', '.join(IMAGE_SUFFIXES)}{there}"
        )
    return by_class


def _subfolders(path: Path, passed: _Passed) -> list[Path]:
    folders = []
    for entry in _entries(path):
        if is_hidden(entry.name):
            passed.hidden += 1
        elif entry.is_dir():
            folders.append(path / entry.name)
    return sorted(folders)


def _files(folder: Path | str, name: str, passed: _Passed) -> Iterator[_File]:
    """Images in a folder and those below it, links to folders not followed. Raises DataError for a named pipe or the
    like with the name of an image, which would be waited for."""
    for entry in _entries(folder):
        inner = os.path.join(name, entry.name)
        if is_hidden(entry.name):
            passed.hidden += 1
        elif entry.is_dir():
            if not entry.is_symlink():
                yield from _files(entry.path, inner, passed)
        elif _suffix(entry.name) not in IMAGE_SUFFIXES:
            passed.suffixes[_suffix(entry.name)] += 1
        else:
            try:
                about = entry.stat()
            except OSError:  # a link to nowhere
                yield inner, -1, 0
                continue
            if not stat.S_ISREG(about.st_mode):
                raise DataError(f"{entry.path}: is {odd_kind(entry.path)}, and no image; remove it")
            yield inner, about.st_size, about.st_mtime_ns


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def is_hidden(name: str) -> bool:
    """Whether it is the system's own: hidden, or what macOS leaves in archives."""
    return name.startswith(".") or name == "__MACOSX"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _listed(what: str, names: Sequence[str]) -> str:
    """'the class x', 'the classes x, y', ..."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    plural = f"{what}{'es' if what.endswith('s') else 's'}" if len(names) > 1 else what
    return f"{plural} {', '.join(sorted(names)[:_LISTED])}{more}"
