"""Compressed files of others: how much they may unpack to. A few kilobytes of zeros could fill any memory."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

ALWAYS_BYTES = 256 << 20
"""What any file may unpack to."""
MOST_GROWTH = 50
"""Beyond that, how many times its own size; images and numbers pack to a tenth at best."""

NPZ_DAMAGE = (
    OSError, EOFError, TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, SyntaxError, MemoryError,
    BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy and zipfile raise on damaged files; NotImplementedError, for odd compressions, is a RuntimeError."""
PARQUET_DAMAGE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError, MemoryError)
"""What pyarrow raises; its own errors are kinds of these."""


def check_zip(path: Path, *, stored: bool = False) -> None:
    """Raises ValueError for an archive that claims to unpack to more than it should; with `stored`, to more than its
    own size, as where nothing in it is compressed."""
    with ZipFile(path) as file:
        sizes = [info.file_size for info in file.infolist()]
    whole = os.stat(path).st_size
    _check(sum(sizes), whole if stored else whole * MOST_GROWTH, 0 if stored else ALWAYS_BYTES)


def check_parquet(file: Any, size: int) -> None:
    """Raises ValueError where a pyarrow ParquetFile of that size would take too much memory: 16 bytes a cell, and what
    its pages unpack to."""
    about = file.metadata
    unpacked = sum(
        about.row_group(group).column(column).total_uncompressed_size
        for group in range(about.num_row_groups)
        for column in range(about.num_columns)
    )
    _check(16 * about.num_rows * about.num_columns + max(unpacked, 0), size * MOST_GROWTH, ALWAYS_BYTES)


def _check(claimed: int, growth: int, always: int) -> None:
    if claimed > max(growth, always):
        raise ValueError(f"it claims to unpack to {claimed >> 20} MB, out of all proportion to its size")
