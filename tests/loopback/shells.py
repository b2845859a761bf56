"""ADB's shell services: `shell:`, `shell,v2,...:` and `exec:`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import socket
import struct
import tty
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .processes import Descriptor, Process, Processes
from .streams import Stream

# Packets of the shell protocol: id, length, data.
PACKET = struct.Struct("<BI")
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN, WINDOW_SIZE = range(6)


class ShellHost(Protocol):
    """The part of a phone that shells need."""

    @property
    def environment(self) -> Mapping[str, str]: ...
    def shell_argv(self, command: str) -> Sequence[str]: ...


@dataclass(frozen=True)
class ShellRequest:
    """What a client asks for.

    packets: the shell protocol, which keeps stdout and stderr apart and reports the exit code. terminal: a terminal
    rather than sockets. cooked: a terminal that echoes and edits lines.
    """

    command: str
    packets: bool
    terminal: bool
    cooked: bool
    terminal_type: str = "dumb"

    @classmethod
    def parse(cls, service: str) -> ShellRequest:
        """From the name of the service, such as "shell,v2,TERM=xterm,raw:ls"."""
        name, _, command = service.partition(":")
        kind, *words = name.split(",")
        packets = "v2" in words
        cooked = "pty" in words or (kind == "shell" and not command and "raw" not in words)
        terms = [word.removeprefix("TERM=") for word in words if word.startswith("TERM=")]
        # Without packets a hang-up reaches the command only through a terminal, so adbd always takes one.
        return cls(command, packets, cooked or not packets, cooked, terms[-1] if terms else "dumb")


class Shell:
    """One command that runs on the phone, with its end of the terminal or of the sockets."""

    def __init__(self, host: ShellHost, request: ShellRequest, processes: Processes) -> None:
        open_ends = _open_terminal if request.terminal else _open_sockets
        ours, theirs = open_ends(request)
        argv = host.shell_argv(request.command or "exec sh")
        environment = {**host.environment, "TERM": request.terminal_type}
        try:
            self.process: Process = processes.start(
                argv, environment, stdin_stdout=theirs[0], stderr=theirs[-1], terminal=request.terminal
            )
        except BaseException:
            _close(ours)
            raise
        finally:
            _close(theirs)
        self.is_terminal = request.terminal
        self._number = ours[0]
        self.stdin_stdout = Descriptor(ours[0])
        self.stderr = Descriptor(ours[1]) if len(ours) > 1 else None

    def close_stdin(self) -> None:
        # A terminal cannot close one direction.
        if not self.is_terminal:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._number)) as duplicate:
                duplicate.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """What happens to a foreground command whose client vanishes."""
        with contextlib.suppress(ProcessLookupError):
            self.process.signal_group(signal.SIGHUP)

    def close(self) -> None:
        self.stdin_stdout.close()
        if self.stderr:
            self.stderr.close()


def _open_terminal(request: ShellRequest) -> tuple[list[int], list[int]]:
    master, slave = pty.openpty()
    if not request.cooked:
        tty.setraw(slave)
    return [master], [slave]


def _open_sockets(request: ShellRequest) -> tuple[list[int], list[int]]:
    pairs = [socket.socketpair(), socket.socketpair()]
    return [ours.detach() for ours, _ in pairs], [theirs.detach() for _, theirs in pairs]


def _close(descriptors: list[int]) -> None:
    for number in descriptors:
        os.close(number)


async def serve_shell(stream: Stream, host: ShellHost, request: ShellRequest, processes: Processes) -> None:
    """Runs the command until it ends, or until this task is cancelled, which hangs it up."""
    shell = Shell(host, request, processes)
    stdin = asyncio.create_task(_pass_packets(stream, shell) if request.packets else _pass_bytes(stream, shell))
    outputs = [_pass_output(shell.stdin_stdout, stream, STDOUT if request.packets else None)]
    if shell.stderr:
        outputs.append(_pass_output(shell.stderr, stream, STDERR))
    try:
        # Like adbd, until nobody holds the output any more, be it a background job.
        await asyncio.gather(*outputs)
        code = await asyncio.shield(shell.process.exit_code)
        if request.packets:
            await stream.write(PACKET.pack(EXIT, 1) + bytes([code]))
    finally:
        # Nothing here waits, as the connection may cancel this task a second time.
        shell.hang_up()
        stdin.cancel()
        shell.close()


async def _pass_output(output: Descriptor, stream: Stream, packet: int | None) -> None:
    while data := await output.read():
        await stream.write(data if packet is None else PACKET.pack(packet, len(data)) + data)


async def _pass_bytes(stream: Stream, shell: Shell) -> None:
    while True:
        await _feed(shell, await stream.read())


async def _pass_packets(stream: Stream, shell: Shell) -> None:
    while True:
        packet, length = PACKET.unpack(await stream.read_exactly(PACKET.size))
        data = await stream.read_exactly(length)
        if packet == STDIN:
            await _feed(shell, data)
        elif packet == CLOSE_STDIN:
            shell.close_stdin()
        elif packet == WINDOW_SIZE and shell.is_terminal:
            # "24x80,0x0": rows, columns, pixels.
            rows, columns = data.split(b",")[0].split(b"x")
            shell.stdin_stdout.resize(int(rows), int(columns))


async def _feed(shell: Shell, data: bytes) -> None:
    # A command that does not read its input is no error; the rest of the input is dropped.
    with contextlib.suppress(OSError):
        await shell.stdin_stdout.write(data)
