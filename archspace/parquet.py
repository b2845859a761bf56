"""Parquet files of others: what they may unpack to, and what they may raise."""

from __future__ import annotations

from typing import Any

from netlathe.archspace.packed import ALWAYS_BYTES, MOST_GROWTH, check_growth


def parquet_damage() -> tuple[type[Exception], ...]:
    """Exceptions that pyarrow and pandas raise on damaged files. An `except` clause calls it only where something was
    raised, so files that are no tables are read without pyarrow."""
    from pyarrow import ArrowException

    return (
        OSError, ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError, AttributeError, MemoryError,
        ArrowException,
    )  # fmt: skip


def check_parquet(file: Any, size: int) -> None:
    """Raises ValueError where a pyarrow ParquetFile of that size would take too much memory: 16 bytes a cell, and what
    its pages unpack to."""
    about = file.metadata
    unpacked = sum(
        about.row_group(group).column(column).total_uncompressed_size
        for group in range(about.num_row_groups)
        for column in range(about.num_columns)
    )
    check_growth(16 * about.num_rows * about.num_columns + max(unpacked, 0), size * MOST_GROWTH, ALWAYS_BYTES)
