"""The daemon, message by message: greeting, framing, streams, end."""

import os
import struct
import threading
from pathlib import Path

import pytest

from .adbd import AdbDaemon
from .phone import LoopbackPhone, loopback_unavailable
from .raw_client import OLD_VERSION, RawClient, header, packets
from .watch import eventually, runs

# Greeting and framing


def test_the_greeting_names_the_phone_its_features_and_its_limits(daemon: AdbDaemon, phone: LoopbackPhone) -> None:
    with RawClient(daemon.port) as client:
        answer = client.greet()
    kind, serial, words = answer.payload.decode().split(":")
    values = dict(word.split("=") for word in words.split(";"))
    assert (answer.command, answer.arg0, answer.arg1) == (b"CNXN", 0x01000001, 1 << 20)
    assert (kind, serial, values["ro.product.model"]) == ("device", "", phone.properties["ro.product.model"])
    assert "shell_v2" in values["features"].split(",")
    assert answer.checksum == sum(answer.payload)


@pytest.mark.parametrize(("version", "checked"), [(OLD_VERSION, True), (0x01000001, False)])
def test_only_old_clients_get_and_give_checksums(daemon: AdbDaemon, version: int, checked: bool) -> None:
    with RawClient(daemon.port) as client:
        client.greet(version=version)
        client.open("exec:echo hello")
        answer = client.receive()
        assert (answer.payload, answer.checksum) == (b"hello\n", sum(b"hello\n") if checked else 0)
        payload = b"exec:true\0"
        client.socket.sendall(header(b"OPEN", 2, 0, payload, checksum=7) + payload)
        if checked:
            assert client.hangs_up()
        else:
            assert client.receive().command == b"OKAY"


@pytest.mark.parametrize(
    "message",
    [
        header(b"OPEN", 1, 0, b"")[:-4] + b"\0\0\0\0",
        header(b"JUMP", 1, 0, b""),
        header(b"SYNC", 1, 0, b""),
        struct.pack("<4s4I", b"WRTE", 1, 1, (1 << 20) + 1, 0) + header(b"WRTE", 1, 1, b"")[-4:],
        header(b"OPEN", 0, 0, b""),
        header(b"AUTH", 3, 0, b""),
    ],
    ids=["magic", "unknown", "obsolete", "too long", "stream 0", "unasked AUTH"],
)
def test_a_message_that_breaks_the_protocol_ends_the_connection(client: RawClient, message: bytes) -> None:
    client.socket.sendall(message)
    assert client.hangs_up()


def test_messages_before_the_greeting_are_ignored(daemon: AdbDaemon) -> None:
    with RawClient(daemon.port) as client:
        client.send(b"OPEN", 1, 0, b"exec:echo early\0")
        assert client.greet().command == b"CNXN"


def test_a_message_may_arrive_byte_by_byte(daemon: AdbDaemon) -> None:
    with RawClient(daemon.port) as client:
        client.greet()
        for byte in header(b"OPEN", 1, 0, b"exec:echo slow\0") + b"exec:echo slow\0":
            client.socket.sendall(bytes([byte]))
        remote_id = client.receive().arg0
        assert client.read_all(remote_id) == b"slow\n"


# Streams


def test_an_unknown_service_is_refused_and_the_connection_stays(client: RawClient) -> None:
    client.send(b"OPEN", 9, 0, b"jdwp:1\0")
    assert client.receive()[:3] == (b"CLSE", 0, 9)
    assert client.run("exec:echo still here", 10) == b"still here\n"


def test_one_write_waits_for_its_acknowledgement(client: RawClient) -> None:
    remote_id = client.open("exec:head -c 300000 /dev/zero")
    received = len(client.receive().payload)
    with pytest.raises(TimeoutError):
        client.receive(timeout_s=0.3)
    client.send(b"OKAY", 1, remote_id)
    assert received + len(client.read_all(remote_id)) == 300000


def test_no_write_is_larger_than_the_client_allows(daemon: AdbDaemon) -> None:
    with RawClient(daemon.port) as client:
        client.greet(max_data=1000)
        remote_id = client.open("exec:head -c 50000 /dev/zero")
        sizes = []
        while (packet := client.receive()).command == b"WRTE":
            sizes.append(len(packet.payload))
            client.send(b"OKAY", 1, remote_id)
    assert sum(sizes) == 50000
    assert max(sizes) == 1000


def test_writes_that_do_not_wait_for_their_acknowledgement_are_taken_in_order(client: RawClient) -> None:
    remote_id = client.open("sync:")
    request = struct.pack("<4sI", b"STAT", 8) + b"/nowhere"
    client.socket.sendall(b"".join(header(b"WRTE", 1, remote_id, part) + part for part in (request[:5], request[5:])))
    assert [client.receive().command for _ in range(2)] == [b"OKAY", b"OKAY"]
    assert client.read(remote_id) == b"STAT" + bytes(12)


def test_a_slow_reader_on_the_phone_slows_the_client_down(client: RawClient) -> None:
    remote_id = client.open("shell,v2,raw:sleep 1000")
    block = struct.pack("<BI", 0, 250_000) + bytes(250_000)
    acknowledged = 0
    with pytest.raises(TimeoutError):  # noqa: PT012 - the send that stays unanswered is not known beforehand
        while acknowledged < 40:
            client.send(b"WRTE", 1, remote_id, block)
            client.receive(timeout_s=0.5)
            acknowledged += 1
    assert acknowledged < 40


def test_many_streams_run_at_once(client: RawClient) -> None:
    count = 30
    for local_id in range(1, count + 1):
        client.send(b"OPEN", local_id, 0, f"shell,v2,raw:read word; echo $word {local_id}; exit {local_id}".encode())
    remote_ids: dict[int, int] = {}
    while len(remote_ids) < count:
        answer = client.receive()
        remote_ids[answer.arg1] = answer.arg0
    assert len(set(remote_ids.values())) == count
    # None can have ended yet, as all wait for their input: they really run side by side.
    for local_id, remote_id in remote_ids.items():
        client.send(b"WRTE", local_id, remote_id, struct.pack("<BI", 0, 5) + b"word\n")
    results = dict.fromkeys(remote_ids, b"")
    open_ids = set(remote_ids)
    while open_ids:
        packet = client.receive()
        if packet.command == b"WRTE":
            results[packet.arg1] += packet.payload
            client.send(b"OKAY", packet.arg1, packet.arg0)
        elif packet.command == b"CLSE":
            open_ids.discard(packet.arg1)
    for local_id, data in results.items():
        assert packets(data) == [(1, b"word %d\n" % local_id), (3, bytes([local_id]))]


# The daemon's life


def test_closing_leaves_no_thread_process_or_descriptor(phone: LoopbackPhone) -> None:
    def used() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before = used()
    with AdbDaemon(phone) as daemon, RawClient(daemon.port) as client:
        client.greet()
        client.open("shell,v2,raw:sleep 4714; true", 1)
        client.open("shell:sleep 4717", 2)
        client.open("sync:", 3)
        # Both: a shell that is hung up between its fork and its exec loses the signal, as any shell would.
        assert eventually(lambda: runs(phone, "sleep 4714") and runs(phone, "sleep 4717"))
    assert used() == before
    assert eventually(lambda: not runs(phone, "sleep 4714") and not runs(phone, "sleep 4717"))
    with pytest.raises(ConnectionRefusedError):
        RawClient(daemon.port)


@pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))
def test_a_reboot_asked_for_by_a_client_ends_processes_and_keeps_files(tmp_path: Path) -> None:
    with LoopbackPhone(tmp_path) as phone, AdbDaemon(phone) as daemon:
        with RawClient(daemon.port) as client:
            client.greet()
            client.run("exec:echo kept >/data/local/tmp/kept")
        boot_id = phone.path("/proc/sys/kernel/random/boot_id").read_text()
        with RawClient(daemon.port) as client:
            client.greet()
            client.open("shell:setsid sleep 4715", 1)
            assert eventually(lambda: runs(phone, "setsid sleep 4715"))
            client.send(b"OPEN", 2, 0, b"reboot:\0")
            assert client.hangs_up()
        assert eventually(lambda: daemon.is_plugged)
        with RawClient(daemon.port) as client:
            client.greet()
            assert client.run("exec:cat /data/local/tmp/kept") == b"kept\n"
            assert client.run("exec:cat /proc/sys/kernel/random/boot_id", 2).decode() != boot_id
        assert not runs(phone, "setsid sleep 4715")
