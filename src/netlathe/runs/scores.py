"""Scores of whole networks: tables, a user's own, netlathe's trainings and warm supernets."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.archspace.files import check_plain, digest
from netlathe.archspace.spaces import Architecture
from netlathe.runs.folder import Workplace
from netlathe.runs.searched import WarmSearcher, WarmUp, described
from netlathe.runs.settings import Budget, OwnScore, RunSettings, Score, TableColumn, name_of, parse_score_names

if TYPE_CHECKING:
    from netlathe.search import SearchConfig, Searcher
    from netlathe.search.costs import Constraint
    from netlathe.search.strategies.blackbox.study import Look
    from netlathe.training import Compute, ImageData, TrainConfig


def make_look(settings: RunSettings, budget: Budget, compute: Compute, warm: WarmSearcher) -> Look:
    """Look-ups of a budget; those that inherit weights train the supernet at this call, where it is not warm yet."""
    space, score = settings.space, budget.score
    if score == "inherit":
        return inherited_accuracy(settings, compute, warm)
    own = TrainedScore(settings, compute) if score == "train" else score
    assert callable(own)
    return lambda choices: call_score(own, space.architecture(choices), budget.epochs)


def describe_budget(settings: RunSettings, budget: Budget) -> dict[str, Any]:
    """Inputs of a budget's look-ups, for JSON."""
    if budget.score == "inherit":
        return {"inherit": described(warm_config(settings), always=("architecture_every", "batch_norm"))}
    if callable(budget.score):
        return {"own": name_of(budget.score), "budget": budget.epochs}
    return described(look_training(settings, budget.epochs), always=("batch_norm",))


def warm_config(settings: RunSettings) -> SearchConfig:
    """Settings of a supernet whose architecture never moves: the learning rate has sunk when it is warm."""
    return replace(settings.search, epochs=0)


def warm_searcher(settings: RunSettings, place: Workplace, constraints: list[Constraint]) -> WarmSearcher:
    """The searcher whose supernet is trained once in this folder, by whichever process is first to call; others wait,
    and read its checkpoint."""
    warm_up = WarmUp(replace(settings, search=warm_config(settings), looking=None), place, constraints)

    def searcher() -> Searcher:
        if not place.leads:  # the leader waits for them all
            return warm_up.searcher()
        place.folder.make()
        lock = FileLock(place.path / ".netlathe.warm-up.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            place.listener.note(f"  Waits for the supernet that another process is training in {place.path}")
            lock.acquire()
        try:
            return warm_up.searcher()
        finally:
            lock.release()

    return searcher


def inherited_accuracy(settings: RunSettings, compute: Compute, warm: WarmSearcher) -> Look:
    """Accuracy on validation images, 0 to 1, by the warm supernet's weights."""
    from netlathe.search.strategies.binarized.validation import make_validation_accuracy

    config, rng = settings.search, np.random.default_rng(settings.search.seed)
    supernet, split = warm().supernet, settings.data.validation
    return make_validation_accuracy(supernet, split, config.finalist_images, compute, rng)


def look_training(settings: RunSettings, epochs: int) -> TrainConfig:
    """Training of a look-up: the run's own with so many epochs, or the default one where that is a recipe."""
    from netlathe.training import TrainConfig
    from netlathe.training.recipes import warmup_of

    seed = settings.looking.seed if settings.looking else 0
    own = settings.training if isinstance(settings.training, TrainConfig) else TrainConfig(seed=seed)
    return replace(own, epochs=epochs, warmup_epochs=warmup_of(own.warmup_epochs, own.epochs, epochs))


@dataclass(frozen=True)
class TrainedScore:
    """Accuracy on the validation images, 0 to 1, of a network that is trained for some epochs on the training images.

    Raises TrainingError where the loss diverges.
    """

    settings: RunSettings
    compute: Compute

    def __call__(self, architecture: Architecture, budget: int) -> float:
        from netlathe.runs.trained import new_network
        from netlathe.training import evaluate, recalibrate_batch_norm, train

        data: ImageData = self.settings.data
        config = look_training(self.settings, budget)
        network = new_network(architecture, config)
        train(network, data, config, compute=self.compute, split=data.train)
        recalibrate_batch_norm(network, data.train, compute=self.compute)
        return evaluate(network, data.validation, compute=self.compute)


def call_score(score: Callable[..., float], architecture: Architecture, budget: int) -> float:
    """A score's answer; it is given the budget where it has a parameter of that name."""
    if "budget" in inspect.signature(score).parameters:
        return float(score(architecture, budget=budget))
    return float(score(architecture))


@dataclass(frozen=True)
class ScoreTable:
    """Scores of networks from a CSV with a column `network`, as names, and one of the scores: a Score.

    A network that the table lacks is a look-up that fails. `content` tells one file from another.
    """

    file: str
    column: str
    content: str
    scores: Mapping[str, float] = field(repr=False)

    @classmethod
    def read(cls, file: str | Path, column: str) -> ScoreTable:
        """Raises FormatError for a file that cannot be read, or that has no such columns or anything in it that is no
        number."""
        path = Path(file)
        try:
            check_plain(path)
            text = path.read_text(encoding="utf-8-sig")
            rows = list(csv.DictReader(text.splitlines()))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise FormatError(f"{path}: cannot be read as CSV ({error})") from error
        found = list(rows[0]) if rows else []
        for name in ("network", column):
            if name not in found:
                raise FormatError(f"{path}: has no column {name!r}, only {', '.join(map(str, found)) or 'no lines'}")
        scores: dict[str, float] = {}
        for line, row in enumerate(rows, start=2):
            try:
                scores[str(row["network"])] = float(row[column] or "")
            except ValueError as error:
                raise FormatError(
                    f"{path}: line {line} has {row[column]!r} as its {column}, which is no number"
                ) from error
        return cls(str(file), column, digest(text.encode()), scores)

    def __call__(self, architecture: Architecture) -> float:
        if architecture.name not in self.scores:
            raise NetlatheError(f"{self.file}: has no line for network {architecture.name}")
        return self.scores[architecture.name]


def parse_scores(text: str) -> OwnScore | Score | list[OwnScore | Score]:
    """The scores of --score: inherit, train, FILE.csv:COLUMN, or several of them, as `inherit,train`. Raises
    NetlatheError for what does not parse, FormatError for a table that cannot be read."""
    found: list[OwnScore | Score] = [
        ScoreTable.read(one.file, one.column) if isinstance(one, TableColumn) else one
        for one in parse_score_names(text)
    ]
    return found[0] if len(found) == 1 else found
