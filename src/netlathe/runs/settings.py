"""Settings of a run: all that its outcome depends on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from netlathe.archspace.errors import FormatError, NetlatheError, did_you_mean
from netlathe.archspace.presets import PRESETS, load_space
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.events import Listener
from netlathe.runs.judges import DeviceAtHand
from netlathe.targets import Goal

if TYPE_CHECKING:
    from torch import nn

    from netlathe.search import SearchConfig
    from netlathe.training import ImageData, TrainConfig
    from netlathe.training.sources import Source

Recipe = Callable[..., "nn.Module"]
"""A user's own training, called as recipe(module, data, compute); it returns the trained module, the same or one of the
same state_dict. With a parameter called `checkpointer` it is given a training.Checkpointer, too: load() is the state
that was last saved, None at the beginning, and save(state) saves one."""
Score = Callable[..., float]
"""How good a network is, the higher the better; a user's own, in place of the validation accuracy, called as
score(architecture). With a parameter called `budget`, it is given the epochs of a look-up, too."""


BINARIZED = "binarized"
"""The path-binarized search, which looks at no networks one by one."""
OwnScore = Literal["inherit", "train"]
"""Scores of netlathe's own: validation accuracy by the weights of a warm supernet, or after a training."""


@dataclass(frozen=True)
class Budget:
    """One budget of a search by looks at whole networks."""

    score: OwnScore | Score = "train"
    looks: int = 100
    """Networks to look at."""
    epochs: int = 10
    """Epochs of a look-up's training, or what an own score makes of it."""

    def __post_init__(self) -> None:
        for name, value in (("--looks", self.looks), ("--look-epochs", self.epochs)):
            if value < 1:
                raise NetlatheError(f"{name} {value}: must be at least 1")
        if isinstance(self.score, str) and self.score not in get_args(OwnScore):
            raise NetlatheError(f"score {self.score!r}: unknown; known are inherit, train, or a function of your own")


@dataclass(frozen=True)
class LookSettings:
    """Settings of a search by looks at whole networks."""

    strategy: str
    """Name of a black-box strategy."""
    budgets: tuple[Budget, ...] = (Budget(),)
    """Budgets of the looks, the cheapest first; the last one's scores are what networks are chosen by."""
    seed: int = 0
    storage: str | None = None
    """Journal file or URL of the storage that several processes share; None for a journal in the run's folder."""

    def __post_init__(self) -> None:
        check_strategy(self.strategy)


def check_strategy(name: str) -> None:
    """Raises NetlatheError for a strategy that is unknown, or whose packages are not installed."""
    from netlathe.search.strategies.blackbox.names import STRATEGIES, check_packages

    known = (BINARIZED, *STRATEGIES)
    if name not in known:
        raise NetlatheError(f"--strategy {name:.40}: unknown{did_you_mean(name, known)}; known are {', '.join(known)}")
    check_packages(name)


def make_budgets(
    scores: OwnScore | Score | Sequence[OwnScore | Score] | None, looks: int | Sequence[int],
    epochs: int | Sequence[int],
) -> tuple[Budget, ...]:  # fmt: skip
    """Budgets of these scores, looks and epochs, of which one may stand for all. Raises NetlatheError for lists of
    unlike lengths."""
    lists = {
        "score": _listed("train" if scores is None else scores),
        "looks": _listed(looks),
        "look_epochs": _listed(epochs),
    }
    count = max(map(len, lists.values()))
    for name, values in lists.items():
        if len(values) not in (1, count):
            raise NetlatheError(
                f"{name} has {len(values)} parts where another option has {count}: give one for each budget, the "
                "cheapest first, or one for all"
            )
    columns = [values if len(values) == count else values * count for values in lists.values()]
    return tuple(Budget(*row) for row in zip(*columns, strict=True))


def parse_counts(option: str, text: str) -> int | list[int]:
    """'200' -> 200, '200,40' -> [200, 40]. Raises NetlatheError for anything else."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise NetlatheError(f"{option} {text}: expected a whole number, or several, such as 200,40") from None
    return found[0] if len(found) == 1 else found


class TableColumn(NamedTuple):
    """A column of scores in a table."""

    file: str
    column: str


def parse_score_names(text: str) -> list[OwnScore | TableColumn]:
    """The scores of --score by their names, as in 'inherit,FILE.csv:COLUMN'. Raises NetlatheError for what does not
    parse, and for a file that is not there."""
    return [_parse_score_name(part.strip(), text) for part in text.split(",")]


def _parse_score_name(part: str, text: str) -> OwnScore | TableColumn:
    if part == "inherit":
        return "inherit"
    if part == "train":
        return "train"
    file, colon, column = part.rpartition(":")
    if not colon or not file.endswith(".csv"):
        raise NetlatheError(
            f"--score {text}: expected inherit, train, or FILE.csv:COLUMN, a table with a column `network`; several, "
            "the cheapest first, are separated by commas"
        )
    if not Path(file).exists():
        raise FormatError(f"--score {text}: {file}: there is no such file")
    return TableColumn(file, column)


def parse_widths(text: str) -> list[float]:
    """'0.5,1' -> [0.5, 1.0]. Raises NetlatheError for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise NetlatheError(f"--baselines {text}: expected widths, such as 0.5,0.75,1") from None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


@dataclass(frozen=True)
class RunSettings:
    """Everything that a run's outcome depends on."""

    space: SearchSpace
    data: ImageData
    goal: Goal
    search: SearchConfig
    training: TrainConfig | Recipe
    update: Literal["gradient", "reinforce"] = "gradient"
    train_from: Literal["scratch", "supernet"] = "scratch"
    device: DeviceAtHand | None = None
    score: Score | None = None
    """A score of the user's own, where there is but one."""
    looking: LookSettings | None = None
    """How networks are looked at one by one; None for the path-binarized search."""
    baselines: tuple[Architecture, ...] = ()
    """Networks to train and time beside the found one."""

    def at(self, limit_ms: float) -> RunSettings:
        """Settings with another limit of the main target, in ms."""
        return replace(self, goal=self.goal.at(limit_ms))


def name_of(own: Callable[..., Any]) -> str:
    """Name that tells a user's callable from another between processes: where a function is defined, and the fields of
    a dataclass. What its code does is not looked at. Raises NetlatheError for any other, as two of them would be taken
    for one: a lambda, a partial, an object whose state is not known."""
    if is_dataclass(own) and not isinstance(own, type):
        return f"{type(own).__module__}.{own!r}"
    if inspect.isroutine(own) and not inspect.ismethod(own) and own.__name__ != "<lambda>":
        return f"{own.__module__}.{own.__qualname__}"
    raise NetlatheError(
        f"{own!r:.200}: cannot be told from another, which a run that is to be continued needs; give a function with a "
        "name, or a frozen dataclass with __call__"
    )


def trained_by(
    training: TrainConfig | Recipe | None, recipe: str | None, make: Callable[[str | None], TrainConfig]
) -> TrainConfig | Recipe:
    """The training that was given, or what `make` makes of a published recipe's name or of None. Raises NetlatheError
    where both are given, TrainingError for a name that there is not or a package that is missing."""
    from netlathe.training import TrainConfig

    if training is not None and recipe is not None:
        raise NetlatheError(
            f"recipe {recipe!r:.40} and a training are given, of which only one can be followed; training_recipe("
            f"{recipe!r:.40}, epochs=...) makes a training of a recipe and your own settings"
        )
    found = make(recipe) if training is None else training
    if isinstance(found, TrainConfig):
        found.augmentation.check_packages()
    return found


def load_inputs(
    given: str | Path | SearchSpace,
    source: Source | ImageData,
    *,
    resolution: int | None,
    width: float | None,
    limit: int | None,
    seed: int,
    skip_unreadable: int = 0,
    listener: Listener | None = None,
) -> tuple[SearchSpace, ImageData]:
    """The space, and the images at its resolution; a preset's head gets as many classes as the images have."""
    from netlathe.search.strategies.binarized.outcome import check_data

    is_preset = isinstance(given, str) and given in PRESETS
    space = given if isinstance(given, SearchSpace) else load_space(str(given), resolution=resolution, width=width)
    data = load_told(source, space.input_shape, limit, seed, skip_unreadable, listener or Listener())
    if is_preset:
        space = load_space(str(given), resolution=resolution, width=width, classes=len(data.classes))
    check_data(space, data)
    return space, data


def load_told(
    source: Source | ImageData,
    input_shape: tuple[int, ...],
    limit: int | None,
    seed: int,
    skip_unreadable: int,
    listener: Listener,
) -> ImageData:
    """Images in an input's (height, width, channels), unless they are loaded; what was passed over is told. Raises
    DataError."""
    from netlathe.training import ImageData, load_images

    if isinstance(source, ImageData):
        return source
    height, width, channels = input_shape
    with listener.progress("checking images", "images") as update:
        data = load_images(
            source, (height, width), channels=channels, seed=seed, limit=limit, skip_unreadable=skip_unreadable,
            told=lambda done, total: update(done, total, ""),
        )  # fmt: skip
    for note in data.notes:
        listener.note(f"  {note}")
    return data
