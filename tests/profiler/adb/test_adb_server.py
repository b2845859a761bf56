"""What only a connection through an adb server does."""

import socket
import threading
from collections.abc import Iterator

import pytest
from loopback.adbd import AdbDaemon
from loopback.private_adb import Adb, wait_until

from netlathe.profiler.adb import open_connection
from netlathe.profiler.adb.connection import PhoneStateError
from netlathe.profiler.adb.server import AdbServer, ServerConnection, refusal, running_server
from netlathe.profiler.errors import ConnectionLostError, DeviceError


def test_no_server_says_how_to_start_one() -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(DeviceError, match=r"no adb server at 127\.0\.0\.1:\d+.*adb start-server"):
            ServerConnection("1A2B", AdbServer("127.0.0.1", taken.getsockname()[1]))


@pytest.fixture
def other_server() -> Iterator[tuple[AdbServer, list[bytes]]]:
    """A server that is none of adb's: answers each connection with the next of these, then hangs up."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                peer, _ = listener.accept()
                with peer:
                    if not peer.recv(4096):
                        return
                    peer.sendall(answers.pop(0))

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        yield AdbServer("127.0.0.1", port), answers
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 400 Bad Request", "not an adb server"),
        (b"OKAYnope", "not an adb server"),
        (b"", "closed the connection"),
        (b"OKAY0010half", "closed the connection"),
        (b"FAIL001amore than one device/emulator", "more than one"),
    ],
)
def test_other_programs_at_its_port_are_noticed(
    other_server: tuple[AdbServer, list[bytes]], answer: bytes, message: str
) -> None:
    server, answers = other_server
    answers.append(answer)
    with pytest.raises(DeviceError, match=message):
        ServerConnection("1A2B", server)


def test_a_server_that_says_nothing() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ConnectionLostError, match=r"does not answer within 0\.2 s; restart it"),
    ):
        AdbServer("127.0.0.1", listener.getsockname()[1]).phones(timeout_s=0.2)


@pytest.mark.parametrize(
    ("reason", "kind", "state", "advice"),
    [
        (
            "device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set",
            PhoneStateError,
            "unauthorized",
            "Allow",
        ),
        ("device still authorizing", PhoneStateError, "unauthorized", "Allow"),
        ("insufficient permissions for device", PhoneStateError, "no permission", "udev"),
        ("no permissions", PhoneStateError, "no permission", "udev"),
        ("device offline", ConnectionLostError, None, "cable"),
        ("device 'X' not found", ConnectionLostError, None, "adb devices"),
        ("no devices/emulators found", ConnectionLostError, None, "adb devices"),
        ("closed", ConnectionLostError, None, "cable"),
        ("recovery", DeviceError, None, "recovery"),
        ("more than one device/emulator", DeviceError, None, "more than one"),
    ],
)
def test_the_servers_words_become_advice(reason: str, kind: type, state: str | None, advice: str) -> None:
    error = refusal(reason, "server:X")
    assert type(error) is kind
    assert getattr(error, "state", None) == state
    assert "server:X" in str(error)
    assert advice in str(error)
    assert "\n" not in str(error)


def test_the_port_is_where_adb_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_ADB_SERVER_PORT", raising=False)
    assert running_server() == AdbServer("127.0.0.1", 5037)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "5038")
    assert running_server().port == 5038
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "many")
    with pytest.raises(DeviceError, match="ANDROID_ADB_SERVER_PORT='many'"):
        running_server()


def test_an_unknown_phone_is_named(adb: Adb) -> None:
    with pytest.raises(ConnectionLostError, match=r"server:NOWHERE.*not found.*adb devices"):
        ServerConnection("NOWHERE", adb.server)


def test_the_only_phone_needs_no_name_but_one_of_two_does(adb: Adb, daemon: AdbDaemon) -> None:
    with pytest.raises(DeviceError, match="knows no phone"):
        ServerConnection(None, adb.server)
    first = f"127.0.0.1:{daemon.port}"
    with AdbDaemon(daemon.phone) as other:
        second = f"127.0.0.1:{other.port}"
        try:
            adb("connect", first)
            connection = ServerConnection(None, adb.server)
            assert connection.address == f"server:{first}"
            assert connection.run("echo hello").stdout == "hello\n"
            adb("connect", second)
            with pytest.raises(DeviceError, match=r"several phones.*server:SERIAL") as caught:
                ServerConnection(None, adb.server)
            assert first in str(caught.value)
            assert second in str(caught.value)
        finally:
            adb("disconnect")


def test_a_phone_of_another_computers_server_has_an_address_of_its_own(adb: Adb, daemon: AdbDaemon) -> None:
    serial = f"127.0.0.1:{daemon.port}"
    adb("connect", serial)
    address = f"server@127.0.0.1/{adb.server.port}:{serial}"
    connection = open_connection(address)
    assert connection.address == address
    assert connection.run("echo hello").stdout == "hello\n"
    connection.close()
    adb("disconnect")


def test_a_server_that_ends_is_noticed(adb: Adb, daemon: AdbDaemon) -> None:
    serial = f"127.0.0.1:{daemon.port}"
    adb("connect", serial)
    connection = ServerConnection(serial, adb.server)
    stream = connection.stream("echo started; sleep 100", silence_s=60)
    assert next(stream) == "started"
    adb("kill-server")
    wait_until(lambda: not adb.listens())
    with pytest.raises(ConnectionLostError):
        next(stream)
    with pytest.raises(DeviceError, match="adb start-server"):
        connection.run("echo nobody")
    adb("start-server")
    connection.reconnect(30)
    assert connection.run("echo back").stdout == "back\n"
    connection.close()
    adb("disconnect")
