"""Measured latencies as a user watches them: estimates while they become better, then the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from netlathe.archspace.records import Measurement
from netlathe.cli.console import Terminal, time_left
from netlathe.profiler.protocol import FEWEST_ROUNDS
from netlathe.words import milliseconds

if TYPE_CHECKING:
    from netlathe.events import OnRound
    from netlathe.profiler.campaign import Progress
    from netlathe.timing import TimeReport

COLUMNS = ("what", "measured ms", "90 % interval", "rounds")


@contextmanager
def watching(names: Sequence[str], terminal: Terminal) -> Iterator[OnRound]:
    """A table that follows the rounds; off a terminal, a line with each network's first estimate."""
    with terminal.live() as draw:
        yield _Drawn(names, draw) if draw else _Told(terminal)


class _Drawn:
    """Redraws the table as rounds end."""

    def __init__(self, names: Sequence[str], draw: Callable[..., None]) -> None:
        self._names, self._draw = names, draw
        self._round = -1
        self._taken: Mapping[str, Measurement] = {}

    def __call__(self, progress: Progress, taken: Callable[[], Mapping[str, Measurement]]) -> None:
        if progress.round != self._round:
            self._round, self._taken = progress.round, taken()
        rows = [(name, *_cells(self._taken.get(name))) for name in self._names]
        waits_for = "" if progress.current in (*self._names, "") else f"; {progress.current}"
        left = f", {time_left(progress.eta_s)}" if progress.eta_s is not None else ""
        self._draw(COLUMNS, rows, f"{'refining' if self._taken else 'first round'}{left}{waits_for}; Ctrl-C ends it")


class _Told:
    """Says each network's first estimate, once."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._told: set[str] = set()

    def __call__(self, progress: Progress, taken: Callable[[], Mapping[str, Measurement]]) -> None:
        if progress.round < FEWEST_ROUNDS:
            return
        for name, one in taken().items():
            if one.interval_ms and name not in self._told:
                self._told.add(name)
                ms, interval, rounds = _cells(one)
                self._terminal.say(f"  {name}: {ms} ms after {rounds} rounds ({interval}), refining")


def _cells(one: Measurement | None) -> tuple[str, str, str]:
    """Cells under COLUMNS beside the name."""
    if one is None:
        return "-", "-", "0"
    interval = " to ".join(map(milliseconds, one.interval_ms)) if one.interval_ms else "-"
    return milliseconds(one.latency_ms), interval, str(len(one.rounds))


def show_measured(report: TimeReport, terminal: Terminal) -> None:
    """The table, with predictions beside it where there are some."""
    if not report.predicted_ms:
        terminal.table(COLUMNS, [(name, *_cells(one)) for name, one in report.measured.items()])
        return
    what, *others = COLUMNS
    predicted_ms = report.predicted_ms
    rows = [
        (
            name, milliseconds(predicted_ms[name]), *_cells(one),
            f"{100 * (predicted_ms[name] / one.latency_ms - 1):+.1f} %",
        )
        for name, one in report.measured.items()
    ]  # fmt: skip
    terminal.table((what, "predicted ms", *others, "off by"), rows)


def explain_drift(measured: Iterable[Measurement], terminal: Terminal) -> None:
    """A line on the difference between the clock and the table, where there is one worth telling."""
    measured = list(measured)
    drift = statistics.median(one.drift for one in measured)
    if not 0.95 < drift < 1.05:
        clock = ", ".join(f"{one.latency_ms * one.drift:.3g}" for one in measured)
        terminal.say(
            f"  The machine now takes {drift:.2f} times as long as when the profile was begun (seen on the anchor "
            f"blocks); measured ms are corrected for it. The clock showed {clock} ms.",
            style="dim",
        )
