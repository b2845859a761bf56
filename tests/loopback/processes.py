"""Processes of a phone's shells, and their descriptors, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence

READ_BYTES = 1 << 18


class Descriptor:
    """A socket or the master of a terminal, read and written without blocking."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._closed = False
        self._loop = asyncio.get_running_loop()
        os.set_blocking(number, False)

    async def read(self) -> bytes:
        """What is there; no bytes at the end."""
        while True:
            try:
                return os.read(self._number, READ_BYTES)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError as error:
                # A terminal whose programs are gone says EIO; a socket whose peer left unread bytes, ECONNRESET.
                if error.errno in (errno.EIO, errno.ECONNRESET):
                    return b""
                raise

    async def write(self, data: bytes) -> None:
        """Writes everything; BrokenPipeError or OSError(EIO) where nobody can read it."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._number, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def close(self) -> None:
        self._closed = True
        self._loop.remove_reader(self._number)
        self._loop.remove_writer(self._number)
        os.close(self._number)

    async def _ready(self, watch: Callable[[int, Callable[[], object]], None], unwatch: Callable[[int], bool]) -> None:
        ready = asyncio.Event()
        watch(self._number, ready.set)
        try:
            await ready.wait()
        finally:
            # Once closed, the number may be another file's.
            if not self._closed:
                unwatch(self._number)


class Process:
    """A running process that leads a process group of its own."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(child.pid)
        self.exit_code: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._child.wait()
        # A shell's way to say "killed by signal N".
        self.exit_code.set_result(128 - code if code < 0 else code)

    def signal_group(self, number: signal.Signals) -> None:
        """Signals the process and all in its group; children that made a session or a group of their own live on."""
        if self.exit_code.done():
            return
        try:
            os.killpg(self._child.pid, number)
        except ProcessLookupError:
            # `setsid -c` has not come to make the group yet.
            os.kill(self._child.pid, number)


class Processes:
    """Starts processes, and ends what is left of them."""

    def __init__(self) -> None:
        self._running: set[Process] = set()

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], *, stdin_stdout: int, stderr: int, terminal: bool
    ) -> Process:
        """Starts `argv` in a session of its own, with `stdin_stdout` as its controlling terminal if it is one."""
        # By full path: the PATH in `environment` is the phone's.
        prefix = [_host_tool("setsid"), "-c"] if terminal else []
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            # A daemon under nohup: its shells must hear the hang-up all the same.
            prefix += [_host_tool("env"), "--default-signal=HUP"]
        child = subprocess.Popen(
            [*prefix, *argv],
            env=environment,
            stdin=stdin_stdout,
            stdout=stdin_stdout,
            stderr=stderr,
            start_new_session=not terminal,
        )
        process = Process(child)
        self._running.add(process)
        process.exit_code.add_done_callback(lambda _: self._running.discard(process))
        return process

    async def kill_all(self, timeout_s: float = 10.0) -> None:
        running = list(self._running)
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.signal_group(signal.SIGKILL)
        if running:
            await asyncio.wait([process.exit_code for process in running], timeout=timeout_s)


def _host_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"no {name} here (Debian: apt install util-linux coreutils)")
    return path
