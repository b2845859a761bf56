"""Which of several phones `--device usb` and `--device server` mean: a person is asked, a script gets an error."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, PIXEL_8, LoopbackPhone, loopback_unavailable
from loopback.private_adb import Adb, wait_until
from test_cli import refusal

from netlathe.profiler.adb import open_connection, parse_address
from netlathe.profiler.adb.discovery import candidates
from netlathe.profiler.adb.socket_transport import SocketTransport

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))

ON_ITS_TERMINAL = """
import fcntl, os, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C on it reaches the command
from netlathe.cli import main
main()
"""
QUESTION = "Which phone?"


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Two phones."""
    with ExitStack() as stack:
        found = []
        for model in ("Pixel 8", "Pixel 9"):
            properties = {**PIXEL_8, "ro.serialno": model.replace(" ", ""), "ro.product.model": model}
            phone = stack.enter_context(LoopbackPhone(tmp_path_factory.mktemp("phone"), properties=properties))
            found.append(stack.enter_context(AdbDaemon(phone)))
        yield found


@pytest.fixture(scope="module")
def addresses(daemons: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Both phones behind an adb server of their own, as the server lists them."""
    adb = Adb(tmp_path_factory.mktemp("adb_home"), tmp_path_factory.mktemp("scratch"))
    adb("start-server")
    try:
        for daemon in daemons:
            adb("connect", f"127.0.0.1:{daemon.port}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANDROID_ADB_SERVER_PORT", str(adb.server.port))
            yield [row.address for row in candidates(parse_address("server"))]
    finally:
        adb("kill-server")
        wait_until(lambda: not adb.listens())


def on_a_terminal(answers: str, *arguments: object) -> tuple[int, str]:
    """Exit code and what the terminal showed, of a command whose every question gets the next of these characters."""
    main, side = pty.openpty()
    command = [sys.executable, "-c", ON_ITS_TERMINAL, *map(str, arguments)]
    shown, waiting, sent = b"", list(answers), b""
    environment = {**os.environ, "COLUMNS": "80"}
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        with suppress(OSError):  # the other side was closed
            while True:
                if not select.select([main], [], [], 3)[0]:
                    os.write(main, sent)  # what comes while readline sets up the terminal is thrown away by it
                    continue
                if not (piece := os.read(main, 65536)):
                    break
                shown += piece
                if waiting and shown.count(QUESTION.encode()) > len(answers) - len(waiting):
                    one = waiting.pop(0)
                    sent = one.encode() if one == "\x03" else f"{one.strip()}\n".encode()
                    os.write(main, sent)
    os.close(main)
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


def test_on_a_terminal_the_phone_is_chosen_by_its_number(addresses: list[str]) -> None:
    code, shown = on_a_terminal("2", "device", "clean", "--device", "server")
    assert code == 0, shown
    for number, address in enumerate(addresses, 1):
        assert re.search(rf"{number}\. +{re.escape(address)} +Pixel [89] +14 +ready", shown)
    assert f"Next time: --device {addresses[1]}" in shown
    assert f"{addresses[1]} is clean" in shown
    assert f"{addresses[0]} is clean" not in shown


def test_an_answer_that_is_no_number_of_a_phone_is_asked_again(addresses: list[str]) -> None:
    code, shown = on_a_terminal("301", "device", "clean", "--device", "server")
    assert code == 0
    assert shown.count(QUESTION) == 3
    assert f"{addresses[0]} is clean" in shown


@pytest.mark.parametrize(("answer", "code"), [(" ", 1), ("\x04", 1), ("\x03", 130)])
def test_without_a_choice_nothing_is_done(addresses: list[str], answer: str, code: int) -> None:
    ended, shown = on_a_terminal(answer, "device", "clean", "--device", "server")
    assert ended == code
    assert "is clean" not in shown
    assert "Traceback" not in shown
    assert code == 130 or f"name one, as --device {addresses[0]}" in " ".join(shown.split())


@pytest.mark.parametrize(
    "command", ["profile", *(pytest.param(name, marks=pytest.mark.slow) for name in ("time", "search"))]
)
def test_every_command_that_takes_a_device_asks(addresses: list[str], command: str, tmp_path: Path) -> None:
    words = {
        "profile": ("--dry-run", "--output", tmp_path / "p.sqlite"),
        "time": ("conv_k3_s1_c8-16_8x8_relu6", "--budget-s", 1),
        "search": ("--data", "digits", "--output", tmp_path / "run", "--predictor", "pixel4-cpu", "--target-ms", 40),
    }[command]
    code, shown = on_a_terminal("1", command, *words, "--device", "server", "--benchmark-binary", BENCHMARK_MODEL)
    assert f"Next time: --device {addresses[0]}" in shown
    if command == "search":  # it goes on with that phone, which is not the predictor's
        assert code == 1
        assert "Pixel 8" in shown or "Pixel 9" in shown
    else:
        assert code == 0, shown


def test_without_a_terminal_the_error_names_the_phones(addresses: list[str]) -> None:
    message = refusal("device", "clean", "--device", "server")
    assert "name one as server:SERIAL" in message
    assert all(address.removeprefix("server:") in message for address in addresses)


def test_with_json_nobody_is_asked(addresses: list[str]) -> None:
    code, shown = on_a_terminal("", "device", "clean", "--device", "server", "--json")
    assert code == 1
    assert QUESTION not in shown
    assert "name one as server:SERIAL" in " ".join(shown.split())


def test_phones_on_usb_are_told_apart_by_what_they_are(daemons: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    open_connection(daemons[0].address).close()  # makes the key, without which no phone is asked anything
    cables = {f"SERIAL{i}": SocketTransport("127.0.0.1", daemon.port) for i, daemon in enumerate(daemons)}
    monkeypatch.setattr("netlathe.profiler.adb.usb.usb_phones", lambda: iter(cables.items()))
    rows = candidates(parse_address("usb"))
    assert [(row.address, row.model, row.state) for row in rows] == [
        ("usb:SERIAL0", "Pixel 8", "ready"),
        ("usb:SERIAL1", "Pixel 9", "ready"),
    ]
    assert candidates(parse_address("usb:SERIAL0")) == []
    del cables["SERIAL1"]
    assert candidates(parse_address("usb")) == []  # the only one is meant
