"""A link that breaks while a phone is opened, given back or cleaned, and one that is away for long."""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
from types import SimpleNamespace

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, loopback_unavailable
from loopback.trust import Trust
from phones import leftovers, opened

from netlathe.profiler.adb import open_connection
from netlathe.profiler.device import Visit
from netlathe.profiler.devices import DeviceOptions, open_device
from netlathe.profiler.errors import ConnectionLostError, DeviceError, NotRestoredError
from netlathe.profiler.phone import device as phone_device
from netlathe.profiler.phone import link, prepared
from netlathe.profiler.phone.holding import clean_phone
from netlathe.profiler.testing import SMALL, one_round

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))

CUTS, FAST_CUTS = 24, 4


@pytest.fixture
def daemon(phone):
    with AdbDaemon(phone) as found:
        yield found
        found.plug()
        clean_phone(found.address, print)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(link, "RECONNECT_S", 10.0)
    monkeypatch.setattr(phone_device, "RESTORE_S", 10.0)
    monkeypatch.setattr(prepared, "POLL_S", 0.05)


def start(daemon, said=None, **options):
    options.setdefault("benchmark_binary", BENCHMARK_MODEL)
    return open_device(daemon.address, DeviceOptions(**options), report=(said if said is not None else []).append)


def killed(device):
    """As the system does for a killed process."""
    device._held.close()
    device.connection.close()


@pytest.fixture(scope="module")
def traffic(phone):
    """Bytes in and out of: opening, giving back, cleaning."""
    with AdbDaemon(phone) as line:
        marks = [(line.bytes_in, line.bytes_out)]
        device = start(line)
        marks.append((line.bytes_in, line.bytes_out))
        device.close()
        marks.append((line.bytes_in, line.bytes_out))
        killed(start(line))
        before = (line.bytes_in, line.bytes_out)
        clean_phone(line.address, print)
        after = (line.bytes_in, line.bytes_out)
    pairs = [(marks[0], marks[1]), (marks[1], marks[2]), (before, after)]
    return dict(zip(("opening", "closing", "cleaning"), [(b[0] - a[0], b[1] - a[1]) for a, b in pairs], strict=True))


def cut_somewhere(daemon, traffic, what, seed):
    """At a random byte, of either direction, of what comes next."""
    rng = random.Random(f"{what} {seed}")
    inward = rng.random() < 0.5
    count = rng.randrange(1, traffic[what][0 if inward else 1])
    daemon.link.cut_after(**{"bytes_in" if inward else "bytes_out": count})


def is_restored(phone):
    return phone.power["fixed_performance"] == "false" and "stay_on_while_plugged_in" not in phone.settings


def cut_once_in_each(phone, daemon, traffic, seed):
    cut_somewhere(daemon, traffic, "opening", seed)
    device = start(daemon)
    daemon.link.cut_after()
    device.load("x", SMALL.graph())
    assert len(one_round(device, [Visit("x", 1, 0)])) == 1
    assert phone.power["fixed_performance"] == "true"
    cut_somewhere(daemon, traffic, "closing", seed)
    device.close()
    daemon.link.cut_after()
    assert leftovers(phone) == []
    assert is_restored(phone)
    killed(start(daemon))
    cut_somewhere(daemon, traffic, "cleaning", seed)
    clean_phone(daemon.address, print)
    daemon.link.cut_after()
    assert leftovers(phone) == []
    assert is_restored(phone)


@pytest.mark.parametrize("seed", range(FAST_CUTS))
def test_a_cut_at_any_byte_of_opening_giving_back_and_cleaning_costs_nothing(phone, daemon, traffic, seed):
    cut_once_in_each(phone, daemon, traffic, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FAST_CUTS, CUTS))
def test_a_cut_at_very_many_bytes_of_opening_giving_back_and_cleaning_costs_nothing(phone, daemon, traffic, seed):
    cut_once_in_each(phone, daemon, traffic, seed)


@pytest.mark.parametrize("way", ["bytes_in", "bytes_out"])
@pytest.mark.parametrize("count", [1, 24, 28])
def test_a_cut_within_the_greeting_is_no_reason_to_give_up(daemon, way, count):
    daemon.link.cut_after(**{way: count})
    connection = open_connection(daemon.address)
    assert connection.run("echo hello").stdout == "hello\n"
    connection.close()


def test_a_phone_that_reboots_while_it_is_opened_is_waited_for(phone, daemon):
    device = start(daemon)
    device.close()
    daemon.link.cut_after(bytes_in=15_000)
    rebooting = threading.Event()
    real = daemon.link.inward.end_if_cut

    def end_if_cut():
        try:
            real()
        except Exception:
            if not rebooting.is_set():
                rebooting.set()
                threading.Thread(target=daemon.reboot).start()
            raise

    daemon.link.inward.end_if_cut = end_if_cut
    said = []
    with start(daemon, said) as device:
        device.load("x", SMALL.graph())
        assert len(one_round(device, [Visit("x", 1, 0)])) == 1
    assert rebooting.is_set()
    assert leftovers(phone) == []


def no_waiting(monkeypatch):
    """Lets every wait for a phone fail the test."""

    def reconnect(self, timeout_s):
        raise AssertionError("this must end at once")

    monkeypatch.setattr("netlathe.profiler.adb.services.ServiceConnection.reconnect", reconnect)


def test_what_needs_a_person_ends_the_opening_at_once(phone, daemon, tmp_path, monkeypatch):
    no_waiting(monkeypatch)
    wrong = [
        ({"cores": "huge"}, "huge"),
        ({"cores": "fff0"}, "core"),
        ({"benchmark_binary": tmp_path / "missing"}, "missing"),
    ]
    for options, words in wrong:
        said = []
        with pytest.raises(DeviceError, match=words):
            start(daemon, said, **options)
        assert said == []
        assert leftovers(phone) == []


def test_a_phone_that_is_not_there_or_does_not_trust_this_computer_ends_the_opening_at_once(phone, daemon, monkeypatch):
    no_waiting(monkeypatch)
    daemon.unplug()
    with pytest.raises(ConnectionLostError, match="nothing answers"):
        start(daemon)
    with pytest.raises(ConnectionLostError, match="nothing answers"):
        clean_phone(daemon.address, print)
    impatient = functools.partial(open_connection, auth_timeout_s=0.3)
    monkeypatch.setattr("netlathe.profiler.adb.open_connection", impatient)
    with AdbDaemon(phone, auth=Trust(answer_s=None)) as stern, pytest.raises(DeviceError, match="tap Allow"):
        start(stern)


def test_a_phone_that_is_gone_for_good_is_waited_for_while_it_is_given_back_and_then_what_remains_is_said(
    phone, daemon, monkeypatch
):
    monkeypatch.setattr(phone_device, "RESTORE_S", 1.2)
    said = []
    device = start(daemon, said)
    daemon.unplug()
    with pytest.raises(NotRestoredError) as caught:
        device.close()
    words = str(caught.value)
    assert "stay awake, fixed performance" in words
    assert "/data/local/tmp/netlathe" in words
    assert f"netlathe device clean --device {daemon.address}" in words
    assert [line for line in said if "Waiting" in line] == said
    assert len(said) == 1
    device.close()  # again, which is harmless
    daemon.plug()
    with start(daemon):  # nothing holds the phone any more
        pass
    assert leftovers(phone) == []


def test_an_error_that_is_under_way_is_not_replaced_by_the_one_of_giving_back(phone, daemon, monkeypatch):
    monkeypatch.setattr(phone_device, "RESTORE_S", 0.3)
    said = []

    def fail():
        with opened(daemon.address, report=said.append):
            daemon.unplug()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert any("was not given back as it was" in line for line in said)


def test_a_phone_that_was_waited_for_in_vain_is_not_waited_for_again(phone, daemon, monkeypatch):
    monkeypatch.setattr(link, "RECONNECT_S", 0.5)
    said = []
    device = start(daemon, said)
    device.load("x", SMALL.graph())
    daemon.unplug()
    with pytest.raises(ConnectionLostError, match="did not come back within"):
        one_round(device, [Visit("x", 1, 0)])
    no_waiting(monkeypatch)
    with pytest.raises(NotRestoredError, match="nothing answers"):
        device.close()
    assert len([line for line in said if "Waiting" in line]) == 1


def test_ctrl_c_ends_the_wait_for_a_phone_that_is_to_be_given_back(phone, daemon, monkeypatch):
    monkeypatch.setattr(phone_device, "RESTORE_S", 600.0)
    said = []

    def report(line):
        said.append(line)
        if "Waiting" in line:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    device = open_device(daemon.address, DeviceOptions(benchmark_binary=BENCHMARK_MODEL), report=report)
    daemon.unplug()
    with pytest.raises(KeyboardInterrupt):
        device.close()
    assert "netlathe device clean" in said[-1]
    assert len(said) == 2
    daemon.plug()
    with start(daemon):
        pass
    assert leftovers(phone) == []


def test_a_phone_that_is_away_is_told_of_once_however_long(phone, daemon, monkeypatch):
    """Attempts to reach it come at any rate, also in the last moments of the wait."""
    monkeypatch.setattr(link, "RECONNECT_S", 1.7)
    said = []

    def measure():
        with opened(daemon.address, report=said.append) as device:
            device.load("x", SMALL.graph())
            daemon.unplug()
            one_round(device, [Visit("x", 1, 0)])

    with pytest.raises(ConnectionLostError, match="did not come back"):
        measure()
    assert len([line for line in said if "Waiting" in line]) == 1
    assert len(said) == 2  # and what remains on the phone


def test_a_link_that_breaks_at_every_attempt_is_told_of_once(phone, daemon, monkeypatch):
    said = []
    device = start(daemon, said)
    device.load("x", SMALL.graph())
    real, broken = device.connection.run, []

    def run(command, *, timeout_s=30.0):
        if "conditions.sh" in command and len(broken) < 20:
            broken.append(command)
            daemon.cut()
        return real(command, timeout_s=timeout_s)

    device.connection.run = run
    assert len(one_round(device, [Visit("x", 1, 0)])) == 1
    assert len(broken) == 20
    assert len(said) == 2
    assert "Waiting" in said[0]
    assert "back again" in said[1]
    device.close()


@pytest.mark.parametrize("said", ["", "null\n", "unknown\nnull\n"])
def test_phones_that_tell_no_number_are_told_apart_by_their_addresses(said):
    answer = SimpleNamespace(stdout=said)
    first, second = (SimpleNamespace(address=name, run=lambda *_, **__: answer) for name in ("usb:1", "usb:2"))
    assert link.unit_of(first) != link.unit_of(second)
