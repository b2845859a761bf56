"""First phase of a run by a black-box strategy: whole networks are looked at one by one, by any number of processes."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.decisions import Choices
from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.archspace.files import check_plain, digest
from netlathe.archspace.spaces import Architecture
from netlathe.runs.files import LOOKS, SEARCH, STUDY, write_csv
from netlathe.runs.folder import Workplace
from netlathe.runs.phase import Phase
from netlathe.runs.searched import Searched, describe_data, describe_space
from netlathe.runs.settings import LookSettings, RunSettings, Score, name_of

if TYPE_CHECKING:
    from netlathe.search.costs import Constraint
    from netlathe.search.strategies.blackbox.strategy import Strategy
    from netlathe.search.strategies.blackbox.study import Study
    from netlathe.training import Compute, ImageData, TrainConfig

_LOOKS = "looks"
"""Key of the budget in a phase's inputs: a larger one goes on where a smaller one has ended."""


class LookPhase(Phase[Searched]):
    """Search of a run's space by a black-box strategy under its constraints."""

    record, kind = SEARCH, "search"

    def __init__(self, settings: RunSettings, place: Workplace, constraints: list[Constraint]) -> None:
        super().__init__(place, {**study_inputs(settings), _LOOKS: _looking(settings).looks})
        self.settings, self.constraints = settings, constraints

    @property
    def lasting(self) -> dict[str, Any]:
        """Inputs without the budget: a network that was trained stays so when more are looked at."""
        return {name: value for name, value in self.inputs.items() if name != _LOOKS}

    def work(self) -> Searched:
        """Looks at networks until the budget is used, together with whoever else works on the study. Raises SearchError
        where every look-up fails, or the storage holds another study."""
        from netlathe.search.candidates import Evaluated
        from netlathe.search.errors import SearchError

        self.place.folder.make()
        look_at_networks(self.settings, self.place, self.constraints)
        ledger = open_study(self.settings, self.place).ledger()
        evaluated = tuple(
            Evaluated(choices, score, tuple(c.table.cost(choices) for c in self.constraints))
            for choices, score in ledger.finished.items()
            if score is not None
        )
        if not evaluated:
            raise SearchError(f"all {len(ledger.finished)} look-ups failed, the last with: {ledger.errors[-1]}")
        return Searched((), ledger.seconds, evaluated=evaluated)

    def write(self, output: Searched) -> dict[str, Any]:
        space, constraints = self.settings.space, self.constraints
        ledger = open_study(self.settings, self.place).ledger()
        costs = [[c.table.cost(choices) for c in constraints] for choices in ledger.finished]
        names = [f"{c.table.name} ({c.table.unit})" if c.table.unit else c.table.name for c in constraints]
        write_csv(self.place.path / LOOKS, ["look", "network", "score", *names], [
            [number, space.network_name(choices), "failed" if score is None else score, *own]
            for number, ((choices, score), own) in enumerate(zip(ledger.finished.items(), costs, strict=True), 1)
        ])  # fmt: skip
        return {
            "space": space.to_json(),
            "constraints": [{"name": c.table.name, "unit": c.table.unit, "limit": c.limit} for c in constraints],
            "looks": [
                {"choices": list(one.choices), "score": one.score, "costs": list(one.costs)} for one in output.evaluated
            ],
            "seconds": output.seconds,
        }

    def read(self, content: Mapping[str, Any]) -> Searched:
        from netlathe.search.candidates import Evaluated

        looks = tuple(
            Evaluated(tuple(map(int, one["choices"])), float(one["score"]), tuple(map(float, one["costs"])))
            for one in content["looks"]
        )
        if not looks:
            raise ValueError("it lists no networks")
        return Searched((), float(content["seconds"]), evaluated=looks)

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Decides for replacing a search of another budget, whose look-ups are in the study."""
        return set(differences) == {_LOOKS}


def look_at_networks(settings: RunSettings, place: Workplace, constraints: list[Constraint]) -> int:
    """Works on a run's study until its budget is used, and returns how many networks this process has looked at."""
    strategy, study = make_looker(settings, constraints), open_study(settings, place)
    looking, space = _looking(settings), settings.space
    score = settings.score or TrainedScore(settings, place.compute)
    seen = 0

    def look(choices: Choices) -> float:
        return call_score(score, space.architecture(choices), looking.epochs)

    with place.listener.progress("looking at networks", "networks") as update:

        def on_look(done: int, total: int, choices: Choices, score: float | None) -> None:
            nonlocal seen
            seen += 1
            place.folder.check()
            told = "failed" if score is None else f"{score:.4g}"
            update(done, total, f"{space.network_name(choices)}: {told}")

        study.work(strategy, look, looking.looks, on_look)
    return seen


def make_looker(settings: RunSettings, constraints: list[Constraint]) -> Strategy:
    """The run's strategy, which was told nothing yet."""
    from netlathe.search.strategies.blackbox.feasible import FeasibleSet
    from netlathe.search.strategies.blackbox.names import make_strategy

    looking = _looking(settings)
    return make_strategy(looking.strategy, FeasibleSet(settings.space, constraints), seed=looking.seed)


def open_study(settings: RunSettings, place: Workplace) -> Study:
    """The run's study, in its storage or its folder. Raises SearchError for one that holds another study."""
    from netlathe.archspace.jsonfile import json_digest
    from netlathe.search.strategies.blackbox.study import Study

    storage, inputs = _looking(settings).storage, study_inputs(settings)
    told = {name: inputs[name] for name in ("config", "score", "goal")}
    told["space"], told["data"] = (json_digest(inputs[name]) for name in ("space", "data"))
    # In a storage elsewhere, each search has a name of its own: several targets share one, and several runs may.
    name = "search" if storage is None else f"{settings.space.name}-{json_digest(told)}"
    return Study(storage or place.path / STUDY, settings.space, told, name=name)


def study_inputs(settings: RunSettings) -> dict[str, Any]:
    """Inputs of the look-ups, for JSON."""
    looking = _looking(settings)
    if settings.score:
        score: Any = {"own": name_of(settings.score), "budget": looking.epochs}
    else:
        score = {"epochs": looking.epochs, **_training_inputs(settings)}
    return {
        "config": {"strategy": looking.strategy, "seed": looking.seed},
        "score": score,
        "goal": settings.goal.to_json(),
        "space": describe_space(settings.space),
        "data": describe_data(settings.data),
    }


def _training_inputs(settings: RunSettings) -> dict[str, Any]:
    """Settings of the training that a look-up makes, but for the epochs."""
    config = look_training(settings, 1)
    return {name: value for name, value in vars(config).items() if name != "epochs"}


def look_training(settings: RunSettings, epochs: int) -> TrainConfig:
    """Training of a look-up: the run's own with so many epochs, or the default one where that is a recipe."""
    from netlathe.training import TrainConfig

    own = settings.training if isinstance(settings.training, TrainConfig) else TrainConfig(seed=_looking(settings).seed)
    return replace(own, epochs=epochs)


def _looking(settings: RunSettings) -> LookSettings:
    assert settings.looking is not None
    return settings.looking


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


def parse_score(text: str) -> Score:
    """The score of --score FILE.csv:COLUMN. Raises NetlatheError for what does not parse."""
    file, colon, column = text.rpartition(":")
    if not colon or not file.endswith(".csv"):
        raise NetlatheError(f"--score {text}: expected FILE.csv:COLUMN, a table with a column `network`")
    return ScoreTable.read(file, column)
