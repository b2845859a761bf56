"""First phase of a run: the supernet and its architecture are trained to the last step of the search."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from netlathe.archspace.blocks import Block
from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import digest
from netlathe.archspace.jsonfile import json_digest
from netlathe.archspace.spaces import SearchSpace
from netlathe.runs.checkpoints import RunCheckpointer
from netlathe.runs.files import CHECKPOINT, HISTORY, SEARCH
from netlathe.runs.folder import Workplace
from netlathe.runs.logs import SearchLog, on_each, scalars, write_history
from netlathe.runs.phase import Phase
from netlathe.runs.settings import RunSettings
from netlathe.runs.stopping import stopping

if TYPE_CHECKING:
    from netlathe.search import Searcher
    from netlathe.search.candidates import Evaluated
    from netlathe.search.costs import Constraint
    from netlathe.search.strategies.binarized.outcome import EpochRow
    from netlathe.training import ImageData
    from netlathe.training.sgd import SgdConfig

_LATER: dict[str, Any] = {
    "architecture_every": 1, "batch_norm": "synchronised", "class_weights": "none", "recipe": "", "optimizer": "sgd",
    "dropout": 0.0, "drop_path": 0.0, "resolutions": [1.0], "augmentation": None,
}  # fmt: skip
"""Settings that run folders may lack, and what these were searched and trained with."""
_STORED = {"finalists": "looks", "finalist_images": "look_images"}
"""Names of settings in run folders, where these have kept an earlier name."""

WarmSearcher = Callable[[], "Searcher"]
"""The searcher whose warm weights several targets share."""


@dataclass(frozen=True)
class Searched:
    """A search at its last step."""

    history: tuple[EpochRow, ...]
    """Rows of a path-binarized search; none where networks were looked at one by one."""
    seconds: float
    """Over all processes that searched."""
    searcher: Callable[[], Searcher] | None = None
    """The path-binarized searcher itself; restored from the checkpoint where it is asked for."""
    evaluated: tuple[Evaluated, ...] = ()
    """Networks that were looked at one by one."""

    def expected(self, index: int) -> float | None:
        """Expectation of a cost over the architecture's distribution at the end; None where there was none."""
        return self.history[-1].expected[index] if self.history else None


class SearchPhase(Phase[Searched]):
    """Search of a run's space under its constraints."""

    record, kind, is_shared = SEARCH, "search", True

    def __init__(
        self, settings: RunSettings, place: Workplace, constraints: list[Constraint], warm: WarmSearcher | None = None
    ) -> None:
        super().__init__(place, search_inputs(settings))
        self.settings, self.constraints, self.warm = settings, constraints, warm

    @property
    def lasting(self) -> dict[str, Any]:
        """Inputs that what follows from the found network depends on: all."""
        return self.inputs

    def work(self) -> Searched:
        """Runs the search to its last step. Raises TargetError when no network keeps the limits, TrainingError when the
        loss diverges, and FormatError for a checkpoint of another search in the folder."""
        self.place.folder.make()  # what cannot be written should show before hours of work
        checkpointer = self.checkpointer(CHECKPOINT)
        state = checkpointer.load()
        begun = self.warm().retarget(self.constraints) if self.warm and state is None else None
        searcher = begun or new_searcher(self.settings, self.place, self.constraints)
        checkpointer.begin()
        if state is not None:
            checkpointer.resume(searcher.load_state_dict, state)
            self.place.listener.note(f"  Goes on from step {searcher.step} of {searcher.steps}")
        run_searcher(searcher, self.place, checkpointer)
        return Searched(tuple(searcher.history), checkpointer.seconds(), lambda: searcher)

    def write(self, output: Searched) -> dict[str, Any]:
        assert output.searcher is not None
        searcher = output.searcher()
        write_history(self.place.path / HISTORY, output.history, self.constraints)
        probabilities = searcher.parameters.log_probabilities().detach().double().exp().tolist()
        return {
            "space": self.settings.space.to_json(),
            "setup": self.settings.goal.model.setup_.to_json(),
            "constraints": [{"name": c.table.name, "unit": c.table.unit, "limit": c.limit} for c in self.constraints],
            "probabilities": [[round(p, 6) for p in row] for row in probabilities],
            "history": [asdict(row) for row in output.history],
            "seconds": output.seconds,
        }

    def read(self, content: Mapping[str, Any]) -> Searched:
        from netlathe.search.strategies.binarized.outcome import EpochRow

        rows = tuple(EpochRow.from_json(row) for row in content["history"])
        rows[-1].expected  # noqa: B018  # an empty one is no search's
        return Searched(rows, float(content["seconds"]), self._restored)

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Never: hours of work make way only where --restart asks for it."""
        return False

    def _restored(self) -> Searcher:
        checkpointer = self.checkpointer(CHECKPOINT)
        state = checkpointer.load()
        if state is None:
            raise FormatError(
                f"{checkpointer.path}: is gone, and with it the weights of the search that ended here; --restart "
                "searches again"
            )
        searcher = new_searcher(self.settings, self.place, self.constraints)
        checkpointer.resume(searcher.load_state_dict, state)
        return searcher


class WarmUp(SearchPhase):
    """Beginning of the search that several targets share: it does not depend on the main target's limit, and leaves a
    checkpoint and no record."""

    def __init__(self, settings: RunSettings, place: Workplace, constraints: list[Constraint]) -> None:
        super().__init__(settings, place, constraints)
        self.inputs = search_inputs(settings, is_shared=True)
        self._warm: Searcher | None = None

    def searcher(self) -> Searcher:
        """The searcher at the last step of the warm-up, run at the first call. Raises what a search raises."""
        if self._warm is None:
            self.place.folder.make()
            checkpointer = self.checkpointer(CHECKPOINT)
            searcher = new_searcher(self.settings, self.place, self.constraints)
            state = checkpointer.load()
            if state is not None:
                checkpointer.resume(searcher.load_state_dict, state)
            run_searcher(searcher, self.place, checkpointer, is_warm_up=True)
            self._warm = searcher
        return self._warm


def search_inputs(settings: RunSettings, *, is_shared: bool = False) -> dict[str, Any]:
    """Inputs of a search, for JSON. `is_shared`: up to where the architecture begins to move, which several limits
    of the main target share."""
    goal = settings.goal.to_json()  # the config first, as the first differences are what a refusal names
    if is_shared:
        goal["targets"][0]["ms"] = "several"
    return {
        "config": {_STORED.get(name, name): value for name, value in described(settings.search).items()},
        "update": settings.update,
        "goal": goal,
        "space": describe_space(settings.space),
        "data": describe_data(settings.data),
    }


def described(config: SgdConfig, *, always: Collection[str] = ()) -> dict[str, Any]:
    """Settings for JSON, without those that earlier run folders lack where they are as these had them, but for what
    they `always` have."""
    found = {k: list(value) if isinstance(value, tuple) else value for k, value in asdict(config).items()}
    found |= _augmentation(config)
    return {k: value for k, value in found.items() if k not in _LATER or k in always or value != _LATER[k]}


def _augmentation(config: SgdConfig) -> dict[str, Any]:
    """How images are changed, where it is more than shifts and mirrors."""
    from netlathe.training.augmentation import PLAIN
    from netlathe.training.loop import TrainConfig

    if not isinstance(config, TrainConfig):
        return {}
    own = {k: list(value) if isinstance(value, tuple) else value for k, value in asdict(config.augmentation).items()}
    return {"augmentation": None if config.augmentation == PLAIN else own}


def describe_space(space: SearchSpace) -> dict[str, Any]:
    """Description of a space: its blocks by their names, and those of a user's own class by their graphs, too."""
    described = {"name": space.name, "blocks": json_digest(space.to_json())}
    own = [block.graph().key for block in space.distinct_blocks() if type(block).__module__ != Block.__module__]
    return {**described, "own": json_digest(own)} if own else described


def describe_data(data: ImageData) -> dict[str, Any]:
    """Description of images: their labels, and a digest of each split's."""
    from netlathe.training.normalization import SYMMETRIC

    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    taken = {} if data.normalization == SYMMETRIC else {"normalization": str(data.normalization)}
    return {
        **taken,
        "name": data.name,
        "classes": json_digest(list(data.classes)),
        "images": {name: len(split) for name, split in splits.items()},
        "labels": {name: digest(split.labels.numpy().tobytes()) for name, split in splits.items()},
        "pixels": {name: split.digest() for name, split in splits.items()},
    }


def new_searcher(settings: RunSettings, place: Workplace, constraints: list[Constraint]) -> Searcher:
    """A searcher at its first step."""
    from netlathe.search import GradientUpdate, Reinforce, Searcher

    rule = Reinforce() if settings.update == "reinforce" else GradientUpdate()
    return Searcher(settings.space, settings.data, constraints, settings.search, compute=place.compute, rule=rule)


def run_searcher(
    searcher: Searcher, place: Workplace, checkpointer: RunCheckpointer, *, is_warm_up: bool = False
) -> None:
    """Runs the searcher to its end, or to the end of the warm-up, with its progress on the listener and its log in the
    folder."""
    label = "warming up" if is_warm_up else "searching"
    with (
        place.listener.progress(label, "steps") as update,
        scalars(place, "search", first_step=searcher.step + 1, events=place.tensorboard) as scalar,
        stopping(checkpointer) as between,
    ):
        log = SearchLog(searcher, place.path / HISTORY, update, scalar, between)
        searcher.run(
            log if place.leads else on_each(between), until="warm" if is_warm_up else "end", checkpointer=checkpointer
        )
