"""Compressed files of others: how much they may unpack to. A few kilobytes of zeros could fill any memory."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

ALWAYS_BYTES = 256 << 20
"""Bytes that any file may unpack to."""
MOST_GROWTH = 50
"""Beyond that, how many times its own size; images and numbers pack to a tenth at best."""

NPZ_DAMAGE = (
    OSError, EOFError, TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, SyntaxError, MemoryError,
    AttributeError, BadZipFile, zlib.error,
)  # fmt: skip
"""Exceptions that NumPy and zipfile raise on damaged files; NotImplementedError, for odd compressions, is a
RuntimeError."""


def check_zip(path: Path, *, stored: bool = False) -> None:
    """Raises ValueError for an archive that claims to unpack to more than it should; with `stored`, to more than its
    own size, as where nothing in it is compressed."""
    with ZipFile(path) as file:
        sizes = [info.file_size for info in file.infolist()]
    whole = os.stat(path).st_size
    check_growth(sum(sizes), whole if stored else whole * MOST_GROWTH, 0 if stored else ALWAYS_BYTES)


def check_growth(claimed: int, growth: int, always: int) -> None:
    """Raises ValueError where more bytes are claimed than both of the others."""
    if claimed > max(growth, always):
        raise ValueError(f"it claims to unpack to {claimed >> 20} MB, out of all proportion to its size")
