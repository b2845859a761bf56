"""Two computers, and two phones, at one address: whoever comes too late touches nothing of the other's."""

from __future__ import annotations

import shutil
import time

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, PIXEL_8, LoopbackPhone, loopback_unavailable
from phones import ITEMS, PLAN, check_profile, leftovers, opened

from netlathe.archspace.profile_file import ProfileFile
from netlathe.profiler.campaign import run_campaign
from netlathe.profiler.device import Visit
from netlathe.profiler.devices import DeviceOptions, open_device
from netlathe.profiler.errors import DeviceError, ProfilerError
from netlathe.profiler.phone import link, prepared, rounds, workspace
from netlathe.profiler.phone.holding import clean_phone
from netlathe.profiler.testing import LARGE, SMALL, one_round

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))

OWNER = "/data/local/tmp/netlathe/owner"


@pytest.fixture(scope="module")
def other_phone(tmp_path_factory):
    with LoopbackPhone(tmp_path_factory.mktemp("other"), properties={**PIXEL_8, "ro.serialno": "OTHER"}) as found:
        yield found


@pytest.fixture
def daemon(phone):
    with AdbDaemon(phone) as found:
        yield found
    shutil.rmtree(phone.path("/data/local/tmp/netlathe"), ignore_errors=True)  # of a test that failed


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(link, "RECONNECT_S", 5.0)
    monkeypatch.setattr(prepared, "POLL_S", 0.05)


@pytest.fixture
def sit_at(monkeypatch, tmp_path):
    """Makes what follows happen at the computer of this name, which knows nothing of another's locks."""

    def sit(name):
        monkeypatch.setattr("platform.node", lambda: name)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    return sit


def lapse(phone):
    """The claim's computer has given no sign of life for long."""
    _, lease_s, boot, host = phone.path(OWNER).read_text().split()
    phone.path(OWNER).write_text(f"0.00 1 {boot} {host}\n")
    assert lease_s == str(workspace.LEASE_S)


def owner(phone):
    return phone.path(OWNER).read_text().split()[3]


def measuring(phone):
    """Process numbers, on the phone, of the measure.sh that run there."""
    found = []
    for entry in phone.path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"scripts/measure.sh" in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:  # has just ended
            continue
    return found


def state(phone):
    """What a run holds on a phone: settings and files."""
    folder = phone.path("/data/local/tmp/netlathe")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return dict(phone.settings), dict(phone.power), files, owner(phone)


def run_while(daemon, path, intrude, said):
    """A campaign from this computer, to its end; `intrude` is called once, while measure.sh runs."""
    intruded = []

    def on_progress(progress):
        if progress.round == 1 and not intruded and measuring(daemon.phone):
            before = state(daemon.phone)
            intruded.append(True)
            intrude()
            assert state(daemon.phone) == before

    with opened(daemon.address, report=said.append) as device, ProfileFile(path, create=True) as profile:
        run_campaign(device, ITEMS, profile, PLAN, on_progress=on_progress, clock=iter(range(10**6)).__next__)
        held = dict(daemon.phone.power)
    assert intruded
    assert held["fixed_performance"] == "true"
    check_profile(path)
    assert [line for line in said if "Waiting" in line or "ended" in line] == []


def start(daemon):
    return open_device(daemon.address, DeviceOptions(benchmark_binary=BENCHMARK_MODEL))


def begin(daemon):
    """A device in the middle of its work."""
    device = start(daemon)
    device.load("x", SMALL.graph())
    one_round(device, [Visit("x", 1, 0)])
    return device


def give_back(device):
    """Closes it; what it said instead of giving the phone back."""
    try:
        device.close()
    except DeviceError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("ending", ["goes on", "is only closed", "lost its link"])
def test_a_computer_that_comes_back_too_late_leaves_the_other_ones_run_alone(phone, daemon, tmp_path, sit_at, ending):
    sit_at("early")
    early = begin(daemon)
    lapse(phone)
    sit_at("late")
    messages = []

    def come_back():
        sit_at("early")
        if ending == "goes on":
            with pytest.raises(DeviceError, match="late is measuring on this phone"):
                one_round(early, [Visit("x", 1, 0)])
        if ending == "lost its link":
            early.connection.close()
            with pytest.raises(DeviceError, match="late is measuring on this phone"):
                one_round(early, [Visit("x", 1, 0)])
        messages.append(give_back(early))
        sit_at("late")

    run_while(daemon, tmp_path / "p.sqlite", come_back, [])
    assert "late is measuring on this phone" in messages[0]
    assert "that run" in messages[0]
    assert leftovers(phone) == []
    assert phone.power["fixed_performance"] == "false"


def test_another_phone_at_the_address_is_left_alone_with_the_run_that_it_is_in(
    phone, other_phone, daemon, tmp_path, sit_at
):
    sit_at("first")
    first = begin(daemon)
    sit_at("second")
    messages = []

    def meet():
        sit_at("first")
        daemon.cut()
        daemon.phone = other_phone
        with pytest.raises(DeviceError, match="another phone than before"):
            one_round(first, [Visit("x", 1, 0)])
        messages.append(give_back(first))
        sit_at("second")

    with AdbDaemon(other_phone) as own_line:
        run_while(own_line, tmp_path / "p.sqlite", meet, [])
    assert leftovers(other_phone) == []
    assert leftovers(phone) == ["netlathe"]
    assert phone.power["fixed_performance"] == "true"
    assert f"netlathe device clean --device {daemon.address}" in messages[0]
    daemon.phone = phone
    sit_at("first")
    clean_phone(daemon.address, print)
    assert leftovers(phone) == []
    assert phone.power["fixed_performance"] == "false"


@pytest.mark.parametrize("share", [0.3, *(pytest.param(more, marks=pytest.mark.slow) for more in (0.1, 0.5, 0.7, 0.9))])
def test_another_phone_that_answers_while_one_is_opened_or_given_back_is_left_alone(
    phone, other_phone, daemon, sit_at, share
):
    """It holds what an interrupted run of this very computer left there: its claim does not protect it."""
    sit_at("here")
    with AdbDaemon(other_phone) as line:
        killed = begin(line)
        killed._held.close()  # as the system does for a killed process
        killed.connection.close()
    before = state(other_phone)
    sent = daemon.bytes_in
    device = start(daemon)
    opening_bytes = daemon.bytes_in - sent
    sent = daemon.bytes_in
    device.close()
    closing_bytes = daemon.bytes_in - sent

    def swap_at(count):
        """The cable is cut after so many bytes; the next connection is to the other phone."""
        inward = daemon.link.inward
        real = inward.end_if_cut

        def end_if_cut():
            if inward.cut_at_bytes is not None and inward.carried_bytes >= inward.cut_at_bytes:
                daemon.phone = other_phone
            real()

        inward.end_if_cut = end_if_cut
        daemon.link.cut_after(bytes_in=count)

    swap_at(int(share * opening_bytes))
    with pytest.raises(DeviceError, match="another phone than before"):
        start(daemon)
    assert state(other_phone) == before
    daemon.phone = phone
    device = start(daemon)
    swap_at(int(share * closing_bytes))
    assert "another phone" in give_back(device)
    assert state(other_phone) == before
    for line_phone in (phone, other_phone):
        daemon.phone = line_phone
        clean_phone(daemon.address, print)
        assert leftovers(line_phone) == []


def test_a_phone_that_another_computer_has_used_and_cleaned_meanwhile_needs_nothing(phone, daemon, sit_at):
    sit_at("early")
    early = begin(daemon)
    lapse(phone)
    sit_at("late")
    with opened(daemon.address):
        pass
    assert leftovers(phone) == []
    sit_at("early")
    assert give_back(early) == ""
    assert leftovers(phone) == []


def test_a_refused_computer_changes_nothing(phone, daemon, sit_at):
    sit_at("owner")
    device = begin(daemon)
    before = state(phone)
    sit_at("guest")
    for attempt in (begin, lambda daemon: clean_phone(daemon.address, print)):
        with pytest.raises(DeviceError, match="owner is measuring on this phone"):
            attempt(daemon)
        assert state(phone) == before
    sit_at("owner")
    with pytest.raises(ProfilerError, match="another netlathe is using this phone"):
        begin(daemon)
    assert state(phone) == before
    one_round(device, [Visit("x", 1, 0)])
    device.close()
    assert leftovers(phone) == []


def test_a_claim_outlives_the_longest_silence_and_the_wait_for_the_phone(monkeypatch):
    monkeypatch.undo()
    assert workspace.LEASE_S >= rounds.SILENCE_S + link.RECONNECT_S + 30


def test_a_run_whose_measuring_was_ended_by_another_computer_says_so(phone, daemon, sit_at):
    sit_at("early")
    early = begin(daemon)
    early.load("silent", LARGE.graph())
    phone.fault("hang", key="silent")
    events = early.time_rounds([[Visit("x", 1, 0), Visit("silent", 1, 0)]])
    next(events)
    for _ in range(200):
        if "visit silent" in next(phone.path("/data/local/tmp/netlathe/results").iterdir()).read_text():
            break
        time.sleep(0.02)
    lapse(phone)
    sit_at("late")
    late = start(daemon)
    with pytest.raises(DeviceError, match="late is measuring on this phone"):
        list(events)
    give_back(early)
    late.close()
    phone.clear_faults()
    left = phone.path("/data/local/tmp/netlathe")
    assert [path.name for path in left.iterdir()] == ["results"]  # which early may still fetch
    clean_phone(daemon.address, print)
    assert leftovers(phone) == []
