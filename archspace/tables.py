"""Records as .csv and .parquet tables, and from any file that holds records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from archspace.errors import FormatError, RecordError
from archspace.profile_file import ProfileFile
from archspace.records import LatencyRecord


def check_table_path(path: str | Path) -> None:
    """Raises FormatError unless write_table knows the file's ending."""
    if Path(path).suffix not in (".csv", ".parquet"):
        raise FormatError(f"{path}: tables are written as .csv or .parquet")


def write_table(records: Sequence[LatencyRecord], path: str | Path) -> None:
    """Writes records as .csv or .parquet, by the file's ending. Raises FormatError for another ending, RecordError when
    there is nothing to write."""
    check_table_path(path)
    if not records:
        raise RecordError(f"{path}: there are no records to write")
    frame = pd.DataFrame([record.to_row() for record in records])
    if Path(path).suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)


def read_records(path: str | Path) -> list[LatencyRecord]:
    """Records of a profile file, or of a .csv or .parquet table written by write_table.

    Raises FormatError for anything else, RecordError for a table whose rows are not records.
    """
    suffix = Path(path).suffix
    if suffix not in (".csv", ".parquet"):
        with ProfileFile(path) as profile:
            return profile.records()
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False) if suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read as a table of records ({error})") from error
    missing = {"name", "kind", "status", "setup", "graph", "rounds"} - set(frame.columns)
    if missing:
        raise RecordError(f"{path}: this table has no column {', '.join(sorted(missing))}, so it holds no records")
    return [LatencyRecord.from_row({str(k): v for k, v in row.items()}) for row in frame.to_dict("records")]
