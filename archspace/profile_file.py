"""The profile file: one SQLite database of raw samples and outcomes, per setup and graph.

Samples are the truth; records are put together from them on reading. A round is one transaction, so a pulled plug
costs at most the round in flight, and the primary keys let nothing be recorded twice.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from netlathe.archspace.errors import ArchspaceError, FormatError, RecordError
from netlathe.archspace.files import check_plain
from netlathe.archspace.graph import Graph
from netlathe.archspace.pools import BEST_LAST, is_pool, pooled_records
from netlathe.archspace.profile_place import Place
from netlathe.archspace.records import Kind, LatencyRecord, Measurement, Round, Setup, Status
from netlathe.archspace.sustained import SustainedPoint, SustainedRun

_MOST_BYTES = 1 << 24
"""Most bytes of one cell; none of ours comes near."""
_DAMAGE = (
    sqlite3.Error, ArchspaceError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError,
    MemoryError,
)  # fmt: skip
"""Exceptions that making sense of any content may raise."""
APPLICATION_ID = 0x6E6C7468  # "nlth": what marks a SQLite file as ours
SCHEMA_VERSION = 7
_WAIT_S = 10.0
"""How long a connection waits for another that writes."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS setups (key TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS graphs (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS anchors (
    setup TEXT NOT NULL REFERENCES setups, graph TEXT NOT NULL REFERENCES graphs,
    PRIMARY KEY (setup, graph)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rounds (
    id INTEGER PRIMARY KEY, setup TEXT NOT NULL REFERENCES setups, started_at REAL NOT NULL,
    drift REAL NOT NULL, conditions TEXT NOT NULL, UNIQUE (setup, started_at));
CREATE TABLE IF NOT EXISTS samples (
    graph TEXT NOT NULL REFERENCES graphs, round INTEGER NOT NULL REFERENCES rounds, samples_ms TEXT NOT NULL,
    PRIMARY KEY (graph, round)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    setup TEXT NOT NULL REFERENCES setups, graph TEXT NOT NULL REFERENCES graphs, status TEXT NOT NULL,
    message TEXT NOT NULL, PRIMARY KEY (setup, graph)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS details (
    setup TEXT NOT NULL REFERENCES setups, graph TEXT NOT NULL REFERENCES graphs, json TEXT NOT NULL,
    PRIMARY KEY (setup, graph)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS op_times (
    setup TEXT NOT NULL REFERENCES setups, graph TEXT NOT NULL REFERENCES graphs, place INTEGER NOT NULL,
    json TEXT NOT NULL, PRIMARY KEY (setup, graph, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chosen (
    id INTEGER PRIMARY KEY, setup TEXT NOT NULL REFERENCES setups, graph TEXT NOT NULL REFERENCES graphs,
    UNIQUE (setup, graph));
CREATE TABLE IF NOT EXISTS again (
    setup TEXT NOT NULL REFERENCES setups, graph TEXT NOT NULL REFERENCES graphs, what TEXT NOT NULL,
    since REAL NOT NULL, is_done INTEGER NOT NULL, message TEXT NOT NULL, PRIMARY KEY (setup, graph)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS discounted (
    graph TEXT NOT NULL REFERENCES graphs, round INTEGER NOT NULL REFERENCES rounds,
    PRIMARY KEY (graph, round)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pools (
    pool TEXT NOT NULL REFERENCES setups, member TEXT NOT NULL REFERENCES setups, level REAL NOT NULL,
    PRIMARY KEY (pool, member)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    pool TEXT NOT NULL REFERENCES setups, graph TEXT NOT NULL REFERENCES graphs, holder TEXT NOT NULL,
    until REAL NOT NULL, PRIMARY KEY (pool, graph)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS loads (
    id INTEGER PRIMARY KEY, setup TEXT NOT NULL REFERENCES setups, started_at REAL NOT NULL, duration_s REAL NOT NULL,
    is_interrupted INTEGER NOT NULL, UNIQUE (setup, started_at));
CREATE TABLE IF NOT EXISTS load_points (
    load INTEGER NOT NULL REFERENCES loads, at_s REAL NOT NULL, graph TEXT NOT NULL REFERENCES graphs,
    latency_ms REAL NOT NULL, conditions TEXT NOT NULL, PRIMARY KEY (load, at_s)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS made (id INTEGER PRIMARY KEY, at REAL NOT NULL, json TEXT NOT NULL);
"""


_COUNTING = """
AND NOT EXISTS (SELECT 1 FROM discounted WHERE discounted.graph = samples.graph AND discounted.round = rounds.id)
AND NOT EXISTS (SELECT 1 FROM again WHERE again.setup = rounds.setup AND again.graph = samples.graph
    AND NOT is_done AND started_at > since)
"""
"""Leaves out samples that later ones have replaced, and those that are to replace others once there are enough."""


def _spaced(sql: str | None) -> str:
    return " ".join((sql or "").split())


@cache
def _own_schema() -> frozenset[tuple[str, str, str]]:
    """(type, name, SQL) of all that SQLite makes of the schema."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        rows = db.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return frozenset((kind, name, _spaced(sql)) for kind, name, sql in rows)


@dataclass(frozen=True)
class RoundConditions:
    """A round without its samples: when it started (seconds since the epoch, unique within its setup), its drift, and
    the conditions that the device reported (load, frequency, temperature, ...)."""

    started_at: float
    drift: float
    conditions: Mapping[str, float | str]


@dataclass(frozen=True)
class Again:
    """A graph that a call measures again, or has: what for, and the rounds from which on count for it alone."""

    what: str
    since: float
    """Rounds that started later are new ones; those up to then are the record's until `is_done`."""
    is_done: bool = False
    message: str = ""
    """Why it could not be measured again; '' where it could."""


class ProfileFile:
    """An open profile file; use it in a with statement.

    Raises FormatError, from here and from every method, on a file that is not a profile, is damaged, cannot be written
    or comes from a newer netlathe. With `create`, a missing file is made; without, it is an error.

    A file that is written is watched: once it was moved, deleted or replaced, every method says so, having saved what
    it held. So what a method has stored without an error is at this path. With `only_reads`, nothing is written, not
    even what SQLite keeps beside its file: for looking at a campaign that goes on.
    """

    _place: Place | None = None  # before it is open

    def __init__(self, path: str | Path, *, create: bool = False, only_reads: bool = False) -> None:
        self.path, self._creates = Path(path), create
        if self.path.exists():
            check_plain(self.path)
        elif not create:
            raise FormatError(f"{self.path}: there is no such profile file; `netlathe profile --output` makes one")
        try:
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._connect(create, only_reads)
        except (OSError, sqlite3.Error) as error:
            raise FormatError(f"{self.path}: cannot be opened as a profile file ({error})") from error
        try:
            with self._guard():
                self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
                self._db.execute("PRAGMA trusted_schema = OFF")
                self._check_or_create(create)
                if not self.is_read_only:
                    self._log_ahead()
                self._db.execute("PRAGMA foreign_keys = ON")
                self._db.execute(
                    "SELECT count(*) FROM sqlite_master"
                ).fetchone()  # its log opens now, not once it moved
            self._place = Place(self.path, self._db)
        except BaseException as error:
            self._db.close()
            if isinstance(error, OSError):
                raise FormatError(f"{self.path}: the file vanished while it was being opened ({error})") from error
            raise

    def _connect(self, create: bool, only_reads: bool) -> sqlite3.Connection:
        """Where nothing can be written, as on a read-only disk, without the files that SQLite makes beside its own."""
        writable = os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        self.is_read_only = only_reads or (not create and not writable)
        if not self.is_read_only:
            return sqlite3.connect(self.path, isolation_level=None, timeout=_WAIT_S)
        log = Path(f"{self.path}-wal")  # which is there as long as anybody writes
        is_whole = not log.exists() or (not writable and log.stat().st_size == 0)
        uri = f"{self.path.resolve().as_uri()}?mode=ro{'&immutable=1' if is_whole else ''}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_WAIT_S)

    def _log_ahead(self) -> None:
        """One campaign may hold the file while another process reads: WAL lets both go on.

        A new file is not in that mode yet, and SQLite does not wait for another connection that is about to write
        there, as members of a pool do at once; so we do.
        """
        gives_up_at = time.monotonic() + _WAIT_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > gives_up_at:
                    raise
                time.sleep(0.01)

    def _check_content(self) -> None:
        """Raises FormatError for anything but our own tables: a view or trigger in their place could run for ever, and
        so could pages that stand in their tree more than once."""
        rows = self._db.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        for kind, name, sql in rows:
            is_statistics = kind == "table" and str(name).startswith("sqlite_stat")  # as ANALYZE makes
            if (kind, name, _spaced(sql)) not in _own_schema() and not is_statistics:
                raise FormatError(f"{self.path}: holds the {kind} {name!r:.60}, which no profile has; restore a copy")
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise FormatError(f"{self.path}: the profile file is damaged ({verdict:.200}); restore a copy of it")

    def _check_or_create(self, create: bool) -> None:
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        (app,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if tables == 0 and app == 0 and create:
            marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {marks} COMMIT")
        elif app != APPLICATION_ID:
            raise FormatError(f"{self.path}: this is a SQLite file, but not a netlathe profile")
        elif version > SCHEMA_VERSION:
            schemas = f"schema {version}, this one reads {SCHEMA_VERSION}"
            raise FormatError(f"{self.path}: written by a newer netlathe ({schemas}); upgrade netlathe")
        else:
            self._check_content()
        if app == APPLICATION_ID and version < SCHEMA_VERSION:  # later versions only added tables
            if self.is_read_only:
                raise FormatError(
                    f"{self.path}: is of an older schema; copy it to where it can be written, to upgrade it"
                )
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Turns what SQLite and the decoders complain about into one clear error."""
        try:
            try:
                yield
            except sqlite3.Error:
                self._check_place()  # tells the cause
                raise
            self._check_place()
        except FormatError:
            raise
        except sqlite3.OperationalError as error:
            hint = "is it in use, read-only, or the disk full?"
            raise FormatError(f"{self.path}: SQLite cannot use this file ({error}); {hint}") from error
        except _DAMAGE as error:
            raise FormatError(f"{self.path}: the profile file is damaged ({error!r}); restore a copy of it") from error

    def _check_place(self) -> None:
        """Raises FormatError where what was written is not, or not only, at the path."""
        if self._place and (self._creates or self._db.total_changes) and not self._db.in_transaction:
            self._place.check()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it is stored, or nothing."""
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk ends it, too
                    self._db.execute("ROLLBACK")
                raise

    def __enter__(self) -> ProfileFile:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        try:
            self._check_place()  # whatever ended the work: it relies on what is stored being kept
        finally:
            self.close()

    def close(self) -> None:
        self._place = None
        self._db.close()

    def add_setup(self, setup: Setup) -> None:
        row = (setup.key, json.dumps(setup.to_json()))
        with self._guard():
            self._db.execute("INSERT OR IGNORE INTO setups VALUES (?, ?)", row)

    def add_graph(self, name: str, kind: Kind, graph: Graph) -> None:
        """Makes the graph known; samples and outcomes refer to it by key. Known already, it keeps its first name."""
        row = (graph.key, name, kind, json.dumps(graph.to_json()))
        with self._guard():
            self._db.execute("INSERT OR IGNORE INTO graphs VALUES (?, ?, ?, ?)", row)

    def add_graphs(self, graphs: Iterable[tuple[str, Kind, Graph]]) -> None:
        """Adds many graphs (name, kind, graph) in one transaction."""
        with self._transaction():
            for name, kind, graph in graphs:
                self.add_graph(name, kind, graph)

    def set_anchors(self, setup: Setup, keys: Iterable[str]) -> None:
        """Adds to the setup's anchors: known graphs that stand in every round and tell the machine's drift."""
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO anchors VALUES (?, ?)", [(setup.key, key) for key in keys])

    def anchors(self, setup: Setup) -> dict[str, Graph]:
        """The setup's anchors by key; empty before the first campaign."""
        query = "SELECT key, json FROM anchors JOIN graphs ON graph = key WHERE setup = ? ORDER BY key"
        with self._guard():
            rows = self._db.execute(query, (setup.key,)).fetchall()
            return {key: Graph.from_json(json.loads(text)) for key, text in rows}

    def add_chosen(self, setup: Setup, keys: Iterable[str]) -> None:
        """Remembers that a call chose to measure these known graphs, until forget_chosen says that it has ended."""
        with self._transaction():
            rows = [(setup.key, key) for key in keys]
            self._db.executemany("INSERT OR IGNORE INTO chosen (setup, graph) VALUES (?, ?)", rows)

    def chosen(self, setup: Setup) -> list[str]:
        """Keys of what calls that were interrupted chose, in the order of choosing."""
        with self._guard():
            rows = self._db.execute("SELECT graph FROM chosen WHERE setup = ? ORDER BY id", (setup.key,)).fetchall()
            return [key for (key,) in rows]

    def forget_chosen(self, setup: Setup, keys: Iterable[str]) -> None:
        """The call that chose these has ended."""
        with self._transaction():
            self._db.executemany("DELETE FROM chosen WHERE setup = ? AND graph = ?", [(setup.key, key) for key in keys])

    def begin_again(self, setup: Setup, keys: Iterable[str], what: str, since: float) -> None:
        """Rounds that start after `since` are to decide on these graphs' records anew; until end_again, or where that
        was asked for before, nothing changes."""
        with self._transaction():
            rows = [(setup.key, key, what, since) for key in keys]
            self._db.executemany("INSERT OR IGNORE INTO again VALUES (?, ?, ?, ?, 0, '')", rows)

    def again(self, setup: Setup) -> dict[str, Again]:
        """By graph key, what is or was measured again by calls that have not told their result (forget_again)."""
        query = "SELECT graph, what, since, is_done, message FROM again WHERE setup = ? ORDER BY graph"
        with self._guard():
            rows = self._db.execute(query, (setup.key,)).fetchall()
            return {key: Again(str(what), float(since), bool(done), str(text)) for key, what, since, done, text in rows}

    def end_again(
        self,
        setup: Setup,
        key: str,
        outcome: tuple[Status, str, Mapping[str, float] | None] | None,
        *,
        message: str = "",
        discounted: Iterable[float] = (),
    ) -> None:
        """The graph was measured again: its outcome (status, message, details), None where the earlier one stays, why
        there is no new one, and the rounds whose samples no longer count. They are kept."""
        rows = [(key, setup.key, started_at) for started_at in discounted]
        query = "INSERT OR IGNORE INTO discounted SELECT ?, id FROM rounds WHERE setup = ? AND started_at = ?"
        with self._transaction():
            if outcome:
                self.set_outcome(setup, key, *outcome)
            self._db.executemany(query, rows)
            self._db.execute(
                "UPDATE again SET is_done = 1, message = ? WHERE setup = ? AND graph = ?", (message, setup.key, key)
            )

    def forget_again(self, setup: Setup, what: str) -> None:
        """Marks what was measured again for this as told: the next call that is to do so begins anew."""
        with self._guard():
            self._db.execute("DELETE FROM again WHERE setup = ? AND what = ? AND is_done", (setup.key, what))

    def add_round(
        self,
        setup: Setup,
        samples_ms: Mapping[str, Sequence[float]],
        *,
        started_at: float,
        drift: float = 1.0,
        conditions: Mapping[str, Any] | None = None,
        moved: Mapping[float, float] | None = None,
    ) -> None:
        """Stores one round, {graph key: times in ms}, as one transaction. What is already stored is left alone, but for
        the drifts of earlier rounds that have `moved`, {started_at: drift}, now that the anchors' reference is better
        known."""
        texts = {key: json.dumps(list(times)) for key, times in samples_ms.items()}
        told = json.dumps(dict(conditions or {}))
        with self._transaction():
            self._insert_round(setup, texts, started_at, drift, told)
            rows = [(moved_to, setup.key, at) for at, moved_to in (moved or {}).items() if at != started_at]
            self._db.executemany("UPDATE rounds SET drift = ? WHERE setup = ? AND started_at = ?", rows)
        if self._place:
            self._place.last_round = setup.key, started_at

    def _insert_round(
        self,
        setup: Setup,
        samples: Mapping[str, str],
        started_at: float,
        drift: float,
        conditions: str,
    ) -> None:
        """The samples of each graph, and the conditions, are given as JSON."""
        self._db.execute(
            "INSERT OR IGNORE INTO rounds (setup, started_at, drift, conditions) VALUES (?, ?, ?, ?)",
            (setup.key, started_at, drift, conditions),
        )
        query = "SELECT id FROM rounds WHERE setup = ? AND started_at = ?"
        (round_id,) = self._db.execute(query, (setup.key, started_at)).fetchone()
        rows = [(key, round_id, text) for key, text in samples.items()]
        self._db.executemany("INSERT OR IGNORE INTO samples VALUES (?, ?, ?)", rows)

    def rounds(
        self, setup: Setup, *, counting: bool = False, keys: Collection[str] | None = None
    ) -> dict[str, tuple[Round, ...]]:
        """Every stored round per graph key in order of time, finished or not; or only those that count in records, and
        those of the graphs with these `keys`."""
        wanted = "" if keys is None else "AND samples.graph IN (SELECT value FROM json_each(?))"
        query = (
            "SELECT samples.graph, samples_ms, drift, started_at FROM samples JOIN rounds ON round = id "
            f"WHERE rounds.setup = ? {wanted} {_COUNTING if counting else ''} ORDER BY started_at"
        )
        arguments = (setup.key,) if keys is None else (setup.key, json.dumps(list(keys)))
        rounds: dict[str, list[Round]] = defaultdict(list)
        with self._guard():
            for key, samples, drift, started_at in self._db.execute(query, arguments):
                one = Round(tuple(json.loads(samples)), drift, started_at)
                Measurement((one,))  # says what is wrong with it
                rounds[key].append(one)
        return {key: tuple(value) for key, value in rounds.items()}

    def round_log(self, setup: Setup) -> list[RoundConditions]:
        """Drift and conditions of every round in order of time."""
        query = "SELECT started_at, drift, conditions FROM rounds WHERE setup = ? ORDER BY started_at"
        with self._guard():
            rows = self._db.execute(query, (setup.key,)).fetchall()
            return [RoundConditions(started_at, drift, json.loads(text)) for started_at, drift, text in rows]

    def set_outcome(
        self, setup: Setup, key: str, status: Status, message: str = "", details: Mapping[str, float] | None = None
    ) -> None:
        """Marks a graph as finished; a failed one may be overwritten by a later attempt. `details` are what else was
        measured of it, by name."""
        row = (setup.key, key, str(status), message)
        extras = (setup.key, key, json.dumps(dict(details or {})))
        with self._guard():
            self._db.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?)", row)
            if details:
                self._db.execute("INSERT OR REPLACE INTO details VALUES (?, ?, ?)", extras)

    def set_op_times(self, setup: Setup, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Stores how a graph's time is spread over the runtime's kernels, in order of execution."""
        texts = [(setup.key, key, place, json.dumps(dict(row))) for place, row in enumerate(rows)]
        with self._transaction():
            self._db.execute("DELETE FROM op_times WHERE setup = ? AND graph = ?", (setup.key, key))
            self._db.executemany("INSERT INTO op_times VALUES (?, ?, ?, ?)", texts)

    def add_load(self, setup: Setup, run: SustainedRun) -> None:
        """Stores a load that lasted, of known graphs, as one transaction. One that began at the same time stays."""
        row = (setup.key, run.started_at, run.duration_s, int(run.is_interrupted))
        with self._transaction():
            query = "INSERT OR IGNORE INTO loads (setup, started_at, duration_s, is_interrupted) VALUES (?, ?, ?, ?)"
            found = self._db.execute(query, row)
            if not found.rowcount:
                return
            points = [
                (found.lastrowid, one.at_s, one.key, one.latency_ms, json.dumps(dict(one.conditions)))
                for one in run.points
            ]
            self._db.executemany("INSERT INTO load_points VALUES (?, ?, ?, ?, ?)", points)

    def loads(self, setup: Setup) -> list[SustainedRun]:
        """The loads that lasted before the setup's rounds, in order of time; none of a cool device."""
        query = "SELECT id, duration_s, is_interrupted, started_at FROM loads WHERE setup = ? ORDER BY started_at"
        with self._guard():
            rows = self._db.execute(query, (setup.key,)).fetchall()
            return [self._load(number, *row) for number, *row in rows]

    def _load(self, number: int, duration_s: float, is_interrupted: int, started_at: float) -> SustainedRun:
        query = (
            "SELECT at_s, graph, latency_ms, conditions, name FROM load_points JOIN graphs ON graph = key "
            "WHERE load = ? ORDER BY at_s"
        )
        rows = self._db.execute(query, (number,)).fetchall()
        points = tuple(SustainedPoint(at_s, key, ms, dict(json.loads(told))) for at_s, key, ms, told, _ in rows)
        names = {key: name for _, key, _, _, name in rows}
        run = SustainedRun(points, names, duration_s, bool(is_interrupted), started_at)
        if not (run.networks and run.minutes):  # says what is wrong with it
            raise RecordError("a load has visits at its begin and at its end")
        return run

    def add_made(self, at: float, content: Mapping[str, Any]) -> None:
        """Adds how a call measures into this file from that time on (seconds since the epoch): its command, the
        versions of what it runs with. A call like the one before it adds nothing."""
        text = json.dumps(dict(content))
        with self._transaction():
            if self._db.execute("SELECT json FROM made ORDER BY id DESC LIMIT 1").fetchone() != (text,):
                self._db.execute("INSERT INTO made (at, json) VALUES (?, ?)", (at, text))

    def made(self) -> list[tuple[float, dict[str, Any]]]:
        """(time, how it was made) of each call that measured into this file; none of calls of earlier versions."""
        with self._guard():
            rows = self._db.execute("SELECT at, json FROM made ORDER BY id").fetchall()
            return [(float(at), dict(json.loads(text))) for at, text in rows]

    def op_times(self, setup: Setup) -> list[dict[str, Any]]:
        """A row per kernel, in order of graph name and execution: its graph's key and name, and what was stored."""
        query = (
            "SELECT graph, name, op_times.json FROM op_times JOIN graphs ON graph = key WHERE setup = ? "
            "ORDER BY kind, name, place"
        )
        with self._guard():
            rows = self._db.execute(query, (setup.key,)).fetchall()
            return [{"graph": key, "graph_name": name, **json.loads(text)} for key, name, text in rows]

    def outcomes(self, setup: Setup) -> dict[str, Status]:
        """Status per graph key; a graph without one is not finished. Of a pool, the best that any of its setups has."""
        if levels := self.pool(setup):
            found = [self.outcomes(member) for member in levels]
            best = sorted((pair for one in found for pair in one.items()), key=lambda pair: BEST_LAST.index(pair[1]))
            return dict(best)
        with self._guard():
            rows = self._db.execute("SELECT graph, status FROM outcomes WHERE setup = ?", (setup.key,)).fetchall()
            return {key: Status(status) for key, status in rows}

    def setups(self, *, members: bool = False) -> list[Setup]:
        """The setups of the file, pools among them; those that a pool is made of only where `members` are asked for."""
        hidden = "" if members else "WHERE key NOT IN (SELECT member FROM pools)"
        with self._guard():
            rows = self._db.execute(f"SELECT json FROM setups {hidden} ORDER BY key").fetchall()
            return [Setup.from_json(json.loads(text)) for (text,) in rows]

    def set_pool(self, pool: Setup, levels: Mapping[Setup, float]) -> None:
        """Makes a pool of these setups, of which each takes so many times as long as the pool. Its records are put
        together from theirs on reading."""
        with self._transaction():
            for setup in (pool, *levels):
                self.add_setup(setup)
            self._db.execute("DELETE FROM pools WHERE pool = ?", (pool.key,))
            rows = [(pool.key, member.key, level) for member, level in levels.items()]
            self._db.executemany("INSERT INTO pools VALUES (?, ?, ?)", rows)

    def pool(self, pool: Setup) -> dict[Setup, float]:
        """Level of each setup that the pool is made of; empty where it is no pool."""
        if not is_pool(pool):
            return {}
        query = "SELECT json, level FROM pools JOIN setups ON member = key WHERE pool = ? ORDER BY member"
        with self._guard():
            rows = self._db.execute(query, (pool.key,)).fetchall()
            levels = {Setup.from_json(json.loads(text)): float(level) for text, level in rows}
            if any(map(is_pool, levels)):
                raise RecordError("a pool is made of single devices, not of pools")
            return levels

    def lease(self, pool: Setup, keys: Iterable[str], holder: str, *, now: float, until: float) -> list[str]:
        """Leases these known graphs of the pool to a holder until then (seconds since the epoch), and returns those
        that it got: others are another holder's, whose lease has not lapsed. Its own ones are prolonged."""
        query = (
            "INSERT INTO leases VALUES (?, ?, ?, ?) ON CONFLICT (pool, graph) DO UPDATE SET holder = excluded.holder, "
            "until = excluded.until WHERE leases.holder = excluded.holder OR leases.until <= ?"
        )
        with self._transaction():
            return [key for key in keys if self._db.execute(query, (pool.key, key, holder, until, now)).rowcount > 0]

    def leases(self, pool: Setup, now: float) -> dict[str, str]:
        """Holder by graph key, of leases that have not lapsed."""
        query = "SELECT graph, holder FROM leases WHERE pool = ? AND until > ?"
        with self._guard():
            return dict(self._db.execute(query, (pool.key, now)).fetchall())

    def end_leases(self, pool: Setup, holder: str) -> None:
        """Gives all that the holder has leased back."""
        with self._guard():
            self._db.execute("DELETE FROM leases WHERE pool = ? AND holder = ?", (pool.key, holder))

    def records(self, setup: Setup | None = None) -> list[LatencyRecord]:
        """Finished records, of one setup or of all, by kind and name. Those of a pool are of all its setups."""
        if setup is not None and (levels := self.pool(setup)):
            with self._guard():
                return pooled_records(setup, [(self.records(member), level) for member, level in levels.items()])
        records: list[LatencyRecord] = []
        query = (
            "SELECT outcomes.graph, name, kind, graphs.json, status, message, coalesce(details.json, '{}') "
            "FROM outcomes JOIN graphs ON outcomes.graph = graphs.key "
            "LEFT JOIN details ON details.setup = outcomes.setup AND details.graph = outcomes.graph "
            "WHERE outcomes.setup = ? ORDER BY kind, name"
        )
        with self._guard():
            for one in self.setups() if setup is None else [setup]:
                if setup is None and self.pool(one):
                    records += self.records(one)
                    continue
                rows = self._db.execute(query, (one.key,)).fetchall()
                rounds = self.rounds(one, counting=True)  # later, as a campaign may go on meanwhile
                for key, name, kind, text, status, message, details in rows:
                    measurement = Measurement(rounds[key]) if status == Status.OK else None
                    graph = Graph.from_json(json.loads(text))
                    extras = tuple(sorted(json.loads(details).items()))
                    records.append(LatencyRecord(name, kind, graph, one, Status(status), measurement, message, extras))
        return records

    def add_records(self, records: Iterable[LatencyRecord]) -> int:
        """Imports finished records with their samples, all or none; returns how many were new."""
        by_round: dict[tuple[Setup, float], dict[str, Round]] = defaultdict(dict)
        records = list(records)
        known = {setup: self.outcomes(setup) for setup in {record.setup for record in records}}
        new = 0
        with self._transaction():
            for record in records:
                setup, key = record.setup, record.graph.key
                self.add_setup(setup)
                self.add_graph(record.name, record.kind, record.graph)
                if known[setup].get(key) == Status.OK:
                    continue
                for one in record.measurement.rounds if record.measurement else ():
                    by_round[setup, one.started_at][key] = one
                self.set_outcome(setup, key, record.status, record.message, dict(record.details))
                self._db.execute("DELETE FROM again WHERE setup = ? AND graph = ?", (setup.key, key))
                known[setup][key] = record.status
                new += 1
            for (setup, started_at), rounds in by_round.items():
                texts = {key: json.dumps(list(one.samples_ms)) for key, one in rounds.items()}
                self._insert_round(setup, texts, started_at, next(iter(rounds.values())).drift, "{}")
        return new
