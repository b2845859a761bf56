"""Parquet files of encoded images with labels, read by row group."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import did_you_mean
from netlathe.archspace.parquet import check_parquet, parquet_damage
from netlathe.training.errors import DataError
from netlathe.training.folders import SPLIT_NAMES
from netlathe.training.shards import Grouped, Labelled

LABEL_COLUMNS = ("label", "labels", "class", "target", "y", "fine_label")


class RowGroups(Grouped):
    """A column of encoded images in Parquet files. `places` (groups, 2): file and row group of each group."""

    def __init__(
        self, files: Sequence[Path], column: str, places: NDArray[np.int64], rows: NDArray[np.int64],
        sizes: NDArray[np.int64],
    ) -> None:  # fmt: skip
        super().__init__(rows, sizes)
        self.files, self.column, self.places = list(files), column, places

    def name(self, row: int) -> str:
        file = self.places[self.group_of(row), 0]
        first = self.starts[np.searchsorted(self.places[:, 0], file)]
        return f"{self.files[file]} row {row - first}"

    def read(self, group: int) -> Sequence[Any]:
        import pyarrow.parquet

        file, row_group = self.places[group].tolist()
        try:
            with pyarrow.parquet.ParquetFile(self.files[file]) as opened:
                column = opened.read_row_group(row_group, [self.column], use_threads=False).column(0)
        except parquet_damage() as error:
            raise _damaged(self.files[file], error) from error
        return _bytes_of(column)


def open_parquet(files: Sequence[Path]) -> Labelled:
    """Images of Parquet files with one kind of columns: bytes, or the {'bytes', 'path'} struct of Hugging Face, a label
    and perhaps a `split`. Reads no image. Raises DataError."""
    parts = []
    for path in files:
        try:
            parts.append(_read_labels(path))
        except parquet_damage() as error:
            raise _damaged(path, error) from error
    odd = next((path for path, part in zip(files, parts, strict=True) if part.columns != parts[0].columns), None)
    if odd:
        raise DataError(f"{odd}: has other columns than {files[0]}; give files of one data set")
    places = np.array([(at, group) for at, part in enumerate(parts) for group in range(len(part.rows))])
    rows, sizes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "sizes"))
    return Labelled(
        RowGroups(files, parts[0].columns[0], places.reshape(-1, 2), rows, sizes),
        np.array([sum(part.rows) for part in parts]),
        np.concatenate([part.labels for part in parts]),
        None if parts[0].splits is None else np.concatenate([part.splits for part in parts if part.splits is not None]),
        parts[0].names,
    )


@dataclass(frozen=True)
class _Part:
    """Contents of a file without its images: columns, rows and bytes of each row group, labels, splits, names."""

    columns: tuple[str, str]
    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.generic]
    splits: NDArray[np.generic] | None
    names: tuple[str, ...]


def _read_labels(path: Path) -> _Part:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        schema, about = file.schema_arrow, file.metadata
        image = next((name for name in schema.names if _holds_bytes(schema.field(name).type)), None)
        label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
        if image is None or label is None:
            raise DataError(
                f"{path}: needs a column of encoded images (bytes) and one of labels "
                f"({', '.join(LABEL_COLUMNS)}); it has {', '.join(schema.names) or 'no columns'}"
            )
        check_parquet(file, path.stat().st_size)
        table = file.read([name for name in (label, "split") if name in schema.names])
        groups = [about.row_group(group) for group in range(about.num_row_groups)]
    splits = _checked_splits(table.column("split"), path) if "split" in table.column_names else None
    return _Part(
        (image, label),
        np.array([group.num_rows for group in groups]),
        np.array([_bytes_in(group, image) for group in groups]),
        table.column(label).to_pandas().to_numpy(),
        splits,
        _class_names(schema.metadata, label),
    )


def _checked_splits(column: Any, path: Path) -> NDArray[np.generic]:
    """netlathe's names of the splits in a column."""
    names = column.to_pandas().astype(str).str.lower()
    unknown = sorted(set(names) - set(SPLIT_NAMES))
    if unknown:
        meant = did_you_mean(unknown[0], SPLIT_NAMES)
        raise DataError(f"{path}: unknown split {unknown[0]!r:.60}{meant}; known: {', '.join(SPLIT_NAMES)}")
    return np.asarray(names.map(SPLIT_NAMES))


def _bytes_in(group: Any, column: str) -> int:
    """Bytes that a column of a row group unpacks to."""
    columns = (group.column(index) for index in range(group.num_columns))
    return sum(one.total_uncompressed_size for one in columns if one.path_in_schema.split(".")[0] == column)


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...]:
    """Names of the classes in the metadata that Hugging Face's library writes, where there are any."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (LookupError, TypeError, ValueError, RecursionError):
        return ()


def _holds_bytes(kind: Any) -> bool:
    """Whether a column type is that of encoded images: plain, or the {'bytes', 'path'} struct of some data sets."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _bytes_of(column: Any) -> list[Any]:
    """Buffers of a column's cells; none in an empty one."""
    import pyarrow.compute

    cells = pyarrow.compute.struct_field(column, "bytes") if pyarrow.types.is_struct(column.type) else column
    return [cell.as_buffer() or b"" for cell in cells]


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read as Parquet ({error!r:.200})")
