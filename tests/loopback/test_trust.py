"""Whom the phone lets in, judged by adb-shell's keys and signatures."""

import os
from pathlib import Path

import pytest

pytest.importorskip("adb_shell")

from adb_shell.auth.keygen import keygen
from adb_shell.auth.sign_cryptography import CryptographySigner
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

from .adbd import AdbDaemon
from .phone import LoopbackPhone
from .raw_client import RawClient
from .trust import PublicKey, Trust
from .wire import ProtocolError

TOKEN, SIGNATURE, PUBLIC_KEY = 1, 2, 3


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two private keys, with their .pub beside them."""
    folder = tmp_path_factory.mktemp("keys")
    paths = [folder / "first", folder / "second"]
    for path in paths:
        keygen(str(path))
    return paths


def public(key: Path) -> str:
    return key.with_suffix(".pub").read_text()


def ask(client: RawClient) -> bytes:
    """Greets; returns the token to sign."""
    answer = client.greet()
    assert (answer.command, answer.arg0, len(answer.payload)) == (b"AUTH", TOKEN, 20)
    return answer.payload


def sign(key: Path, token: bytes) -> bytes:
    return CryptographySigner(str(key)).Sign(token)


def test_a_key_verifies_its_own_signatures_and_no_others(keys: list[Path]) -> None:
    token = os.urandom(20)
    first, second = (PublicKey.parse(public(key)) for key in keys)
    signatures = [sign(keys[0], token), PythonRSASigner(public(keys[0]), keys[0].read_text()).Sign(token)]
    for signature in signatures:
        assert first.signed(token, signature)
        assert not second.signed(token, signature)
        assert not first.signed(os.urandom(20), signature)
        assert not first.signed(token, bytes(256))
        assert not first.signed(token, b"")


@pytest.mark.parametrize("text", ["", "?", "QUJD", "QUJD user@host"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="not an Android public key"):
        PublicKey.parse(text)


def test_a_trusted_key_gets_in_without_a_dialog(phone: LoopbackPhone, keys: list[Path]) -> None:
    trust = Trust([public(keys[0])], answer_s=None)
    with AdbDaemon(phone, auth=trust) as daemon, RawClient(daemon.port) as client:
        client.send(b"AUTH", SIGNATURE, 0, sign(keys[0], ask(client)))
        assert client.receive().command == b"CNXN"
        assert client.run("exec:echo in") == b"in\n"
    assert trust.dialogs == 0


def test_each_unknown_signature_is_answered_by_a_new_token(phone: LoopbackPhone, keys: list[Path]) -> None:
    with AdbDaemon(phone, auth=Trust([public(keys[0])])) as daemon, RawClient(daemon.port) as client:
        tokens = [ask(client)]
        for _ in range(2):
            client.send(b"AUTH", SIGNATURE, 0, sign(keys[1], tokens[-1]))
            answer = client.receive()
            assert (answer.command, answer.arg0) == (b"AUTH", TOKEN)
            tokens.append(answer.payload)
        assert len(set(tokens)) == 3
        client.send(b"AUTH", SIGNATURE, 0, sign(keys[0], tokens[-1]))
        assert client.receive().command == b"CNXN"


def test_a_key_that_the_user_allows_is_trusted_from_then_on(phone: LoopbackPhone, keys: list[Path]) -> None:
    trust = Trust(answer_s=0.3)
    with AdbDaemon(phone, auth=trust) as daemon:
        with RawClient(daemon.port) as client:
            ask(client)
            client.send(b"AUTH", PUBLIC_KEY, 0, public(keys[0]).encode() + b"\0")
            with pytest.raises(TimeoutError):
                client.receive(timeout_s=0.1)
            assert client.receive().command == b"CNXN"
        with RawClient(daemon.port) as client:
            client.send(b"AUTH", SIGNATURE, 0, sign(keys[0], ask(client)))
            assert client.receive().command == b"CNXN"
    assert trust.dialogs == 1
    assert trust.keys == {PublicKey.parse(public(keys[0]))}


def test_nothing_works_while_the_user_does_not_answer(phone: LoopbackPhone, keys: list[Path]) -> None:
    trust = Trust(answer_s=None)
    with AdbDaemon(phone, auth=trust) as daemon, RawClient(daemon.port) as client:
        ask(client)
        client.send(b"AUTH", PUBLIC_KEY, 0, public(keys[0]).encode() + b"\0")
        client.send(b"OPEN", 1, 0, b"exec:echo in\0")
        with pytest.raises(TimeoutError):
            client.receive(timeout_s=0.3)
    assert (trust.dialogs, trust.keys) == (1, set())
