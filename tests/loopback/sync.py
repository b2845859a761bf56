"""ADB's file service, `sync:`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from .streams import Stream

# Every request: id and length of the path that follows; also DATA and FAIL with the length of what follows.
REQUEST = struct.Struct("<4sI")
STAT_V1 = struct.Struct("<4s3I")
DENT_V1 = struct.Struct("<4s4I")
# id, error, device, inode, mode, links, uid, gid, size, times of access, modification and change.
STAT_V2 = struct.Struct("<4sI2Q4IQ3q")
DENT_V2 = struct.Struct("<4sI2Q4IQ3qI")
MAX_PATH_BYTES = 1024
MAX_DATA_BYTES = 64 * 1024
READ_BYTES = 15 * MAX_DATA_BYTES

HostPath = Callable[[str], Path]


class _SyncError(Exception):
    """A request failed; the client is told why, and the service ends."""


def _failed(what: str, error: OSError) -> _SyncError:
    return _SyncError(f"{what}: {os.strerror(error.errno or 0)}")


async def serve_sync(stream: Stream, host_path: HostPath) -> None:
    """Answers requests until QUIT, a failure, or the client's CLSE. `host_path` finds a path of the phone."""
    try:
        while True:
            request, length = REQUEST.unpack(await stream.read_exactly(REQUEST.size))
            if length > MAX_PATH_BYTES:
                raise _SyncError("path too long")
            path = (await stream.read_exactly(length)).decode(errors="surrogateescape")
            if request == b"QUIT":
                return
            if request in (b"STAT", b"LST2", b"STA2"):
                await stream.write(_stat(request, host_path(path)))
            elif request in (b"LIST", b"LIS2"):
                await stream.write(_list(request, host_path(path)))
            elif request == b"SEND":
                await _receive_file(stream, path, host_path)
            elif request == b"RECV":
                await _send_file(stream, host_path(path))
            else:
                raise _SyncError(f"unknown command {int.from_bytes(request, 'little'):08x}")
    except _SyncError as error:
        reason = str(error).encode()
        await stream.write(REQUEST.pack(b"FAIL", len(reason)) + reason)
        if request == b"SEND":
            await _skip_data(stream)


def _fields_v2(found: os.stat_result) -> tuple[int, ...]:
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    owner = (found.st_uid, found.st_gid)
    return (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, *owner, found.st_size, *times)


def _fields_v1(found: os.stat_result) -> tuple[int, int, int]:
    # 32 bits for a size: files of 4 GiB and more are reported modulo 2^32.
    return found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime) & 0xFFFFFFFF


def _stat(request: bytes, path: Path) -> bytes:
    try:
        found = path.stat() if request == b"STA2" else path.lstat()
    except OSError as error:
        return STAT_V1.pack(request, 0, 0, 0) if request == b"STAT" else STAT_V2.pack(request, error.errno, *[0] * 10)
    if request == b"STAT":
        return STAT_V1.pack(request, *_fields_v1(found))
    return STAT_V2.pack(request, 0, *_fields_v2(found))


def _list(request: bytes, directory: Path) -> bytes:
    """All entries, then DONE; a directory that cannot be read looks empty."""
    answer = bytearray()
    try:
        names = [".", "..", *os.listdir(directory)]
    except OSError:
        names = []
    for name in names:
        try:
            found = os.lstat(directory / name)
        except OSError:
            # Removed since the directory was read.
            continue
        encoded = os.fsencode(name)
        if request == b"LIST":
            answer += DENT_V1.pack(b"DENT", *_fields_v1(found), len(encoded))
        else:
            answer += DENT_V2.pack(b"DNT2", 0, *_fields_v2(found), len(encoded))
        answer += encoded
    answer += DENT_V1.pack(b"DONE", 0, 0, 0, 0) if request == b"LIST" else DENT_V2.pack(b"DONE", *[0] * 12)
    return bytes(answer)


async def _send_file(stream: Stream, path: Path) -> None:
    try:
        _permit(path, stat.S_IRUSR)
        file = FileIO(path)
    except IsADirectoryError as error:
        raise _failed("read failed", error) from error
    except OSError as error:
        raise _failed("open failed", error) from error
    with file:
        while True:
            content = memoryview(_read(file))
            answer = bytearray()
            for start in range(0, len(content), MAX_DATA_BYTES):
                part = content[start : start + MAX_DATA_BYTES]
                answer += REQUEST.pack(b"DATA", len(part))
                answer += part
            # Together with the last data: a client's adb server delays the second of two small answers by 40 ms.
            if len(content) < READ_BYTES:
                answer += REQUEST.pack(b"DONE", 0)
            await stream.write(bytes(answer))
            if len(content) < READ_BYTES:
                return


def _read(file: FileIO) -> bytes:
    """READ_BYTES, fewer only at the end of the file."""
    content = bytearray()
    try:
        # Files of /proc and /sys come in pieces.
        while len(content) < READ_BYTES and (part := file.read(READ_BYTES - len(content))):
            content += part
    except OSError as error:
        raise _failed("read failed", error) from error
    return bytes(content)


async def _receive_file(stream: Stream, specification: str, host_path: HostPath) -> None:
    """SEND "PATH,MODE": DATA..., DONE with the time of modification.

    Where the client vanishes, what it sent so far stays under the final name.
    """
    name, comma, digits = specification.rpartition(",")
    if not comma:
        raise _SyncError("missing , in ID_SEND_V1")
    try:
        mode = int(digits, 8 if digits.startswith("0") else 10)
    except ValueError:
        raise _SyncError("bad mode") from None
    path = host_path(name)
    replaces = _is_replaceable(path, mode)
    if replaces:
        _remove(path)
    try:
        receive = _receive_link if stat.S_ISLNK(mode) else _receive_content
        modified_s = await receive(stream, path, mode)
    except _SyncError:
        if replaces:
            _remove(path)
        raise
    with contextlib.suppress(OSError):
        os.utime(path, (modified_s, modified_s), follow_symlinks=False)
    await stream.write(REQUEST.pack(b"OKAY", 0))


def _is_replaceable(path: Path, mode: int) -> bool:
    """Whether the path is removed before it is written, and after a failure: devices and directories are not."""
    try:
        there = path.lstat().st_mode
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return stat.S_ISREG(there) or (stat.S_ISLNK(there) and not stat.S_ISLNK(mode))


async def _receive_content(stream: Stream, path: Path, mode: int) -> int:
    """Writes the file; returns the time of modification."""
    with _create(path) as file:
        # The owner's bits for everybody, as adbd gives them.
        mode &= 0o777
        mode |= (mode >> 3) & 0o070
        os.fchmod(file.fileno(), mode | (mode >> 3) & 0o007)
        while True:
            request, length = REQUEST.unpack(await stream.read_exactly(REQUEST.size))
            if request == b"DONE":
                return int(length)
            if request != b"DATA" or length > MAX_DATA_BYTES:
                raise _SyncError("invalid data message")
            rest = memoryview(await stream.read_exactly(length))
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError as error:
                raise _failed("write failed", error) from error


def _create(path: Path) -> FileIO:
    """Opens for writing; what is there already (a device, as files are removed before) is not truncated."""
    try:
        if path.exists():
            _permit(path, stat.S_IWUSR)
            return FileIO(os.open(path, os.O_WRONLY), "wb")
        _make_directories(path.parent)
        _permit(path.parent, stat.S_IWUSR)
        return FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise _failed("couldn't create file", error) from error


def _remove(path: Path) -> None:
    # A file that cannot be removed is found out about when it is written.
    with contextlib.suppress(OSError):
        _permit(path.parent, stat.S_IWUSR)
        path.unlink()


def _permit(path: Path, bit: int) -> None:
    """PermissionError where the owner may not: this process may be root, a phone's shell never is."""
    if not path.stat().st_mode & bit:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _make_directories(directory: Path) -> None:
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    try:
        for one in reversed(missing):
            _permit(one.parent, stat.S_IWUSR)
            one.mkdir()
            one.chmod(0o775)
    except OSError as error:
        raise _failed("secure_mkdirs() failed", error) from error


async def _receive_link(stream: Stream, path: Path, _mode: int) -> int:
    """Makes the symbolic link whose target is the only DATA; returns the time of modification."""
    request, length = REQUEST.unpack(await stream.read_exactly(REQUEST.size))
    if request != b"DATA" or length > MAX_DATA_BYTES:
        raise _SyncError("invalid data message: expected ID_DATA")
    target = (await stream.read_exactly(length)).rstrip(b"\0")
    try:
        _remove(path)
        _make_directories(path.parent)
        _permit(path.parent, stat.S_IWUSR)
        path.symlink_to(os.fsdecode(target))
    except OSError as error:
        raise _failed("symlink failed", error) from error
    request, modified_s = REQUEST.unpack(await stream.read_exactly(REQUEST.size))
    if request != b"DONE":
        raise _SyncError("invalid data message: expected ID_DONE")
    return int(modified_s)


async def _skip_data(stream: Stream) -> None:
    """Takes what a client still sends that has not read of the failure yet."""
    request = b"DATA"
    while request == b"DATA":
        request, length = REQUEST.unpack(await stream.read_exactly(REQUEST.size))
        if request == b"DATA":
            await stream.read_exactly(length)
