"""Every device script in a phone's own tree: real paths, Android's shell and tools, a real benchmark, a full disk."""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from loopback.phone import ANDROID_9, BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.resources import device_script_path
from netlathe.profiler.phone.conditions import Conditions
from netlathe.profiler.phone.description import PhoneDescription
from netlathe.profiler.phone.measure_protocol import (
    NO_SPACE,
    STOPPED_HOT,
    Finished,
    PlannedVisit,
    RoundDone,
    SessionEvent,
    Stopped,
    VisitDone,
    log_lines,
    read_events,
    write_plan,
)
from netlathe.profiler.phone.steady import parse_outcomes
from netlathe.profiler.phone.topology import core_mask

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))

DIRECTORY = "/data/local/tmp/netlathe"
SCRIPTS = ("describe.sh", "conditions.sh", "claim.sh", "unpack.sh", "steady.sh", "measure.sh")


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[LoopbackPhone]:
    with LoopbackPhone(tmp_path / "phone") as phone:
        install(phone)
        yield phone


def install(phone: LoopbackPhone) -> None:
    directory = phone.path(DIRECTORY)
    for folder in ("scripts", "models", "results"):
        (directory / folder).mkdir(parents=True)
    for name in SCRIPTS:
        (directory / "scripts" / name).write_bytes(device_script_path(name).read_bytes())
    program = directory / "benchmark_model"
    program.write_bytes(BENCHMARK_MODEL.read_bytes())
    program.chmod(0o755)


def command(script: str, *arguments: str) -> str:
    return shlex.join(["sh", f"{DIRECTORY}/scripts/{script}", *arguments])


def run(phone: LoopbackPhone, script: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        phone.shell_argv(command(script, *arguments)), env=phone.environment, capture_output=True, timeout=120
    )


def text(phone: LoopbackPhone, script: str, *arguments: str) -> str:
    done = run(phone, script, *arguments)
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout.decode()


def put_models(phone: LoopbackPhone, *keys: str) -> None:
    """Through unpack.sh."""
    model = write_tflite(ConvBlock(3, 8, 16, 16).graph(1))
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key in keys:
            entry = tarfile.TarInfo(f"{key}.tflite")
            entry.size = len(model)
            tar.addfile(entry, io.BytesIO(model))
    phone.path(f"{DIRECTORY}/models.tar").write_bytes(content.getvalue())
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    assert text(phone, "unpack.sh", DIRECTORY, f"{DIRECTORY}/models.tar", digest) == ""


def put_plan(phone: LoopbackPhone, *keys: str, rounds: int = 1, mask: str | None = None, runs: int = 3) -> None:
    visits = [PlannedVisit(key, runs, 1, 20) for key in keys]
    plan = write_plan("s1", time.time(), ["--num_threads=1"], mask, 0, [(str(i), visits) for i in range(rounds)])
    phone.path(f"{DIRECTORY}/plan").write_bytes(plan)


def log(phone: LoopbackPhone, token: str) -> bytes:
    return phone.path(f"{DIRECTORY}/results/{token}.log").read_bytes()


def events(content: bytes) -> list[SessionEvent]:
    return list(read_events(log_lines(content)))


def visits(content: bytes) -> list[VisitDone]:
    return [event for event in events(content) if isinstance(event, VisitDone)]


def test_blocks_are_timed_on_the_chosen_cores(phone: LoopbackPhone) -> None:
    found = PhoneDescription.parse(text(phone, "describe.sh"))
    assert (found.model, found.boot_id) == ("Pixel 8", phone.boot_id)
    assert {"tar", "timeout", "taskset", "flock", "pkill", "sha256sum", "settings"} <= found.tools
    assert found.data_free_kb
    assert text(phone, "claim.sh", DIRECTORY, "me@desk", "60") == ""
    put_models(phone, "k1", "k2")
    put_plan(phone, "k1", "k2", rounds=2, mask=core_mask(found, "little"))
    done = run(phone, "measure.sh", DIRECTORY, "plan", "t1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == log(phone, "t1")
    said = visits(done.stdout)
    assert [(visit.key, visit.code) for visit in said] == [("k1", 0), ("k2", 0)] * 2
    assert all("count=3" in visit.output for visit in said)
    assert events(done.stdout)[-1] == Finished()
    assert run(phone, "claim.sh", DIRECTORY, "other@lab", "60").stdout == b"me@desk\n"


def test_conditions_are_read_under_their_real_paths(phone: LoopbackPhone) -> None:
    phone.set_thermal(1, {"CPU": 57.9, "SKIN": 44.0, "BATTERY": 31.5})
    phone.cap_frequency(0, 1_000_000)
    phone.set_battery(level=61, celsius=32.5, powered="ac")
    found = Conditions.parse(text(phone, "conditions.sh"))
    wanted = {"status": 1.0, "cpu_c": 57.9, "skin_c": 44.0, "battery": 61.0, "battery_c": 32.5, "powered": "ac"}
    assert wanted.items() <= found.values.items()
    assert 0 in found.caps_mhz
    assert found.number("load1") == 0.53


def test_a_phone_that_heats_up_stops(phone: LoopbackPhone) -> None:
    put_models(phone, "k1")
    put_plan(phone, "k1", rounds=3)
    phone.fault("heat", when=2, status=2, temperatures={"CPU": 80.0, "SKIN": 45.0})
    done = run(phone, "measure.sh", DIRECTORY, "plan", "t1")
    assert done.returncode == STOPPED_HOT
    found = events(done.stdout)
    assert len(visits(done.stdout)) == 2
    assert isinstance(found[-2], RoundDone)
    assert found[-2].conditions.number("status") == 2.0
    assert found[-1] == Stopped("hot")


def test_crashes_keep_their_statuses(phone: LoopbackPhone) -> None:
    put_models(phone, "k1")
    put_plan(phone, "k1", rounds=4)
    for call, kind in enumerate(("crash", "abort", "killed"), start=1):
        phone.fault(kind, when=call)
    done = run(phone, "measure.sh", DIRECTORY, "plan", "t1")
    assert [visit.code for visit in visits(done.stdout)] == [139, 134, 137, 0]


@pytest.mark.parametrize("free_kb", [0, 4, 8])
def test_a_full_disk_ends_the_session_and_keeps_what_was_measured(tmp_path: Path, free_kb: int) -> None:
    with LoopbackPhone(tmp_path / "phone", data_mb=1) as phone:
        install(phone)
        put_models(phone, "k1")
        put_plan(phone, "k1", rounds=40)
        filler = phone.path("/data/local/tmp/filler")
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        os.truncate(filler, max(0, filler.stat().st_size - free_kb * 1024))
        done = run(phone, "measure.sh", DIRECTORY, "plan", "t1")
        assert done.returncode == NO_SPACE
        assert b"free some space" in done.stderr
        assert visits(log(phone, "t1")) == visits(done.stdout)
        filler.unlink()
        assert run(phone, "measure.sh", DIRECTORY, "plan", "t2").returncode == 0


def test_steps_are_held_and_put_back_also_by_the_next_boot(phone: LoopbackPhone) -> None:
    phone.power["wakefulness"] = "Asleep"
    steps = ("wake", "stay_awake", "fixed_performance", "cores=1", "background")
    phone.set_load(0.01, 0.01, 0.01)
    outcomes = parse_outcomes(text(phone, "steady.sh", "apply", DIRECTORY, *steps))
    assert [(one.step, one.state) for one in outcomes] == [(step.partition("=")[0], "held") for step in steps]
    assert (phone.power["wakefulness"], phone.power["fixed_performance"]) == ("Awake", "true")
    assert phone.settings["stay_on_while_plugged_in"] != "0"
    phone.reboot()
    assert {one.state for one in parse_outcomes(text(phone, "steady.sh", "restore", DIRECTORY))} == {"restored"}
    assert "stay_on_while_plugged_in" not in phone.settings
    assert phone.power["wakefulness"] == "Awake"
    assert not phone.path(f"{DIRECTORY}/journal").exists()


def test_an_old_phone_does_what_it_can(tmp_path: Path) -> None:
    with LoopbackPhone(tmp_path / "phone", properties=ANDROID_9) as phone:
        install(phone)
        phone.remove_tools("flock", "timeout", "pkill", "pgrep")
        outcomes = parse_outcomes(text(phone, "steady.sh", "apply", DIRECTORY, "wake", "fixed_performance"))
        assert [one.state for one in outcomes] == ["held", "unavailable"]
        assert "status" not in Conditions.parse(text(phone, "conditions.sh")).values
        assert PhoneDescription.parse(text(phone, "describe.sh")).soc == "zuma"
        put_models(phone, "k1")
        put_plan(phone, "k1")
        done = run(phone, "measure.sh", DIRECTORY, "plan", "t1")
        assert (done.returncode, done.stderr) == (0, b"")
        assert [visit.code for visit in visits(done.stdout)] == [0]


def running(phone: LoopbackPhone) -> bytes:
    """Process ids of benchmark_model in the phone."""
    pattern = f"^[^ ]+ -IS {DIRECTORY}/benchmark_model"
    command = phone.shell_argv(f"pgrep -f '{pattern}'")
    return subprocess.run(command, env=phone.environment, timeout=60, capture_output=True).stdout


def test_a_hanging_visit_of_a_killed_session_is_ended_by_the_next(phone: LoopbackPhone) -> None:
    put_models(phone, "k1")
    put_plan(phone, "k1")
    phone.fault("hang")
    with subprocess.Popen(
        phone.shell_argv(command("measure.sh", DIRECTORY, "plan", "t1")), env=phone.environment,
        stdout=subprocess.PIPE, start_new_session=True,
    ) as job:  # fmt: skip
        assert job.stdout is not None
        while not job.stdout.readline().startswith(b"t1 visit"):
            pass
        until_s = time.monotonic() + 60
        while not running(phone):
            assert time.monotonic() < until_s
        # What Android does to a shell that takes too much memory: no trap, no clean-up.
        subprocess.run(phone.shell_argv("pkill -KILL -f scripts/measure.sh"), env=phone.environment, timeout=60)
        job.stdout.close()
    assert visits(log(phone, "t1")) == []
    assert running(phone)
    phone.clear_faults()
    done = run(phone, "measure.sh", DIRECTORY, "plan", "t2")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [visit.code for visit in visits(done.stdout)] == [0]
    assert not running(phone)
