"""The key by which phones know this computer."""

import os
import threading
from pathlib import Path

import pytest
from adb_shell.auth.keygen import keygen
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from netlathe.profiler.adb.keys import load_or_create_key
from netlathe.profiler.errors import DeviceError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".android" / "adbkey"


def test_a_missing_key_is_made_for_its_owner_alone(path: Path) -> None:
    signer = load_or_create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o007 == 0
    assert sorted(os.listdir(path.parent)) == ["adbkey", "adbkey.pub"]
    assert signer.GetPublicKey() == path.with_name("adbkey.pub").read_bytes()
    assert len(signer.Sign(b"x" * 20)) == 256


def test_the_next_time_it_is_the_same_key(path: Path) -> None:
    first = load_or_create_key(path)
    before = [file.read_bytes() for file in sorted(path.parent.iterdir())]
    second = load_or_create_key(path)
    assert second.Sign(b"x" * 20) == first.Sign(b"x" * 20)
    assert [file.read_bytes() for file in sorted(path.parent.iterdir())] == before


def test_adbs_own_key_is_used_and_a_missing_public_half_is_made(path: Path) -> None:
    path.parent.mkdir(parents=True)
    keygen(str(path))
    public = path.with_name("adbkey.pub")
    encoded = public.read_bytes().split()[0]
    private = path.read_bytes()
    public.unlink()
    assert load_or_create_key(path).GetPublicKey().split()[0] == encoded
    assert path.read_bytes() == private


def test_the_default_is_adbs_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    load_or_create_key()
    assert (tmp_path / ".android" / "adbkey").exists()


def test_several_at_once_agree_on_one_key(path: Path) -> None:
    signatures: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: signatures.append(load_or_create_key(path).Sign(b"x" * 20))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signatures) == 4
    assert len(set(signatures)) == 1


def no_key() -> bytes:
    return b"this is no key"


def elliptic_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_with_passphrase() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


def key_of_other_size() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("make", [no_key, elliptic_key, key_with_passphrase, key_of_other_size])
def test_a_file_that_is_no_such_key_is_left_alone_and_named(path: Path, make: object) -> None:
    path.parent.mkdir(parents=True)
    content = make()  # type: ignore[operator]
    path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"adbkey is not an RSA key.*move it away"):
        load_or_create_key(path)
    assert path.read_bytes() == content


def test_halves_of_two_keys_are_noticed(path: Path) -> None:
    load_or_create_key(path)
    other = path.with_name("other")
    load_or_create_key(other)
    other.with_name("other.pub").replace(path.with_name("adbkey.pub"))
    with pytest.raises(DeviceError, match=r"adbkey\.pub does not belong to"):
        load_or_create_key(path)


def test_a_key_that_cannot_be_read_or_made_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(DeviceError, match=r"cannot use the ADB key .*adbkey"):
        load_or_create_key(path)
    in_a_file = path.parent / "file"
    in_a_file.write_text("")
    with pytest.raises(DeviceError, match=r"cannot use the ADB key"):
        load_or_create_key(in_a_file / "adbkey")
