"""Many devices on one campaign: whatever dies and returns, each graph once, nothing lost."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.pools import is_pool, pool_of
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Setup, Status
from netlathe.profiler.campaign import WorkItem, run_campaign
from netlathe.profiler.errors import ConnectionLostError, DeviceError
from netlathe.profiler.pool import MemberState, PoolBoard, PoolPlan, PoolWork, overlap_of, run_pool, units_of
from netlathe.profiler.pool.work_queue import LEASE_S, WorkQueue
from netlathe.profiler.protocol import ANCHORS, Plan
from netlathe.profiler.testing import SETUP, SimulatedDevice, true_ms

BLOCKS = [ConvBlock(16, 32 + i, 64, 64) for i in range(24)]  # of 2 ms, as the largest anchor
ITEMS = [WorkItem(block.name, "block", block.graph()) for block in BLOCKS]
KEYS = [item.graph.key for item in ITEMS]
OVERLAP = {item.graph.key for item in overlap_of(ITEMS, 3)} | {block.graph().key for block in ANCHORS}


def setup_of(unit: str, device: str = "Pixel") -> Setup:
    return replace(SETUP, device=device, details=(("unit", unit),))


class Simulated(SimulatedDevice):
    """Dies after so many rounds, as a pulled cable; each graph may have a slowness of its own."""

    def __init__(self, *, dies_after: int | None = None, slowness=lambda key: 1.0, **options) -> None:
        super().__init__(**options)
        self.dies_after, self.slowness = dies_after, slowness
        self.default_plan = Plan(min_rounds=3, max_rounds=3, anchor_visits=1, visit_ms=5, round_s=0.2)

    def load(self, key, graph) -> None:
        super().load(key, graph)
        self.loaded[key] *= self.slowness(key)

    def time_rounds(self, rounds, *, after=0.0):
        for event in super().time_rounds(rounds, after=after):
            if self.dies_after is not None and len(self.rounds) >= self.dies_after:
                raise ConnectionLostError("the cable was pulled")
            yield event


@dataclass
class Phone:
    """A member that dies and returns: `lives` are the rounds of each of its lives, the last one has no end."""

    name: str
    lives: tuple[int, ...] = ()
    level: float = 1.0
    device: str = "Pixel"
    away: int = 0
    """How often it is not there before each life."""
    options: dict | None = None
    opened: int = 0
    tried: int = 0

    @contextmanager
    def open(self, report):
        self.tried += 1
        if self.tried % (self.away + 1):
            raise ConnectionLostError(f"{self.name} is not there")
        dies_after = self.lives[self.opened] if self.opened < len(self.lives) else None
        self.opened += 1
        options = {"slowdown": lambda now: self.level, **(self.options or {})}
        with Simulated(setup=setup_of(self.name, self.device), dies_after=dies_after, **options) as device:
            yield device


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "pool.sqlite"


def plan_of(path, units: int) -> PoolPlan:
    return PoolPlan(units, path, overlap=3, rest_s=0.001, look_s=0.001, patience_s=0.2)


def run(path, phones, items=ITEMS, units: int | None = None) -> dict[str, MemberState]:
    board = PoolBoard(lambda pool: PoolWork(items))
    plan = plan_of(path, units or len(phones))
    run_pool([phones], plan, board, lambda message: None)
    return board.states


def measured_by(path) -> dict[str, list[str]]:
    """Units that have a record, by graph."""
    found: dict[str, list[str]] = {}
    with ProfileFile(path) as file:
        for unit in file.setups(members=True):
            if not is_pool(unit):
                for key, status in file.outcomes(unit).items():
                    assert status is Status.OK
                    found.setdefault(key, []).append(dict(unit.details)["unit"])
    return found


def test_each_graph_is_measured_once_and_the_overlap_by_all(path):
    states = run(path, [Phone(f"p{i}") for i in range(8)])
    found = measured_by(path)
    assert {len(found[key]) for key in KEYS if key not in OVERLAP} == {1}
    assert {len(found[key]) for key in OVERLAP} == {8}
    assert {one.state for one in states.values()} == {"finished"}
    shares = Counter(name for key in KEYS if key not in OVERLAP for name in found[key])
    assert sum(shares.values()) == 21


def test_levels_are_taken_out_of_pooled_records(path):
    run(path, [Phone("a"), Phone("b", level=1.26), Phone("c", level=0.9)])
    with ProfileFile(path) as file:
        (pool,) = file.setups()
        levels = file.pool(pool)
        records = file.records(pool)
        assert file.records() == records
    assert {dict(unit.details)["unit"]: level for unit, level in levels.items()} == pytest.approx(
        {"a": 1.0, "b": 1.26, "c": 0.9}
    )
    assert {record.graph.key for record in records} == set(KEYS) | OVERLAP
    for record in records:
        assert record.latency_ms == pytest.approx(true_ms(record.graph))
        assert record.setup == pool == pool_of(setup_of("a"))


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))])
def test_deaths_and_returns_lose_nothing_and_measure_nothing_twice(path, seed):
    rng = random.Random(seed)
    phones = [
        Phone(f"p{i}", tuple(rng.randrange(1, 12) for _ in range(rng.randrange(4))), away=rng.randrange(3))
        for i in range(8)
    ]
    states = run(path, phones)
    found = measured_by(path)
    assert set(found) == set(KEYS) | OVERLAP
    assert {len(found[key]) for key in KEYS if key not in OVERLAP} == {1}
    assert {one.state for one in states.values()} <= {"finished", "out"}


def test_a_phone_that_never_comes_is_not_waited_for_once_others_are_done(path):
    states = run(path, [Phone("a"), Phone("ghost", away=10**9)])
    assert states["ghost"].state == "out"
    assert "not there" in states["ghost"].note
    assert set(measured_by(path)) == set(KEYS) | OVERLAP


def test_a_phone_that_dies_for_good_leaves_its_batch_to_the_others(path):
    dying = Phone("a", lives=(4, 0))
    dying.options = {}
    states = run(path, [dying, Phone("b"), Phone("c")])
    assert {len(units) for key, units in measured_by(path).items() if key not in OVERLAP} == {1}
    assert states["b"].state == "finished"


def test_a_phone_that_differs_by_more_than_a_level_is_apart_and_its_graphs_are_measured_by_others(path):
    odd = dict.fromkeys(sorted({*KEYS, *OVERLAP})[::2], 1.5)
    phones = [Phone("a"), Phone("b"), Phone("odd", options={"slowness": lambda key: odd.get(key, 1.0)})]
    states = run(path, phones)
    assert states["odd"].state == "apart"
    with ProfileFile(path) as file:
        (pool,) = [one for one in file.setups() if is_pool(one)]
        assert {dict(unit.details)["unit"] for unit in file.pool(pool)} == {"a", "b"}
        assert {record.graph.key for record in file.records(pool)} == set(KEYS) | OVERLAP
        assert all(record.latency_ms == pytest.approx(true_ms(record.graph)) for record in file.records(pool))


@pytest.mark.parametrize("first", ["a", "odd"])
def test_of_two_that_differ_none_is_apart_before_a_third_one_is_heard(path, first):
    """With others of its kind known to be there, the first two go on; the odd one is told once there are three."""
    odd = dict.fromkeys(sorted({*KEYS, *OVERLAP})[::2], 1.5)
    phones = {
        "a": Phone("a"),
        "b": Phone("b"),
        "odd": Phone("odd", options={"slowness": lambda key: odd.get(key, 1.0)}),
    }
    order = ["odd", "a", "b"] if first == "odd" else ["a", "odd", "b"]
    with ProfileFile(path, create=True) as file:
        queues = {name: WorkQueue(file, setup_of(name), ITEMS, units=3, overlap=3) for name in order}
        for name in order[:2]:
            measure_batch(file, phones[name], queues[name])
        assert not any(queues[name].is_apart for name in order)
        measure_batch(file, phones["b"], queues["b"])
        assert [name for name in order if queues[name].is_apart] == ["odd"]


def measure_batch(file, phone, queue) -> None:
    with phone.open(lambda message: None) as device:
        plan = plan_of("unused", 3).campaign(device)
        batch = queue.take(plan)
        run_campaign(device, batch, file, plan, seed=0, clock=device.clock)
        queue.settle(batch)


def test_two_models_measure_every_graph_each(path):
    run(path, [Phone("a"), Phone("b"), Phone("c", device="Galaxy"), Phone("d", device="Galaxy")])
    with ProfileFile(path) as file:
        pools = file.setups()
        assert [len(file.records(pool)) for pool in pools] == [len(set(KEYS) | OVERLAP)] * 2


class Unfit(Phone):
    """A phone that can never be timed."""

    @contextmanager
    def open(self, report):
        self.tried += 1
        raise DeviceError(f"{self.name} is too hot")
        yield


def test_bad_rounds_are_quarantined_then_the_phone_is_out_and_the_others_do_the_work(path):
    hot = Unfit("hot")
    states = run(path, [hot, Phone("a"), Phone("b")])
    assert (states["hot"].state, states["hot"].quarantines, hot.tried) == ("out", 3, 3)
    assert "too hot" in states["hot"].note
    assert set(measured_by(path)) == set(KEYS) | OVERLAP


def test_a_graph_that_fails_everywhere_is_tried_on_two_phones_and_again_by_the_next_call(path):
    broken = KEYS[10]
    run(path, [Phone(f"p{i}", options={"broken": [broken]}) for i in range(4)])
    with ProfileFile(path) as file:
        (pool,) = file.setups()
        failed = [unit for unit in units_of(file, pool) if file.outcomes(unit).get(broken) is Status.FAILED]
        assert len(failed) == (4 if broken in OVERLAP else 2)
        (record,) = [one for one in file.records(pool) if one.graph.key == broken]
        assert record.status is Status.FAILED
        before = {(unit.key, broken) for unit in failed}
    board = PoolBoard(lambda pool: PoolWork(ITEMS, before))
    plan = plan_of(path, 1)
    run_pool([[Phone("p0")]], plan, board, lambda message: None)
    with ProfileFile(path) as file:
        (record,) = [one for one in file.records(pool) if one.graph.key == broken]
        assert record.latency_ms == pytest.approx(true_ms(record.graph))


def test_an_interrupted_call_is_continued_and_measures_nothing_twice(path):
    board = PoolBoard(lambda pool: PoolWork(ITEMS))

    def stop_soon(states):
        if any(one.graphs for one in states.values()):
            board.stop()

    board.on_states = stop_soon
    plan = plan_of(path, 12)  # so a batch is a small part of the work
    run_pool([[Phone(f"p{i}") for i in range(3)]], plan, board, lambda message: None)
    first = measured_by(path)
    assert 0 < len(first) < len(set(KEYS) | OVERLAP)
    run(path, [Phone(f"p{i}") for i in range(3)])
    found = measured_by(path)
    assert {len(found[key]) for key in KEYS if key not in OVERLAP} == {1}
    assert all(found[key] == first[key] for key in first if key not in OVERLAP)


def test_a_phone_that_is_found_later_joins(path):
    later = Phone("later")
    board = PoolBoard(lambda pool: PoolWork(ITEMS))
    plan = plan_of(path, 2)
    said: list[str] = []
    slow = Phone("a", lives=(2,) * 20)
    run_pool([[slow]], plan, board, said.append, find=lambda: [slow, later], scan_s=0.001)
    assert said == ["later: joins the pool"]
    assert board.states["later"].state == "finished"


def test_a_file_that_cannot_be_used_ends_the_pool(path):
    path.write_text("no database")
    with pytest.raises(Exception, match="not a"):
        run(path, [Phone("a"), Phone("b")])


# The queue by itself


@pytest.fixture
def file(path):
    with ProfileFile(path, create=True) as opened:
        yield opened


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def measured(file, unit, keys):
    setup = setup_of(unit)
    items = [item for item in ITEMS if item.graph.key in keys]
    run_campaign(SimulatedDevice(setup=setup), items, file, Plan(min_rounds=3, max_rounds=3))


def test_what_is_leased_is_nobody_elses_until_the_lease_lapses(file):
    clock = Clock()
    queues = [WorkQueue(file, setup_of(unit), ITEMS, units=2, overlap=0, now=clock) for unit in "ab"]
    first, second = ({item.name for item in queue.take(Plan())} for queue in queues)
    assert first
    assert second
    assert not first & second
    clock.now += 0.9 * LEASE_S
    assert queues[1].renew()
    clock.now += 0.2 * LEASE_S
    assert first <= {item.name for item in queues[1].take(Plan(round_s=1e6))}
    assert not queues[0].renew()


def test_batches_get_smaller_towards_the_end(file):
    queue = WorkQueue(file, setup_of("a"), ITEMS, units=1)
    sizes = []
    while batch := queue.take(Plan(round_s=0.001, visit_ms=5)):
        sizes.append(len(batch))
        measured(file, "a", {item.graph.key for item in batch})
        queue.settle(batch)
    assert sum(sizes) == len(ITEMS)
    assert sizes[0] > 2 * sizes[-1]


def test_overlap_is_spread_over_all_sizes():
    places = [KEYS.index(item.graph.key) for item in overlap_of(ITEMS, 4)]
    assert places == [3, 9, 15, 21]
    assert overlap_of(ITEMS[:2]) == ITEMS[:2]
