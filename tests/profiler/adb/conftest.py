"""A phone on 127.0.0.1, and the three ways to reach it: TCP, USB, and a real adb server of our own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_shell.transport.base_transport import BaseTransport
from loopback.adbd import AdbDaemon
from loopback.phone import LoopbackPhone, loopback_unavailable
from loopback.private_adb import Adb, wait_until
from loopback.usb.double import UsbDevice

from netlathe.profiler.adb import AdbConnection
from netlathe.profiler.adb.direct import DirectConnection
from netlathe.profiler.adb.keys import load_or_create_key
from netlathe.profiler.adb.server import ServerConnection
from netlathe.profiler.adb.socket_transport import SocketTransport
from netlathe.profiler.adb.usb import UsbTransport


@pytest.fixture(scope="session")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPhone]:
    """One phone for all tests here, with 64 MB for files."""
    if reason := loopback_unavailable():
        pytest.skip(reason)
    with LoopbackPhone(tmp_path_factory.mktemp("phone"), data_mb=64) as phone:
        yield phone


@pytest.fixture
def daemon(phone: LoopbackPhone) -> Iterator[AdbDaemon]:
    with AdbDaemon(phone) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose keys are used."""
    home = tmp_path_factory.mktemp("home")
    load_or_create_key(home / ".android" / "adbkey")
    return home


@pytest.fixture(scope="session")
def adb(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    if not shutil.which("adb"):
        pytest.skip("there is no adb on this computer")
    adb = Adb(home, tmp_path_factory.mktemp("adb"))
    try:
        adb("start-server")
        yield adb
    finally:
        adb("kill-server")
        wait_until(lambda: not adb.listens())


Connect = Callable[..., AdbConnection]
"""Takes a daemon and the options that both kinds of connection have."""


@pytest.fixture(params=["tcp", "usb", "server"])
def connect(request: pytest.FixtureRequest, home: Path) -> Iterator[Connect]:
    """Makes connections, and closes them at the end."""
    adb: Adb | None = request.getfixturevalue("adb") if request.param == "server" else None
    made: list[AdbConnection] = []
    serials: set[str] = set()

    def transport(daemon: AdbDaemon) -> Callable[[], BaseTransport]:
        if request.param == "tcp":
            return lambda: SocketTransport("127.0.0.1", daemon.port)
        device = UsbDevice("1A2B", daemon.port, is_plugged=lambda: daemon.is_plugged)
        setting = next(device.iterSettings())
        return lambda: UsbTransport(device, setting)

    def make(daemon: AdbDaemon, **options: object) -> AdbConnection:
        serial = f"127.0.0.1:{daemon.port}"
        if adb is None:
            key = home / ".android" / "adbkey"
            made.append(DirectConnection(transport(daemon), daemon.address, key_path=key, **options))
        else:
            if serial not in serials:
                serials.add(serial)
                adb("connect", serial)
            made.append(ServerConnection(serial, adb.server, **options))
        return made[-1]

    yield make
    for connection in made:
        connection.close()
    for serial in serials:
        adb("disconnect", serial)
