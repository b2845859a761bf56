"""`netlathe time`: an estimate at once that gets better, until the rounds agree, the time is up, or Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_cli import answer, netlathe, refusal
from test_devices_command import HEAVY, imported_by

from netlathe.archspace.block_names import parse_block
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.profile_file import ProfileFile
from netlathe.cli.console import Terminal
from netlathe.profiler.device import DeviceEvent, Visit
from netlathe.profiler.protocol import Plan
from netlathe.profiler.testing import SETUP, SimulatedDevice
from netlathe.timing import Stopwatch, stopwatch

BLOCK, OTHER = "mbconv_k3_e4_s1_c24-24_4x4_relu6", "conv_k3_s1_c8-16_8x8_relu6"
NEVER_CONTENT = Plan(min_rounds=10**6, max_rounds=10**6, round_s=0.05)
NETLATHE = [sys.executable, "-c", "from netlathe.cli import main; main()"]


class Interrupted(SimulatedDevice):
    """Ctrl-C comes in the middle of the round after so many."""

    def __init__(self, rounds: int, **options: Any) -> None:
        super().__init__(**options)
        self.last = rounds

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[DeviceEvent]:
        for event in super().time_rounds(rounds, after=after):
            if len(self.rounds) >= self.last and getattr(event, "key", ""):
                raise KeyboardInterrupt
            yield event


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a device into local's place, and lets every round be told."""

    def replace(device: SimulatedDevice) -> SimulatedDevice:
        monkeypatch.setattr("netlathe.timing.open_device", lambda *_, **__: device)
        monkeypatch.setattr("netlathe.profiler.progress.TELL_EVERY_S", -1.0)
        return device

    return replace


def last_object(stdout: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return found


def test_a_time_comes_with_its_interval_its_rounds_and_where_it_was_taken(on: Any) -> None:
    on(SimulatedDevice(noise=0.02))
    found = answer("time", BLOCK, OTHER)
    for one in found["timed"]:
        assert one["low_ms"] < one["latency_ms"] < one["high_ms"]
        assert (one["rounds"] >= 20, one["is_stable"], one["predicted_ms"]) == (True, True, None)
    assert (found["setup"], found["is_interrupted"], found["warnings"]) == (str(SETUP), False, [])
    on(SimulatedDevice())
    shown = netlathe("time", BLOCK)
    assert "90 % interval" in shown.stdout
    assert "predicted" not in shown.stdout


def test_the_first_estimate_of_each_network_is_told_once_and_before_the_result(on: Any) -> None:
    on(SimulatedDevice(noise=0.02))
    said = netlathe("time", BLOCK, OTHER).stderr
    for name in (BLOCK, OTHER):
        (rounds,) = re.findall(rf"{name}: [\d.]+ ms after (\d+) rounds \([\d.]+ to [\d.]+\), refining", said)
        assert 3 <= int(rounds) < 20


def test_when_the_time_is_up_the_result_says_so(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on(SimulatedDevice(noise=0.001))
    monkeypatch.setattr("netlathe.timing.PLAN", NEVER_CONTENT)
    found = answer("time", BLOCK, "--budget-s", 1)
    assert found["timed"][0]["rounds"] >= 3
    assert any("1 s were out before rounds agreed" in warning for warning in found["warnings"])


def test_a_machine_that_never_settles_gives_its_interval_and_a_warning_not_an_endless_wait(on: Any) -> None:
    on(SimulatedDevice(noise=1.0))
    found = answer("time", BLOCK)
    (one,) = found["timed"]
    assert not one["is_stable"]
    assert one["high_ms"] > 1.1 * one["low_ms"]
    assert f"{BLOCK} is not stable yet" in found["warnings"][0]
    assert "into a new file" not in str(found["warnings"])  # as a profile's warning would say


def test_three_rounds_are_made_however_short_the_time_is(tmp_path: Path) -> None:
    plan = Plan(min_rounds=20, max_rounds=40, budget_s=1e-9)
    watch = Stopwatch(SimulatedDevice(), tmp_path / "notes.sqlite", plan, 0, Terminal(as_json=True))
    graphs = {name: parse_block(name).graph() for name in (BLOCK, OTHER)}
    watch.measure(graphs)
    assert [len(one.rounds) for one in watch.taken(graphs).values()] == [3, 3]


def test_ctrl_c_ends_with_a_sound_result_so_far(on: Any) -> None:
    on(Interrupted(5))
    result = netlathe("time", BLOCK, "--json")
    assert result.exit_code == 0
    found = last_object(result.stdout)
    assert found["is_interrupted"]
    assert (found["timed"][0]["rounds"], found["timed"][0]["is_stable"]) == (5, True)
    assert "times so far" in found["warnings"][0]


def test_ctrl_c_with_a_result_that_is_not_sound_shows_it_and_fails(on: Any) -> None:
    on(Interrupted(5, noise=1.0))
    result = netlathe("time", BLOCK)
    assert result.exit_code == 130
    assert BLOCK in result.stdout
    assert "not stable yet: after 5 rounds" in result.stderr


def test_ctrl_c_before_three_rounds_gives_no_number(on: Any) -> None:
    on(Interrupted(2))
    result = netlathe("time", BLOCK)
    assert result.exit_code == 130
    assert BLOCK not in result.stdout
    assert "fewer than three rounds" in result.stderr


def test_a_network_that_does_not_run_fails_the_call_after_the_others_times(on: Any) -> None:
    on(SimulatedDevice(unsupported=[parse_block(OTHER).graph().key]))
    result = netlathe("time", OTHER, BLOCK)
    assert result.exit_code == 1
    assert BLOCK in result.stdout
    assert f"{OTHER} could not be timed: op 'conv' is not known here" in " ".join(result.stderr.split())


def test_timing_imports_neither_torch_nor_what_predictors_need() -> None:
    assert imported_by("time", BLOCK, "--budget-s", "1") & HEAVY == {"ai_edge_litert", "numpy"}


def started(*arguments: str, **streams: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([*NETLATHE, *arguments], text=True, **streams)


def test_a_real_ctrl_c_keeps_what_was_measured() -> None:
    words = ("time", "mobilenet_v2_0.35_96", "--budget-s", "100", "--json")
    with started(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        for line in process.stderr:
            if "refining" in line:
                process.send_signal(signal.SIGINT)
                break
        stdout, stderr = process.communicate(timeout=120)
    found = last_object(stdout)
    assert "Traceback" not in stderr
    assert found["timed"][0]["rounds"] >= 3
    sound = not found["is_interrupted"] or found["timed"][0]["is_stable"]
    assert process.returncode == (0 if sound else 130)


def test_on_a_terminal_the_estimate_is_drawn_in_place() -> None:
    main, side = pty.openpty()
    with started("time", BLOCK, stdin=side, stdout=side, stderr=side, env={**os.environ, "COLUMNS": "80"}) as process:
        os.close(side)
        shown = b""
        with suppress(OSError):  # the other side was closed
            while piece := os.read(main, 65536):
                shown += piece
    os.close(main)
    text = shown.decode()
    assert process.returncode == 0
    assert "refining" in text
    assert "Ctrl-C ends it" in text
    *_, final = text.split("\x1b[2K")  # what stays
    assert "90 % interval" in final
    assert "refining" not in final


def written(folder: Path, names: Mapping[str, str]) -> list[Path]:
    """.tflite files {name of the file: dtype} of unlike networks."""
    for i, (name, dtype) in enumerate(names.items()):
        graph = parse_block(f"conv_k3_s1_c3-{4 + i}_16x16_relu6").graph()
        (folder / name).write_bytes(write_tflite(graph, dtype=dtype))
    return [folder / name for name in names]


def test_an_int8_file_is_timed_as_int8_without_saying_so(tmp_path: Path) -> None:
    (file,) = written(tmp_path, {"a.tflite": "int8"})
    found = answer("time", file, "--budget-s", 1)
    assert ", int8, " in found["setup"]


def test_a_file_of_another_dtype_than_is_asked_for_is_refused_before_anything_is_timed(tmp_path: Path) -> None:
    (quantized,) = written(tmp_path, {"a.tflite": "int8"})
    assert "a.tflite: this file computes in int8" in refusal("time", quantized, "--dtype", "float32")


def test_a_stopwatch_beside_a_profile_adds_nothing_to_it(tmp_path: Path) -> None:
    device = SimulatedDevice()
    graphs = {BLOCK: parse_block(BLOCK).graph()}
    with stopwatch(device, None, plan=Plan(), listener=Terminal(as_json=True)) as watch:
        watch.measure(graphs)
        (tmp_path / "p.sqlite").write_bytes(watch.notes.read_bytes())
    with ProfileFile(tmp_path / "p.sqlite") as profile:
        before = len(profile.round_log(SETUP))
    with stopwatch(device, tmp_path / "p.sqlite", plan=Plan(), listener=Terminal(as_json=True)) as watch:
        watch.measure(graphs)
    with ProfileFile(tmp_path / "p.sqlite") as profile:
        assert len(profile.round_log(SETUP)) == before
