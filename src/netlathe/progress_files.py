"""Progress of work that goes on: one small file beside what it writes, for whoever watches it from another process.

The file is there while the work is under way, and stays where it was left unfinished; once it is finished, it is gone.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import read_whole, write_whole
from netlathe.archspace.jsonfile import MOST_BYTES, read_json
from netlathe.events import Follow, Listener, OnRound, Relay, Update, Watch
from netlathe.runs.files import PROGRESS

KIND, VERSION = "progress", 1
EVERY_S = 3.0
"""Time between two writings where nothing but numbers has changed: what is measured meanwhile should not notice."""
MOST_POINTS = 240
"""Points of a curve that are kept at least; at twice as many, each two become their mean."""
MOST_LINES = 20
"""Notes and warnings that are kept, the latest."""
MOST_ROWS = 500
"""Rows of a table that are kept."""
_LARGEST = 1e30
_LATEST_S = 1e11
"""Times beyond the year 5000 are none."""
_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)

Outcome = Literal["working", "stopped", "failed"]
Standing = Literal["working", "dead", "stopped", "failed"]
"""dead: the process is gone, and has not said why, as after kill -9."""


@dataclass
class Phase:
    """A phase of a run. Times are seconds since the epoch, here and below."""

    name: str
    since: float
    until: float | None = None


@dataclass
class Step:
    """The longer step that is under way."""

    label: str
    unit: str
    since: float
    first: int = 0
    """Part that was done when it began, as where it goes on."""
    done: int = 0
    total: int = 0
    """0 where it is not known how long it is."""
    note: str = ""

    def left_s(self, at: float) -> float | None:
        """Time left at that time, at the speed so far; None where that is not known yet."""
        made = self.done - self.first
        return (at - self.since) * (self.total - self.done) / made if made > 0 and self.total else None


@dataclass
class Side:
    """One of several things that run side by side, such as a device of a campaign."""

    label: str
    share: float = 0.0
    left_s: float | None = None
    note: str = ""


class Left(NamedTuple):
    """Time left of a whole run, compression or profile."""

    seconds: float | None
    """Sum over all that its time is known of; None where nothing is."""
    uncounted: tuple[str, ...] = ()
    """Phases that are not in it, or only with the step that is under way: nothing tells how long they take."""


@dataclass
class Work:
    """State of a run, a compression or a profile that is under way."""

    kind: str
    """'search', 'compression' or 'profile'."""
    about: str
    """Name of what is written, in the file's folder."""
    command: str = ""
    outcome: Outcome = "working"
    message: str = ""
    """Why it failed."""
    host: str = ""
    process: int = 0
    born: str = ""
    """Start of that process, as the system tells it: numbers of processes are used again."""
    since: float = 0.0
    at: float = 0.0
    """When this was written."""
    title: str = ""
    phases: list[Phase] = field(default_factory=list)
    plan: dict[str, float | None] = field(default_factory=dict)
    """All phases of the run in their order, and the work of each in multiply-adds; None where nothing foretells it."""
    step: Step | None = None
    sides: list[Side] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    below: str = ""
    """A table of many things that run side by side, such as the phones of a pool, and a line on all of them."""
    numbers: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Curves so far, of (step, value), by name."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Work:
        """Raises what Python does for what is none."""
        words = {name: str(content[name]) for name in ("kind", "about", "command", "message", "host", "born", "title")}
        outcome: Outcome = next(one for one in ("working", "stopped", "failed") if one == content["outcome"])
        step = content["step"]
        return cls(
            **words, outcome=outcome, process=_count(content["process"]), since=_time(content["since"]),
            at=_time(content["at"]), phases=[_phase(one) for one in content["phases"]],
            plan={
                str(name): None if value is None else _number(value, 0)
                for name, value in content.get("plan", {}).items()  # which earlier versions do not write
            },
            step=None if step is None else _step(step), sides=[_side(one) for one in content["sides"]],
            columns=[str(one) for one in content["columns"]],
            rows=[[str(cell) for cell in row] for row in content["rows"][:MOST_ROWS]], below=str(content["below"]),
            numbers={
                str(name): [(_number(step), _number(value)) for step, value in points][-2 * MOST_POINTS :]
                for name, points in content["numbers"].items()
            },
            notes=[str(one) for one in content["notes"]], warnings=[str(one) for one in content["warnings"]],
        )  # fmt: skip

    def present_left_s(self) -> float | None:
        """Time left of what goes on at this moment: the step, or all devices that measure side by side; None where one
        of them is not known. From when this was written."""
        if not self.sides:
            return self.step.left_s(self.at) if self.step else None
        left = [one.left_s for one in self.sides if one.share < 1]
        told = [one for one in left if one is not None]
        return max(told) if told and len(told) == len(left) else None

    def left(self) -> Left:
        """Time left of all of it, from when this was written: of a profile, what its devices tell."""
        if not self.plan:
            return Left(self.present_left_s())
        current = next((one for one in reversed(self.phases) if one.until is None), None)
        begun = {one.name for one in self.phases}
        pace = self._seconds_per_work()
        foretold = {
            name: None if work is None or pace is None else work * pace for name, work in self.plan.items()
        }  # fmt: skip
        seconds = [self.present_left_s()]
        uncounted = []
        if current:
            whole_s = foretold.get(current.name)
            if seconds[0] is None and whole_s is not None:  # between its steps
                seconds[0] = max(0.0, whole_s - (self.at - current.since))
            uncounted += [current.name] if seconds[0] is None or self.plan.get(current.name) is None else []
        for name, left_s in foretold.items():
            if name not in begun:
                seconds.append(left_s)
                uncounted += [name] if left_s is None else []
        told = [one for one in seconds if one is not None]
        return Left(sum(told) if told else None, tuple(uncounted))

    def _seconds_per_work(self) -> float | None:
        """Seconds of a multiply-add, by the phases with work that this process has done, and the one under way."""
        spent, done = 0.0, 0.0
        for phase in self.phases:
            work, step = self.plan.get(phase.name), self.step
            if work is None:
                continue
            if phase.until is not None:
                if phase.until > phase.since:  # else an earlier process has done it
                    spent, done = spent + phase.until - phase.since, done + work
            elif step and step.total and step.done > step.first:
                spent, done = spent + self.at - step.since, done + work * (step.done - step.first) / step.total
        return spent / done if done else None

    def standing(self) -> Standing:
        """Its outcome, by the process too where that is one of this machine."""
        is_here = self.host == socket.gethostname()
        if self.outcome == "working" and is_here and os.name == "posix" and _born(self.process) != self.born:
            return "dead"
        return self.outcome


def _number(value: Any, low: float = -_LARGEST, high: float = _LARGEST) -> float:
    """A number within these ends, beyond which no time or curve is one that can be shown."""
    found = float(value)
    if not low <= found <= high:  # which NaN is not either
        raise ValueError(f"{value!s:.40} is not from {low:g} to {high:g}")
    return found


def _time(value: Any) -> float:
    return _number(value, 0.0, _LATEST_S)


def _count(value: Any) -> int:
    return int(_number(value, 0, 2**53))


def _phase(one: dict[str, Any]) -> Phase:
    return Phase(str(one["name"]), _time(one["since"]), None if one["until"] is None else _time(one["until"]))


def _step(one: dict[str, Any]) -> Step:
    first, done, total = (_count(one[name]) for name in ("first", "done", "total"))
    return Step(str(one["label"]), str(one["unit"]), _time(one["since"]), first, done, total, str(one["note"]))


def _side(one: dict[str, Any]) -> Side:
    left = None if one["left_s"] is None else _time(one["left_s"])
    return Side(str(one["label"]), _number(one["share"], 0, 1), left, str(one["note"]))


def _born(process: int) -> str:
    """When a process of this machine began, by any clock; '' for none, and for one that has ended and is not yet
    collected. Where the system does not tell, 'alive'."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return ""
    try:
        os.kill(process, 0)
    except PermissionError:
        return "alive"
    except (OSError, OverflowError):
        return ""
    return "alive"


def read_work(path: Path) -> Work:
    """The state in a progress file. Raises FormatError for what is none, or is damaged."""
    content = read_json(path, KIND, VERSION)
    try:
        return Work.from_json(content)
    except (*_DAMAGE, StopIteration) as error:
        raise FormatError(f"{path}: is no whole record of progress ({error!s:.200}); remove it") from error


def beside(profile: Path) -> Path:
    """Progress file of a call that measures into the profile: my.sqlite.progress.json, or -2 where another call that
    measures another setup has that, ..."""
    names = (f"{profile.name}.{_numbered(number)}" for number in count(1))
    return next(path for path in map(profile.with_name, names) if _is_free(path))


def _numbered(number: int) -> str:
    return PROGRESS if number == 1 else PROGRESS.replace(".", f"-{number}.")


def _is_free(path: Path) -> bool:
    """Whether nothing is there, or what is there is of work that is over."""
    if not path.exists():
        return True
    try:
        return read_work(path).standing() != "working"
    except FormatError:
        return False  # a file of the user's own, or of a later version


def files_beside(profile: Path) -> list[Path]:
    """Progress files of all calls that measure into the profile."""
    stem, ending = PROGRESS.split(".")
    return sorted(profile.parent.glob(f"{_escaped(profile.name)}.{stem}*.{ending}"))


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


class ProgressFile(Relay):
    """Listener that hands everything on to another one, and keeps the state of the work in a file meanwhile.

    A context: its end removes the file of work that was finished, and says what became of it otherwise. Work that was
    refused before its first phase began leaves what was there before. A file that cannot be written stops nothing.
    """

    def __init__(
        self, inner: Listener, path: Path, kind: str, about: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(inner)
        self.path, self._clock = path, clock
        now = clock()
        self.work = Work(
            kind, about, self.command, host=socket.gethostname(), process=os.getpid(), born=_born(os.getpid()),
            since=now, at=now,
        )  # fmt: skip
        self._before: bytes | None = None
        self._has_begun = False
        self._lock = threading.RLock()  # several devices are measured by several threads

    def __enter__(self) -> Self:
        with suppress(OSError, FormatError):
            self._before = read_whole(self.path, MOST_BYTES)
            earlier = read_work(self.path)
            if earlier.command == self.command:  # goes on
                self.work.numbers = earlier.numbers
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if kind is None:
                with suppress(OSError):
                    self.path.unlink(missing_ok=True)
            elif self._has_begun:
                self.work.outcome = "failed" if issubclass(kind, Exception) else "stopped"
                self.work.message = str(error)[:2000] if issubclass(kind, Exception) else ""
                self.work.step, self.work.sides = None, []
                self._write()
            else:
                self._restore()

    def _restore(self) -> None:
        with suppress(OSError):
            if self._before is None:
                self.path.unlink(missing_ok=True)
            else:
                write_whole(self.path, self._before, makes_folder=False)

    def _write(self) -> None:
        """Writes the file now."""
        self.work.at = self._clock()
        content = {"schema": f"netlathe.{KIND}/{VERSION}", **vars(self.work)}
        text = json.dumps(content, default=vars, separators=(",", ":"))
        with suppress(OSError):  # the work itself will tell of a full disk, or of a folder that is gone
            write_whole(self.path, text + "\n", makes_folder=False)

    def _told(self, *, at_once: bool = False) -> None:
        if at_once or self._clock() - self.work.at >= EVERY_S:
            self._write()

    def step(self, title: str) -> None:
        with self._lock:
            self.work.title = title
            self._told(at_once=True)
        super().step(title)

    def phase(self, name: str, *, is_done: bool) -> None:
        with self._lock:
            now = self._clock()
            known = next((one for one in self.work.phases if one.name == name), None)
            if known is None:
                known = Phase(name, now)
                self.work.phases.append(known)
            known.until = now if is_done else None
            self._has_begun |= not is_done
            self._told(at_once=True)
        super().phase(name, is_done=is_done)

    def plan(self, work: Mapping[str, float | None]) -> None:
        with self._lock:
            self.work.plan.update(work)
            self._told()
        super().plan(work)

    def note(self, text: str) -> None:
        with self._lock:
            self.work.notes = [*self.work.notes, text.strip()][-MOST_LINES:]
            self._told()
        super().note(text)

    def warn(self, warnings: Iterable[str]) -> None:
        told = list(warnings)
        with self._lock:
            self.work.warnings = list(dict.fromkeys([*self.work.warnings, *told]))[-MOST_LINES:]
            self._told()
        super().warn(told)

    @contextmanager
    def _stepping(self, label: str, unit: str) -> Iterator[Step]:
        """Context of a step, from which an outer one goes on."""
        with self._lock:
            outer, step = self.work.step, Step(label, unit, self._clock())
            self.work.step = step
            self._told(at_once=True)
        try:
            yield step
        finally:
            with self._lock:
                self.work.step = outer

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        with self._stepping(label, ""), super().working(label):
            yield

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Update]:
        with self._stepping(label, unit) as step, super().progress(label, unit) as inner:

            def update(done: int, total: int, note: str) -> None:
                with self._lock:
                    if not step.total:
                        step.since, step.first = self._clock(), done
                    step.done, step.total, step.note = int(done), int(total), note
                    self._told()
                inner(done, total, note)

            yield update

    @contextmanager
    def watching(self, labels: Sequence[str]) -> Iterator[list[Watch]]:
        with super().watching(labels) as inner:
            sides = [Side(str(label)) for label in labels]
            with self._lock:
                self.work.sides = sides
                self._told(at_once=True)
            try:
                yield [self._watch(side, watch) for side, watch in zip(sides, inner, strict=True)]
            finally:
                with self._lock:
                    self.work.sides = []

    def _watch(self, side: Side, inner: Watch) -> Watch:
        def watch(share: float, left_s: float | None, note: str) -> None:
            with self._lock:
                is_known = left_s is not None and math.isfinite(left_s)
                side.share, side.note = min(1.0, max(0.0, float(share))), note
                side.left_s = max(0.0, float(left_s or 0)) if is_known else None
                self._told()
            inner(share, left_s, note)

        return watch

    @contextmanager
    def following(self, columns: Sequence[str]) -> Iterator[Follow]:
        with super().following(columns) as inner:
            self.work.columns = list(columns)

            def follow(rows: Sequence[Sequence[object]], below: str, share: float | None, left_s: float | None) -> None:
                with self._lock:
                    self.work.rows = [[str(cell) for cell in row] for row in rows[:MOST_ROWS]]
                    self.work.below = below
                    self.work.sides = [] if share is None else [Side("all devices", share, left_s)]
                    self._told()
                inner(rows, below, share, left_s)

            yield follow

    @contextmanager
    def estimating(self, names: Sequence[str]) -> Iterator[OnRound]:
        with self._stepping(f"timing {', '.join(names[:3])}", ""), super().estimating(names) as on_round:
            yield on_round

    def scalar(self, name: str, value: float, step: int) -> None:
        if abs(value) <= _LARGEST:  # which NaN is not
            with self._lock:
                self.work.numbers[name] = with_point(self.work.numbers.get(name, []), step, value)
                self._told()
        super().scalar(name, value, step)


def with_point(points: list[tuple[float, float]], step: float, value: float) -> list[tuple[float, float]]:
    """A curve with one point more, in place of those that an earlier process has told of this step and later ones.
    At twice MOST_POINTS, each two of them become their mean."""
    while points and points[-1][0] >= step:
        points.pop()
    points.append((step, float(f"{value:.6g}")))
    if len(points) < 2 * MOST_POINTS:
        return points
    pairs = zip(points[::2], points[1::2], strict=True)
    return [((a + b) / 2, float(f"{(x + y) / 2:.6g}")) for (a, x), (b, y) in pairs]
