"""The file service, over a hand-written client."""

import os
import stat
import struct

import pytest

from .phone import LoopbackPhone
from .raw_client import RawClient


def send_file(client: RawClient, remote_id: int, path: str, content: bytes, *, mode: int = 0o100644) -> bytes:
    """SEND as clients do it; returns the answer."""
    name = f"{path},{mode}".encode()
    client.write(struct.pack("<4sI", b"SEND", len(name)) + name, remote_id)
    for start in range(0, len(content), 65536):
        block = content[start : start + 65536]
        client.write(struct.pack("<4sI", b"DATA", len(block)) + block, remote_id)
    client.write(struct.pack("<4sI", b"DONE", 1_600_000_000), remote_id)
    return client.read(remote_id)


def ask(client: RawClient, remote_id: int, request: bytes, path: str) -> bytes:
    client.write(struct.pack("<4sI", request, len(path)) + path.encode(), remote_id)
    return client.read(remote_id)


def test_a_sent_file_has_its_content_mode_and_time(client: RawClient, phone: LoopbackPhone) -> None:
    content = os.urandom(200_000)
    remote_id = client.open("sync:")
    path = "/data/local/tmp/new/folder/a,b"
    assert send_file(client, remote_id, path, content, mode=0o100700) == b"OKAY\0\0\0\0"
    found = phone.path(path)
    assert found.read_bytes() == content
    # The owner's bits count for everybody.
    assert (stat.S_IMODE(found.stat().st_mode), found.stat().st_mtime) == (0o777, 1_600_000_000)
    assert send_file(client, remote_id, path, b"shorter", mode=0o100600) == b"OKAY\0\0\0\0"
    assert found.read_bytes() == b"shorter"
    assert stat.S_IMODE(found.stat().st_mode) == 0o666


def test_a_symbolic_link_can_be_sent(client: RawClient, phone: LoopbackPhone) -> None:
    remote_id = client.open("sync:")
    assert send_file(client, remote_id, "/data/local/tmp/links/one", b"two/three\0", mode=0o120777) == b"OKAY\0\0\0\0"
    assert os.readlink(phone.path("/data/local/tmp/links/one")) == "two/three"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/data/local/tmp", "couldn't create file: Is a directory"),
        ("/data/local/tmp/plain/file", "couldn't create file: Not a directory"),
        ("/data/local/tmp/locked/file", "couldn't create file: Permission denied"),
        ("/data/local/tmp/locked/folder/file", "secure_mkdirs() failed: Permission denied"),
        ("/data/local/tmp/" + "x" * 300, "couldn't create file: File name too long"),
    ],
)
def test_a_file_that_cannot_be_sent_fails_with_the_reason(
    client: RawClient, phone: LoopbackPhone, path: str, reason: str
) -> None:
    phone.path("/data/local/tmp/plain").write_bytes(b"")
    phone.path("/data/local/tmp/locked").mkdir(mode=0o555, exist_ok=True)
    remote_id = client.open("sync:")
    expected = struct.pack("<4sI", b"FAIL", len(reason)) + reason.encode()
    assert send_file(client, remote_id, path, b"content") == expected


def test_a_failed_transfer_ends_the_service_after_the_rest_of_the_content(client: RawClient) -> None:
    remote_id = client.open("sync:")
    assert send_file(client, remote_id, "/data/local/tmp", bytes(300_000)).startswith(b"FAIL")
    assert client.receive()[:3] == (b"CLSE", remote_id, 1)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/data/local/tmp", "read failed: Is a directory"),
        ("/data/local/tmp/secret", "open failed: Permission denied"),
        ("/data/local/tmp/secret/file", "open failed: Not a directory"),
    ],
)
def test_a_file_that_cannot_be_received_fails_with_the_reason(
    client: RawClient, phone: LoopbackPhone, path: str, reason: str
) -> None:
    phone.path("/data/local/tmp/secret").touch(mode=0o200)
    answer = ask(client, client.open("sync:"), b"RECV", path)
    assert answer == struct.pack("<4sI", b"FAIL", len(reason)) + reason.encode()


def test_a_missing_file_cannot_be_received_and_has_no_stat(client: RawClient) -> None:
    remote_id = client.open("sync:")
    assert ask(client, remote_id, b"STAT", "/nowhere") == b"STAT" + bytes(12)
    assert ask(client, remote_id, b"STA2", "/nowhere") == struct.pack("<4sI", b"STA2", 2) + bytes(64)
    reason = b"open failed: No such file or directory"
    assert ask(client, remote_id, b"RECV", "/nowhere") == struct.pack("<4sI", b"FAIL", len(reason)) + reason
    # A failure ends the service.
    assert client.receive()[:3] == (b"CLSE", remote_id, 1)


def test_both_forms_of_stat_and_list_agree_with_the_phone(client: RawClient, phone: LoopbackPhone) -> None:
    folder = phone.path("/data/local/tmp/listed")
    folder.mkdir()
    (folder / "file").write_bytes(b"12345")
    found = (folder / "file").stat()
    remote_id = client.open("sync:")
    path = "/data/local/tmp/listed/file"
    assert ask(client, remote_id, b"STAT", path) == struct.pack("<4s3I", b"STAT", found.st_mode, 5, int(found.st_mtime))
    fields = struct.unpack("<4sIQQIIIIQqqq", ask(client, remote_id, b"LST2", path))
    assert fields[:4] == (b"LST2", 0, found.st_dev, found.st_ino)
    assert fields[4:9] == (found.st_mode, 1, found.st_uid, found.st_gid, 5)
    one = ask(client, remote_id, b"LIST", "/data/local/tmp/listed")
    two = ask(client, remote_id, b"LIS2", "/data/local/tmp/listed")
    assert struct.pack("<4s4I", b"DENT", found.st_mode, 5, int(found.st_mtime), 4) + b"file" in one
    assert one.endswith(b"DONE" + bytes(16))
    assert b"DNT2" + struct.pack("<IQQ", 0, found.st_dev, found.st_ino) in two
    assert two.endswith(b"DONE" + bytes(72))
    assert ask(client, remote_id, b"LIST", "/nowhere") == b"DONE" + bytes(16)


def test_quit_ends_the_file_service(client: RawClient) -> None:
    remote_id = client.open("sync:")
    client.write(struct.pack("<4sI", b"QUIT", 0), remote_id)
    assert client.read_all(remote_id) == b""
