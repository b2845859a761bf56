"""A phone over its USB cable or over TCP, through adb-shell, without an adb server."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from adb_shell import exceptions
from adb_shell.adb_device import AdbDevice
from adb_shell.transport.base_transport import BaseTransport

from netlathe.profiler.adb.adb_pipe import GARBLED, AdbPipe
from netlathe.profiler.adb.cable import Cable, DisturbedError
from netlathe.profiler.adb.connection import please_allow, unauthorized
from netlathe.profiler.adb.keys import load_or_create_key
from netlathe.profiler.adb.services import CONNECT_S, RETRY_S, ServiceConnection
from netlathe.profiler.errors import ConnectionLostError, DeviceError

ATTEMPTS = 5
"""A phone may first deliver what it still had to say to a program that was killed, and any link may break."""


class _BrokeOffError(ConnectionLostError):
    """The link broke within the greeting, which something had begun to answer, or would have."""


class _NonsenseError(ConnectionLostError):
    """Answer that no phone gives."""


class _SilentError(ConnectionLostError):
    """Nobody answers the greeting."""


class DirectConnection(ServiceConnection):
    """An AdbConnection that speaks to the phone itself. Connects when it is made; raises DeviceError.

    `transport` makes a fresh transport of adb-shell for each attempt. `reset`, where that can be done, ends half a
    message that the phone waits for the rest of. `on_authorize` gets a line for the user once the phone asks whether to
    trust this computer, for which there are `auth_timeout_s` seconds.
    """

    def __init__(
        self,
        transport: Callable[[], BaseTransport],
        address: str,
        *,
        reset: Callable[[], None] | None = None,
        key_path: Path | None = None,
        on_authorize: Callable[[str], None] | None = None,
        auth_timeout_s: float = 60.0,
        connect_timeout_s: float = CONNECT_S,
    ) -> None:
        self.address = address
        self._transport, self._reset = transport, reset
        self._key = load_or_create_key(key_path)
        self._on_authorize = on_authorize
        self._auth_timeout_s = auth_timeout_s
        self._cable: Cable | None = None
        self._connect(connect_timeout_s)

    def close(self) -> None:
        if self._cable is not None:
            self._cable.close()
        self._cable = None

    def _open(self, service: str, timeout_s: float) -> AdbPipe:
        if self._cable is None or self._cable.is_broken:
            self._connect(CONNECT_S)
        assert self._cable is not None
        return AdbPipe(self._device, self._cable, service, timeout_s)

    def _connect(self, timeout_s: float, auth_timeout_s: float = math.inf) -> None:
        auth_timeout_s = min(auth_timeout_s, self._auth_timeout_s)
        if self._reset is None:
            return self._greet_through_leftovers(timeout_s, auth_timeout_s)
        try:
            return self._greet_through_leftovers(timeout_s / 2, auth_timeout_s)
        except _SilentError:
            self._reset()
        return self._greet_through_leftovers(timeout_s / 2, auth_timeout_s)

    def _greet_through_leftovers(self, timeout_s: float, auth_timeout_s: float) -> None:
        for _ in range(ATTEMPTS):
            try:
                return self._greet(timeout_s, auth_timeout_s)
            except _NonsenseError as error:
                failure: ConnectionLostError = error
            except (_BrokeOffError, DisturbedError) as error:
                failure = error
                time.sleep(RETRY_S)
        raise failure

    def _greet(self, timeout_s: float, auth_timeout_s: float) -> None:
        self.close()
        cable = self._cable = Cable(self._transport(), self.address)
        self._device = AdbDevice(cable)
        asked = False

        def ask(_: object) -> None:
            nonlocal asked
            asked = True
            if self._on_authorize is not None:
                self._on_authorize(please_allow(self.address, auth_timeout_s))

        try:
            self._device.connect(
                rsa_keys=[self._key],
                transport_timeout_s=timeout_s,
                auth_timeout_s=auth_timeout_s,
                read_timeout_s=timeout_s + auth_timeout_s,
                auth_callback=ask,
            )
        except (TimeoutError, exceptions.AdbTimeoutError, ConnectionLostError) as error:
            self.close()
            if asked:
                raise unauthorized(self.address) from error
            if not isinstance(error, ConnectionLostError):
                raise _silent(self.address, cable, timeout_s) from error
            if cable.has_connected:
                raise _BrokeOffError(str(error)) from error
            raise
        except GARBLED as error:
            self.close()
            raise _nonsense(self.address, cable.heard()) from error
        except BaseException:
            self.close()
            raise
        self._has_shell_v2 = "shell_v2" in cable.features()


def _silent(address: str, cable: Cable, timeout_s: float) -> _SilentError:
    """Error of a phone, or something else, that says nothing, with what to do."""
    if not address.startswith("tcp:"):
        remedy = "unlock the phone, check that USB debugging is on, and replug it"
    elif cable.has_connected:
        remedy = (
            "unlock the phone, check that USB debugging is on; if nothing helps, something else than a phone's ADB "
            "listens there (a phone's port is 5555 after adb tcpip 5555)"
        )
    else:
        remedy = "is the phone on, in this network, and the address right?"
    return _SilentError(f"{address} does not answer within {timeout_s:g} s; {remedy}")


def _nonsense(address: str, heard: bytes) -> DeviceError:
    """Error of what does not speak as a phone does, with what to do. A _NonsenseError may be worth another attempt."""
    place = address.removeprefix("tcp:")
    host = place.rpartition(":")[0]
    if heard.startswith(b"STLS"):
        return DeviceError(
            f"{address} is a phone's wireless debugging port, which takes only paired computers, through adb: pair "
            f"this one once (adb pair {host}:PORT, with the port and code that the phone shows under Wireless "
            f"debugging, Pair device with pairing code), then `adb connect {place}`, and name the phone as "
            f"--device server:{place}; or, over its cable, `adb tcpip 5555`, and name it as tcp:{host}"
        )
    if heard.startswith(b"HTTP/"):
        return DeviceError(
            f"{address} is a web server, not a phone; check the address and the port (a phone's is 5555 after "
            "`adb tcpip 5555`, once, over its cable)"
        )
    remedy = "check the address and the port" if address.startswith("tcp:") else "replug it"
    return _NonsenseError(f"{address} does not answer as a phone's ADB does, but {heard[:24]!r}; {remedy}")
