"""A folder that a long run writes into, watched: a run whose folder was moved or deleted must not end as if all was
well, with half of its files in a new one."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from netlathe.archspace.errors import NetlatheError
from netlathe.events import Listener
from netlathe.profiler.lock import exclusive

if TYPE_CHECKING:
    from netlathe.training import Compute
    from netlathe.training.ranks import Ranks

EVERY_S = 60.0
"""Seconds between checkpoints: what a power cut may cost."""


class RunFolder:
    """The folder at `path`, watched from when it is made. Of several processes, the one that is the leader makes and
    watches it (`is_own`); nothing here does anything for the others, which may be where there is no such folder."""

    _handle: int | None = None

    def __init__(self, path: Path, *, is_own: bool = True) -> None:
        self.path, self.is_own = path, is_own

    def make(self) -> None:
        """Makes the folder where it is missing, once. Raises OSError."""
        if self._handle is None and self.is_own:
            self.path.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._handle)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Context in which no other process works in the folder. It is made, and gone afterwards if nothing is in it.
        Raises NetlatheError at once where another process holds it; one that was killed holds nothing."""
        if not self.is_own:
            yield
            return
        is_new = not self.path.exists()
        self.make()
        refusal = (
            f"{self.path}: another process is working on the run in this folder; wait for it to end, or name another "
            "--output"
        )
        try:
            with exclusive(self.path / ".netlathe", "run", refusal, NetlatheError):
                yield
        finally:
            if is_new:
                with suppress(OSError):
                    self.path.rmdir()

    def place(self) -> Path | None:
        """Place of the folder now; None where it was deleted, or the system does not tell."""
        if self._handle is None or self._is_at(self.path):
            return self.path
        try:
            moved = Path(os.readlink(f"/proc/self/fd/{self._handle}"))
        except OSError:
            return None
        return moved if self._is_at(moved) else None

    def _is_at(self, path: Path) -> bool:
        assert self._handle is not None
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(path))
        except OSError:
            return False

    def check(self, kept: str = "") -> None:
        """Raises NetlatheError once the folder is no longer at its path. `kept` is what was done about it."""
        place = self.place()
        if place == self.path:
            return
        if place is None:
            raise NetlatheError(
                f"{self.path}: the run's folder was deleted while the run wrote into it, and what it held is gone."
                f"{kept or ' Run the same command again'}"
            )
        raise NetlatheError(
            f"{self.path}: the run's folder was moved to {place} while the run wrote into it.{kept} Move it back, or "
            "name it where it is, and the same command goes on from the last checkpoint there"
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Context in which a file that cannot be written because the folder is gone is told so; at its end, the folder
        must still be there."""
        try:
            yield
        except OSError:
            self.check()
            raise
        self.check()


@dataclass(frozen=True)
class Workplace:
    """Place and means of a run: where and how it is computed, all that its outcome does not depend on."""

    folder: RunFolder
    compute: Compute
    listener: Listener
    tensorboard: bool = False
    every_s: float = field(default_factory=lambda: EVERY_S)
    series: str = ""
    """Name of one of several runs, which its numbers are told by."""

    def at(self, folder: Path) -> Workplace:
        """Workplace in another folder, one of several."""
        return replace(self, folder=RunFolder(folder, is_own=self.leads), series=f"{folder.name}/")

    def scalar(self, name: str, value: float, step: int) -> None:
        """Tells the listener a number."""
        self.listener.scalar(f"{self.series}{name}", float(value), step)

    @property
    def ranks(self) -> Ranks:
        """The processes that the run is computed by."""
        return self.compute.ranks

    @property
    def leads(self) -> bool:
        """Whether this process is the one that reads, writes and speaks."""
        return self.compute.ranks.leads

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    def remove(self, names: Iterable[str]) -> None:
        """Removes files of the folder, where they are there, in this order."""
        for name in names if self.leads else ():
            (self.path / name).unlink(missing_ok=True)
