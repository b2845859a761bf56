"""One campaign at a time per profile file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from profiler.errors import ProfilerError


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keeps other campaigns out of the profile file meanwhile; reading it goes on.

    The lock is a flock on `<path>.lock`: the system releases it even after kill -9, so it is never stale. Raises
    ProfilerError when another process holds it, or where files cannot be locked.
    """
    side = path.with_name(path.name + ".lock")
    try:
        handle = os.open(side, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ProfilerError(f"{side}: the lock file cannot be made ({error}); is the folder writable?") from error
    try:
        _acquire(handle, path)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ProfilerError(
            f"{path}: another campaign is measuring into this file; wait for it to end, or name another file"
        ) from None
    except OSError as error:
        raise ProfilerError(f"{path}: cannot be locked ({error}); keep profile files on a local disk") from error
