"""What only a direct connection does."""

import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopback.adbd import AdbDaemon

from netlathe.profiler.adb.address import parse_address
from netlathe.profiler.adb.direct import DirectConnection
from netlathe.profiler.adb.discovery import probe
from netlathe.profiler.adb.socket_transport import SocketTransport
from netlathe.profiler.errors import ConnectionLostError, DeviceError


@pytest.fixture
def key(home: Path) -> Path:
    return home / ".android" / "adbkey"


class CountingTransport(SocketTransport):
    """Notes the four letters of each message that is sent."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.sent: list[bytes] = []

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        if len(data) == 24:
            self.sent.append(bytes(data[:4]))
        return super().bulk_write(data, transport_timeout_s)


def test_a_command_costs_one_message_and_one_more_per_packet_of_its_output(daemon: AdbDaemon, key: Path) -> None:
    transport = CountingTransport(daemon.port)
    connection = DirectConnection(lambda: transport, daemon.address, key_path=key)
    transport.sent.clear()
    connection.run("true")
    assert transport.sent == [b"OPEN", b"OKAY", b"CLSE"]  # the exit is a packet
    transport.sent.clear()
    connection.push(bytes(20_000), "/data/local/tmp/counted")
    assert transport.sent == [b"OPEN", b"WRTE", b"OKAY", b"CLSE"]
    connection.run("rm /data/local/tmp/counted")
    connection.close()


def test_a_service_that_the_phone_does_not_have_is_refused_at_once(daemon: AdbDaemon, key: Path) -> None:
    connection = DirectConnection(lambda: SocketTransport("127.0.0.1", daemon.port), daemon.address, key_path=key)
    with pytest.raises(DeviceError, match="refuses the service 'nonsense:'"):
        connection._open("nonsense:", 20)
    assert connection.run("echo alive").stdout == "alive\n"
    connection.close()


class LeftoversTransport(SocketTransport):
    """First delivers what an earlier program did not fetch, as USB does."""

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        return b"\xa5" * numbytes


def test_leftovers_of_a_killed_program_are_skipped(daemon: AdbDaemon, key: Path) -> None:
    made: list[SocketTransport] = []

    def transport() -> SocketTransport:
        kind = LeftoversTransport if len(made) < 3 else SocketTransport
        made.append(kind("127.0.0.1", daemon.port))
        return made[-1]

    connection = DirectConnection(transport, daemon.address, key_path=key)
    assert connection.run("echo hello").stdout == "hello\n"
    connection.close()
    assert len(made) == 4


def test_something_that_talks_nonsense_is_no_phone(key: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConnectionLostError, match="does not answer as a phone's ADB does"):
            DirectConnection(lambda: LeftoversTransport("127.0.0.1", port), "tcp:nonsense", key_path=key)


def test_a_port_that_nobody_listens_at(daemon: AdbDaemon, key: Path) -> None:
    daemon.unplug()
    with pytest.raises(ConnectionLostError, match=r"nothing answers at tcp:127\.0\.0\.1:\d+.*adb tcpip 5555"):
        DirectConnection(lambda: SocketTransport("127.0.0.1", daemon.port), daemon.address, key_path=key)


def test_a_phone_that_does_not_answer_the_greeting(key: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport: Callable[[], SocketTransport] = lambda: SocketTransport("127.0.0.1", listener.getsockname()[1])  # noqa: E731
        with pytest.raises(ConnectionLostError, match=r"does not answer within 0\.2 s; unlock the phone"):
            DirectConnection(transport, "tcp:silent", key_path=key, connect_timeout_s=0.2)


def test_silence_of_a_phone_that_is_gone_is_a_lost_link(
    daemon: AdbDaemon, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = DirectConnection(lambda: SocketTransport("127.0.0.1", daemon.port), daemon.address, key_path=key)
    monkeypatch.setattr("netlathe.profiler.adb.services.CONNECT_S", 0.3)
    daemon.link.pause()
    with pytest.raises(ConnectionLostError, match="does not answer"):
        connection.run("echo nobody hears", timeout_s=0.3)
    daemon.link.resume()
    connection.reconnect(20)
    assert connection.run("echo back").stdout == "back\n"
    connection.close()


def test_after_a_cut_the_next_call_connects_by_itself(daemon: AdbDaemon, key: Path) -> None:
    connection = DirectConnection(lambda: SocketTransport("127.0.0.1", daemon.port), daemon.address, key_path=key)
    stream = connection.stream("echo started; sleep 100", silence_s=30)
    assert next(stream) == "started"
    daemon.cut()
    with pytest.raises(ConnectionLostError):
        next(stream)
    assert connection.run("echo back").stdout == "back\n"
    connection.close()


class Interrupted(SocketTransport):
    """The user presses Ctrl-C in the middle of a message."""

    left = 3

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        if numbytes == 24 and self.left:
            self.left -= 1
            if not self.left:
                super().bulk_read(10, transport_timeout_s)
                raise KeyboardInterrupt
        return super().bulk_read(numbytes, transport_timeout_s)


def test_after_an_interruption_the_connection_still_restores_things(daemon: AdbDaemon, key: Path) -> None:
    transports = iter([Interrupted("127.0.0.1", daemon.port), SocketTransport("127.0.0.1", daemon.port)])
    connection = DirectConnection(lambda: next(transports), daemon.address, key_path=key)
    with pytest.raises(KeyboardInterrupt):
        connection.run("echo never heard")
    assert connection.run("echo restored").stdout == "restored\n"
    connection.close()


STLS = struct.pack("<6I", 0x534C5453, 0x01000000, 0, 0, 0, 0x534C5453 ^ 0xFFFFFFFF)
"""What a wireless debugging port of Android 11 and later answers to a greeting: start TLS."""
PAGE = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>400</html>"


@contextmanager
def answering(answer: bytes, *, hangs_up: bool = True) -> Iterator[tuple[int, list[bytes]]]:
    """The port of a server that gives every client the same answer, and what the clients sent."""
    greetings: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            greetings.append(self.request.recv(4096))
            self.request.sendall(answer)
            while not hangs_up and self.request.recv(4096):
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1], greetings
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_wireless_debugging_port_says_how_to_pair(key: Path, hangs_up: bool) -> None:
    with answering(STLS, hangs_up=hangs_up) as (port, greetings):
        address = f"tcp:127.0.0.1:{port}"
        with pytest.raises(DeviceError) as caught:
            DirectConnection(lambda: SocketTransport("127.0.0.1", port), address, key_path=key)
    words = str(caught.value)
    assert not isinstance(caught.value, ConnectionLostError)  # waiting does not help
    assert "wireless debugging port" in words
    for command in (
        "adb pair 127.0.0.1:PORT", f"adb connect 127.0.0.1:{port}", f"--device server:127.0.0.1:{port}",
        "adb tcpip 5555",
    ):  # fmt: skip
        assert command in words
    assert "replug" not in words
    assert [greeting[:4] for greeting in greetings] == [b"CNXN"]


def test_a_web_server_is_told_from_a_phone_at_once(key: Path) -> None:
    with (
        answering(PAGE) as (port, greetings),
        pytest.raises(DeviceError, match="is a web server, not a phone; check the address") as caught,
    ):
        DirectConnection(lambda: SocketTransport("127.0.0.1", port), f"tcp:127.0.0.1:{port}", key_path=key)
    assert not isinstance(caught.value, ConnectionLostError)
    assert len(greetings) == 1


def test_a_silent_port_is_no_reason_to_replug_a_phone_of_the_network(key: Path) -> None:
    with answering(b"", hangs_up=False) as (port, _):
        address = f"tcp:127.0.0.1:{port}"
        with pytest.raises(ConnectionLostError, match=r"does not answer within 0\.2 s; .*something else") as caught:
            DirectConnection(lambda: SocketTransport("127.0.0.1", port), address, key_path=key, connect_timeout_s=0.2)
    assert "replug" not in str(caught.value)


def test_what_hangs_up_within_the_greeting_is_tried_a_few_times(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlathe.profiler.adb.direct.RETRY_S", 0.01)
    with answering(b"") as (port, greetings), pytest.raises(ConnectionLostError, match="closed the connection"):
        DirectConnection(lambda: SocketTransport("127.0.0.1", port), f"tcp:127.0.0.1:{port}", key_path=key)
    assert len(greetings) == 5


def test_the_list_of_devices_says_how_to_pair_too() -> None:
    with answering(STLS) as (port, _):
        row = probe(parse_address(f"tcp:127.0.0.1:{port}"), 5.0)
    assert row.state == "unavailable"
    assert "adb pair" in row.hint
