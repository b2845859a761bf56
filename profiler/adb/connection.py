"""The protocol of a connection to a phone, and the answers of its shell."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, Protocol

from netlathe.profiler.errors import DeviceError

State = Literal["ready", "unauthorized", "offline", "busy", "no permission", "unavailable"]


def quote(path: str) -> str:
    """The path, or any other word, as a phone's shell reads it back unchanged: blanks, quotes, dollars and all."""
    return shlex.quote(path)


@dataclass(frozen=True)
class ShellResult:
    """Output and exit code of a finished command. Bytes that are not UTF-8 are replaced. An old phone merges stderr
    into stdout."""

    stdout: str
    stderr: str
    code: int


@dataclass(frozen=True)
class ShellExit:
    """The last item of a stream: how the command ended."""

    code: int
    stderr: str


class AdbConnection(Protocol):
    """A phone that runs commands and takes and gives files. Belongs to one thread; several connections, in several
    threads, may lead to one phone, except over USB.

    All methods raise ConnectionLostError when the link breaks or the phone is gone, CommandTimeoutError when the phone
    is silent for too long, DeviceError when somebody has to do something about it. After each of them the object stays
    usable: the next call connects by itself if it has to, and `reconnect` waits for a phone that comes back.
    """

    address: str
    """Name of the phone, as the user writes it: usb:1A2B, tcp:127.0.0.1:5555, server:1A2B."""

    def run(self, command: str, *, timeout_s: float = 30.0) -> ShellResult:
        """Runs a command to its end. What takes longer than `timeout_s` is hung up (SIGHUP to what it runs)."""

    def stream(self, command: str, *, silence_s: float) -> Generator[str | ShellExit, None, None]:
        """Yields the lines of stdout as they come, without newline, then one ShellExit.

        A command that prints nothing for `silence_s` is hung up. So is one whose stream is closed early.
        """

    def push(
        self, content: bytes, path: str, *, mode: int = 0o644, on_bytes: Callable[[int], None] | None = None
    ) -> None:
        """Writes a file, and the folders to it. `on_bytes` gets how many bytes more have been sent.

        Of `mode` the owner's rights count: ADB gives them to group and others as well. What breaks off leaves a part of
        the file under its name. Raises DeviceError with the phone's reason, such as a
        full storage.
        """

    def pull(self, path: str) -> bytes:
        """A file's content. Raises DeviceError with the phone's reason, such as a missing file."""

    def reconnect(self, timeout_s: float) -> None:
        """Hangs up whatever runs and connects again, trying until `timeout_s` have passed."""

    def close(self) -> None:
        """Hangs up. Safe to call twice."""


class PhoneStateError(DeviceError):
    """A phone that is there but cannot be used until somebody does what the message says."""

    def __init__(self, state: State, message: str) -> None:
        super().__init__(message)
        self.state = state


def unauthorized(address: str) -> PhoneStateError:
    """Error of a phone that does not trust this computer yet, with what to do."""
    return PhoneStateError(
        "unauthorized",
        f"{address} does not allow this computer to debug it: unlock the phone, tap Allow in its USB debugging dialog, "
        "and try again (no dialog: unplug the phone and plug it in again, or revoke USB debugging authorizations in "
        "its developer options)",
    )


def please_allow(address: str, timeout_s: float) -> str:
    """Request to the user while a phone asks whether to trust this computer."""
    return f"{address}: unlock the phone and tap Allow in its USB debugging dialog (waiting up to {timeout_s:g} s)"


def no_permission(address: str) -> PhoneStateError:
    """Error of a USB device that this user may not open, with what to do."""
    return PhoneStateError(
        "no permission",
        f"no permission to open the USB device of {address}: install Android's udev rules (Debian and Ubuntu: "
        "sudo apt install android-sdk-platform-tools-common), join their group (sudo usermod -aG plugdev $USER), log "
        "in again and replug the phone",
    )
