"""One campaign at a time per profile file and setup: several phones may fill one file side by side."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from profiler.errors import ProfilerError


@contextmanager
def exclusive(path: Path, name: str, refusal: str) -> Iterator[None]:
    """Keeps others who ask for the same path and name out meanwhile.

    The lock is a flock on `<path>.<name>.lock`: the system releases it even after kill -9, so it is never stale. Raises
    ProfilerError with the words of `refusal` when another process holds it, or where files cannot be locked.
    """
    side = path.with_name(f"{path.name}.{name}.lock")
    handle = _open(side)
    try:
        _acquire(handle, side, refusal)
        # Whoever held it before may have removed the file in between: then this is a lock on nothing.
        while not _is_at(handle, side):
            os.close(handle)
            handle = _open(side)
            _acquire(handle, side, refusal)
        try:
            yield
        finally:
            side.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _open(side: Path) -> int:
    try:
        return os.open(side, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ProfilerError(f"{side}: the lock file cannot be made ({error}); is the folder writable?") from error


def _is_at(handle: int, side: Path) -> bool:
    try:
        there = side.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle), there)


def _acquire(handle: int, side: Path, refusal: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ProfilerError(refusal) from None
    except OSError as error:
        raise ProfilerError(f"{side}: cannot be locked ({error}); keep it on a local disk") from error
