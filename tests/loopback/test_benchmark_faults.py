"""Calls of the loopback phone's benchmark_model that go wrong, on purpose or because somebody ends them."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.forms.tflite import write_tflite

from .faults import KINDS, Fault
from .phone import LoopbackPhone, loopback_unavailable
from .tool_calls import FOLDER, QUICK, TIMEOUT_S, counts, forks, installed, long_call, shell, tool, until

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))

SMALL = write_tflite(MBConv(8, 8, 4, 4).graph())


@pytest.fixture(scope="module")
def base_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPhone]:
    with installed(tmp_path_factory.mktemp("phone")) as phone:
        yield phone


@pytest.fixture
def phone(base_phone: LoopbackPhone) -> Iterator[LoopbackPhone]:
    yield base_phone
    base_phone.clear_faults()
    base_phone.set_thermal()
    base_phone.cap_frequency(0, None)


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [("crash", 139, "Segmentation fault"), ("abort", 134, "Aborted"), ("killed", 137, "Killed")],
)
def test_a_run_that_dies_takes_the_tool_with_it(phone, kind, code, words):
    phone.fault(kind)
    result = shell(phone, f"./benchmark_model --graph=mb.tflite {QUICK}; echo rc=$?")
    assert result.stdout.decode().endswith(f"rc={code}\n")
    assert len(counts(result.stdout.decode())) == 1
    assert words in result.stderr.decode()


def test_a_hanging_run_ends_with_its_timeout(phone):
    phone.fault("hang")
    result = shell(phone, f"timeout 0.5 ./benchmark_model --graph=mb.tflite {QUICK}")
    assert result.returncode == 124
    until(lambda: not forks(phone), "the run outlives its caller")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_run_ends_when_its_caller_is_killed(phone, number):
    with long_call(phone) as process:
        assert len(forks(phone)) == 1
        os.killpg(process.pid, number)
        assert process.wait(TIMEOUT_S) == -number
    until(lambda: not forks(phone), "the run outlives its caller")


def test_the_phone_finds_and_kills_a_run_by_its_path(phone):
    with long_call(phone, program=f"{FOLDER}/benchmark_model") as process:
        assert shell(phone, f"exec pkill -f '{FOLDER}/[b]enchmark_model'").returncode == 0
        assert process.wait(TIMEOUT_S) == -signal.SIGTERM
    until(lambda: not forks(phone), "the run outlives its caller")


def test_garbage_has_no_counts_and_exit_code_0(phone):
    phone.fault("garbage")
    result = shell(phone, f"./benchmark_model --graph=mb.tflite {QUICK}")
    assert result.returncode == 0
    with pytest.raises(UnicodeDecodeError):
        result.stdout.decode()


def test_a_truncated_output_ends_in_the_line_of_the_runs(phone):
    phone.fault("truncated")
    text, code = tool(phone)
    assert code == 0
    assert re.search(r"INFO: count=6 [^\n]*\Z", text)
    assert "Inference timings" not in text


def test_the_other_tool_prints_its_own_results(phone):
    phone.fault("wrong_tool")
    text, code = tool(phone)
    assert (code, "BENCHMARK RESULTS" in text) == (0, True)


def test_no_runs_count_0(phone):
    phone.fault("no_runs")
    text, code = tool(phone)
    assert code == 0
    assert [line["count"] for line in counts(text)] == [2, 0]


def test_a_tool_without_the_right_to_run_is_126(phone):
    phone.fault("not_executable")
    assert tool(phone)[1] == 126
    phone.clear_faults()
    phone.path(f"{FOLDER}/benchmark_model").chmod(0o644)
    assert tool(phone)[1] == 126
    phone.path(f"{FOLDER}/benchmark_model").chmod(0o755)
    assert tool(phone)[1] == 0


def test_a_failure_can_say_what_it_wants(phone):
    phone.fault("fails", message="Failed to apply GPU delegate.")
    text, code = tool(phone)
    assert code == 1
    assert "ERROR: Failed to apply GPU delegate.\nERROR: Benchmarking failed.\n" in text


def test_a_slow_phone_takes_a_multiple_of_its_time(phone):
    phone.fault("slow", factor=1000)
    slow = counts(tool(phone)[0])[1]
    phone.clear_faults()
    assert slow["min"] > 20 * counts(tool(phone)[0])[1]["min"]


def test_a_clock_that_jumps_spoils_one_run(phone):
    phone.fault("clock_jump", seconds=3600)
    runs = counts(tool(phone)[0])[1]
    assert runs["max"] > 3.6e9 > 1000 * runs["median"]
    assert runs["count"] < 6 + 1
    phone.clear_faults()
    phone.fault("clock_jump", seconds=-0.3)
    assert counts(tool(phone)[0])[1]["min"] < 0


def test_heat_and_a_cap_come_in_the_middle_of_a_call(phone):
    phone.fault("heat", status=3, temperatures={"CPU": 80.0, "SKIN": 49.0})
    phone.fault("cap", core=0, khz=1_000_000)
    assert tool(phone)[1] == 0
    assert b"Thermal Status: 3\n" in shell(phone, "dumpsys thermalservice").stdout
    capped = shell(phone, "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq").stdout
    assert capped == b"1000000\n"


def test_faults_hit_the_named_call_of_the_named_model(tmp_path):
    with installed(tmp_path / "phone", {"a": SMALL, "b": SMALL}) as phone:
        phone.fault("crash", when=2, key="a")
        phone.fault("abort", when=[5, 6])
        codes = [tool(phone, model=f"{key}.tflite")[1] for key in "babbbbaa"]
        # a's second call is the 7th of all.
        assert codes == [0, 0, 0, 0, 134, 134, 139, 0]


def test_unknown_faults_and_arguments_are_refused(phone):
    with pytest.raises(ValueError, match="no fault 'melt'; there are crash, "):
        phone.fault("melt")
    with pytest.raises(ValueError, match="takes no factor"):
        phone.fault("crash", factor=2)
    assert all(Fault(kind, None, None, {}).hits("x", 1, 1) for kind in KINDS)


def test_a_reboot_ends_runs_and_later_calls_work(tmp_path):
    with installed(tmp_path / "phone") as phone:
        with long_call(phone) as process:
            phone.reboot()
            assert process.wait(TIMEOUT_S) == -signal.SIGKILL
        until(lambda: not forks(phone), "the run outlives its caller")
        assert tool(phone)[1] == 0


def test_close_ends_runs(tmp_path):
    with installed(tmp_path / "phone") as phone, long_call(phone):
        runs = forks(phone)
        assert runs
        phone.close()
        assert not any(Path(f"/proc/{run}").exists() for run in runs)
