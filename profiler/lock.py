"""Lock for one process at a time: a campaign per profile file and setup, a run per folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from netlathe.archspace.errors import NetlatheError
from netlathe.profiler.errors import ProfilerError


@contextmanager
def exclusive(path: Path, name: str, refusal: str, kind: type[NetlatheError] = ProfilerError) -> Iterator[None]:
    """Keeps others who ask for the same path and name out meanwhile.

    The lock is the system's on `<path>.<name>.lock`, which releases it even after kill -9, so it is never stale. Raises
    an error of this kind, with the words of `refusal` when another process holds it, or where files cannot be locked.
    """
    side = path.with_name(f"{path.name}.{name}.lock")
    lock = FileLock(side, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise kind(refusal) from None
    except (OSError, NotImplementedError) as error:
        raise kind(f"{side}: cannot be locked ({error}); is the folder writable, and on a local disk?") from error
    try:
        yield
    finally:
        with suppress(OSError):  # where an open file cannot be removed, the lock does it; who waits for it looks again
            side.unlink()
        lock.release()
