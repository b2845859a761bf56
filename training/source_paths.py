"""Paths that images may be read from, looked at without opening anything."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from netlathe.archspace.errors import did_you_mean
from netlathe.archspace.files import odd_kind
from netlathe.training.errors import DataError
from netlathe.training.folders import SPLIT_NAMES

DIGITS = "digits"
"""Name of the images that need no file."""
_KNOWN = f"a folder of images, .tar or .parquet shards, an .npz, or '{DIGITS}'"
_SHARDS = (".tar", ".parquet")


def check_images_path(path: Path) -> None:
    """Raises DataError for a path at which there are no images, or none of a known form."""
    if path.is_dir() or (path.suffix == ".npz" and path.is_file()) or shards_at(path):
        return
    if path.is_file():
        raise DataError(f"{path}: images are read from {_KNOWN}, not from {path.suffix!r}")
    if path.exists():
        raise DataError(f"{path}: is {odd_kind(path)}; give {_KNOWN}")
    raise DataError(f"{path}: no such file or folder{did_you_mean(str(path), [DIGITS])}; give {_KNOWN}")


def shards_at(path: Path) -> list[Path]:
    """Shards that are given: a file, a pattern of several, or a folder of them."""
    text = str(path)
    if path.is_dir():
        inner = [path, *(one for one in path.iterdir() if one.name.lower() in (*SPLIT_NAMES, "data") and one.is_dir())]
        return sorted(one for folder in inner for one in folder.iterdir() if _is_shard(one))
    if path.exists() or not re.search(r"[*?{]", text):
        return [path] if _is_shard(path) else []
    return sorted(Path(one) for pattern in _expanded(text) for one in glob.glob(pattern) if _is_shard(Path(one)))


def _is_shard(path: Path) -> bool:
    return path.suffix in _SHARDS and path.is_file() and not path.name.startswith(".")


def _expanded(pattern: str) -> Iterator[str]:
    """A pattern for each of the numbers of {000..146}."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        yield pattern
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expanded(f"{pattern[: found.start()]}{number:0{len(first)}d}{pattern[found.end() :]}")
