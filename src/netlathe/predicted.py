"""Reports of predictions, one for each network or block, and the table of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import write_whole

if TYPE_CHECKING:
    from netlathe.archspace.records import Setup


@dataclass(frozen=True)
class PredictReport:
    """The predicted latency of one network or block."""

    name: str
    latency_ms: float
    low_ms: float
    high_ms: float
    """Ends of the interval that holds `coverage` of all measurements."""
    coverage: float
    setup: Setup
    """Setup that it is predicted for."""
    warnings: tuple[str, ...] = ()
    """Doubts about the prediction."""
    notes: tuple[str, ...] = ()
    """Sentences on what was assumed in reading it, such as the size of an open batch."""
    known_macs_share: float = 1.0
    """Part of the MACs, 0 to 1, of ops that the predictor was fitted on. Of an opaque op nobody knows the MACs."""
    known_ms_share: float = 1.0
    """Part of the predicted latency, 0 to 1, of such ops."""
    source: str = ""
    """Path or name that was given; the report's name for objects."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "source": self.source, "latency_ms": self.latency_ms, "low_ms": self.low_ms,
            "high_ms": self.high_ms, "coverage": self.coverage, "known_macs_share": self.known_macs_share,
            "known_ms_share": self.known_ms_share, "warnings": list(self.warnings),
            "notes": list(self.notes), "setup": self.setup.to_json(),
        }  # fmt: skip


@dataclass(frozen=True)
class Refused:
    """A network or block that could not be read or priced."""

    name: str
    """Path or name that was given."""
    error: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "source": self.name, "error": self.error}


COLUMNS = (
    "name", "source", "latency_ms", "low_ms", "high_ms", "coverage", "known_macs_share", "known_ms_share", "warnings",
    "notes", "setup", "error",
)  # fmt: skip
"""Columns of the table: a report's fields, several sentences in a cell, and what a refused one is told."""


def csv_text(found: Sequence[PredictReport | Refused]) -> str:
    """The reports as CSV, a row for each; milliseconds in full precision."""
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    rows.writeheader()
    for one in found:
        row = one.to_json()
        if isinstance(one, PredictReport):
            row |= {"warnings": "; ".join(one.warnings), "notes": "; ".join(one.notes), "setup": str(one.setup)}
        rows.writerow(row)
    return text.getvalue()


def write_csv(found: Sequence[PredictReport | Refused], path: Path) -> None:
    """Writes the table, whole or not at all. Raises FormatError."""
    try:
        write_whole(path, csv_text(found))
    except OSError as error:
        raise FormatError(f"{path}: the table cannot be written ({error})") from error
