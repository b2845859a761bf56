"""Whether an open profile file is still where it was opened, and what becomes of its content where it is not.

SQLite goes on writing into a file that was deleted or moved, without a word.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import NamedTuple

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import writing

Round = tuple[str, float]
"""A stored round: its setup's key, and when it started."""


class _Seen(NamedTuple):
    """Marks that tell files apart, and whether one has been written to."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def at(cls, path: Path | str) -> _Seen:
        found = os.stat(path)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Place:
    """Place of a connection's file when it was opened. Once it no longer does, its content is rescued."""

    _rescuing = threading.Lock()
    """Two campaigns of a process may share a file, and lose it at once."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path, self._db = path, db
        self.last_round: Round | None = None
        """The latest round that was stored: what a file that was overwritten with an older one does not hold."""
        self._seen = _Seen.at(path)
        self._lost = ""

    def check(self) -> None:
        """Raises FormatError once the file was moved, deleted, replaced or overwritten; the message says which, and
        where its content is now."""
        if not self._lost:
            self._lost = self._look()
        if self._lost:
            raise FormatError(f"{self.path}: {self._lost}")

    def _look(self) -> str:
        """The event in words, '' for none."""
        try:
            now = _Seen.at(self.path)
        except OSError:  # its folder may be gone, too
            return self._gone("deleted")
        if now[:2] != self._seen[:2]:
            return self._gone("replaced by another file")
        if now == self._seen:
            return ""
        self._seen = now  # usually SQLite itself, which moves what is stored from its log into the file
        with closing(sqlite3.connect(self.path, timeout=10)) as other:
            if _is_whole(other, self.last_round):
                return ""
        return f"the profile file was overwritten by another program while it was in use; {self._saved()}"

    def _gone(self, what: str) -> str:
        moved = self._moved_to()
        if not self._empty_log() or moved is None:
            return f"the profile file was {what} while it was in use; {self._saved()}"
        return (
            f"the profile file was moved to {moved} while it was in use. Nothing is lost, all that was measured is "
            "there; move it back, or name it where it is, and run the same command again"
        )

    def _empty_log(self) -> bool:
        """Whether all is in the file itself. SQLite's log does not move along with it, and would be taken for the log
        of whatever file gets its name next."""
        try:
            (busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            return False
        return bool(busy == 0)

    def _moved_to(self) -> Path | None:
        """Path of the open file now, as far as the system tells."""
        for link in _links("/proc/self/fd"):
            try:
                target = Path(os.readlink(link))
                if _Seen.at(link)[:2] == self._seen[:2] == _Seen.at(target)[:2]:
                    return target
            except OSError:
                continue
        return None

    def _saved(self) -> str:
        """Copies what the connection still holds to a new file, and says so."""
        with self._rescuing:
            try:
                target = next(name for name in _rescue_names(self.path) if self._may_write(name))
                self._copy(target)
            except (OSError, sqlite3.Error) as error:
                return f"what it held could not be saved ({error}): restore a copy of it, or measure again"
        return (
            f"all that was measured was saved as {target}: move it to {self.path}, or name it instead, and run the "
            "same command again"
        )

    def _may_write(self, target: Path) -> bool:
        """Whether the name is free, or of a file that another campaign rescued, from which nothing would be lost."""
        if not target.exists():
            return True
        with closing(sqlite3.connect(target)) as other:
            try:
                return all(
                    set(other.execute(query)) <= set(self._db.execute(query))
                    for query in ("SELECT setup, started_at FROM rounds", "SELECT setup, graph, status FROM outcomes")
                )
            except sqlite3.Error:
                return False

    def _copy(self, target: Path) -> None:
        with writing(target) as part, closing(sqlite3.connect(part)) as copy:
            self._db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, that can be moved
            if not _is_whole(copy, self.last_round):
                raise sqlite3.DatabaseError("it is damaged")


def _links(folder: str) -> Iterator[str]:
    """The entries of a folder; none where there is no such folder."""
    try:
        yield from (f"{folder}/{name}" for name in os.listdir(folder))
    except OSError:
        return


def _is_whole(db: sqlite3.Connection, last_round: Round | None) -> bool:
    """Whether SQLite finds the database in order, its parts belong together, and the round that was stored last is in
    it."""
    try:
        if (
            db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",)
            or db.execute("PRAGMA foreign_key_check").fetchone()
        ):
            return False
        query = "SELECT count(*) FROM rounds WHERE setup = ? AND started_at = ?"
        return last_round is None or db.execute(query, last_round).fetchone() == (1,)
    except sqlite3.OperationalError as error:
        return "locked" in str(error)  # in use, and no word of damage
    except sqlite3.Error:
        return False


def _rescue_names(path: Path) -> Iterator[Path]:
    """'p.sqlite' -> 'p.rescued.sqlite', 'p.rescued-2.sqlite', ... beside it, or in the current folder where its own is
    gone."""
    folder = path.parent if path.parent.is_dir() else Path.cwd()
    for number in count(1):
        yield folder / f"{path.stem}.rescued{'' if number == 1 else f'-{number}'}{path.suffix}"
