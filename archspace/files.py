"""Files: read only where they are plain ones, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netlathe.archspace.errors import FormatError

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


def digest(content: bytes | str, digits: int = 16) -> str:
    """Digest of a content (text in UTF-8): the first hexadecimal digits of its SHA-256."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:digits]


def cache_directory() -> Path:
    """$XDG_CACHE_HOME/netlathe, or ~/.cache/netlathe where that is unset or relative."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "netlathe"


def odd_kind(path: str | Path) -> str | None:
    """The kind of thing that stands there instead of a plain file, links followed: 'a folder', 'a named pipe', ...;
    None for a file. Raises OSError where there is nothing, or it cannot be looked at."""
    mode = os.stat(path).st_mode
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no plain file")


def check_plain(path: str | Path) -> None:
    """Raises FormatError for what is no plain file: reading a pipe might never end. OSError where there is nothing."""
    kind = odd_kind(path)
    if kind:
        raise FormatError(f"{path}: cannot be read, as it is {kind}, and no file")


def read_whole(path: str | Path, most_bytes: int) -> bytes:
    """A plain file's content. Raises FormatError for one of more bytes or of another kind, OSError for the system's
    own complaints."""
    check_plain(path)
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size  # asking for more would take the memory for it
        content = b"" if size > most_bytes else stream.read(size)
    if size > most_bytes:
        raise FormatError(f"{path}: is larger than {most_bytes >> 20} MB, the most that such a file may have")
    return content


@contextmanager
def writing(path: str | Path, *, durable: bool = False, makes_folder: bool = True) -> Iterator[Path]:
    """A file to fill in place of `path`, which it replaces at the end of the with statement: readers see the old file
    or the new one, whole; after an error the old one stays, and nothing else.

    Links are followed, missing folders are made if `makes_folder`, permissions kept. It is filled in a private folder
    beside the target, under the same ending. With `durable`, it is on the disk at the end. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and (kind := odd_kind(target)):
        raise OSError(errno.EINVAL, f"is {kind}, and cannot be replaced by a file", str(path))
    if makes_folder:
        target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_prefix(target), dir=target.parent) as folder:
        part = Path(folder) / f"part{target.suffix}"
        yield part
        if target.exists():
            shutil.copymode(target, part)
        if durable:
            _sync(part)
        os.replace(part, target)
    if durable and os.name == "posix":
        _sync(target.parent)  # the rename itself


def write_whole(path: str | Path, content: bytes | str, *, durable: bool = False, makes_folder: bool = True) -> None:
    """Writes a file of that content (text in UTF-8), whole or not at all. Raises OSError, as `writing`."""
    with writing(path, durable=durable, makes_folder=makes_folder) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def sweep(path: str | Path) -> None:
    """Removes what a program that was killed while it wrote this file has left beside it."""
    target = Path(os.path.realpath(path))
    prefix = _prefix(target)
    if target.parent.is_dir():
        for entry in os.scandir(target.parent):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)


def _prefix(target: Path) -> str:
    """Prefix of the private folder's name; hidden, and too short for any file system to refuse."""
    return f".{target.name[:40]}.part-"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
