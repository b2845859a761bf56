"""Everything that goes wrong between a computer and a phone. After each: the same command again, and the profile holds
exactly one whole record per graph, and the phone nothing of netlathe's."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from loopback.trust import Trust
from phones import ITEMS, KEYS, PLAN, check_profile, leftovers, opened, profile_phone

from netlathe.archspace.profile_file import ProfileFile
from netlathe.profiler.campaign import run_campaign
from netlathe.profiler.devices import DeviceOptions, open_device
from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone import link, prepared, rounds
from netlathe.profiler.phone.workspace import Workspace

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))

PULLS, KILLS = 50, 30
FAST_PULLS, FAST_KILLS = 2, 2
"""So many of them in the fast suite: pulls in either direction."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(link, "RECONNECT_S", 10.0)
    monkeypatch.setattr(prepared, "POLL_S", 0.05)


@pytest.fixture(scope="module")
def traffic(phone, tmp_path_factory):
    """Bytes in and out of an undisturbed campaign."""
    with AdbDaemon(phone) as whole:
        profile_phone(whole.address, tmp_path_factory.mktemp("whole") / "p.sqlite")
        return whole.bytes_in, whole.bytes_out


def pull_the_cable(phone, daemon, traffic, path, seed):
    """One campaign whose cable is pulled, and put back, at a random byte of either direction."""
    rng = random.Random(seed)
    inward = rng.random() < 0.5
    offset = rng.randrange(1, traffic[0 if inward else 1])
    daemon.link.cut_after(**{"bytes_in" if inward else "bytes_out": offset})
    profile_phone(daemon.address, path)
    daemon.link.cut_after()  # this campaign may have needed fewer bytes than that
    check_profile(path)
    assert leftovers(phone) == []


@pytest.mark.parametrize("seed", range(FAST_PULLS))
def test_a_pulled_cable_at_any_byte_costs_nothing(phone, daemon, traffic, tmp_path, seed):
    pull_the_cable(phone, daemon, traffic, tmp_path / "p.sqlite", seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FAST_PULLS, PULLS))
def test_a_pulled_cable_at_very_many_bytes_costs_nothing(phone, daemon, traffic, tmp_path, seed):
    pull_the_cable(phone, daemon, traffic, tmp_path / "p.sqlite", seed)


def test_a_cable_that_stays_out_ends_the_campaign_and_the_same_command_continues(phone, daemon, tmp_path, monkeypatch):
    monkeypatch.setattr(link, "RECONNECT_S", 0.5)
    said = []

    def unplug_in_the_second_round(progress):
        if progress.round == 1 and daemon.is_plugged:
            daemon.unplug()

    def measure():
        with (
            ProfileFile(tmp_path / "p.sqlite", create=True) as profile,
            opened(daemon.address, report=said.append) as phone,
        ):
            ticks = iter(range(10**6))  # a second passes at each look, so that no progress is left out
            run_campaign(phone, ITEMS, profile, PLAN, on_progress=unplug_in_the_second_round, clock=ticks.__next__)

    with pytest.raises(DeviceError):
        measure()
    assert any("netlathe device clean" in line for line in said)
    assert leftovers(phone) == ["netlathe"]
    daemon.plug()
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")
    assert leftovers(phone) == []


def test_a_cable_that_is_out_for_a_while_is_waited_for_and_results_are_fetched_from_the_phone(phone, daemon, tmp_path):
    said = []
    pulled = threading.Event()

    def pull(progress):
        if progress.round == 2 and not pulled.is_set():
            pulled.set()
            daemon.unplug()
            threading.Timer(1.0, daemon.plug).start()

    with (
        ProfileFile(tmp_path / "p.sqlite", create=True) as profile,
        opened(daemon.address, report=said.append) as phone_,
    ):
        run_campaign(phone_, ITEMS, profile, PLAN, on_progress=pull, clock=iter(range(10**6)).__next__)
    assert pulled.is_set()
    assert [line for line in said if "back again" in line]
    check_profile(tmp_path / "p.sqlite")
    assert leftovers(phone) == []


CHILD = """
import sys
from pathlib import Path
from phones import profile_phone
profile_phone(sys.argv[1], Path(sys.argv[2]))
"""


def kill_and_go_on(phone, daemon, path, moments):
    """Campaigns in processes of their own, killed after so many seconds each; then one to the end."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(["tests/profiler", ".", "tests"]),
        "OMP_NUM_THREADS": "1",
    }
    for moment_s in moments:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, daemon.address, str(path)], env=environment, stderr=subprocess.PIPE
        )
        try:
            _, said = child.communicate(timeout=moment_s)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            _, said = child.communicate()
        assert child.returncode in (0, -signal.SIGKILL), said.decode()
    profile_phone(daemon.address, path)
    check_profile(path)
    assert leftovers(phone) == []


def test_a_host_process_killed_at_random_moments_loses_and_repeats_nothing(phone, daemon, tmp_path):
    rng = random.Random(1)
    kill_and_go_on(phone, daemon, tmp_path / "p.sqlite", [rng.uniform(1, 5) for _ in range(FAST_KILLS)])


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(5))
def test_a_host_process_killed_at_many_random_moments_loses_and_repeats_nothing(phone, daemon, tmp_path, batch):
    rng = random.Random(100 + batch)
    moments = [rng.uniform(1, 5) for _ in range((KILLS - FAST_KILLS) // 5 + 1)]
    kill_and_go_on(phone, daemon, tmp_path / "p.sqlite", moments)


SHORT_ROUNDS = dataclasses.replace(PLAN, round_s=0.1)
"""Several rounds a session."""


def logs(phone):
    """Of sessions, as the phone keeps them until they are fetched."""
    return [log.read_text() for log in phone.path("/data/local/tmp/netlathe/results").iterdir()]


def unfetched_rounds(phone, stored):
    """How many rounds the phone has logged that are not among those that were `stored`, by their starts."""
    logged = sum(log.count(" done ") for log in logs(phone))
    began = min(float(log.splitlines()[0].split()[-1]) for log in logs(phone))
    return logged - sum(start >= began for start in stored)


def interrupt_while_the_phone_goes_on(phone, daemon, path, *, is_aside=False):
    """A campaign whose process is gone when the phone has measured more than it has fetched; starts of the rounds that
    it stored, and how many it did not fetch."""

    def die(progress):
        plan = phone.path("/data/local/tmp/netlathe/plan").read_text()
        if progress.round == 0 or plan.count("\nround ") < 3:  # first rounds are sent one by one
            return
        for _ in range(200):  # the phone goes on while nobody listens
            if sum(log.count(" done ") for log in logs(phone)) >= 2:
                break
            time.sleep(0.05)
        raise KeyboardInterrupt

    # Not in a with statement, nor held by one: a killed process closes nothing.
    device = open_device(daemon.address, DeviceOptions(benchmark_binary=BENCHMARK_MODEL))
    device.is_aside = is_aside
    with ProfileFile(path, create=True) as profile:
        with pytest.raises(KeyboardInterrupt):
            run_campaign(device, ITEMS, profile, SHORT_ROUNDS, on_progress=die, clock=iter(range(10**6)).__next__)
        device._held.close()  # as the system does for a killed process
        device.connection.close()
        stored = [info.started_at for info in profile.round_log(device.setup)]
    unfetched = unfetched_rounds(phone, stored)
    assert unfetched >= 1
    return stored, unfetched


def test_what_the_phone_measured_for_a_killed_process_is_not_measured_again(phone, daemon, tmp_path):
    path = tmp_path / "p.sqlite"
    stored, unfetched = interrupt_while_the_phone_goes_on(phone, daemon, path)
    interrupted_at = time.time()
    profile_phone(daemon.address, path, plan=SHORT_ROUNDS)
    check_profile(path)
    with ProfileFile(path) as profile:
        log = profile.round_log(profile.setups()[0])
    assert [info.started_at for info in log][: len(stored)] == stored
    assert sum(info.started_at < interrupted_at for info in log) >= len(stored) + unfetched


def time_on_the_side(daemon, path):
    """When the rounds of a timing that belongs to no profile started."""
    with opened(daemon.address) as device, ProfileFile(path, create=True) as notes:
        device.is_aside = True
        run_campaign(device, ITEMS[:1], notes, PLAN)
        return [info.started_at for info in notes.round_log(device.setup)]


def test_what_is_timed_on_the_side_leaves_a_profiles_results_on_the_phone(phone, daemon, tmp_path):
    path = tmp_path / "p.sqlite"
    stored, unfetched = interrupt_while_the_phone_goes_on(phone, daemon, path)
    interrupted_at = time.time()
    assert min(time_on_the_side(daemon, tmp_path / "aside.sqlite")) > interrupted_at
    profile_phone(daemon.address, path, plan=SHORT_ROUNDS)
    with ProfileFile(path) as profile:
        log = profile.round_log(profile.setups()[0])
    assert sum(info.started_at < interrupted_at for info in log) >= len(stored) + unfetched
    assert leftovers(phone) == []


def test_nobody_takes_what_was_timed_on_the_side_for_its_own(phone, daemon, tmp_path):
    interrupt_while_the_phone_goes_on(phone, daemon, tmp_path / "killed.sqlite", is_aside=True)
    interrupted_at = time.time()
    assert min(time_on_the_side(daemon, tmp_path / "aside.sqlite")) > interrupted_at
    profile_phone(daemon.address, tmp_path / "p.sqlite", plan=SHORT_ROUNDS)
    check_profile(tmp_path / "p.sqlite")
    with ProfileFile(tmp_path / "p.sqlite") as profile:
        assert all(info.started_at > interrupted_at for info in profile.round_log(profile.setups()[0]))
    assert leftovers(phone) == []


def test_a_phone_that_reboots_in_a_round_goes_on_with_its_settings_held_again(phone, daemon, tmp_path):
    rebooted = threading.Event()

    def reboot(progress):
        if progress.round == 1 and not rebooted.is_set():
            rebooted.set()
            daemon.reboot()

    with ProfileFile(tmp_path / "p.sqlite", create=True) as profile, opened(daemon.address) as device:
        run_campaign(device, ITEMS, profile, PLAN, on_progress=reboot, clock=iter(range(10**6)).__next__)
        assert phone.power["fixed_performance"] == "true"
    assert rebooted.is_set()
    check_profile(tmp_path / "p.sqlite")
    assert phone.power["fixed_performance"] == "false"
    assert leftovers(phone) == []


def test_a_phone_that_refuses_a_steady_clock_after_its_reboot_ends_the_campaign(phone, daemon, tmp_path):
    rebooted = threading.Event()

    def reboot(progress):
        if progress.round == 1 and not rebooted.is_set():
            rebooted.set()
            phone.refuse_fixed_performance()
            daemon.reboot()

    def measure():
        with ProfileFile(tmp_path / "p.sqlite", create=True) as profile, opened(daemon.address) as device:
            run_campaign(device, ITEMS, profile, PLAN, on_progress=reboot, clock=iter(range(10**6)).__next__)

    try:
        with pytest.raises(DeviceError, match="fixed performance mode is refused, was held before"):
            measure()
    finally:
        phone.power["fixed_performance_supported"] = "true"
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")


def test_another_phone_at_the_same_place_is_not_taken_for_the_first_one(phone, daemon, tmp_path):
    swapped = threading.Event()
    serial = phone.properties["ro.serialno"]

    def swap(progress):
        if progress.round == 1 and not swapped.is_set():
            swapped.set()
            phone.properties["ro.serialno"] = "ANOTHER"
            daemon.cut()

    def measure():
        with ProfileFile(tmp_path / "p.sqlite", create=True) as profile, opened(daemon.address) as device:
            run_campaign(device, ITEMS, profile, PLAN, on_progress=swap, clock=iter(range(10**6)).__next__)

    try:
        with pytest.raises(DeviceError, match="another phone than before"):
            measure()
    finally:
        phone.properties["ro.serialno"] = serial
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")


def test_a_cable_pulled_as_the_setup_is_found_out_is_waited_for(phone, daemon, monkeypatch):
    real, said = Workspace.put_models, []

    def put_models(self, *arguments):
        if not said:
            daemon.cut()
        return real(self, *arguments)

    monkeypatch.setattr(Workspace, "put_models", put_models)
    with opened(daemon.address, report=said.append) as device:
        assert device.setup.delegate == "xnnpack"
    assert any("back again" in line for line in said)
    assert leftovers(phone) == []


def test_a_link_that_breaks_whenever_the_setup_is_to_be_found_out_is_to_blame(phone, daemon, monkeypatch):
    real = Workspace.put

    def put(self, content, name, *arguments, **options):
        real(self, content, name, *arguments, **options)
        if name == "plan":
            daemon.cut()

    monkeypatch.setattr(Workspace, "put", put)
    with (
        pytest.raises(DeviceError, match="the link breaks before a block has run; check the cable"),
        opened(daemon.address),
    ):
        pass
    assert leftovers(phone) == []


def test_the_log_of_a_probe_that_was_killed_is_not_kept(phone, daemon, tmp_path):
    results = phone.path("/data/local/tmp/netlathe/results")
    results.mkdir(parents=True)
    (results / "f00d.log").write_text("f00d begin 812.31 0b5e-11 probe 1754000000.250\nf00d round 0 812.33 status=0\n")
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")
    assert leftovers(phone) == []


def test_results_for_a_campaign_that_needs_nothing_more_are_not_left_on_the_phone(phone, daemon, tmp_path):
    """As after a kill between the last outcome and the end."""
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    with ProfileFile(tmp_path / "p.sqlite") as profile:
        (setup,) = profile.setups()
    results = phone.path("/data/local/tmp/netlathe/results")
    results.mkdir(parents=True)
    begin = f"begin 812.31 0b5e-11 {setup.key} 1754000000.250"
    lines = (begin, "round 0 812.33 status=0", "done 0 813 status=0", "finish")
    (results / "f00d.log").write_text("".join(f"f00d {line}\n" for line in lines))
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")
    assert leftovers(phone) == []


@pytest.mark.parametrize("disturb", ["opened and closed", "a wrong binary", "a cable pulled while fetching"])
def test_results_that_nobody_has_read_survive(phone, daemon, tmp_path, monkeypatch, disturb):
    """They count in the end, whatever is done between the interrupted campaign and the next one."""
    path = tmp_path / "p.sqlite"
    stored, unfetched = interrupt_while_the_phone_goes_on(phone, daemon, path)
    interrupted_at = time.time()
    if disturb == "opened and closed":
        with opened(daemon.address):
            pass
    elif disturb == "a wrong binary":
        with pytest.raises(DeviceError), opened(daemon.address, benchmark_binary=tmp_path / "missing"):
            pass
    else:
        real, cuts = Workspace.read_log, []

        def read_log(self, token):
            if not cuts:
                cuts.append(daemon.cut())
            return real(self, token)

        monkeypatch.setattr(Workspace, "read_log", read_log)
    profile_phone(daemon.address, path, plan=SHORT_ROUNDS)
    check_profile(path)
    with ProfileFile(path) as profile:
        log = profile.round_log(profile.setups()[0])
    assert sum(info.started_at < interrupted_at for info in log) >= len(stored) + unfetched
    assert leftovers(phone) == []


def test_a_full_disk_ends_the_campaign_with_what_to_do_and_a_free_one_continues(tmp_path):
    with LoopbackPhone(tmp_path / "phone", data_mb=1) as small, AdbDaemon(small) as daemon:
        filler = small.path("/data/filler")

        def fill(progress):
            if progress.round == 1 and not filler.exists():
                with filler.open("wb", buffering=0) as file:
                    try:
                        while True:
                            file.write(bytes(4096))
                    except OSError:
                        pass

        def measure():
            with ProfileFile(tmp_path / "p.sqlite", create=True) as profile, opened(daemon.address) as phone:
                run_campaign(phone, ITEMS, profile, PLAN, on_progress=fill, clock=iter(range(10**6)).__next__)

        with pytest.raises(DeviceError, match=r"free some|No space"):
            measure()
        filler.unlink()
        profile_phone(daemon.address, tmp_path / "p.sqlite")
        check_profile(tmp_path / "p.sqlite")
        assert leftovers(small) == []


@pytest.mark.parametrize(
    "reasons", [{"crash": "139", "abort": "134", "killed": "137"}, {"garbage": "", "truncated": "", "no_runs": ""}]
)
def test_a_program_that_fails_now_and_then_costs_one_record_until_the_next_run(phone, daemon, tmp_path, reasons):
    """Each kind of failure in one graph, among others that are well."""
    wrong = dict(zip(reasons, ITEMS[1:], strict=False))
    for kind, item in wrong.items():
        phone.fault(kind, key=item.graph.key)
    summary = profile_phone(daemon.address, tmp_path / "p.sqlite")
    said = {record.name: record.message for record in summary.failed}
    assert said.keys() == {item.name for item in wrong.values()}
    assert all(reason in said[wrong[kind].name] for kind, reason in reasons.items())
    assert len(summary.records) == len(ITEMS) - len(reasons)
    phone.clear_faults()
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")


def test_a_program_that_hangs_is_ended_on_the_phone_and_the_others_go_on(phone, daemon, tmp_path, monkeypatch):
    monkeypatch.setattr(rounds, "VISIT_TIMEOUT_S", 2)
    phone.fault("hang", key=ITEMS[1].graph.key)
    summary = profile_phone(daemon.address, tmp_path / "p.sqlite")
    assert [r.name for r in summary.failed] == [ITEMS[1].name]
    assert "124" in summary.failed[0].message
    phone.clear_faults()
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")
    assert leftovers(phone) == []


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_jumps_on_the_phone_disturbs_no_record(phone, daemon, tmp_path, monkeypatch, seconds):
    """The tool reads the wall clock: set back, it runs on until it is ended; set forward, one run seems long."""
    monkeypatch.setattr(rounds, "VISIT_TIMEOUT_S", 2)
    phone.fault("clock_jump", key=ITEMS[2].graph.key, seconds=seconds)
    summary = profile_phone(daemon.address, tmp_path / "p.sqlite")
    assert all(record.latency_ms < 1000 for record in summary.records)
    assert len(summary.records) + len(summary.failed) == len(ITEMS)
    phone.clear_faults()
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")


def test_a_computer_whose_clock_was_set_back_continues_the_profile(phone, daemon, tmp_path, monkeypatch):
    with opened(daemon.address) as device, ProfileFile(tmp_path / "p.sqlite", create=True) as profile:
        run_campaign(device, ITEMS[:3], profile, PLAN)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 86400)
        run_campaign(device, ITEMS, profile, PLAN)
    check_profile(tmp_path / "p.sqlite")


def test_a_phone_that_refuses_the_computer_says_what_to_do(phone, tmp_path, monkeypatch):
    from netlathe.profiler.adb import open_connection

    with AdbDaemon(phone, auth=Trust(answer_s=None)) as stern, pytest.raises(DeviceError, match=r"(?i)allow"):
        open_connection(stern.address, auth_timeout_s=0.5)


def test_a_slow_answer_to_the_dialog_is_waited_for_and_told(phone, tmp_path):
    said = []
    with AdbDaemon(phone, auth=Trust(answer_s=0.5)) as slow:
        profile_phone(slow.address, tmp_path / "p.sqlite", report=said.append)
    assert any("phone" in line for line in said)
    check_profile(tmp_path / "p.sqlite")


def test_links_that_are_slow_and_split_every_packet_change_nothing(phone, daemon, tmp_path):
    daemon.link.latency_s = 0.003
    daemon.link.max_chunk_bytes = 1000
    profile_phone(daemon.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")
    assert leftovers(phone) == []
    assert set(KEYS)
