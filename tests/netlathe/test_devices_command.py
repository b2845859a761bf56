"""`netlathe devices`: phones first, at once, and what to do where there is none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from test_cli import answer, netlathe

from netlathe.profiler.adb.connection import unauthorized
from netlathe.profiler.adb.discovery import PhoneRow

HEAVY = {
    "ai_edge_litert", "matplotlib", "numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "scipy", "sklearn", "torch",
    "xgboost",
}  # fmt: skip

IMPORTED = """
import atexit, json, sys
from netlathe.cli import main
atexit.register(lambda: print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), flush=True))
sys.argv[0] = "netlathe"
main()
"""


def imported_by(*arguments: str) -> set[str]:
    """Top-level modules that the process has imported when the command ends."""
    with socket.socket() as free:  # where no adb server listens
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True, timeout=120,
        env={**os.environ, "ANDROID_ADB_SERVER_PORT": port},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [("devices",), ("devices", "--json"), ("--help",), ("--version",), ("time", "--help"), ("profile", "--help")],
)
def test_looking_around_and_asking_for_help_imports_no_runtime(arguments: tuple[str, ...]) -> None:
    assert not imported_by(*arguments) & HEAVY


def test_the_check_of_imports_would_notice_one() -> None:
    assert imported_by("devices", "--check") >= {"ai_edge_litert", "numpy"}


@pytest.fixture
def no_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlathe.profiler.adb.discovery.list_phones", list)


@pytest.mark.usefixtures("no_phone")
def test_without_a_phone_the_steps_to_one_are_told() -> None:
    said = " ".join(netlathe("devices").stderr.split())
    for words in ("tap Build number seven times", "turn on USB debugging", "choose file transfer", "tap Allow"):
        assert words in said
    assert ("udev rules" in said) == sys.platform.startswith("linux")
    steps = answer("devices")["steps"]
    assert len(steps) >= 4
    assert all(step in said for step in steps)


def test_where_usb_does_not_work_the_steps_stand_beside_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = PhoneRow("usb", "unavailable", hint="USB does not work here; install libusb")
    monkeypatch.setattr("netlathe.profiler.adb.discovery.list_phones", lambda: [broken])
    result = netlathe("devices")
    assert "install libusb" in result.stderr
    assert "seven times" in result.stderr


def test_a_phone_comes_first_and_its_hint_names_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "usb:1A2B"
    locked = PhoneRow(address, "unauthorized", hint=str(unauthorized(address)))
    monkeypatch.setattr("netlathe.profiler.adb.discovery.list_phones", lambda: [locked])
    found = answer("devices")
    first = found["devices"][0]
    assert (first["name"], first["kind"], first["state"]) == (address, "phone", "unauthorized")
    assert {row["kind"] for row in found["devices"][1:]} == {"computer"}
    assert found["steps"] == []
    said = netlathe("devices").stderr
    assert said.count(address) == 1
    assert "seven times" not in said
