"""Terminal of the command: tables, progress bars, one JSON object for machines, one paragraph for an error."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
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

from netlathe.archspace.errors import NetlatheError, paragraph, printable
from netlathe.cli.speech import SPEECH
from netlathe.events import Follow, Listener, OnRound, Update, Watch
from netlathe.words import percent, percent_within

if TYPE_CHECKING:
    from netlathe.predictor import Metrics
    from netlathe.runs.compression.report import CompressReport
    from netlathe.runs.report import RunReport

PIPE_WIDTH = 160

BAR_FROM_WIDTH = 70
"""Columns of a terminal from which on a bar has room beside the percentage."""

LABEL_WIDTH = 15

LINE_EVERY_S = 60.0
"""Time between two lines that stand for a table where there is no terminal."""

_GAP, _INDENT = 3, 2
"""Spaces between the columns of a table, and before it."""

METRIC_COLUMNS = ("n", "MAPE", "within 5 %", "within 10 %", "Spearman", "in 90 % interval")


class Terminal(Listener):
    """A listener that shows everything.

    Words and progress go to standard error, results to standard output: as tables, or, when `as_json`, as one JSON
    object on its last line. A `quiet` one says nothing at all: of several processes, one speaks. What the command was
    asked to say (SPEECH) holds besides: with --quiet results, warnings and errors alone; with --verbose also what else
    only a pipe is told. A log keeps all of it, and progress by tenths.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        super().__init__()
        self.as_json, self.is_quiet = as_json, quiet
        speech = SPEECH.get()
        self.is_hushed, self.is_verbose = speech.is_quiet, speech.is_verbose
        self._log = None if quiet else speech.log
        self.err = _console(stderr=True, quiet=quiet)
        self.out = self.err if as_json else _console(stderr=False, quiet=quiet)
        self.on_report: Callable[[Any], None] = lambda report: None
        """Shows the workflow's report."""

    @property
    def draws(self) -> bool:
        """Whether progress is drawn: a person looks on."""
        return self.err.is_terminal and not self.is_hushed

    def _keep(self, what: RenderableType) -> None:
        """Adds to the log what is shown."""
        if self._log:
            text = io.StringIO()
            plain = Console(file=text, width=PIPE_WIDTH, color_system=None, highlight=False)
            plain.print(what, soft_wrap=isinstance(what, Text))
            self._log.keep(text.getvalue())

    def say(self, text: str, *, style: str = "", is_command: bool = False) -> None:
        """A line on standard error: brackets in a path are no markup. A terminal gets it broken between words and
        indented, unless it is a command to be copied."""
        if self.is_hushed:
            self._keep(Text(printable(text)))
        else:
            self.alarm(text, style=style, is_command=is_command)

    def alarm(self, text: str, *, style: str = "", is_command: bool = False) -> None:
        """A line that is said with --quiet, too: a doubt about a result, or what has none."""
        self._keep(Text(printable(text)))
        if is_command or not self.err.is_terminal:
            self.err.print(Text(printable(text), style=style), soft_wrap=True)
            return
        body = printable(text.lstrip(" "))
        self.err.print(Padding(Text(body, style=style), (0, 0, 0, len(text) - len(text.lstrip(" "))), expand=False))

    def note(self, text: str) -> None:
        self.say(text)

    def step(self, title: str) -> None:
        """The heading of a longer step."""
        heading = Text(printable(title), style="bold cyan")
        self._keep(heading)
        if not self.is_hushed:
            self.err.print()
            self.err.print(heading)

    def steps(self, steps: Iterable[str]) -> None:
        """A numbered list on standard error."""
        table = Table.grid(padding=(0, 1, 0, 0))
        for number, text in enumerate(steps, 1):
            table.add_row(f"{number}.", Text(text))
        steps_below = Padding(table, (0, 0, 0, 2), expand=False)
        self._keep(steps_below)
        if not self.is_hushed:
            self.err.print(steps_below)

    def warn(self, warnings: Iterable[str]) -> None:
        """Each with its remedy in its own words."""
        for warning in warnings:
            self.alarm(f"  Warning: {warning}", style="yellow")

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        numbers: bool = True,
        text: int = 1,
        last: bool = False,
    ) -> None:
        """`numbers`: all but the first `text` columns stand to the right; without, the first column holds names to be
        copied, which are never broken. `last`: the last row sums up the others."""
        table = _table(columns, rows, text if numbers else len(columns))
        table.columns[0].no_wrap = not numbers
        if last and table.rows:
            table.rows[-1].style = "bold"
        indented = Padding(table, (0, 0, 0, _INDENT), expand=False)
        self._keep(indented)
        if not (self.is_hushed and self.as_json):
            self.out.print(indented)

    def fits(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bool:
        """Whether the table is as wide as the terminal at most, with no cell broken."""
        lines = [columns, *rows]
        widths = [max(len(str(line[index])) for line in lines) for index in range(len(columns))]
        return sum(widths) + _GAP * len(widths) + _INDENT <= self.out.width + _GAP

    @property
    def can_ask(self) -> bool:
        """Whether a person sees the question and can answer."""
        return (
            not self.as_json
            and not self.is_quiet
            and not self.is_hushed
            and all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
        )

    def choose(self, question: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> int | None:
        """Index of the row that the user chooses by its number, None for none: an empty answer or the end of input."""
        numbered = [(f"{number}.", *row) for number, row in enumerate(rows, 1)]
        self.err.print(Padding(_table(("", *columns), numbered, len(columns) + 1), (0, 0, 0, 2), expand=False))
        while True:
            try:
                said = self.err.input(Text(f"  {question} (1 to {len(rows)}, Enter for none) ")).strip()
            except EOFError:
                said = ""
            except KeyboardInterrupt:
                self.err.print()  # what follows stands on a line of its own
                raise
            if not said:
                return None
            if said.isascii() and said.isdigit() and 1 <= int(said) <= len(rows):
                return int(said) - 1

    @contextmanager
    def live(self) -> Iterator[Callable[[Sequence[str], Iterable[Sequence[object]], str], None] | None]:
        """Draws (columns, rows, a line below) in place of what was there, and leaves nothing; None off a terminal.

        Draws only when it is called: a thread that does it by itself would disturb what is being timed.
        """
        if not self.draws:
            yield None
            return
        with Live(console=self.err, transient=True, auto_refresh=False) as live:

            def draw(columns: Sequence[str], rows: Iterable[Sequence[object]], below: str) -> None:
                whole = Group(_table(columns, rows, 1), Text(below, style="dim", no_wrap=True, overflow="ellipsis"))
                live.update(Padding(whole, (0, 0, 0, 2), expand=False), refresh=True)

            yield draw

    def result(self, content: Mapping[str, Any]) -> None:
        """The machine's answer; nothing without --json."""
        if self.as_json and not self.is_quiet:
            undone = {"not_restored": list(self.undone.values())} if self.undone else {}
            print(json.dumps({**content, **undone}), flush=True)

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        """A spinner for a step of unknown length; a line off a terminal."""
        if self.draws:
            self._keep(Text(printable(label)))
            with self.err.status(label):
                yield
        else:
            self.say(f"  {label}")
            yield

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Update]:
        """A progress bar with an ETA; off a terminal, a line at the start and every tenth."""
        if not self.draws:
            yield self._lines(label, unit, self.say)
            return
        kept = self._lines(label, unit, lambda line: self._keep(Text(printable(line))))
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

            def update(done: int, total: int, note: str) -> None:
                bar.update(task, completed=done, total=total, note=note)
                kept(done, total, note)

            yield update

    @contextmanager
    def watching(self, labels: Sequence[str]) -> Iterator[list[Watch]]:
        """A bar with the time left for each of these; off a terminal, a line at the start and every tenth. Where there
        is little room, the note goes first, then the bar, then the middle of the label."""
        if not self.draws:
            yield [self._watch_lines(label, self.say) for label in labels]
            return
        fixed, width = partial(Column, no_wrap=True), self.err.width
        columns = (
            SpinnerColumn(table_column=fixed()),
            TextColumn("{task.description}", markup=False, table_column=fixed()),
            *([BarColumn(bar_width=width // 8, table_column=fixed())] if width >= BAR_FROM_WIDTH else []),
            TextColumn("{task.percentage:>3.0f} %", table_column=fixed()),
            TextColumn("{task.fields[left]}", table_column=fixed()),
            TextColumn("{task.fields[note]}", style="dim", markup=False, table_column=fixed(ratio=1)),
        )
        with Progress(*columns, console=self.err, transient=True, expand=True) as bar:
            names = [shortened(label, max(LABEL_WIDTH, width // 4)) for label in labels]
            tasks = [bar.add_task(name, total=1.0, left="", note="") for name in names]
            kept = [self._watch_lines(label, lambda line: self._keep(Text(printable(line)))) for label in labels]
            yield [_both(partial(_show, bar, task), keep) for task, keep in zip(tasks, kept, strict=True)]

    @contextmanager
    def following(self, columns: Sequence[str]) -> Iterator[Follow]:
        """A table in place of the one before; off a terminal, the line below it now and then."""
        with self.live() as draw:
            if draw:
                yield lambda rows, below, share, left_s: draw(columns, rows, _with_time(below, share, left_s))
                return
            yield self._every_minute()

    def _every_minute(self) -> Follow:
        told_s = time.monotonic()

        def follow(rows: Sequence[Sequence[object]], below: str, share: float | None, left_s: float | None) -> None:
            nonlocal told_s
            if time.monotonic() - told_s >= LINE_EVERY_S:
                told_s = time.monotonic()
                self.say(f"  {_with_time(below, share, left_s)}")

        return follow

    def _watch_lines(self, label: str, say: Callable[[str], None]) -> Watch:
        lines = self._lines(label, "%", say)
        return lambda share, left_s, note: lines(int(100 * share), 100, f"{time_left(left_s)}  {note}".strip())

    @contextmanager
    def estimating(self, names: Sequence[str]) -> Iterator[OnRound]:
        """A table that follows the rounds; off a terminal, a line with each network's first estimate."""
        from netlathe.cli.estimates import watching

        with watching(names, self) as on_round:
            yield on_round

    def report(self, report: object) -> None:
        self.on_report(report)

    def log(self, text: str) -> None:
        """A line where there is no terminal, or with --verbose, for what a terminal shows as progress."""
        if self.is_verbose or not self.err.is_terminal:
            self.say(text)
        else:
            self._keep(Text(printable(text)))

    def _lines(self, label: str, unit: str, say: Callable[[str], None]) -> Update:
        """Says a line at the start and at every tenth."""
        printed = -1

        def update(done: int, total: int, note: str) -> None:
            nonlocal printed
            tenth = 10 * done // max(total, 1)
            if tenth > printed:
                printed = tenth
                say(f"  {label}: {done}/{total} {unit}  {note}".rstrip())

        return update


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], text: int) -> Table:
    """All but the first `text` columns stand to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for index, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if index >= text else "left"
        table.add_column(printable(column), justify=justify, header_style="dim", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    return table


def _show(bar: Progress, task: TaskID, share: float, left_s: float | None, note: str) -> None:
    bar.update(task, completed=share, left=time_left(left_s), note=note)


def _both(first: Watch, second: Watch) -> Watch:
    def watch(share: float, left_s: float | None, note: str) -> None:
        first(share, left_s, note)
        second(share, left_s, note)

    return watch


def shortened(text: str, width: int) -> str:
    """'tcp:192.168.1.17:5555', 12 -> 'tcp…1.17:5555': the end, which tells devices apart, keeps more than the start."""
    if len(text) <= width:
        return text
    start = (width - 1) // 3
    return f"{text[:start]}…{text[start + 1 - width :]}"


def _with_time(below: str, share: float | None, left_s: float | None) -> str:
    """'3 of 3 measure, 40 %, 1:15 left'"""
    told = "" if share is None else f", {percent(share, 0)}"
    return f"{below}{told}{'' if left_s is None else f', {time_left(left_s)}'}"


def time_left(seconds: float | None) -> str:
    """75 -> '1:15 left'; '' when unknown."""
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"


def _console(*, stderr: bool, quiet: bool) -> Console:
    """Width of the terminal; wide enough for any table where there is none, as in a pipe."""
    console = Console(stderr=stderr, highlight=False, quiet=quiet)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, quiet=quiet, width=PIPE_WIDTH)


def fail(error: BaseException | str, *, as_json: bool, kind: str) -> None:
    """One paragraph on standard error; for machines also an object on standard output."""
    message = str(error) or repr(error)
    message = message if isinstance(error, NetlatheError) else paragraph(message)
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=not sys.stderr.isatty())
    if as_json:
        print(json.dumps({"error": {"type": kind, "message": message}}), flush=True)


def show_classification(reports: Sequence[RunReport | CompressReport], terminal: Terminal) -> None:
    """A line on what the accuracies of these reports are worth, and one per network on its classes."""
    told = [one for one in reports if one.classification]
    if not told:
        return
    first = told[0]
    seeds = ", ".join(dict.fromkeys(str(one.seed) for one in told))
    terminal.say(
        f"  ± is half of the 95 % interval over {first.test_images:,} test images such as these; seed {seeds}, and "
        "another seed differs, too",
        style="dim",
    )
    for one in told:
        found = one.classification or {}
        top5 = f", top-5 {percent_within(found['top5_accuracy'], one.test_images)}" if found["classes"] > 10 else ""
        low, high = found["balanced_interval"]
        balanced = f"{percent(found['balanced_accuracy'])} ± {50 * (high - low):.1f}"
        terminal.say(f"  {one.name}: balanced accuracy {balanced}{top5}", style="dim")


def metric_cells(metrics: Metrics) -> tuple[object, ...]:
    """Cells under METRIC_COLUMNS."""
    spearman = "-" if math.isnan(metrics.spearman) else f"{metrics.spearman:.3f}"
    shares = (percent(metrics.within_5, 0), percent(metrics.within_10, 0))
    return metrics.n, percent(metrics.mape), *shares, spearman, percent(metrics.coverage, 0)
