"""measure.sh in two shells: its protocol, and that nothing but whole visits ever counts."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from toybox_phone import ToyboxPhone

from netlathe.profiler.phone.measure_protocol import (
    BAD_PLAN,
    FINISHED,
    NO_SPACE,
    STOPPED_HOT,
    Finished,
    PlannedVisit,
    RoundBegin,
    RoundDone,
    SessionBegin,
    SessionEvent,
    Stopped,
    VisitDone,
    log_lines,
    read_events,
    write_plan,
)

LOG = Path(__file__).parents[1] / "profiler/benchmark_model_logs/x86_litert2026_cpu_default.txt"
FLAGS = ("--num_threads=1", "--pattern=*")


def plan(
    keys: Sequence[str] = ("k1", "k2"), rounds: int = 2, timeout_s: float = 30, mask: str | None = None,
    max_status: int | None = 0,
) -> bytes:  # fmt: skip
    visits = [PlannedVisit(key, 5, 2, timeout_s) for key in keys]
    return write_plan("s1", 1754.5, FLAGS, mask, max_status, [(str(i), visits) for i in range(rounds)])


def measure(phone: ToyboxPhone, shell: str, content: bytes, token: str = "t1") -> subprocess.CompletedProcess[bytes]:
    (phone.directory / "plan").write_bytes(content)
    return phone.run(shell, "measure.sh", phone.directory, "plan", token)


def log(phone: ToyboxPhone, token: str = "t1") -> bytes:
    return (phone.directory / f"results/{token}.log").read_bytes()


def events(content: bytes, token: str | None = None) -> list[SessionEvent]:
    return list(read_events(log_lines(content), token))


def visits(content: bytes) -> list[VisitDone]:
    return [event for event in events(content) if isinstance(event, VisitDone)]


@pytest.fixture
def real(phone: ToyboxPhone) -> ToyboxPhone:
    """benchmark_model says what a real one said, after its arguments."""
    phone.benchmark(f"printf '%s\\n' \"$@\"\ncat {LOG}")
    phone.dumps("thermalservice", "thermal_android_14_samsung.txt")
    return phone


def test_a_session_tells_its_rounds_and_visits_and_logs_the_same(real: ToyboxPhone, shell: str) -> None:
    done = measure(real, shell, plan())
    assert (done.returncode, done.stderr) == (FINISHED, b"")
    assert done.stdout == log(real)
    found = events(done.stdout, "t1")
    kinds = [type(event) for event in found]
    one_round = [RoundBegin, VisitDone, VisitDone, RoundDone]
    assert kinds == [SessionBegin, *one_round, *one_round, Finished]
    assert found[0] == SessionBegin(1000.25, "11111111-aaaa", "s1", 1754.5)
    begin = found[1]
    assert isinstance(begin, RoundBegin)
    assert (begin.id, begin.uptime_s, begin.conditions.values["cpu_c"]) == ("0", 1000.25, 34.6)
    visit = found[2]
    assert isinstance(visit, VisitDone)
    assert (visit.key, visit.uptime_s, visit.code) == ("k1", 1000.25, 0)
    arguments, _, said = visit.output.partition("\n$ ./benchmark_model")
    assert arguments.splitlines() == [
        f"--graph={real.directory}/models/k1.tflite", "--num_runs=5", "--warmup_runs=2", "--min_secs=0",
        "--warmup_min_secs=0", *FLAGS,
    ]  # fmt: skip
    assert f"$ ./benchmark_model{said}\n" == LOG.read_text()


def test_any_output_comes_through(phone: ToyboxPhone, shell: str) -> None:
    said = bytes(range(1, 256)) + b"\nother end k1 0\nother finish\n\\n \\0101 \\c -n\nt1end k1 0\nno newline"
    (phone.state / "said").write_bytes(said)
    phone.benchmark('cat "$STATE/said"; printf "\\nto stderr" >&2')
    done = measure(phone, shell, plan(("k1",), rounds=1))
    start = done.stdout.index(b"t1 visit k1")
    body = done.stdout[done.stdout.index(b"\n", start) + 1 :]
    assert body.startswith(said + b"\nto stderr\nt1 end k1 0\n")
    assert done.stdout == log(phone)
    assert visits(done.stdout)[0].output.endswith("t1end k1 0\nno newline\nto stderr")


def test_null_bytes_and_silence_do_no_harm(phone: ToyboxPhone, shell: str) -> None:
    phone.benchmark('case $1 in */k1.tflite) printf "a\\0b\\n\\n\\n" ;; esac')
    assert [visit.output for visit in visits(measure(phone, shell, plan(rounds=1)).stdout)] == ["ab", ""]


@pytest.mark.parametrize(
    ("body", "code"), [("exit 3", 3), ("kill -SEGV $$", 139), ("kill -KILL $$", 137), ("kill -ABRT $$", 134)]
)
def test_a_failed_visit_keeps_its_status_and_the_next_one_runs(
    phone: ToyboxPhone, shell: str, body: str, code: int
) -> None:
    phone.benchmark(f"echo said\ncase $1 in */k1.tflite) {body} ;; esac")
    found = visits(measure(phone, shell, plan(rounds=1)).stdout)
    assert [(visit.key, visit.code, visit.output) for visit in found] == [("k1", code, "said"), ("k2", 0, "said")]


def test_a_visit_that_hangs_is_ended(phone: ToyboxPhone, shell: str) -> None:
    phone.benchmark("echo started; exec sleep 60")
    found = visits(measure(phone, shell, plan(("k1",), rounds=1, timeout_s=0.2)).stdout)
    assert [(visit.code, visit.output) for visit in found] == [(124, "started")]


def test_a_missing_or_locked_benchmark_model_gives_the_shells_statuses(phone: ToyboxPhone, shell: str) -> None:
    found = visits(measure(phone, shell, plan(("k1",), rounds=1)).stdout)
    assert found[0].code == 127
    assert "No such file" in found[0].output
    (phone.directory / "benchmark_model").mkdir()
    found = visits(measure(phone, shell, plan(("k1",), rounds=1), "t2").stdout)
    assert found[0].code in (126, 127)
    assert "Permission denied" in found[0].output


def test_cores_are_held_by_taskset_and_a_bad_mask_is_told(phone: ToyboxPhone, shell: str) -> None:
    phone.benchmark("grep Cpus_allowed_list /proc/self/status")
    found = visits(measure(phone, shell, plan(("k1",), rounds=1, mask="1")).stdout)
    assert found[0].output.split() == ["Cpus_allowed_list:", "0"]
    found = visits(measure(phone, shell, plan(("k1",), rounds=1, mask="f0000000"), "t2").stdout)
    assert found[0].code in (1, 127)
    assert "Invalid argument" in found[0].output


def test_a_hot_phone_stops_after_the_round(real: ToyboxPhone, shell: str) -> None:
    real.dumps("thermalservice", "thermal_android_13_hot.txt")
    done = measure(real, shell, plan(max_status=1))
    assert done.returncode == STOPPED_HOT
    found = events(done.stdout)
    assert [type(event) for event in found] == [SessionBegin, RoundBegin, VisitDone, VisitDone, RoundDone, Stopped]
    assert found[-1] == Stopped("hot")


@pytest.mark.parametrize("max_status", [2, None])
def test_a_phone_within_its_limit_goes_on(real: ToyboxPhone, shell: str, max_status: int | None) -> None:
    real.dumps("thermalservice", "thermal_android_13_hot.txt")
    assert measure(real, shell, plan(max_status=max_status)).returncode == FINISHED


def test_a_phone_without_thermal_status_goes_on(phone: ToyboxPhone, shell: str) -> None:
    phone.benchmark("echo said")
    (phone.tools / "dumpsys").unlink()
    assert measure(phone, shell, plan()).returncode == FINISHED


@pytest.mark.parametrize(
    "content",
    [
        plan()[:-1], plan()[:-4], plan().replace(b"visit k2 5", b"visit k2 x"), plan().replace(b"round 0\n", b""),
        plan().replace(b"visit k2", b"visit ../k2"), plan().replace(b"end\n", b"end\nround 9\n"), b"",
        plan().replace(b"stamp", b"stomp"), plan(mask="f0").replace(b"mask f0", b"mask 0xf0"),
        plan().replace(b"visit k2 5 2 30", b"visit k2 5 2"), plan().replace(b"stamp 1754.500", b"stamp now"),
    ],
)  # fmt: skip
def test_a_bad_plan_is_refused_before_the_first_visit(real: ToyboxPhone, shell: str, content: bytes) -> None:
    done = measure(real, shell, content)
    assert (done.returncode, done.stdout) == (BAD_PLAN, b"")
    assert re.search(rb"/plan (line \d+: '.+'|line 12: more after 'end'|has no 'end' line)", done.stderr)
    assert not (real.directory / "results").exists()


def test_the_line_of_a_plan_that_is_wrong_is_shown(real: ToyboxPhone, shell: str) -> None:
    done = measure(real, shell, plan().replace(b"visit k2 5 2 30", b"visit k2 5 2 x0", 1))
    assert b"/plan line 7: 'visit k2 5 2 x0' is not a line of a plan" in done.stderr


def test_a_folder_that_cannot_be_written_is_said(real: ToyboxPhone, shell: str) -> None:
    (real.directory / "lock").mkdir()
    done = measure(real, shell, plan())
    assert done.returncode == NO_SPACE
    assert b"lock cannot be written" in done.stderr


def test_a_token_serves_once(real: ToyboxPhone, shell: str) -> None:
    measure(real, shell, plan())
    before = log(real)
    done = measure(real, shell, plan())
    assert done.returncode == BAD_PLAN
    assert b"t1.log exists" in done.stderr
    assert log(real) == before


def test_wrong_arguments_are_refused(real: ToyboxPhone, shell: str) -> None:
    (real.directory / "plan").write_bytes(plan())
    for arguments in ((real.directory, "plan"), ("dir", "plan", "t1"), (real.directory, "plan", "t 1"),
                      (real.directory, "other", "t1")):  # fmt: skip
        assert real.run(shell, "measure.sh", *arguments).returncode == BAD_PLAN


def test_a_timeout_that_says_127_of_short_programs_is_still_used(phone: ToyboxPhone, shell: str) -> None:
    real_timeout = (phone.tools / "timeout").readlink()
    phone.tool("timeout", f'for last; do :; done\n[ "$last" != true ] || exit 127\nexec {real_timeout} timeout "$@"')
    phone.benchmark("echo started; exec sleep 60")
    found = visits(measure(phone, shell, plan(("k1",), rounds=1, timeout_s=0.2)).stdout)
    assert [visit.code for visit in found] == [124]


@pytest.mark.parametrize("missing", [("flock",), ("pkill",), ("timeout",), ("dumpsys",), ("flock", "pkill", "timeout")])
def test_old_phones_lack_tools_and_measure_all_the_same(
    real: ToyboxPhone, shell: str, missing: tuple[str, ...]
) -> None:
    for tool in missing:
        (real.tools / tool).unlink()
    done = measure(real, shell, plan(rounds=1))
    assert (done.returncode, done.stderr) == (0, b"")
    assert [visit.code for visit in visits(done.stdout)] == [0, 0]


def test_an_old_timeout_without_k_is_used_without_it(real: ToyboxPhone, shell: str) -> None:
    real.tool("timeout", 'case $1 in -*) echo "timeout: Unknown option" >&2; exit 1 ;; esac\nshift\nexec "$@"')
    assert [visit.code for visit in visits(measure(real, shell, plan(rounds=1)).stdout)] == [0, 0]


def test_unreadable_clocks_are_not_a_number(real: ToyboxPhone, shell: str) -> None:
    (real.proc / "uptime").unlink()
    (real.proc / "sys/kernel/random/boot_id").unlink()
    found = events(measure(real, shell, plan(rounds=1)).stdout)
    begin = found[0]
    assert isinstance(begin, SessionBegin)
    assert math.isnan(begin.uptime_s)
    assert begin.boot_id == "-"
    assert len(found) == 6


def test_the_claim_is_refreshed_and_keeps_its_holder(real: ToyboxPhone, shell: str) -> None:
    real.set_uptime(999.75)
    real.text(shell, "claim.sh", real.directory, "ann@desk", 60)
    real.set_uptime(1059.5)
    measure(real, shell, plan())
    assert (real.directory / "owner").read_text() == "1059.50 60 11111111-aaaa ann@desk\n"
    real.set_uptime(1100)
    assert real.run(shell, "claim.sh", real.directory, "bob@lab", 60).returncode == 75


def test_a_visit_costs_one_fork_of_the_shell_and_one_of_timeout(real: ToyboxPhone, shell: str) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    program = real.directory / "benchmark_model"
    program.unlink()
    program.symlink_to("/bin/true")

    def forks(count: int) -> int:
        (real.directory / "plan").write_bytes(plan([f"k{i}" for i in range(count)], rounds=1))
        trace = real.root / f"trace{count}"
        command = real.argv(shell, "measure.sh", real.directory, "plan", f"t{count}")
        subprocess.run(
            [strace, "-f", "-qq", "-e", "trace=clone,clone3,fork,vfork", "-o", trace, *command],
            env=dict(real.environment), stdout=subprocess.DEVNULL, check=True, timeout=60,
        )  # fmt: skip
        return len(re.findall(r"(?:fork|clone3?)\(", trace.read_text()))

    assert forks(12) - forks(2) == 2 * 10
