"""Records as .csv and .parquet tables, from any file that holds records, and from other people's latency tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.configurations import graphs_of
from netlathe.archspace.errors import FormatError, RecordError, did_you_mean
from netlathe.archspace.files import check_plain, writing
from netlathe.archspace.graph import Graph
from netlathe.archspace.packed import ALWAYS_BYTES, MOST_GROWTH
from netlathe.archspace.parquet import check_parquet, parquet_damage
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import LEAST_MS, MOST_MS, LatencyRecord, Measurement, Round, Setup, Status

if TYPE_CHECKING:
    import pandas as pd

TABLE_ENDINGS = (".csv", ".parquet")
_BATCH_ROWS = 256
RECORD_COLUMNS = frozenset({"name", "kind", "status", "setup", "graph", "rounds"})
_SETUP_COLUMNS = tuple(field.name for field in fields(Setup) if field.name != "details")
_UNTOLD = {
    "device": "unknown device", "processor": "unknown processor", "os": "unknown", "runtime": "unknown runtime",
    "runtime_version": "",
}  # fmt: skip


def check_table_path(path: str | Path) -> None:
    """Raises FormatError unless write_table knows the file's ending."""
    if Path(path).suffix not in TABLE_ENDINGS:
        raise FormatError(f"{path}: tables are written as .csv or .parquet")


def write_table(records: Sequence[LatencyRecord], path: str | Path) -> None:
    """Writes records as .csv or .parquet, by the file's ending, whole or not at all. Raises FormatError for another
    ending and where the file cannot be written, RecordError when there is nothing to write."""
    import pandas as pd  # takes longer to import than a campaign of some blocks to be planned

    path = Path(path)
    check_table_path(path)
    if not records:
        raise RecordError(f"{path}: there are no records to write")
    frame = pd.DataFrame([record.to_row() for record in records])
    try:
        with writing(path) as part:
            if part.suffix == ".csv":
                frame.to_csv(part, index=False)
            else:
                frame.to_parquet(part, index=False)
    except OSError as error:
        raise FormatError(f"{path}: the table cannot be written ({error})") from error


def check_records_file(path: str | Path) -> None:
    """Raises FormatError where there is no such table, or no such profile file; neither is read."""
    if Path(path).suffix not in TABLE_ENDINGS:
        ProfileFile(path, only_reads=True).close()
    elif not Path(path).exists():
        raise FormatError(f"{path}: there is no such table of records")


def read_records(path: str | Path, latency_column: str = "latency_ms") -> list[LatencyRecord]:
    """Records of a profile file, of a .csv or .parquet table written by write_table, or of any other such table of
    configurations (see configurations.py) with a column of milliseconds.

    Raises FormatError for anything else, RecordError for a table whose rows are not records.
    """
    if Path(path).suffix not in TABLE_ENDINGS:
        with ProfileFile(path) as profile:
            return profile.records()
    try:
        return _from_table(Path(path), latency_column)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    except parquet_damage() as error:  # cells that are no text after all
        raise FormatError(f"{path}: cannot be read as a table of records ({error!s:.200})") from error


def _from_table(path: Path, latency_column: str) -> list[LatencyRecord]:
    frame = _read_frame(path, as_text=True)
    if set(frame.columns) >= RECORD_COLUMNS:
        return [LatencyRecord.from_row({str(k): v for k, v in row.items()}) for row in frame.to_dict("records")]
    if not {"op", "block", "expand", "mid"} & set(frame.columns):
        missing = ", ".join(sorted(RECORD_COLUMNS - set(frame.columns)))
        raise RecordError(
            f"this table has no column {missing}, so it holds no records; a table of configurations needs a "
            f"column op or block, and {latency_column}"
        )
    return _from_configurations(_read_frame(path, as_text=False), latency_column)


def _read_frame(path: str | Path, *, as_text: bool) -> pd.DataFrame:
    """`as_text`: the cells of a .csv as they stand there; else as numbers where they are."""
    import pandas as pd

    try:
        check_plain(path)
        if Path(path).suffix == ".parquet":
            return _read_parquet(Path(path))
        return pd.read_csv(path, dtype=str, keep_default_na=False) if as_text else pd.read_csv(path)
    except parquet_damage() as error:
        raise FormatError(f"{path}: cannot be read as a table of records ({error!s:.200})") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    """In small parts: a text that many rows share stands in the file but once."""
    from pyarrow import Table, parquet

    with parquet.ParquetFile(path) as file:
        check_parquet(file, path.stat().st_size)
        batches, unpacked = [], 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            unpacked += batch.nbytes
            if unpacked > max(ALWAYS_BYTES, MOST_GROWTH * path.stat().st_size):
                raise ValueError("it unpacks to more than a table of records can hold")
            batches.append(batch)
        frame: pd.DataFrame = Table.from_batches(batches, file.schema_arrow).to_pandas()
        return frame


def _from_configurations(frame: pd.DataFrame, latency_column: str) -> list[LatencyRecord]:
    """A record per row, with the given latency as its only sample. Columns named as the fields of Setup tell the setup,
    whose details list what they do not tell. A row without a latency above zero is a failed record."""
    import pandas as pd

    if latency_column not in frame:
        columns = ", ".join(map(str, frame))
        times = " or ".join(name for name in map(str, frame) if name.endswith("_ms"))
        hint = f"name one by --latency-column ({times or 'of milliseconds'})"
        meant = did_you_mean(latency_column, map(str, frame))
        raise RecordError(
            f"there is no column {latency_column!r:.60} with milliseconds{meant}; there are {columns}; {hint}"
        )
    latencies_ms = list(zip(pd.to_numeric(frame[latency_column], errors="coerce"), frame[latency_column], strict=True))
    given = [name for name in _SETUP_COLUMNS if name in frame]
    rows = list(zip(*(frame[name].tolist() for name in given), strict=True)) if given else [()] * len(frame)
    setups = {row: _setup(dict(zip(given, row, strict=True))) for row in dict.fromkeys(rows)}
    table = frame.drop(columns="batch", errors="ignore")  # told by the setup
    graphs = {batch: graphs_of(table, batch) for batch in {setup.batch for setup in setups.values()}}
    column = next((frame[name] for name in ("block", "op") if name in frame), None)
    names = ["mbconv"] * len(frame) if column is None else column.tolist()
    return [
        _record(f"{name} (row {i})", graphs[setups[row].batch][i], setups[row], *latency_ms)
        for i, (name, row, latency_ms) in enumerate(zip(names, rows, latencies_ms, strict=True))
    ]


def _record(name: str, graph: Graph, setup: Setup, latency_ms: float, cell: Any) -> LatencyRecord:
    if not LEAST_MS <= latency_ms <= MOST_MS:
        told = f"{cell} ms" if latency_ms == latency_ms else f"{cell!r:.60}, and no number"
        return LatencyRecord(name, "block", graph, setup, Status.FAILED, message=f"the table says {told}")
    return LatencyRecord(name, "block", graph, setup, Status.OK, Measurement((Round((float(latency_ms),)),)))


def _setup(cells: dict[str, Any]) -> Setup:
    told = {name: value for name, value in cells.items() if value == value and value not in (None, "")}
    words = {name: str(value) for name, value in told.items()}
    numbers = {name: _count(name, told[name]) for name in ("threads", "batch") if name in told}
    missing = ", ".join(name for name in _SETUP_COLUMNS if name not in told)
    return Setup.from_json({**_UNTOLD, **words, **numbers, "details": {"not told": missing} if missing else {}})


def _count(name: str, value: Any) -> int:
    try:
        if float(value) == int(value):
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise RecordError(f"{name} must be a whole number, got {value!r:.60}")
