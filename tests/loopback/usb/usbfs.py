"""A device node of Linux's usbfs: the calls that libusb makes on it, answered through umockdev's preload library.

The library connects a socket for each open node and asks there what a call shall give. A call is three words (1, the
request, its argument); the answers are of three words as well: (5, address, length) reads the client's memory,
(6, address, length) and data writes it, (3, result, errno) ends the call.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import threading
from pathlib import Path

from .endpoints import Transfer
from .function import AdbFunction
from .identity import IN_ENDPOINT, OUT_ENDPOINT, Identity

CALL, DONE, READ_MEMORY, WRITE_MEMORY = 1, 3, 5, 6
WORDS = struct.Struct("<3Q")

# The lowest 16 bits of requests: number, and 'U' above it.
(SUBMIT, DISCARD, REAP, CLAIM, RELEASE, IOCTL, RESET, CLEAR_HALT, DISCONNECT, CAPABILITIES, GET_DRIVER) = (
    0x5500 | number for number in (10, 11, 13, 15, 16, 18, 20, 21, 22, 26, 8)
)
# Zero packets, transfers of any size, reaping after a disconnection.
ALL_CAPABILITIES = 0x01 | 0x04 | 0x08 | 0x10

URB = struct.Struct("<BBxxiIxxxxQiiiiiIQ")
CONTROL, BULK = 2, 3


class Urb(Transfer):
    """A transfer that a client has submitted: `address` is where its struct lies, `buffer` where its bytes go."""

    def __init__(self, address: int, kind: int, endpoint: int, buffer: int, length: int) -> None:
        super().__init__(length)
        self.address, self.kind, self.endpoint, self.buffer = address, kind, endpoint, buffer
        self.outgoing = b""

    @property
    def is_in(self) -> bool:
        return bool(self.endpoint & 0x80)


class UsbNode:
    """One device on the bus, until `unplug`. Steered under the function's lock.

    As the preload library does not emulate poll, the node is a pipe of one page. libusb waits until it is writable, so
    it is kept full unless there is something to reap.
    """

    def __init__(self, path: Path, ioctl_socket: Path, function: AdbFunction, identity: Identity) -> None:
        self.function, self.identity = function, identity
        self.is_plugged = True
        self.halted: set[int] = set()
        self.driver = identity.kernel_driver
        self.resets = 0
        self.clients: list[Client] = []
        os.mkfifo(path, 0o666)
        path.chmod(0o666)
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, 4096)
        self._is_full = False
        ioctl_socket.parent.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(ioctl_socket))
        ioctl_socket.chmod(0o666)
        self._listener.listen()
        function.on_change = self.go_on
        self.go_on()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                client = Client(self, connection)
                with self.function.lock:
                    self.clients.append(client)
                threading.Thread(target=client.serve, daemon=True).start()

    def go_on(self) -> None:
        """Moves what can be moved, and tells libusb whether there is something to reap."""
        with self.function.lock:
            for client in self.clients:
                for urb in client.urbs:
                    self._move(urb)
            must_be_full = not any(urb.status is not None for client in self.clients for urb in client.urbs)
            if must_be_full and not self._is_full:
                os.write(self._pipe, b".")
            elif self._is_full and not must_be_full:
                os.read(self._pipe, 4096)
            self._is_full = must_be_full

    def _move(self, urb: Urb) -> None:
        if urb.status is not None:
            return
        if not self.is_plugged:
            urb.status = -errno.ESHUTDOWN
        elif urb.endpoint in self.halted:
            urb.status = -errno.EPIPE
        elif urb.kind == CONTROL:
            answer = self.identity.answer(urb.outgoing[:8])
            urb.data += answer or b""
            urb.status = -errno.EPIPE if answer is None else 0
        elif urb.is_in:
            self.function.inward.fill(urb)
            self.function.taken()
        elif self.function.accepts:
            self.function.receive(urb.outgoing)
            urb.data += urb.outgoing
            urb.status = 0

    def claimant(self, interface: int) -> Client | None:
        return next((client for client in self.clients if interface in client.claimed), None)

    def forget(self, client: Client) -> None:
        with self.function.lock:
            self.clients.remove(client)
            self.go_on()

    def unplug(self) -> None:
        with self.function.lock:
            self.is_plugged = False
            self.function.reset()
            self.go_on()

    def close(self) -> None:
        self.unplug()
        self.function.close()
        self._listener.close()
        with self.function.lock:
            for client in self.clients:
                client.hang_up()
        os.close(self._pipe)


class Client:
    """One open file descriptor of the node."""

    def __init__(self, node: UsbNode, connection: socket.socket) -> None:
        self.node = node
        self.claimed: set[int] = set()
        self.urbs: list[Urb] = []
        self._connection = connection

    def serve(self) -> None:
        """Until the descriptor is closed, or its process is gone."""
        calls = {
            CAPABILITIES: self._capabilities, CLAIM: self._claim, RELEASE: self._release, GET_DRIVER: self._get_driver,
            IOCTL: self._ioctl, SUBMIT: self._submit, DISCARD: self._discard, REAP: self._reap, RESET: self._reset,
            CLEAR_HALT: self._clear_halt,
        }  # fmt: skip
        try:
            while True:
                kind, request, argument = WORDS.unpack(self._receive(WORDS.size))
                with self.node.function.lock:
                    call = calls.get(request & 0xFFFF) if kind == CALL else None
                    failed = call(argument) if call else errno.ENOTTY
                    self.node.go_on()
                self._connection.sendall(WORDS.pack(DONE, 2**64 - 1 if failed else 0, failed))
        except (EOFError, OSError):
            self._connection.close()
            self.node.forget(self)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self._connection.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def _read(self, address: int, count: int) -> bytes:
        self._connection.sendall(WORDS.pack(READ_MEMORY, address, count))
        return self._receive(count)

    def _write(self, address: int, data: bytes) -> None:
        if data:
            self._connection.sendall(WORDS.pack(WRITE_MEMORY, address, len(data)) + data)

    def _number(self, address: int) -> int:
        return int.from_bytes(self._read(address, 4), "little")

    # The calls: each gives an errno, 0 where it succeeds

    def _capabilities(self, argument: int) -> int:
        self._write(argument, struct.pack("<I", ALL_CAPABILITIES))
        return 0

    def _claim(self, argument: int) -> int:
        interface = self._number(argument)
        if not self.node.is_plugged:
            return errno.ENODEV
        if interface not in self.node.identity.interfaces:
            return errno.EINVAL
        holder = self.node.claimant(interface)
        if holder not in (None, self) or (self.node.driver and interface == self.node.identity.adb_interface):
            return errno.EBUSY
        self.claimed.add(interface)
        return 0

    def _release(self, argument: int) -> int:
        interface = self._number(argument)
        if interface not in self.claimed:
            return errno.EINVAL
        self.claimed.discard(interface)
        return 0

    def _get_driver(self, argument: int) -> int:
        interface = self._number(argument)
        is_ours = interface == self.node.identity.adb_interface
        name = "usbfs" if self.node.claimant(interface) else self.node.driver if is_ours else ""
        if not name:
            return errno.ENODATA
        self._write(argument + 4, name.encode() + b"\0")
        return 0

    def _ioctl(self, argument: int) -> int:
        """Of these, only the request to take an interface away from its kernel driver."""
        interface, request, _ = struct.unpack("<iIQ", self._read(argument, 16))
        if request & 0xFFFF != DISCONNECT:
            return errno.ENOTTY
        if not self.node.driver or interface != self.node.identity.adb_interface:
            return errno.ENODATA
        self.node.driver = ""
        return 0

    def _submit(self, argument: int) -> int:
        if not self.node.is_plugged:
            return errno.ENODEV
        kind, endpoint, _, _, buffer, length, *_ = URB.unpack(self._read(argument, URB.size))
        urb = Urb(argument, kind, endpoint, buffer, length)
        if kind == BULK and (
            endpoint not in (IN_ENDPOINT, OUT_ENDPOINT) or self.node.identity.adb_interface not in self.claimed
        ):
            return errno.ENOENT
        if kind == CONTROL or not urb.is_in:
            urb.outgoing = self._read(buffer, length) if length else b""
        self.urbs.append(urb)
        return 0

    def _discard(self, argument: int) -> int:
        for urb in self.urbs:
            if urb.address == argument and urb.status is None:
                urb.status = -errno.ENOENT
                return 0
        return errno.EINVAL

    def _reap(self, argument: int) -> int:
        urb = next((urb for urb in self.urbs if urb.status is not None), None)
        if urb is None:
            return errno.EAGAIN if self.node.is_plugged else errno.ENODEV
        self.urbs.remove(urb)
        if urb.kind == CONTROL:
            self._write(urb.buffer + 8, bytes(urb.data))
        elif urb.is_in:
            self._write(urb.buffer, bytes(urb.data))
        self._write(urb.address + 4, struct.pack("<i", urb.status))
        self._write(urb.address + 28, struct.pack("<i", len(urb.data)))
        self._write(argument, struct.pack("<Q", urb.address))
        return 0

    def _reset(self, _: int) -> int:
        self.node.resets += 1
        self.node.function.reset()
        self.node.halted.clear()
        return 0 if self.node.is_plugged else errno.ENODEV

    def _clear_halt(self, argument: int) -> int:
        self.node.halted.discard(self._number(argument))
        return 0
