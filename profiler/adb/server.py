"""A phone through an adb server that runs on this computer: the server's smart-socket protocol.

One TCP connection per service. Each request is four hexadecimal digits of length and text, answered by OKAY, or by FAIL
and a reason.
"""

from __future__ import annotations

import math
import os
import re
import select
import socket
import time
import weakref
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

from netlathe.profiler.adb.connection import PhoneStateError, no_permission, please_allow, unauthorized
from netlathe.profiler.adb.services import CONNECT_S, RETRY_S, ServiceConnection
from netlathe.profiler.errors import ConnectionLostError, DeviceError

RECEIVE_BYTES = 1 << 18
ROW = re.compile(r"(?P<serial>\S+)\s+(?P<state>no permissions|\S+)(?P<rest>.*)")


class SocketPipe:
    """A connection to the adb server, which is one to the phone once a service is open."""

    def __init__(self, place: tuple[str, int], timeout_s: float) -> None:
        try:
            self._socket = socket.create_connection(place, timeout=max(timeout_s, 0.01))
        except TimeoutError:
            raise
        except OSError as error:
            host, port = place
            raise DeviceError(
                f"no adb server at {host}:{port} ({error.strerror or error}); start it (adb start-server; for other "
                "computers: adb -a nodaemon server), or name the phone as usb:SERIAL or tcp:HOST:PORT"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, timeout_s: float) -> bytes:
        """The next bytes; none at the end."""
        return self._receive(RECEIVE_BYTES, timeout_s)

    def write(self, data: bytes, timeout_s: float) -> None:
        """Sends all of the data."""
        try:
            self._limit(timeout_s)
            self._socket.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLostError(f"the adb server closed the connection ({error}); connect again") from error

    def has_input(self) -> bool:
        """Whether there is something to read, or the server has hung up."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        """Hangs up; the server tells the phone."""
        self._socket.close()

    def exactly(self, count: int, timeout_s: float) -> bytes:
        """Receives exactly so many bytes."""
        data = b""
        while len(data) < count:
            piece = self._receive(count - len(data), timeout_s)
            if not piece:
                raise ConnectionLostError("the adb server closed the connection; connect again")
            data += piece
        return data

    def _receive(self, count: int, timeout_s: float) -> bytes:
        try:
            self._limit(timeout_s)
            return self._socket.recv(count)
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLostError(f"lost the adb server ({error}); connect again") from error

    def _limit(self, timeout_s: float) -> None:
        if timeout_s <= 0:
            raise TimeoutError("the time is up")
        self._socket.settimeout(timeout_s)


@dataclass(frozen=True)
class ListedPhone:
    """A line of `adb devices -l`: the state in the server's words, the model as far as it knows it."""

    serial: str
    state: str
    model: str


@dataclass(frozen=True)
class AdbServer:
    """Adb server, by where it listens."""

    host: str
    port: int

    def open(self, *requests: str, timeout_s: float, phone: str = "the phone") -> SocketPipe:
        """A connection on which all requests were answered by OKAY. Raises DeviceError, TimeoutError."""
        deadline = time.monotonic() + timeout_s
        pipe = SocketPipe((self.host, self.port), timeout_s)
        try:
            for request in requests:  # one by one: the server throws away what follows a change of transport
                content = request.encode()
                pipe.write(b"%04x" % len(content) + content, deadline - time.monotonic())
                status = pipe.exactly(4, deadline - time.monotonic())
                if status == b"FAIL":
                    raise refusal(_read_text(pipe, deadline), phone)
                if status != b"OKAY":
                    raise DeviceError(f"{self.host}:{self.port} answers {status!r}: that is not an adb server")
        except BaseException:
            pipe.close()
            raise
        return pipe

    def ask(self, request: str, timeout_s: float, phone: str = "the phone") -> str:
        """The server's answer to a question. Raises DeviceError."""
        deadline = time.monotonic() + timeout_s
        try:
            with closing(self.open(request, timeout_s=timeout_s, phone=phone)) as pipe:
                return _read_text(pipe, deadline)
        except TimeoutError as error:
            raise ConnectionLostError(
                f"the adb server at {self.host}:{self.port} does not answer within {timeout_s:g} s; "
                "restart it (adb kill-server; adb start-server)"
            ) from error

    def phones(self, timeout_s: float) -> list[ListedPhone]:
        """Phones that the server knows. Raises DeviceError."""
        rows = map(ROW.match, self.ask("host:devices-l", timeout_s).splitlines())
        return [
            ListedPhone(row["serial"], row["state"], _word(row["rest"], "model").replace("_", " "))
            for row in rows
            if row
        ]


def running_server(host: str = "", port: int = 0) -> AdbServer:
    """Server of that host, by default of this computer, at that port, by default where adb would look for it. Raises
    DeviceError."""
    host = host or "127.0.0.1"
    if port:
        return AdbServer(host, port)
    text = os.environ.get("ANDROID_ADB_SERVER_PORT") or "5037"
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**16):
        raise DeviceError(f"ANDROID_ADB_SERVER_PORT={text!r} is not a port from 1 to 65535; unset or correct it")
    return AdbServer(host, int(text))


def refusal(reason: str, phone: str) -> DeviceError:
    """The server's reason for a FAIL, or its word for a phone's state, as an error that says what to do."""
    if re.search(r"unauthorized|authorizing", reason):
        return unauthorized(phone)
    if re.search(r"no permissions|insufficient permissions", reason):
        return no_permission(phone)
    first = reason.strip().partition("\n")[0]
    if re.search(r"offline|connecting|closed|not found|no devices", reason):
        return ConnectionLostError(
            f"{phone}: the adb server says {first!r}; check the cable, unlock the phone, see what `adb devices` lists"
        )
    return DeviceError(f"{phone}: the adb server says {first!r}; see what `adb devices` lists")


class ServerConnection(ServiceConnection):
    """An AdbConnection through the adb server. Looks for the phone when it is made; raises DeviceError.

    `serial` is the phone's name in `adb devices`; None takes the only one. `on_authorize` gets a line for the user once
    the phone asks whether to trust this computer, for which there are `auth_timeout_s` seconds.
    """

    def __init__(
        self,
        serial: str | None,
        server: AdbServer | None = None,
        *,
        on_authorize: Callable[[str], None] | None = None,
        auth_timeout_s: float = 60.0,
        connect_timeout_s: float = CONNECT_S,
        way: str = "server",
    ) -> None:
        """`way` is what the phone's address begins with."""
        self._server, self._way = server or running_server(), way
        self._serial = serial or self._only_phone()
        self.address = f"{way}:{self._serial}"
        self._on_authorize = on_authorize
        self._auth_timeout_s = auth_timeout_s
        self._was_ready = False
        self._pipes: weakref.WeakSet[SocketPipe] = weakref.WeakSet()
        self._connect(connect_timeout_s)

    def close(self) -> None:
        for pipe in list(self._pipes):
            pipe.close()

    def _only_phone(self) -> str:
        serials = [phone.serial for phone in self._server.phones(CONNECT_S)]
        if len(serials) == 1:
            return serials[0]
        if not serials:
            raise DeviceError("the adb server knows no phone; plug one in and turn on USB debugging")
        names = ", ".join(serials)
        raise DeviceError(f"the adb server knows several phones; name one as {self._way}:SERIAL: {names}")

    def _open(self, service: str, timeout_s: float) -> SocketPipe:
        requests = (f"host:transport:{self._serial}", service)
        pipe = self._server.open(*requests, timeout_s=timeout_s, phone=self.address)
        self._pipes.add(pipe)
        return pipe

    def _connect(self, timeout_s: float, auth_timeout_s: float = math.inf) -> None:
        self.close()
        deadline: float | None = None
        while True:
            try:
                return self._find(timeout_s)
            except PhoneStateError as error:
                if error.state != "unauthorized" or (deadline is not None and time.monotonic() > deadline):
                    raise
            if deadline is None:
                patience_s = min(auth_timeout_s, self._auth_timeout_s)
                deadline = time.monotonic() + patience_s
                if self._on_authorize is not None:
                    self._on_authorize(please_allow(self.address, patience_s))
            time.sleep(RETRY_S)

    def _find(self, timeout_s: float) -> None:
        try:
            self._demand_device(timeout_s)
        except ConnectionLostError:
            if not (self._was_ready and ":" in self._serial):
                raise
            # The server itself looks for a lost network phone only every 10 s, and forgets it after a minute.
            with suppress(DeviceError):
                self._server.ask(f"host:disconnect:{self._serial}", timeout_s)
            self._server.ask(f"host:connect:{self._serial}", timeout_s)
            self._demand_device(timeout_s)
        self._has_shell_v2 = "shell_v2" in self._ask("features", timeout_s).split(",")
        self._was_ready = True

    def _demand_device(self, timeout_s: float) -> None:
        state = self._ask("get-state", timeout_s)
        if state != "device":  # offline, recovery, sideload, ...
            raise refusal(state, self.address)

    def _ask(self, question: str, timeout_s: float) -> str:
        return self._server.ask(f"host-serial:{self._serial}:{question}", timeout_s, self.address)


def _read_text(pipe: SocketPipe, deadline: float) -> str:
    length = pipe.exactly(4, deadline - time.monotonic())
    try:
        count = int(length, 16)
    except ValueError as error:
        raise DeviceError(f"{length!r} instead of a length: that is not an adb server") from error
    return pipe.exactly(count, deadline - time.monotonic()).decode(errors="replace")


def _word(text: str, key: str) -> str:
    found = re.search(rf"\b{key}:(\S+)", text)
    return found[1] if found else ""
