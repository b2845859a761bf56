"""The cable: late, split, silent, cut."""

import os
import struct
import time
from collections.abc import Iterator

import pytest

from .adbd import AdbDaemon
from .link import Link
from .phone import LoopbackPhone
from .raw_client import RawClient, packets
from .watch import eventually, runs


def through(phone: LoopbackPhone, link: Link) -> Iterator[RawClient]:
    with AdbDaemon(phone, link=link) as daemon, RawClient(daemon.port) as client:
        client.greet()
        yield client


def test_messages_arrive_whole_through_a_link_that_splits_them(phone: LoopbackPhone) -> None:
    content = os.urandom(30_000)
    for client in through(phone, Link(max_chunk_bytes=7)):
        remote_id = client.open("shell,v2,raw:head -c 30000")
        client.write(struct.pack("<BI", 0, len(content)) + content, remote_id)
        assert packets(client.read_all(remote_id)) == [(1, content), (3, b"\0")]


def test_latency_delays_each_way_but_does_not_limit_the_throughput(phone: LoopbackPhone) -> None:
    latency_s = 0.1
    for client in through(phone, Link(latency_s=latency_s)):
        start_s = time.monotonic()
        client.open("sync:")
        round_trip_s = time.monotonic() - start_s
        assert round_trip_s >= 2 * latency_s
        # Requests that are sent together are answered together.
        start_s = time.monotonic()
        for local_id in range(100, 150):
            client.send(b"OPEN", local_id, 0, b"no such service")
        for local_id in range(100, 150):
            assert client.receive()[:3] == (b"CLSE", 0, local_id)
        assert time.monotonic() - start_s < 25 * round_trip_s


def test_a_link_cuts_after_exactly_so_many_bytes_from_the_phone(daemon: AdbDaemon) -> None:
    for count in (1, 23, 24, 1000):
        with RawClient(daemon.port) as client:
            client.greet()
            before = client.received_bytes
            daemon.link.cut_after(bytes_out=count)
            client.send(b"OPEN", 1, 0, b"exec:head -c 5000 /dev/zero\0")
            assert client.hangs_up()
            assert client.received_bytes - before == count
    with RawClient(daemon.port) as client:
        client.greet()
        assert client.run("exec:echo whole again") == b"whole again\n"


@pytest.mark.parametrize(("missing", "blocks"), [(1, 2), (0, 3), (-1, 3), (-500, 3)])
def test_a_link_cuts_after_exactly_so_many_bytes_to_the_phone(
    daemon: AdbDaemon, client: RawClient, phone: LoopbackPhone, missing: int, blocks: int
) -> None:
    name = b"/data/local/tmp/partial,33188"
    block = struct.pack("<4sI", b"DATA", 1000) + bytes(1000)
    remote_id = client.open("sync:")
    client.write(struct.pack("<4sI", b"SEND", len(name)) + name, remote_id)
    before = daemon.bytes_in
    daemon.link.cut_after(bytes_in=3 * (24 + len(block)) - missing)
    with pytest.raises((EOFError, ConnectionError)):  # noqa: PT012 - which write fails first is up to the kernel
        while True:
            client.write(block, remote_id)
    assert daemon.bytes_in - before == 3 * (24 + len(block)) - missing
    # What came before the cut stays, under the final name.
    assert phone.path("/data/local/tmp/partial").stat().st_size == 1000 * blocks


def test_a_cut_ends_the_connection_and_what_ran_in_it(daemon: AdbDaemon, phone: LoopbackPhone) -> None:
    with RawClient(daemon.port) as client:
        client.greet()
        client.open("shell,v2,raw:sleep 4801; true")
        assert eventually(lambda: runs(phone, "sleep 4801"))
        daemon.cut()
        assert client.hangs_up()
        assert eventually(lambda: not runs(phone, "sleep 4801"))


def test_a_paused_link_is_silent_and_loses_nothing(daemon: AdbDaemon, client: RawClient) -> None:
    daemon.link.pause()
    client.send(b"OPEN", 1, 0, b"exec:echo later\0")
    with pytest.raises(TimeoutError):
        client.receive(timeout_s=0.3)
    daemon.link.resume()
    assert client.read_all(client.receive().arg0) == b"later\n"


def test_an_unplugged_phone_refuses_connections_until_it_is_plugged_in(daemon: AdbDaemon, client: RawClient) -> None:
    port = daemon.port
    daemon.unplug()
    assert client.hangs_up()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            RawClient(port)
    daemon.plug()
    with RawClient(port) as second:
        assert second.greet().command == b"CNXN"


def test_bytes_are_counted_both_ways(daemon: AdbDaemon) -> None:
    with RawClient(daemon.port) as client:
        client.greet()
        assert (daemon.bytes_in, daemon.bytes_out) == (24 + 7, client.received_bytes)
        before = daemon.bytes_out, client.received_bytes
        client.run("exec:head -c 100000 /dev/zero")
        assert daemon.bytes_out - before[0] == client.received_bytes - before[1] > 100_000
