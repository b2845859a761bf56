"""TCP as adb-shell needs it, against a plain socket."""

import socket
import threading
from collections.abc import Iterator

import pytest

from netlathe.profiler.adb.socket_transport import SocketTransport


@pytest.fixture
def pair() -> Iterator[tuple[SocketTransport, socket.socket]]:
    """A connected transport, and the socket at the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        transport = SocketTransport("127.0.0.1", listener.getsockname()[1])
        transport.connect(20)
        peer, _ = listener.accept()
    with peer:
        peer.settimeout(20)
        yield transport, peer
    transport.close()


def test_messages_leave_at_once(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, _ = pair
    assert transport._socket is not None
    assert transport._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_write_larger_than_any_buffer_arrives_whole(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    content = bytes(range(256)) * (64 * 1024)
    arrived = bytearray()

    def receive() -> None:
        while len(arrived) < len(content):
            arrived.extend(peer.recv(10_000))

    thread = threading.Thread(target=receive)
    thread.start()
    assert transport.bulk_write(content, 20) == len(content)
    thread.join()
    assert arrived == content


def test_a_write_that_nobody_takes_ends_in_time(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, _ = pair
    with pytest.raises(TimeoutError):
        transport.bulk_write(bytes(2**26), 0.1)


def test_reads_give_what_is_there_and_then_time_out(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    peer.sendall(b"hello")
    assert transport.bulk_read(2, 20) == b"he"
    assert transport.bulk_read(100, 20) == b"llo"
    with pytest.raises(TimeoutError):
        transport.bulk_read(1, 0.05)


def test_the_end_of_the_stream_is_an_error(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError, match="closed"):
        transport.bulk_read(24, 20)


def test_a_closed_transport_says_so_and_connects_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = SocketTransport("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(ConnectionResetError, match="not connected"):
            transport.bulk_read(1, 1)
        transport.connect(20)
        transport.connect(20)
        transport.close()
        transport.close()
        with pytest.raises(ConnectionResetError, match="not connected"):
            transport.bulk_write(b"x", 1)
