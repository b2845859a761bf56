"""measure.sh when the cable is pulled, the disk is full, or another session runs: whole visits or none."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from toybox_phone import SHELLS, ToyboxPhone, hang_up, processes_with

from netlathe.profiler.phone.measure_protocol import (
    BUSY,
    NO_SPACE,
    PlannedVisit,
    SessionEvent,
    VisitDone,
    log_lines,
    read_events,
    write_plan,
)

KEYS = [f"k{i}" for i in range(4)]
SAID = "INFO: count=50 first=1187 curr=1041 min=1005 max=1380 avg=1104.28 std=70"


def write(phone: ToyboxPhone, timeout_s: float = 30) -> None:
    visits = [PlannedVisit(key, 5, 2, timeout_s) for key in KEYS]
    content = write_plan("s1", 1754.5, (), None, None, [("0", visits), ("1", visits)])
    (phone.directory / "plan").write_bytes(content)


def events(content: bytes) -> list[SessionEvent]:
    return list(read_events(log_lines(content)))


@contextmanager
def session(phone: ToyboxPhone, shell: str, token: str) -> Iterator[subprocess.Popen[bytes]]:
    """A measure.sh in a session of its own, as adbd starts it."""
    command = phone.argv(shell, "measure.sh", phone.directory, "plan", token)
    with subprocess.Popen(
        command, env=dict(phone.environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as job:
        try:
            yield job
        finally:
            hang_up(job)


def test_hung_up_at_any_moment_the_log_holds_whole_visits_and_all_that_was_seen(phone: ToyboxPhone, shell: str) -> None:
    phone.benchmark(f"echo '{SAID}'")
    write(phone)
    done = phone.run(shell, "measure.sh", phone.directory, "plan", "whole")
    expected = events(done.stdout)
    counts = set()
    for moment in range(30):
        token = f"t{moment}"
        with session(phone, shell, token) as job:
            time.sleep(0.005 * moment)
            hang_up(job)
            seen, _ = job.communicate(timeout=60)
        path = phone.directory / f"results/{token}.log"
        logged = path.read_bytes() if path.exists() else b""
        assert logged.startswith(seen)
        found = events(logged)
        assert found == expected[: len(found)]
        counts.add(len(found))
    assert len(counts) > 3  # the moments did fall into different places


def test_what_a_session_that_was_killed_left_running_is_ended_by_the_next(phone: ToyboxPhone, shell: str) -> None:
    phone.benchmark('echo started >"$STATE/started"\nfor i in $(seq 300); do sleep 0.1; done')
    write(phone)
    mark = f"{phone.directory}/benchmark_model"
    left: list[int] = []
    bystander = subprocess.Popen(
        ["/bin/sh", "-c", f"sleep 60; : {shlex.quote(mark)} --graph=x"], start_new_session=True
    )
    try:
        with session(phone, shell, "t1") as job:
            wait_for((phone.state / "started").exists)
            job.kill()
            job.wait(timeout=60)
        left = processes_with(f"{mark}\0--graph")
        assert left
        phone.tool("sleep", ":")
        phone.benchmark(f"echo '{SAID}'")
        done = phone.run(shell, "measure.sh", phone.directory, "plan", "t2")
        assert (done.returncode, done.stderr) == (0, b"")
        assert len([event for event in events(done.stdout) if isinstance(event, VisitDone)]) == 2 * len(KEYS)
        assert not set(processes_with(f"{mark}\0--graph")) & set(left)
        assert bystander.poll() is None
    finally:
        os.killpg(bystander.pid, signal.SIGKILL)
        bystander.wait()
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue


def wait_for(condition: object, timeout_s: float = 30) -> None:
    assert callable(condition)
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def quick_sleep(phone: ToyboxPhone) -> None:
    """Seconds that measure.sh waits take 10 ms; $STATE/waits tells that it does."""
    real_sleep = (phone.tools / "sleep").readlink()
    phone.tool("sleep", f'[ "$1" != 1 ] || {{ : >"$STATE/waits"; set -- 0.01; }}\nexec {real_sleep} sleep "$1"')


def test_of_two_at_once_the_second_waits_a_little_and_gives_up(phone: ToyboxPhone, shell: str) -> None:
    phone.benchmark(
        'echo started >>"$STATE/started"\nfor i in $(seq 200); do [ ! -f "$STATE/go" ] || exit 0; sleep 0.1; done'
    )
    write(phone)
    quick_sleep(phone)
    with session(phone, shell, "t1") as first:
        wait_for((phone.state / "started").exists)
        second = phone.run(shell, "measure.sh", phone.directory, "plan", "t2")
        assert second.returncode == BUSY
        assert b"another measure.sh is running" in second.stderr
        assert second.stdout == b""
        (phone.state / "go").touch()
        seen, _ = first.communicate(timeout=60)
        assert first.returncode == 0
    assert [event.code for event in events(seen) if isinstance(event, VisitDone)] == [0] * 8


@pytest.mark.parametrize("whole_group", [True, False])
def test_a_session_that_is_hung_up_makes_room_by_the_end_of_its_visit(
    phone: ToyboxPhone, shell: str, whole_group: bool
) -> None:
    """A terminal's hang-up reaches the whole process group, adbd's only the shell, and mksh waits for its child."""
    phone.benchmark(
        '[ ! -f "$STATE/started" ] || exit 0\necho >"$STATE/started"\nfor i in $(seq 200); do sleep 0.1; done'
    )
    write(phone, timeout_s=2)
    with session(phone, shell, "t1") as first:
        wait_for((phone.state / "started").exists)
        if whole_group:
            hang_up(first)
        else:
            first.send_signal(signal.SIGHUP)
        second = phone.run(shell, "measure.sh", phone.directory, "plan", "t2")
        assert (second.returncode, second.stderr) == (0, b"")
        assert [visit.code for visit in events(second.stdout) if isinstance(visit, VisitDone)] == [0] * 8
        first.communicate(timeout=60)
    logged = events((phone.directory / "results/t1.log").read_bytes())
    assert len([visit for visit in logged if isinstance(visit, VisitDone)]) <= 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a session prints that nothing disturbs, in each shell."""
    printed = {}
    for shell in SHELLS:
        phone = ToyboxPhone(tmp_path_factory.mktemp("undisturbed"))
        phone.benchmark(f"echo '{SAID}'")
        write(phone)
        printed[shell] = phone.run(shell, "measure.sh", phone.directory, "plan", "whole").stdout
    return printed


@pytest.mark.parametrize("limit", [*range(0, 1000, 45)])
def test_a_full_disk_ends_the_session_and_no_half_visit_counts(
    phone: ToyboxPhone, shell: str, limit: int, undisturbed: dict[str, bytes]
) -> None:
    phone.benchmark(f"echo '{SAID}'")
    write(phone)
    whole = undisturbed[shell]
    assert len(whole) > 1000

    def set_limit() -> None:
        # A write beyond the limit fails, as on a full disk, because Python leaves SIGXFSZ ignored.
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        phone.argv(shell, "measure.sh", phone.directory, "plan", "full"), env=dict(phone.environment),
        capture_output=True, timeout=60, preexec_fn=set_limit, restore_signals=False,
    )  # fmt: skip
    assert done.returncode == NO_SPACE
    assert b"free some space" in done.stderr
    logged = (phone.directory / "results/full.log").read_bytes()
    assert len(logged) <= limit
    assert logged.startswith(done.stdout)
    expected = events(whole.replace(b"whole", b"full"))
    assert events(logged) == expected[: len(events(logged))]
    assert events(logged) == events(done.stdout)


def test_a_listener_that_goes_away_costs_nothing_that_was_measured(phone: ToyboxPhone, shell: str) -> None:
    phone.benchmark(f"echo '{SAID}'")
    write(phone)
    with session(phone, shell, "t1") as job:
        assert job.stdout is not None
        assert job.stderr is not None
        first = job.stdout.readline()
        job.stdout.close()
        job.stderr.read()
        job.wait(timeout=60)
    assert job.returncode != 0
    logged = (phone.directory / "results/t1.log").read_bytes()
    assert logged.startswith(first)
    assert len(events(logged)) >= 1
