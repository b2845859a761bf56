"""Shell and files on top of pipes to a phone's services: all that is the same however the phone is reached.

Round trips over the link to the phone: a command needs one to start, and one more after each packet of output, for ADB
waits for the acknowledgement of each; the exit status is the last packet. A small file needs two each way.
"""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator

from netlathe.profiler.adb import sync
from netlathe.profiler.adb.connection import ShellExit, ShellResult
from netlathe.profiler.adb.shell_protocol import EXIT, STDERR, STDOUT, MarkedShell, ShellCommand, ShellPacket, ShellV2
from netlathe.profiler.adb.sync import Pipe, RefusedError
from netlathe.profiler.errors import CommandTimeoutError, ConnectionLostError, DeviceError

SERVICE_BYTES = 0xFFFF
"""The adb server takes no longer service names, and a service's name holds the command. (Linux takes 131,071 bytes.)"""

RETRY_S = 0.5
CONNECT_S = 10.0
"""Time in which a phone has to answer a greeting."""


class ServiceConnection(ABC):
    """AdbConnection, less how a service is opened and how the phone is found again."""

    address: str
    _has_shell_v2: bool

    @abstractmethod
    def _open(self, service: str, timeout_s: float) -> Pipe:
        """Opens a service on the phone. Raises DeviceError, TimeoutError."""

    @abstractmethod
    def _connect(self, timeout_s: float, auth_timeout_s: float = math.inf) -> None:
        """Hangs up whatever runs and connects, once; a user who is asked has `auth_timeout_s` to allow it, or what the
        connection was made with if that is less. Raises DeviceError."""

    @abstractmethod
    def close(self) -> None:
        """Hangs up."""

    def run(self, command: str, *, timeout_s: float = 30.0) -> ShellResult:
        """See AdbConnection."""
        deadline = time.monotonic() + timeout_s
        outputs = {STDOUT: bytearray(), STDERR: bytearray(), EXIT: bytearray()}
        with contextlib.closing(self._events(command, lambda: deadline - time.monotonic())) as events:
            for kind, data in events:
                outputs[kind] += data
        return ShellResult(_text(outputs[STDOUT]), _text(outputs[STDERR]), outputs[EXIT][0])

    def stream(self, command: str, *, silence_s: float) -> Generator[str | ShellExit, None, None]:
        """See AdbConnection."""
        line = b""
        errors = bytearray()
        with contextlib.closing(self._events(command, lambda: silence_s)) as events:
            for kind, data in events:
                if kind == STDOUT:
                    *complete, line = (line + data).split(b"\n")
                    yield from map(_text, complete)
                elif kind == STDERR:
                    errors += data
                else:
                    if line:
                        yield _text(line)
                    yield ShellExit(data[0], _text(errors))

    def _events(self, command: str, patience_s: Callable[[], float]) -> Generator[ShellPacket, None, None]:
        shell = self._shell(command)
        started = time.monotonic()
        with self._watched(command), contextlib.closing(self._open(shell.service, patience_s())) as pipe:
            while data := pipe.read(patience_s()):
                for event in shell.feed(data):
                    yield event
                    if event[0] == EXIT:
                        return
            after_s = time.monotonic() - started
            raise ConnectionLostError(
                f"{self.address}: {_short(command)} broke off after {after_s:.1f} s without an exit status; "
                "the phone or its cable went away"
            )

    def _shell(self, command: str) -> ShellCommand:
        if "\0" in command:
            raise DeviceError(f"{_short(command)} holds a NUL character, which no shell takes")
        shell = ShellV2(command) if self._has_shell_v2 else MarkedShell(command)
        size = len(shell.service.encode())
        if size > SERVICE_BYTES:
            raise DeviceError(
                f"{_short(command)} is a command of {size:,} bytes and ADB takes {SERVICE_BYTES:,}: "
                "push it as a file and run `sh FILE`"
            )
        return shell

    def push(
        self, content: bytes, path: str, *, mode: int = 0o644, on_bytes: Callable[[int], None] | None = None
    ) -> None:
        """See AdbConnection."""
        with self._sync(f"cannot write {path!r}") as pipe:
            sync.send(pipe, content, path, mode, on_bytes)

    def pull(self, path: str) -> bytes:
        """See AdbConnection."""
        with self._sync(f"cannot read {path!r}") as pipe:
            return sync.receive(pipe, path)

    @contextlib.contextmanager
    def _sync(self, failure: str) -> Iterator[Pipe]:
        try:
            with self._watched("the transfer"), contextlib.closing(self._open("sync:", sync.SILENCE_S)) as pipe:
                yield pipe
        except RefusedError as error:
            full = " (the phone's storage is full: delete something on it)" if "No space left" in str(error) else ""
            raise DeviceError(f"{self.address}: {failure}: {error}{full}") from error

    @contextlib.contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        except ConnectionLostError:
            self.close()  # a phone that goes may still have ended this one service in good order: trust nothing of it
            raise
        except TimeoutError as error:
            waited_s = time.monotonic() - started
            # Also tells a silent command from a phone that is gone: then this raises ConnectionLostError.
            self._connect(CONNECT_S)
            raise CommandTimeoutError(
                f"{self.address}: {_short(what)} was hung up after {waited_s:.1f} s without an answer in time; "
                "is the phone busy, or is the time limit too short?"
            ) from error

    def reconnect(self, timeout_s: float) -> None:
        """See AdbConnection."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                left_s = max(RETRY_S, deadline - time.monotonic())
                self._connect(min(CONNECT_S, left_s), left_s)
                # An adb server may not have noticed yet that the phone is gone: only an answer is proof.
                self.run("true", timeout_s=min(CONNECT_S, left_s))
                return
            except DeviceError as error:
                if time.monotonic() + RETRY_S < deadline:
                    time.sleep(RETRY_S)
                    continue
                if not isinstance(error, ConnectionLostError | CommandTimeoutError):
                    raise
                raise ConnectionLostError(
                    f"{self.address} did not come back within {timeout_s:g} s: {error}"
                ) from error


def _text(data: bytes | bytearray) -> str:
    return data.decode(errors="replace")


def _short(command: str) -> str:
    return repr(command if len(command) <= 60 else f"{command[:57]}...")
