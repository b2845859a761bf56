"""What the terminal sees: tables, progress bars, one JSON object for machines, one paragraph for an error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from archspace.errors import NetlatheError, paragraph, printable

if TYPE_CHECKING:
    from predictor import Metrics

PIPE_WIDTH = 160

METRIC_COLUMNS = ("n", "MAPE", "within 5 %", "within 10 %", "Spearman", "in 90 % interval")

Update = Callable[[int, int, str], None]
"""(done, total, note) for a progress bar."""

Watch = Callable[[float, float | None, str], None]
"""(share done, seconds left where known, note) for one of several things that run side by side."""


class Terminal:
    """Words and progress go to standard error. Results go to standard output: as tables, or, when `as_json`, as one
    JSON object on its last line."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.err = _console(stderr=True)
        self.out = self.err if as_json else _console(stderr=False)

    def say(self, text: str, *, style: str = "") -> None:
        """A line on standard error, as it is: brackets in a path are no markup."""
        self.err.print(Text(printable(text), style=style), soft_wrap=True)

    def step(self, title: str) -> None:
        """The heading of a longer step."""
        self.err.print()
        self.err.print(Text(printable(title), style="bold cyan"))

    def warn(self, warnings: Iterable[str]) -> None:
        """Each with its remedy in its own words."""
        for warning in warnings:
            self.err.print(Padding(Text(f"Warning: {printable(warning)}", style="yellow"), (0, 0, 0, 2), expand=False))

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        numbers: bool = True,
        text: int = 1,
        last: bool = False,
    ) -> None:
        """`numbers`: all but the first `text` columns stand to the right. `last`: the last row sums up the others."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
        for index, column in enumerate(columns):
            table.add_column(
                printable(column),
                justify="right" if numbers and index >= text else "left",
                header_style="dim",
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(Text(printable(str(cell))) for cell in row))
        if last and table.rows:
            table.rows[-1].style = "bold"
        self.out.print(Padding(table, (0, 0, 0, 2), expand=False))

    def result(self, content: Mapping[str, Any]) -> None:
        """The machine's answer; nothing without --json."""
        if self.as_json:
            print(json.dumps(content), flush=True)

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        """A spinner for a step of unknown length; a line off a terminal."""
        if self.err.is_terminal:
            with self.err.status(label):
                yield
        else:
            self.say(f"  {label}")
            yield

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Update]:
        """A progress bar with an ETA; off a terminal, a line at the start and every tenth."""
        if not self.err.is_terminal:
            yield self._lines(label, unit)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task(label, total=None, note="")
            yield lambda done, total, note: bar.update(task, completed=done, total=total, note=note)

    @contextmanager
    def watching(self, labels: Sequence[str]) -> Iterator[list[Watch]]:
        """A bar with the time left for each of these; off a terminal, a line at the start and every tenth."""
        if not self.err.is_terminal:
            yield [self._watch_lines(label) for label in labels]
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}", style="dim", markup=False, table_column=Column(no_wrap=True)),
        )
        with Progress(*columns, console=self.err, transient=True) as bar:
            tasks = [bar.add_task(label, total=1.0, left="", note="") for label in labels]
            yield [partial(_show, bar, task) for task in tasks]

    def _watch_lines(self, label: str) -> Watch:
        lines = self._lines(label, "%")
        return lambda share, left_s, note: lines(int(100 * share), 100, f"{time_left(left_s)}  {note}".strip())

    def _lines(self, label: str, unit: str) -> Update:
        printed = -1

        def update(done: int, total: int, note: str) -> None:
            nonlocal printed
            tenth = 10 * done // max(total, 1)
            if tenth > printed:
                printed = tenth
                self.say(f"  {label}: {done}/{total} {unit}  {note}".rstrip())

        return update


def _show(bar: Progress, task: TaskID, share: float, left_s: float | None, note: str) -> None:
    bar.update(task, completed=share, left=time_left(left_s), note=note)


def time_left(seconds: float | None) -> str:
    """75 -> '1:15 left'; '' when unknown."""
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"


def _console(*, stderr: bool) -> Console:
    """As wide as the terminal; wide enough for any table where there is none, as in a pipe."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def fail(error: BaseException | str, *, as_json: bool, kind: str) -> None:
    """One paragraph on standard error; for machines also an object on standard output."""
    message = str(error) or repr(error)
    message = message if isinstance(error, NetlatheError) else paragraph(message)
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=not sys.stderr.isatty())
    if as_json:
        print(json.dumps({"error": {"type": kind, "message": message}}), flush=True)


def percent(share: float | None, digits: int = 1) -> str:
    """0.123 -> '12.3 %'; a dash when unknown."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def metric_cells(metrics: Metrics) -> tuple[object, ...]:
    """What stands under METRIC_COLUMNS."""
    spearman = "-" if math.isnan(metrics.spearman) else f"{metrics.spearman:.3f}"
    shares = (percent(metrics.within_5, 0), percent(metrics.within_10, 0))
    return metrics.n, percent(metrics.mape), *shares, spearman, percent(metrics.coverage, 0)


def milliseconds(value: float | None) -> str:
    """Three significant digits; a dash when unknown."""
    if value is None:
        return "-"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def millions(value: float) -> str:
    """1234567 -> '1.23 M', 1234 -> '1.2 K'."""
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} K"
