"""Phones of 127.0.0.1 that share the work of one profile."""

from __future__ import annotations

import dataclasses
import random
import re
import threading
import time
from contextlib import ExitStack
from functools import partial

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, PIXEL_8, LoopbackPhone, loopback_unavailable
from test_cli import answer, refusal

from netlathe.archspace.blocks import LinearHead, MBConv
from netlathe.archspace.pools import is_pool
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Status
from netlathe.archspace.spaces import SearchSpace
from netlathe.profiler.adb import PhoneRow
from netlathe.profiler.devices import DeviceOptions
from netlathe.profiler.phone import link
from netlathe.profiler.pool import PoolBoard, PoolPlan, PoolWork, overlap_of, run_pool
from netlathe.profiler.pool.phones import PhoneMember, controller_of, controllers
from netlathe.profiler.protocol import ANCHORS, PHONE_PLAN
from netlathe.stages import work_items

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))

CHOICES = tuple(MBConv(8, 8, 8, 8, kernel=kernel, expand=expand) for kernel in (3, 5) for expand in (1, 2, 3, 4, 6))
SPACE = SearchSpace("small", (CHOICES, (LinearHead(8, 10, 8, 8),)))
ITEMS = work_items(SPACE, networks=0, batch=1, seed=0)
OVERLAP = 2
ANCHOR_KEYS = {block.graph().key for block in ANCHORS}


def plugged_in(count, folder, stack):
    """Daemons of so many phones of one model, each with a folder of its own."""
    found = []
    for number in range(count):
        properties = {**PIXEL_8, "ro.serialno": f"POOL{number}"}
        phone = stack.enter_context(LoopbackPhone(folder / f"phone{number}", properties=properties))
        found.append(stack.enter_context(AdbDaemon(phone)))
    return found


@pytest.fixture(scope="module")
def daemons(tmp_path_factory):
    with ExitStack() as stack:
        yield plugged_in(2, tmp_path_factory.mktemp("phones"), stack)


@pytest.fixture
def pool_file(tmp_path, daemons):
    path = tmp_path / "pool.toml"
    path.write_text("".join(f'[[phone]]\ndevice = "{one.address}"\n' for one in daemons))
    return path


@pytest.fixture(autouse=True)
def _little_effort(monkeypatch):
    """Few runs, no round made again, and no verdict: this computer's load makes its phones differ as none do."""
    plan = dataclasses.replace(PHONE_PLAN, runs=2, warmups=1, anchor_visits=1, redo_drift=None)
    monkeypatch.setattr("netlathe.profiler.phone.device.PHONE_PLAN", plan)
    monkeypatch.setattr("netlathe.profiler.pool.calibration.TOLERANCE", 10.0)
    monkeypatch.setattr("netlathe.pooling.PoolPlan", partial(PoolPlan, overlap=OVERLAP))


def units_by_graph(path):
    found = {}
    with ProfileFile(path) as file:
        for unit in file.setups(members=True):
            for key, status in {} if is_pool(unit) else file.outcomes(unit).items():
                assert status is Status.OK
                found.setdefault(key, set()).add(dict(unit.details)["unit"])
    return found


def check_shared(path, phones: int) -> None:
    """Each graph is measured once, what all measure by all."""
    found = units_by_graph(path)
    shared = ANCHOR_KEYS | {item.graph.key for item in overlap_of(ITEMS, OVERLAP)}
    assert set(found) == {item.graph.key for item in ITEMS} | ANCHOR_KEYS
    assert {key: len(units) for key, units in found.items()} == {key: phones if key in shared else 1 for key in found}


def test_phones_of_a_file_share_the_work_and_the_records_are_of_one_setup(pool_file, tmp_path):
    path, space = tmp_path / "p.sqlite", tmp_path / "space.json"
    SPACE.save(space)
    words = (
        "profile", "--device", pool_file, "--benchmark-binary", BENCHMARK_MODEL, "--space", space, "--networks", 0,
        "--rounds", 3, "--output", path, "--export", tmp_path / "p.csv",
    )  # fmt: skip
    planned = answer(*words, "--dry-run")
    assert planned["new"] == len(ITEMS)
    found = answer(*words)
    assert (found["records"], found["failed"], found["unfinished"]) == (len(ITEMS), 0, 0)
    assert found["setup"]["details"]["unit"] == "pooled"
    assert len({one["unit"] for one in found["units"]}) == 2
    assert all(one["is_pooled"] and one["state"] == "finished" and one["shared"] == 7 for one in found["units"])
    check_shared(path, 2)
    again = answer(*words)
    assert (again["reused"], again["rounds"]) == (len(ITEMS), 0)
    fitted = answer("fit", path, "--output", tmp_path / "m.json", "--residual", "none", "--splits", "configuration")
    assert fitted["setup"]["details"]["unit"] == "pooled"


def test_all_phones_that_are_ready_share_the_work(daemons, tmp_path, monkeypatch):
    rows = [PhoneRow(daemons[0].address, "ready"), PhoneRow("usb:X", "unauthorized")]
    monkeypatch.setattr("netlathe.profiler.adb.list_phones", lambda: rows)
    SPACE.save(tmp_path / "space.json")
    words = (
        "profile", "--device", "all", "--benchmark-binary", BENCHMARK_MODEL, "--space", tmp_path / "space.json",
        "--networks", 0, "--rounds", 3, "--output", tmp_path / "p.sqlite",
    )  # fmt: skip
    found = answer(*words)
    assert (found["records"], found["device"]) == (len(ITEMS), "1 x Google Pixel 8")
    assert [one["device"] for one in found["units"]] == [daemons[0].address]
    rows.clear()
    assert "--device all: no phone is ready" in refusal(*words)


def test_a_phone_that_dies_and_returns_costs_no_graph(daemons, tmp_path, monkeypatch):
    monkeypatch.setattr(link, "RECONNECT_S", 0.2)
    path, options = tmp_path / "p.sqlite", DeviceOptions(benchmark_binary=BENCHMARK_MODEL)
    members = [PhoneMember(one.address, options) for one in daemons[:2]]
    board = PoolBoard(lambda pool: PoolWork(ITEMS))

    def pull_and_plug() -> None:
        while not any(one.state == "measuring" and one.note for one in board.states.values()):
            time.sleep(0.02)
        daemons[0].unplug()
        while board.states[members[0].name].state != "away":
            time.sleep(0.02)
        daemons[0].plug()

    hand = threading.Thread(target=pull_and_plug)
    hand.start()
    plan = PoolPlan(2, path, rounds=3, look_s=0.1, rest_s=0.1, overlap=OVERLAP)
    said: list[str] = []
    run_pool([members], plan, board, said.append)
    hand.join()
    assert {one.state for one in board.states.values()} == {"finished"}
    check_shared(path, 2)


class Fate:
    """Cable of a phone, which is pulled after so many words of its work, and put back after so many vain looks for it:
    `lives` of (words, looks) one after the other."""

    def __init__(self, daemon, lives):
        self.daemon, self.lives, self.deaths, self.is_away, self.heard = daemon, list(lives), 0, False, 0

    def hear(self, state):
        if not self.lives or state != ("away" if self.is_away else "measuring"):
            return
        words, looks = self.lives[0]
        self.heard += 1
        if self.is_away and self.heard >= looks:
            self.daemon.plug()
            self.lives.pop(0)
            self.is_away, self.heard = False, 0
        elif not self.is_away and self.heard >= words:
            self.daemon.unplug()
            self.deaths += 1
            self.is_away, self.heard = True, 0


class FatefulBoard(PoolBoard):
    """A board that phones live and die by."""

    def __init__(self, fates, items):
        super().__init__(lambda pool: PoolWork(items))
        self.fates = fates

    def tell(self, state):
        super().tell(state)
        self.fates[state.name].hear(state.state)


FOR_GOOD = 10**9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_eight_phones_that_die_and_return_at_random_measure_each_graph_once(seed, tmp_path, monkeypatch):
    """One of them dies for good; the others up to three times."""
    monkeypatch.setattr(link, "RECONNECT_S", 0.2)
    monkeypatch.setattr("netlathe.profiler.phone.device.RESTORE_S", 1.0)  # of one that dies as it is given back
    rng, path, options = random.Random(seed), tmp_path / "p.sqlite", DeviceOptions(benchmark_binary=BENCHMARK_MODEL)
    lives = [[(rng.randint(1, 6), rng.randint(1, 4)) for _ in range(rng.randint(0, 3))] for _ in range(7)]
    lives.append([(rng.randint(1, 6), FOR_GOOD)])
    choices = tuple(MBConv(8, 8, 8, 8, kernel=kernel, expand=expand) for kernel in (3, 5, 7) for expand in range(1, 9))
    items = work_items(SearchSpace("wide", (choices,)), networks=0, batch=1, seed=0)
    assert len(items) == 24
    with ExitStack() as stack:
        cables = plugged_in(8, tmp_path, stack)
        members = [PhoneMember(one.address, options) for one in cables]
        fates = {one.name: Fate(cable, life) for one, cable, life in zip(members, cables, lives, strict=True)}
        plan = PoolPlan(8, path, rounds=3, look_s=0.1, rest_s=0.1, overlap=OVERLAP)
        board = FatefulBoard(fates, items)
        run_pool([members], plan, board, lambda message: None)
    assert [bool(one.deaths) for one in fates.values()] == [bool(life) for life in lives]
    states = board.states
    assert states[members[7].name].state == "out"
    for one in states.values():  # others have done the work of what is away at the end
        assert one.state == "finished" or (one.state == "out" and "nothing answers at" in one.note), one
    shared = ANCHOR_KEYS | {item.graph.key for item in overlap_of(items, OVERLAP)}
    found = units_by_graph(path)
    assert set(found) == {item.graph.key for item in items} | ANCHOR_KEYS
    assert {len(units) for key, units in found.items() if key not in shared} == {1}
    finished = sum(one.state == "finished" for one in states.values())
    assert finished
    assert all(len(found[key]) >= finished for key in shared)
    check_no_round_too_many(path, rounds=3)


def check_no_round_too_many(path, rounds: int) -> None:
    """Each unit has visited what it has a record of so many times, and nothing more often, but for the anchors: what a
    phone had visited as it died, others may have measured before it was back."""
    with ProfileFile(path) as file:
        for unit in file.setups(members=True):
            outcomes = {} if is_pool(unit) else file.outcomes(unit)
            for key, visits in file.rounds(unit).items():
                if key not in ANCHOR_KEYS:
                    assert len(visits) == rounds if key in outcomes else len(visits) <= rounds, len(visits)


def test_each_group_of_phones_has_a_process_of_its_own(daemons, tmp_path):
    options = DeviceOptions(benchmark_binary=BENCHMARK_MODEL)
    board = PoolBoard(lambda pool: PoolWork(ITEMS[:4]))
    plan = PoolPlan(2, tmp_path / "p.sqlite", rounds=3, look_s=0.1, overlap=0)
    run_pool([[PhoneMember(one.address, options)] for one in daemons[:2]], plan, board, lambda message: None)
    assert {one.state for one in board.states.values()} <= {"finished", "apart"}  # as this computer's load has it
    assert {item.graph.key for item in ITEMS[:4]} <= set(units_by_graph(tmp_path / "p.sqlite"))


def test_what_pools_cannot_do_is_refused_before_a_phone_is_touched(pool_file, tmp_path):
    words = ("profile", "--device", pool_file, "--output", tmp_path / "p.sqlite")
    assert "--op-profile: is for single phones" in refusal(*words, "--op-profile")
    assert "which other devices cannot join" in refusal(*words, "--device", "local")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no phone"),
        ("[[phone]]\n", "phone 1: has no device"),
        ('[[phone]]\ndevice = "usb:A"\ncolour = "red"', "phone 1: has no key 'colour'; there are device, cores"),
        ('[[phone]]\ndevice = "usb:A"\nthreads = "two"', "phone 1: threads must be int, got 'two'"),
        ('[[phone]]\ndevice = "phone"', "phone 1: 'phone' is not the address of a phone"),
        ('[[phone]]\ndevice = "usb:A"\n[[phone]]\ndevice = "usb:A"', "lists usb:A twice"),
        ('phone = ["usb:A"]', r"write \[\[phone\]\]"),
        ("[[phone", "not a pool in TOML"),
    ],
)
def test_a_file_that_is_no_pool_is_refused_by_place(tmp_path, text, words):
    path = tmp_path / "pool.toml"
    path.write_text(text)
    message = refusal("profile", "--device", path, "--output", tmp_path / "p.sqlite")
    assert re.search(words, message), message


def test_phones_are_grouped_by_what_they_share(tmp_path):
    found = controllers(["tcp:10.0.0.1:5555", "tcp:10.0.0.2:5555", "server:A", "server@lab2:B", "server@lab2:C"])
    assert list(found.values()) == ["network", "network", "server", "server@lab2", "server@lab2"]
    pci = tmp_path / "pci0000:00/0000:00:14.0"
    for bus in (1, 2):
        (pci / f"usb{bus}").mkdir(parents=True)
        (tmp_path / f"usb{bus}").symlink_to(pci / f"usb{bus}")
    assert controller_of(1, tmp_path) == controller_of(2, tmp_path) == "USB controller 0000:00:14.0"
    assert controller_of(3, tmp_path) == "USB bus 3"
