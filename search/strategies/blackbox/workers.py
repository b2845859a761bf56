"""Signs of life of the processes that work on a study, and the storages that they meet in."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from netlathe.search.errors import SearchError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

WORKER, BEAT = "worker", "beat"
"""Attributes of a running trial: who looks at it, and a count that grows while it does."""
STALE_S = 60.0
"""Seconds without a beat after which a worker that cannot be looked at is taken for dead."""


def open_storage(place: str | Path) -> BaseStorage:
    """An Optuna storage: a journal file, or the URL of a database (`sqlite:///study.db`, `postgresql://...`) or of a
    gRPC proxy (`grpc://host:port`). Raises SearchError where there is none that can be opened."""
    import optuna

    text = str(place)
    try:
        if text.startswith("grpc://"):
            host, _, port = text.removeprefix("grpc://").partition(":")
            return optuna.storages.GrpcStorageProxy(host=host, port=int(port or 13000))
        if "://" in text:
            return optuna.storages.RDBStorage(text)
        return _open_journal(Path(place))
    except Exception as error:  # each database driver has errors of its own
        reason = (str(error) or repr(error)).splitlines()[0]
        raise SearchError(
            f"{text}: cannot be opened as a study's storage ({reason:.200}); give a file, or a URL such as "
            "sqlite:///study.db"
        ) from error


def _open_journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class ProcessLock(JournalFileOpenLock):
        """A lock that ends with its process: one that was killed while it wrote holds nobody up."""

        def __init__(self) -> None:
            self._lock = FileLock(path.with_name(f".{path.name}.lock"))

        def acquire(self) -> bool:
            self._lock.acquire()
            return True

        def release(self) -> None:
            self._lock.release()

    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=ProcessLock()))


def this_worker() -> dict[str, Any]:
    """Description of this process, by which others on the same machine see whether it lives."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "place": _place(), "pid": pid, "began": _began(pid)}


def is_gone(worker: Any) -> bool:
    """Whether a described process is known to have ended: it ran on this machine, and does no longer."""
    if not isinstance(worker, dict) or not worker.get("place") or worker["place"] != _place():
        return False
    return bool(_began(int(worker["pid"])) != worker["began"])


def _place() -> str:
    """Mark of processes that can see one another: the boot of a Linux, and the namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """Start of a process, in ticks since the boot; empty where there is none, or it is but a corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class Watch:
    """Beats of the others as one worker has seen them, by its own clock: machines need not agree on the time."""

    def __init__(self, stale_s: float = STALE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.stale_s, self.clock = stale_s, clock
        self._seen: dict[int, tuple[Any, float]] = {}

    def is_lost(self, trial: FrozenTrial) -> bool:
        """Whether nobody looks at a running trial any more: its process is gone, or its beats have stopped."""
        if is_gone(trial.user_attrs.get(WORKER)):
            return True
        beat, now = trial.user_attrs.get(BEAT), self.clock()
        last, since = self._seen.get(trial.number, (None, now))
        if trial.number not in self._seen or last != beat:
            self._seen[trial.number] = (beat, now)
            return False
        return now - since > self.stale_s


@contextmanager
def beating(beat: Callable[[int], None], every_s: float) -> Iterator[None]:
    """Context in which beat(count) is called every so many seconds, in a thread. A beat that fails is left out."""
    stop = threading.Event()

    def run() -> None:
        count = 0
        while not stop.wait(every_s):
            count += 1
            try:
                beat(count)
            except Exception:  # the storage may be out of reach for a while
                continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
