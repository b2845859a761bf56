"""Protocol of measure.sh: the plan that it is told, and the events in its output or its log."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone.conditions import Conditions

FINISHED, STOPPED_HOT, BAD_PLAN, NO_SPACE, BUSY = 0, 10, 64, 74, 75
"""measure.sh's exit statuses."""

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BEGIN = re.compile(r"([A-Za-z0-9_-]+) begin \S+ \S+ \S+ \S+")


@dataclass(frozen=True)
class PlannedVisit:
    """One call of benchmark_model; it is killed after timeout_s."""

    key: str
    runs: int
    warmups: int
    timeout_s: float


@dataclass(frozen=True)
class SessionBegin:
    """Begin of the session, its first event. uptime_s is the phone's (NaN where it hides it), boot_id changes with
    every boot ('-' where hidden), setup and stamp are the plan's."""

    uptime_s: float
    boot_id: str
    setup: str
    stamp: float


@dataclass(frozen=True)
class RoundBegin:
    """Start of a round, under these conditions."""

    id: str
    uptime_s: float
    conditions: Conditions


@dataclass(frozen=True)
class VisitDone:
    """End of a visit: benchmark_model exited with `code`, having said `output`; uptime_s is when it started."""

    key: str
    uptime_s: float
    code: int
    output: str


@dataclass(frozen=True)
class RoundDone:
    """End of a round, under these conditions."""

    id: str
    uptime_s: float
    conditions: Conditions


@dataclass(frozen=True)
class Stopped:
    """Early end of the session, before the plan was done; 'hot': the phone was too hot after the last round."""

    reason: str


@dataclass(frozen=True)
class Finished:
    """End of the session, with the plan done."""


SessionEvent = SessionBegin | RoundBegin | VisitDone | RoundDone | Stopped | Finished


def write_plan(
    setup_key: str,
    stamp: float,
    flags: Sequence[str],
    mask: str | None,
    max_status: int | None,
    rounds: Sequence[tuple[str, Sequence[PlannedVisit]]],
) -> bytes:
    """The plan for measure.sh: rounds as (id, visits). `stamp` is this computer's clock in seconds, `mask` the cores
    as hexadecimal digits or None for all, `max_status` the thermal status up to which the phone goes on or None.

    Raises DeviceError for keys of other characters than letters, digits, - and _, flags with blanks and the like.
    """
    lines = [f"setup {_key(setup_key)}", f"stamp {stamp:.3f}"]
    for flag in flags:
        if not flag.startswith("--") or flag.split() != [flag] or not flag.isprintable():
            raise DeviceError(f"benchmark_model's flags are single words such as --num_threads=1, got {flag!r}")
    lines += [f"flags {' '.join(flags)}"] if flags else []
    if mask:
        if not re.fullmatch(r"[0-9A-Fa-f]+", mask):
            raise DeviceError(f"a core mask is hexadecimal digits without 0x, got {mask!r}")
        lines.append(f"mask {mask}")
    lines += [] if max_status is None else [f"max_status {max_status:d}"]
    for name, visits in rounds:
        lines.append(f"round {_key(name)}")
        lines += map(_visit_line, visits)
    return "".join(f"{line}\n" for line in (*lines, "end")).encode()


def _visit_line(visit: PlannedVisit) -> str:
    if visit.runs < 1 or visit.warmups < 0 or not 0 < visit.timeout_s < math.inf:
        raise DeviceError(f"a visit needs at least one run and a time limit above zero: {visit}")
    return f"visit {_key(visit.key)} {visit.runs:d} {visit.warmups:d} {math.ceil(visit.timeout_s)}"


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise DeviceError(f"names in a plan are made of letters, digits, - and _, got {text!r}")
    return text


def log_lines(log: bytes) -> list[str]:
    """The lines of a session's log for read_events. A last line without its end is left out: the disk was full, the
    phone lost power, or it is still being written."""
    return log.decode(errors="replace").split("\n")[:-1]


def read_events(
    lines: Iterable[str], token: str | None = None, stray: list[str] | None = None
) -> Iterator[SessionEvent]:
    """The events in measure.sh's output, as they come, or in its log. Lines are complete, without their end.

    `token` is the session's; None takes it from the first line, as for a log that another session left. A visit whose
    end is missing is dropped. Lines outside the protocol are appended to `stray`, for the message when nothing else
    came: they are what a shell says that cannot run the script.

    Raises DeviceError when the lines contradict the protocol, or the first one does not begin a session (token None).
    """
    reader = _Reader(token, [] if stray is None else stray)
    for line in lines:
        event = reader.read(line)
        if event is not None:
            yield event


class _Reader:
    """The state between lines: the visit that is open, and what the program has said in it."""

    def __init__(self, token: str | None, stray: list[str]) -> None:
        self.token, self.stray = token, stray
        self.begun = False
        self.visit: tuple[str, float] | None = None
        self.output: list[str] = []

    def read(self, line: str) -> SessionEvent | None:
        if self.token is None:
            begin = _BEGIN.fullmatch(line.rstrip())
            if begin is None:
                raise DeviceError(f"this is not the log of a session: it starts with {line[:120]!r}")
            self.token = begin[1]
        token, _, rest = line.partition(" ")
        if token != self.token:
            (self.stray if self.visit is None else self.output).append(line)
            return None
        try:
            word, *fields = rest.split()
            return self._event(word, fields)
        except (ValueError, IndexError):
            raise DeviceError(f"measure.sh's line {line[:200]!r} does not fit what came before it") from None

    def _event(self, word: str, fields: Sequence[str]) -> SessionEvent | None:
        """Raises ValueError or IndexError on what the protocol does not allow here."""
        if self.begun is (word == "begin") or (self.visit is not None) is not (word == "end"):
            raise ValueError(word)
        match word, fields:
            case "begin", [uptime, boot_id, setup, stamp]:
                self.begun = True
                return SessionBegin(_seconds(uptime), boot_id, setup, _seconds(stamp))
            case "round", [name, uptime, *words]:
                return RoundBegin(name, _seconds(uptime), Conditions.parse(" ".join(words)))
            case "visit", [key, uptime]:
                self.visit = key, _seconds(uptime)
            case "end", [key, code]:
                return self._end(key, int(code))
            case "done", [name, uptime, *words]:
                return RoundDone(name, _seconds(uptime), Conditions.parse(" ".join(words)))
            case "stop", [reason]:
                return Stopped(reason)
            case "finish", []:
                return Finished()
            case _:
                raise ValueError(word)
        return None

    def _end(self, key: str, code: int) -> VisitDone:
        if self.visit is None or self.visit[0] != key:
            raise ValueError(key)
        done = VisitDone(*self.visit, code, "\n".join(self.output))
        self.visit, self.output = None, []
        return done


def _seconds(text: str) -> float:
    return math.nan if text == "-" else float(text)
