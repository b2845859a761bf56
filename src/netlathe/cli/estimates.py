"""Measured latencies as a user watches them: estimates while they become better, then the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from netlathe.archspace.records import Measurement
from netlathe.cli.console import Terminal, time_left
from netlathe.profiler.protocol import FEWEST_ROUNDS
from netlathe.timed import delegated_words, kernels_ms
from netlathe.words import first_names, milliseconds, percent

if TYPE_CHECKING:
    from netlathe.events import OnRound
    from netlathe.profiler.campaign import Progress
    from netlathe.timed import Timed, TimeReport

COLUMNS = ("what", "measured ms", "90 % interval", "rounds")
START_COLUMNS = ("median ms", "p5", "p95", "first", "init", "MB")


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
    """The times, with predictions beside them where there are some; then what starts and single runs took."""
    timed = [one for one in report.timed if one.measurement]
    labels = _labels(timed)
    is_predicted = bool(report.predicted_ms)
    what, *others = COLUMNS
    text = (what, "device")[: len(labels[0])] if labels else (what,)
    columns = (*text, "predicted ms", *others, "off by") if is_predicted else (*text, *others)
    rows: list[tuple[str, ...]] = []
    for label, one in zip(labels, timed, strict=True):
        cells = _cells(one.measurement)
        rows.append(
            (*label, milliseconds(one.predicted_ms), *cells, _off_by(one)) if is_predicted else (*label, *cells)
        )
    terminal.table(columns, rows, text=len(text))
    if any(one.file for one in timed):
        starts = [(*label, *_start_cells(one)) for label, one in zip(labels, timed, strict=True)]
        terminal.table((*text, *START_COLUMNS), starts, text=len(text))
        _tell_delegates(timed, labels, terminal)


def _labels(timed: Sequence[Timed]) -> list[tuple[str, ...]]:
    """A file's name without its folder, where that tells it from the others; the device where there are several."""
    short = {one.name: Path(one.name).name for one in timed}
    if len(set(short.values())) < len(short):
        short = {name: name for name in short}
    has_devices = len({one.device for one in timed}) > 1
    return [(short[one.name], one.device) if has_devices else (short[one.name],) for one in timed]


def _off_by(one: Timed) -> str:
    if one.predicted_ms is None or one.latency_ms is None:
        return "-"
    return f"{100 * (one.predicted_ms / one.latency_ms - 1):+.1f} %"


def _start_cells(one: Timed) -> tuple[str, ...]:
    """Cells under START_COLUMNS."""
    times = (one.median_ms, one.p5_ms, one.p95_ms, one.first_inference_ms, one.init_ms)
    return (*map(milliseconds, times), "-" if one.peak_memory_mb is None else f"{one.peak_memory_mb:.1f}")


def _tell_delegates(timed: Sequence[Timed], labels: Sequence[tuple[str, ...]], terminal: Terminal) -> None:
    """Who executes the ops, once for all that are alike."""
    alike: dict[str, list[str]] = {}
    for one, label in zip(timed, labels, strict=True):
        if one.delegated:
            alike.setdefault(delegated_words(one.delegated), []).append(" on ".join(label))
    for words, names in alike.items():
        of = "" if len(alike) == 1 else f" of {first_names(names)}"
        terminal.say(f"  ops{of}: {words}", style="dim")


def show_kernels(one: Timed, terminal: Terminal) -> None:
    """The time of each kernel in the order in which they run, and their sum beside the whole."""
    seen = one.observation
    if not seen or not seen.op_times:
        terminal.say(f"  {one.name}: the runtime on {one.device} has told no times of kernels", style="dim")
        return
    whole_ms, sum_ms = seen.op_runs_ms, kernels_ms(seen)
    terminal.say(
        f"  {one.name} on {one.device}: the kernels' {milliseconds(sum_ms)} ms are of runs of "
        f"{milliseconds(whole_ms)} ms each, where each kernel was timed; unwatched, the median is "
        f"{milliseconds(one.median_ms)} ms"
    )
    rows = [
        (kernel.node_type, kernel.name, milliseconds(kernel.mean_ms), percent(kernel.share), str(kernel.times_called))
        for kernel in seen.op_times
    ]
    share = None if not whole_ms or sum_ms is None else sum_ms / whole_ms
    rows.append(("sum", "", milliseconds(sum_ms), percent(share), ""))
    terminal.table(("kernel", "name", "ms", "of a run", "calls"), rows, text=2, last=True)


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
