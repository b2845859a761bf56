"""Logs of a run while it goes on: a CSV line per epoch, and events for TensorBoard."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from netlathe.archspace.errors import NetlatheError
from netlathe.events import Update
from netlathe.runs.files import write_csv
from netlathe.runs.folder import Workplace
from netlathe.runs.stopping import Between

if TYPE_CHECKING:
    from netlathe.search import Searcher
    from netlathe.search.costs import Constraint
    from netlathe.search.strategies.binarized.outcome import EpochRow, SearchProgress
    from netlathe.training import StepProgress

Scalars = Callable[[str, float, int], None]
"""(name, value, step) of one number."""

TRAIN_COLUMNS = ("epoch", "loss", "accuracy")


def check_tensorboard() -> None:
    """Raises NetlatheError where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise NetlatheError(
            f"--tensorboard needs the package tensorboard ({error}); pip install 'netlathe[tensorboard]', or leave the "
            "option out: history.csv and train.csv hold the same numbers"
        ) from error


@contextmanager
def scalars(place: Workplace, stage: str, *, first_step: int, events: bool) -> Iterator[Scalars]:
    """Tells the place's listener of numbers, and with `events` writes them for TensorBoard into the stage's folder.
    Events from `first_step` on, of a run that was cut off, no longer count."""
    if not events:
        yield place.scalar
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(place.path / "tensorboard" / stage), purge_step=first_step) as writer:

        def both(name: str, value: float, step: int) -> None:
            writer.add_scalar(name, value, step)
            place.scalar(name, value, step)

        yield both


def history_columns(constraints: Sequence[Constraint]) -> list[str]:
    """Columns of history.csv: what EpochRow holds, with a column per constraint where it holds several numbers."""
    names = [f"{c.table.name} ({c.table.unit})" if c.table.unit else c.table.name for c in constraints]
    return [
        "epoch", "phase", "loss", "accuracy", "entropy", "candidates",
        *(f"expected {name}" for name in names), *(f"likeliest {name}" for name in names),
        *(f"multiplier of {c.table.name}" for c in constraints),
    ]  # fmt: skip


def write_history(path: Path, history: Sequence[EpochRow], constraints: Sequence[Constraint]) -> None:
    """history.csv."""
    rows = [
        [r.epoch + 1, r.phase, r.loss, r.accuracy, r.entropy, r.candidates, *r.expected, *r.likeliest, *r.multipliers]
        for r in history
    ]
    write_csv(path, history_columns(constraints), rows)


def on_each(between: Between) -> Callable[[StepProgress], None]:
    """Hears of every step, and logs none: for processes that do not lead."""
    return lambda step: between()


class SearchLog:
    """Hears of every step of a search: moves the progress bar, writes each epoch that ends, and lets a stop in."""

    def __init__(self, searcher: Searcher, path: Path, update: Update, scalar: Scalars, between: Between) -> None:
        self.searcher, self.path, self.update, self.scalar, self.between = searcher, path, update, scalar, between
        self.known = len(searcher.history)

    def __call__(self, step: SearchProgress) -> None:
        self.scalar("search/loss", step.loss, step.step)
        self.scalar("search/expected ms", step.expected[0], step.step)  # the main target's, the first constraint
        if len(self.searcher.history) > self.known:
            self._write_epoch(step)
        show_step(step, self.update)  # last: what is saved is logged, wherever the user stops it
        self.between()

    def _write_epoch(self, step: SearchProgress) -> None:
        history = self.searcher.history
        self.known = len(history)
        write_history(self.path, history, self.searcher.constraints)
        row = history[-1]
        self.scalar("search/accuracy of sampled paths", row.accuracy, step.step)
        self.scalar("search/entropy", row.entropy, step.step)
        self.scalar("search/candidates", row.candidates, step.step)
        for constraint, multiplier, cost in zip(self.searcher.constraints, row.multipliers, row.likeliest, strict=True):
            self.scalar(f"multiplier/{constraint.table.name}", multiplier, step.step)
            self.scalar(f"likeliest/{constraint.table.name}", cost, step.step)


class TrainLog:
    """Hears of every step of a training: moves the progress bar, and writes each epoch that ends into train.csv. After
    an interruption, the epoch in which it fell is the mean of the steps since then."""

    def __init__(self, path: Path, epochs: int, update: Update, scalar: Scalars, between: Between) -> None:
        self.path, self.epochs, self.update, self.scalar, self.between = path, epochs, update, scalar, between
        self.seen: list[tuple[float, float]] = []
        self.rows: list[list[float]] | None = None

    def __call__(self, step: StepProgress) -> None:
        self.scalar("train/loss", step.loss, step.step)
        per_epoch = max(1, step.steps // self.epochs)
        epoch = math.ceil(step.step / per_epoch)
        if self.rows is None:
            self.rows = [row for row in _read_rows(self.path) if row[0] < epoch]
        self.seen.append((step.loss, step.accuracy))
        if step.step % per_epoch == 0:
            loss, accuracy = (statistics.fmean(column) for column in zip(*self.seen, strict=True))
            self.seen.clear()
            self.rows.append([epoch, loss, accuracy])
            write_csv(self.path, TRAIN_COLUMNS, self.rows)
            self.scalar("train/accuracy", accuracy, step.step)
        show_step(step, self.update)
        self.between()


def _read_rows(path: Path) -> list[list[float]]:
    """Rows of an interrupted training; none where the file is another's."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="") as stream:
            header, *rows = list(csv.reader(stream)) or [[]]
        found = [[int(epoch), float(loss), float(right)] for epoch, loss, right in rows]
    except (ValueError, csv.Error):
        return []
    return found if header == [*TRAIN_COLUMNS] else []


def show_step(step: StepProgress, update: Update) -> None:
    """Moves the progress bar to a step."""
    update(step.step, step.steps, str(step))
