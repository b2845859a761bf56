"""The profile file: one SQLite database of raw samples and outcomes, per setup and graph.

Samples are the truth; records are put together from them on reading. A round is one transaction, so a pulled plug
costs at most the round in flight, and the primary keys let nothing be recorded twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pandas as pd

from archspace.errors import FormatError, RecordError
from archspace.graph import Graph
from archspace.records import LatencyRecord, Measurement, Round, Setup, Status

APPLICATION_ID = 0x6E6C7468  # "nlth": what marks a SQLite file as ours
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE setups (key TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE graphs (key TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rounds (
    id INTEGER PRIMARY KEY, setup TEXT NOT NULL REFERENCES setups, started_at REAL NOT NULL,
    drift REAL NOT NULL, conditions TEXT NOT NULL, UNIQUE (setup, started_at));
CREATE TABLE samples (
    graph TEXT NOT NULL REFERENCES graphs, round INTEGER NOT NULL REFERENCES rounds, samples_ms TEXT NOT NULL,
    PRIMARY KEY (graph, round)) WITHOUT ROWID;
CREATE TABLE outcomes (
    setup TEXT NOT NULL REFERENCES setups, graph TEXT NOT NULL REFERENCES graphs, status TEXT NOT NULL,
    message TEXT NOT NULL, PRIMARY KEY (setup, graph)) WITHOUT ROWID;
"""

Kind = Literal["block", "network"]


class ProfileFile:
    """An open profile file; use it in a with statement.

    Raises FormatError on a file that is not a profile, is damaged, or comes from a newer netlathe. With
    `create`, a missing file is made; without, it is an error.
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise FormatError(f"{self.path}: there is no such profile file; `netlathe profile --output` makes one")
        if create:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # One campaign may hold the file while another process reads: WAL lets both go on.
            self._db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
            self._check_or_create(create)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error as error:
            raise FormatError(f"{self.path}: cannot be read as a profile file ({error})") from error

    def _check_or_create(self, create: bool) -> None:
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        (app,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if tables == 0 and app == 0 and create:
            marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            self._db.executescript(f"BEGIN; {_SCHEMA} {marks} COMMIT")
        elif app != APPLICATION_ID:
            raise FormatError(f"{self.path}: this is a SQLite file, but not a netlathe profile")
        elif version > SCHEMA_VERSION:
            raise FormatError(
                f"{self.path}: written by a newer netlathe (schema {version}, this one reads {SCHEMA_VERSION}); "
                "upgrade netlathe"
            )

    def __enter__(self) -> ProfileFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def add_setup(self, setup: Setup) -> None:
        self._db.execute("INSERT OR IGNORE INTO setups VALUES (?, ?)", (setup.key, json.dumps(setup.to_json())))

    def add_graph(self, name: str, kind: Kind, graph: Graph) -> None:
        """Makes the graph known; samples and outcomes refer to it by key."""
        row = (graph.key, name, kind, json.dumps(graph.to_json()))
        self._db.execute("INSERT OR IGNORE INTO graphs VALUES (?, ?, ?, ?)", row)

    def add_round(
        self,
        setup: Setup,
        samples_ms: Mapping[str, Sequence[float]],
        *,
        started_at: float,
        drift: float = 1.0,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        """Stores one round, {graph key: times in ms}, as one transaction. What is already stored is left alone."""
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute(
                "INSERT OR IGNORE INTO rounds (setup, started_at, drift, conditions) VALUES (?, ?, ?, ?)",
                (setup.key, started_at, drift, json.dumps(dict(conditions or {}))),
            )
            query = "SELECT id FROM rounds WHERE setup = ? AND started_at = ?"
            (round_id,) = self._db.execute(query, (setup.key, started_at)).fetchone()
            rows = [(key, round_id, json.dumps(list(times))) for key, times in samples_ms.items()]
            self._db.executemany("INSERT OR IGNORE INTO samples VALUES (?, ?, ?)", rows)

    def set_drifts(self, setup: Setup, drifts: Mapping[float, float]) -> None:
        """Updates the drift of rounds, {started_at: drift}, once the anchors' reference is better known."""
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany(
                "UPDATE rounds SET drift = ? WHERE setup = ? AND started_at = ?",
                [(drift, setup.key, started_at) for started_at, drift in drifts.items()],
            )

    def rounds(self, setup: Setup) -> dict[str, tuple[Round, ...]]:
        """Every stored round per graph key, finished or not."""
        query = (
            "SELECT graph, samples_ms, drift, started_at FROM samples JOIN rounds ON round = id "
            "WHERE setup = ? ORDER BY started_at"
        )
        rounds: dict[str, list[Round]] = defaultdict(list)
        for key, samples, drift, started_at in self._db.execute(query, (setup.key,)):
            rounds[key].append(Round(tuple(json.loads(samples)), drift, started_at))
        return {key: tuple(value) for key, value in rounds.items()}

    def set_outcome(self, setup: Setup, key: str, status: Status, message: str = "") -> None:
        """Marks a graph as finished; a failed one may be overwritten by a later attempt."""
        row = (setup.key, key, str(status), message)
        self._db.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?)", row)

    def outcomes(self, setup: Setup) -> dict[str, Status]:
        rows = self._db.execute("SELECT graph, status FROM outcomes WHERE setup = ?", (setup.key,))
        return {key: Status(status) for key, status in rows}

    def setups(self) -> list[Setup]:
        return [
            Setup.from_json(json.loads(text)) for (text,) in self._db.execute("SELECT json FROM setups ORDER BY key")
        ]

    def records(self, setup: Setup | None = None) -> list[LatencyRecord]:
        """Finished records, of one setup or of all. Raises FormatError when the file is damaged."""
        records = []
        query = (
            "SELECT graph, name, kind, json, status, message FROM outcomes JOIN graphs ON graph = graphs.key "
            "WHERE setup = ? ORDER BY kind, name"
        )
        try:
            for one in self.setups() if setup is None else [setup]:
                rounds = self.rounds(one)
                for key, name, kind, text, status, message in self._db.execute(query, (one.key,)):
                    measurement = Measurement(rounds[key]) if status == Status.OK else None
                    graph = Graph.from_json(json.loads(text))
                    records.append(LatencyRecord(name, kind, graph, one, Status(status), measurement, message))
        except (sqlite3.Error, KeyError, ValueError) as error:
            raise FormatError(f"{self.path}: the profile file is damaged ({error!r})") from error
        return records

    def add_records(self, records: Iterable[LatencyRecord]) -> int:
        """Imports finished records with their samples; returns how many were new."""
        by_round: dict[tuple[Setup, float], dict[str, Round]] = defaultdict(dict)
        new = 0
        for record in records:
            self.add_setup(record.setup)
            self.add_graph(record.name, record.kind, record.graph)
            if self.outcomes(record.setup).get(record.graph.key) == Status.OK:
                continue
            for one in record.measurement.rounds if record.measurement else ():
                by_round[record.setup, one.started_at][record.graph.key] = one
            self.set_outcome(record.setup, record.graph.key, record.status, record.message)
            new += 1
        for (setup, started_at), samples in by_round.items():
            drift = next(iter(samples.values())).drift
            times = {key: one.samples_ms for key, one in samples.items()}
            self.add_round(setup, times, started_at=started_at, drift=drift)
        return new


def write_table(records: Sequence[LatencyRecord], path: str | Path) -> None:
    """Writes records as .csv or .parquet, by the file's ending. Raises FormatError for another ending."""
    frame = pd.DataFrame([record.to_row() for record in records])
    suffix = Path(path).suffix
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        raise FormatError(f"{path}: tables are written as .csv or .parquet")


def read_records(path: str | Path) -> list[LatencyRecord]:
    """Records of a profile file, or of a .csv or .parquet table written by write_table.

    Raises FormatError for anything else, RecordError for a table whose rows are not records.
    """
    suffix = Path(path).suffix
    if suffix not in (".csv", ".parquet"):
        with ProfileFile(path) as profile:
            return profile.records()
    try:
        frame = pd.read_csv(path, keep_default_na=False) if suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read as a table of records ({error})") from error
    missing = {"name", "kind", "status", "setup", "graph", "rounds"} - set(frame.columns)
    if missing:
        raise RecordError(f"{path}: this table has no column {', '.join(sorted(missing))}, so it holds no records")
    return [LatencyRecord.from_row({str(k): v for k, v in row.items()}) for row in frame.to_dict("records")]
