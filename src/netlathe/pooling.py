"""Profile of a search space on a pool of phones, which share the work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.pools import UNIT, pool_of
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Setup, Status
from netlathe.events import Follow, Listener
from netlathe.profiler.campaign import unique_items
from netlathe.profiler.pool import PoolBoard, PoolPlan, PoolWork, make_pool, run_pool, units_of
from netlathe.profiler.summary import Effort, summarize
from netlathe.words import percent

if TYPE_CHECKING:
    from netlathe.choosing import DeviceForecast
    from netlathe.profiler.campaign import CampaignSummary, WorkItem
    from netlathe.profiler.devices import Device, DeviceOptions
    from netlathe.profiler.pool import Member, MemberState, UnitLevel
    from netlathe.profiler.pool.board import OnStates
    from netlathe.profiler.protocol import Plan

ALL = "all"
"""Name of the pool of all phones that are found."""

DRAW_EVERY_S = 0.2
LOUD = ("away", "quarantined", "apart", "out")
"""States that a person is told of as they begin."""
COLUMNS = ("device", "state", "graphs", "rounds", "")


@dataclass(frozen=True)
class UnitReport:
    """Work of one phone of a pool, and its difference from the others of its model."""

    device: str
    unit: str
    """Name of this very phone; '' where it never was open."""
    model: str
    state: str
    """finished, apart or out."""
    note: str
    """Why it is out."""
    graphs: int
    """Graphs that it measured in this call."""
    rounds: int
    redone: int
    quarantines: int
    level: float | None
    """How many times as long it takes as the median phone of its pool; None where that is not known."""
    scatter: float | None
    """Scatter of single graphs around that, relative."""
    shared: int
    """Number of graphs that tell it."""
    is_pooled: bool

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class PoolPart:
    """Phones of one model in a pool, and the records of all of them together."""

    setup: Setup
    units: tuple[UnitReport, ...]
    summary: CampaignSummary

    @property
    def name(self) -> str:
        """'3 x Google Pixel 8'."""
        return f"{sum(one.is_pooled for one in self.units)} x {self.setup.device}"


@dataclass(frozen=True)
class Pool:
    """Phones that share the work of one profile."""

    name: str
    members: tuple[Member, ...]
    find: Callable[[], Sequence[Member]] | None = None
    """Function that returns all phones that are there now; None where the members are all."""


def is_pool_name(device: object) -> bool:
    """Whether a device's name means several phones: all that are found, or those of a file."""
    return isinstance(device, str) and (device == ALL or device.endswith(".toml"))


def open_pool(name: str, options: DeviceOptions) -> Pool:
    """The pool of that name. Raises DeviceError where it is of no phone, or its file cannot be read."""
    from netlathe.profiler.errors import DeviceError
    from netlathe.profiler.pool.pool_file import read_pool

    if name != ALL:
        return Pool(name, tuple(read_pool(Path(name), options)))
    members = found_phones(options)
    if not members:
        raise DeviceError("--device all: no phone is ready; `netlathe devices` lists those found, and what each lacks")
    return Pool(name, tuple(members), lambda: found_phones(options))


def found_phones(options: DeviceOptions) -> list[Member]:
    """The phones that `netlathe devices` lists as ready."""
    from netlathe.profiler.adb import list_phones
    from netlathe.profiler.pool.phones import PhoneMember

    return [PhoneMember(row.address, options) for row in list_phones() if row.state == "ready"]


def forecast_pool(
    pool: Pool,
    forecast: Callable[[str, Setup, Plan], DeviceForecast],
    plan: Callable[[Device], Plan],
    listener: Listener,
) -> list[DeviceForecast]:
    """Forecast for each model of the pool's phones, which are opened one after the other. Raises DeviceError."""
    plans: dict[Setup, list[Plan]] = {}
    for member in pool.members:
        with listener.working(f"opening {member.name}"), member.open(listener.note) as device:
            plans.setdefault(pool_of(device.setup), []).append(plan(device))
    alone = {setup: forecast(f"{len(own)} x {setup.device}", setup, own[0]) for setup, own in plans.items()}
    return [replace(one, estimate_s=one.estimate_s / len(plans[setup])) for setup, one in alone.items()]


def measure_pool(
    pool: Pool,
    path: Path,
    choose: Callable[[Setup], Sequence[WorkItem]],
    *,
    rounds: int | None,
    budget_s: float | None,
    seed: int,
    listener: Listener,
) -> list[PoolPart]:
    """Has the phones of the pool measure what `choose` gives for each model's setup into the profile file; returns what
    became of each model.

    Raises NetlatheError where no phone could be used, or the file fails.
    """
    plan = PoolPlan(
        len(pool.members), path, rounds=rounds, seed=seed,
        until_s=None if budget_s is None else time.monotonic() + budget_s,
    )  # fmt: skip
    began_s = time.monotonic()
    with listener.following(COLUMNS) as draw:
        board = PoolBoard(lambda setup: _work(path, setup, choose(setup)), _teller(draw, listener))
        run_pool(_groups(pool.members), plan, board, listener.note, find=pool.find)
    states = list(board.states.values())
    for state in states:
        if state.undone:
            listener.undone[state.name] = state.undone
    if not board.works:
        reasons = "; ".join(state.note for state in states)
        raise NetlatheError(f"no phone of the pool {pool.name} could be used: {reasons}")
    wall_s = time.monotonic() - began_s
    with ProfileFile(path) as file:
        return [_part(file, setup, work, states, wall_s) for setup, work in board.works.items()]


def _groups(members: Sequence[Member]) -> list[list[Member]]:
    """Members by what they share with others: a process for each."""
    from netlathe.profiler.devices import is_phone
    from netlathe.profiler.pool.phones import controllers

    shared = controllers(member.name for member in members if is_phone(member.name))
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(shared.get(member.name, ""), []).append(member)
    return list(groups.values())


def _work(path: Path, pool: Setup, items: Sequence[WorkItem]) -> PoolWork:
    """The items, and what failed in earlier calls."""
    unique = unique_items(items, pool.batch)
    with ProfileFile(path, create=True) as file:
        failed = {
            (unit.key, key)
            for unit in units_of(file, pool)
            for key, status in file.outcomes(unit).items()
            if status is Status.FAILED
        }
        reused = {key for key, status in file.outcomes(pool).items() if status is not Status.FAILED}
    return PoolWork(list(unique.values()), failed, len(reused & unique.keys()))


def _teller(draw: Follow, listener: Listener) -> OnStates:
    """Listener to states that draws the table of all phones, and tells of those that leave."""
    drawn_s = -math.inf
    before: dict[str, str] = {}
    pace = PoolPace()

    def on_states(states: Mapping[str, MemberState]) -> None:
        nonlocal drawn_s
        changed = [one for one in states.values() if before.get(one.name) != one.state]
        for one in changed:
            before[one.name] = one.state
            if one.state in LOUD:
                listener.note(f"  {one.name}: {one.state}{f' ({one.note})' if one.note else ''}")
        now_s = time.monotonic()
        if changed or now_s - drawn_s > DRAW_EVERY_S:
            drawn_s = now_s
            known = list(states.values())
            draw([_row(one) for one in known], _below(known), *pace(known))

    return on_states


class PoolPace:
    """Progress of a pool, by the graphs that are still open: (share done, seconds left), None as long as they are not
    known. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: dict[Setup, tuple[int, float]] = {}

    def __call__(self, states: Sequence[MemberState]) -> tuple[float | None, float | None]:
        still_open: dict[Setup, int] = {}
        for one in states:
            if one.setup is not None and one.open is not None:
                pool = pool_of(one.setup)
                still_open[pool] = min(one.open, still_open.get(pool, one.open))  # it never grows
        for pool, count in still_open.items():
            self._first.setdefault(pool, (count, self._clock()))
        most, left = sum(count for count, _ in self._first.values()), sum(still_open.values())
        if not most:
            return None, None
        times = [self._left_s(pool, count) for pool, count in still_open.items()]
        return 1 - left / most, None if None in times else max(filter(None, times), default=0.0)

    def _left_s(self, pool: Setup, count: int) -> float | None:
        """Time left for one model's graphs at the speed so far."""
        first, since_s = self._first[pool]
        if not count:
            return 0.0
        return (self._clock() - since_s) * count / (first - count) if count < first else None


def _row(state: MemberState) -> tuple[object, ...]:
    return state.name, state.state, state.graphs, state.rounds, state.note


def _below(states: Sequence[MemberState]) -> str:
    working = sum(one.state == "measuring" for one in states)
    return f"{working} of {len(states)} measure, {sum(one.graphs for one in states)} graphs so far"


def _part(file: ProfileFile, pool: Setup, work: PoolWork, states: Sequence[MemberState], wall_s: float) -> PoolPart:
    """Summary of one model's phones."""
    levels = make_pool(file, pool)
    own = [state for state in states if state.setup is None or state.setup in levels]
    names = {item.graph.key: item.name for item in work.items}
    summary = summarize(file, pool, names, Effort(), again={}, reused=work.reused, wall_s=wall_s)
    units = tuple(_unit(state, levels) for state in own)
    summary = replace(
        summary, rounds=sum(one.rounds for one in own), redone=sum(one.redone for one in own),
        inference_s=sum(one.inference_s for one in own), warnings=(*summary.warnings, *_warnings(units)),
    )  # fmt: skip
    return PoolPart(pool, units, summary)


def _unit(state: MemberState, levels: Mapping[Setup, UnitLevel]) -> UnitReport:
    found = levels.get(state.setup) if state.setup else None
    return UnitReport(
        state.name, dict(state.setup.details).get(UNIT, "") if state.setup else "",
        state.setup.device if state.setup else "", state.state, state.note, state.graphs, state.rounds, state.redone,
        state.quarantines, found.level if found else None, found.scatter if found else None,
        found.shared if found else 0, bool(found and found.is_pooled),
    )  # fmt: skip


def _warnings(units: Sequence[UnitReport]) -> list[str]:
    """Warnings of phones whose records are not in the pool, or that were given up."""
    found = []
    for one in units:
        if one.scatter is not None and not one.is_pooled:
            found.append(
                f"{one.device} differs from the others by more than one number: {one.shared} graphs that both measured "
                f"scatter by {percent(one.scatter)} around {percent((one.level or 1) - 1)}; its records stay its own, "
                f"profile it by itself: --device {one.device}"
            )
        elif one.state == "out":
            found.append(f"{one.device} was given up: {one.note}; the same command tries it again")
    return found
