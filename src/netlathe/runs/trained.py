"""Third phase of a run: the chosen network is trained, by netlathe's own training or by a user's recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netlathe.archspace.jsonfile import json_digest
from netlathe.archspace.spaces import Architecture
from netlathe.runs.checkpoints import RunCheckpointer
from netlathe.runs.chosen import Chosen
from netlathe.runs.files import (
    EXPORTED,
    HARDWARE,
    NETWORK,
    NETWORK_INT8,
    NETWORK_ONNX,
    REPORT,
    TRAINED,
    TRAINING,
    TRAINING_CHECKPOINT,
    WEIGHTS,
    load_state,
    save_weights,
)
from netlathe.runs.folder import Workplace
from netlathe.runs.logs import TrainLog, on_each, scalars
from netlathe.runs.phase import Phase
from netlathe.runs.searched import Searched, described
from netlathe.runs.settings import Recipe, RunSettings, name_of
from netlathe.runs.stopping import stopping

if TYPE_CHECKING:
    from torch import nn

    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.training import Checkpointer, Compute, ImageData, TrainConfig
    from netlathe.training.distillation import Teacher

RESULTS = (REPORT, TRAINED, WEIGHTS, EXPORTED, NETWORK, NETWORK_INT8, NETWORK_ONNX, HARDWARE)
"""Results of a training, and of what follows from it; the report first, as the run is not finished without it."""


@dataclass(frozen=True)
class Trained:
    """A trained network."""

    network: Callable[[], TorchGraph]
    """The network in eval mode; read from the folder where it is asked for."""
    seconds: float
    """Over all processes that trained it."""


class TrainPhase(Phase[Trained]):
    """Training of the chosen network."""

    record, kind, needs, is_shared = TRAINED, "training", (WEIGHTS, TRAINING_CHECKPOINT), True
    remedy = "--restart-training does that for {folder}, and keeps the search"

    def __init__(
        self, settings: RunSettings, place: Workplace, search: Mapping[str, Any], searched: Searched, chosen: Chosen
    ) -> None:
        super().__init__(place, training_inputs(settings, search, chosen.architecture))
        self.settings, self.searched, self.chosen = settings, searched, chosen

    def work(self) -> Trained:
        """Trains the network. Raises TrainingError when the loss diverges, FormatError where the folder holds another
        training of this network."""
        checkpointer = self.checkpointer(TRAINING_CHECKPOINT)
        begun = self.place.ranks.told(lambda: self._begun_at(checkpointer))
        if begun is None:
            self.place.remove((TRAINING,))
        self.place.remove(RESULTS)  # beside a training that goes on, they would be an earlier one's
        network = new_network(self.chosen.architecture, self.settings.training)
        if begun is None and self.settings.train_from == "supernet":
            assert self.searched.searcher is not None
            weights = self.searched.searcher().supernet.extract(self.chosen.judged.path).state_dict()
            network.load_state_dict(weights)
        events_from = (begun or 0) + 1 if self.place.tensorboard else None
        train_network(
            network, self.settings.data, self.place, self.settings.training, self.chosen.architecture.name,
            checkpointer=checkpointer, events_from=events_from,
        )  # fmt: skip
        return Trained(lambda: network, checkpointer.seconds())

    def write(self, output: Trained) -> dict[str, Any]:
        save_weights(self.place.path, output.network())
        return {"seconds": output.seconds}

    def read(self, content: Mapping[str, Any]) -> Trained:
        return Trained(self._kept, float(content["seconds"]))

    def _kept(self) -> TorchGraph:
        from netlathe.archspace.forms.torch import TorchGraph

        architecture = self.chosen.architecture
        return kept_network(self.place, TorchGraph(architecture.graph()), architecture.name)

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Decides for replacing a training of another network, which is of no use."""
        return "architecture" in differences

    def _begun_at(self, checkpointer: RunCheckpointer) -> int | None:
        """Step of a training that was cut off, 0 for a recipe's; None where there is none."""
        from netlathe.training import TrainConfig
        from netlathe.training.checkpoint import ForeignCheckpointError

        try:
            state = checkpointer.load()
            if state is None:
                return None
            return int(state["step"]) if isinstance(self.settings.training, TrainConfig) else 0
        except ForeignCheckpointError as error:
            if "architecture" not in error.differences:
                raise
            self.place.listener.note(
                f"  The network that was trained in {self.place.path} was another one; its training is dropped"
            )
            checkpointer.forget()
            return None


def training_inputs(settings: RunSettings, search: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """Inputs of the training, for JSON: those of the search, and not who chose the network."""
    train = {**described_training(settings.training), "from": settings.train_from}
    return {**search, "architecture": json_digest(architecture.to_json()), "train": train}


def described_training(training: TrainConfig | Recipe) -> dict[str, Any]:
    """A training's settings, or its recipe's name, for JSON."""
    from netlathe.training import TrainConfig

    return described(training) if isinstance(training, TrainConfig) else {"recipe": name_of(training)}


def new_network(architecture: Architecture, training: TrainConfig | Recipe) -> TorchGraph:
    """An untrained network, its weights drawn by the training's seed (0 for a recipe)."""
    import torch

    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.training import TrainConfig

    seed = training.seed if isinstance(training, TrainConfig) else 0
    return TorchGraph(architecture.graph(), generator=torch.Generator().manual_seed(seed))


def kept_network(place: Workplace, network: TorchGraph, name: str) -> TorchGraph:
    """The network with the weights that its run's folder holds, in all processes, in eval mode. Raises FormatError as
    load_state does."""
    state = place.ranks.told(lambda: load_state(place.path, network, name).state_dict())
    network.load_state_dict(state)
    return network.eval()


def train_network(
    network: TorchGraph,
    data: ImageData,
    place: Workplace,
    training: TrainConfig | Recipe,
    label: str,
    *,
    checkpointer: RunCheckpointer | None = None,
    events_from: int | None = None,
    teacher: Teacher | None = None,
) -> None:
    """Trains a network in place, from the weights that it has. netlathe's own training writes its log into the folder,
    goes on from its checkpoint, and sets BatchNorm's statistics; a recipe does as it likes.

    `teacher` is what netlathe's own training learns from beside the labels. `events_from` is the step from which events
    for TensorBoard count; None for no events. Raises TrainingError when the loss diverges, or a recipe returns
    something else than the trained module.
    """
    from netlathe.profiler.devices.local import LocalDevice
    from netlathe.training import TrainConfig, recalibrate_batch_norm, train

    LocalDevice().close()  # lets LiteRT announce its delegate now, rather than in the middle of a progress bar
    place.folder.make()
    if not isinstance(training, TrainConfig):
        with place.listener.working(f"training {label} by {name_of(training)}"):
            run_recipe(training, network, data, place.compute, checkpointer)
        place.ranks.align(network)
        return
    with (
        place.listener.progress(f"training {label}", "steps") as update,
        scalars(place, "train", first_step=events_from or 1, events=events_from is not None) as scalar,
        stopping(checkpointer) as between,
    ):
        log = TrainLog(place.path / TRAINING, training.epochs, update, scalar, between)
        on_step = log if place.leads else on_each(between)
        train(network, data, training, on_step, compute=place.compute, checkpointer=checkpointer, teacher=teacher)
    recalibrate_batch_norm(network, data.train, compute=place.compute)


def run_recipe(
    recipe: Recipe, module: nn.Module, data: ImageData, compute: Compute, checkpointer: Checkpointer | None
) -> None:
    """Gives the module the weights that a user's recipe has trained, and leaves it in eval mode. Raises TrainingError
    for a recipe that returns no module, one with other weights than it was given, or weights that are no numbers."""
    import torch
    from torch import nn

    from netlathe.training import TrainingError

    parameters = inspect.signature(recipe).parameters
    more = {"checkpointer": checkpointer} if "checkpointer" in parameters else {}
    with compute.visiting(module):
        trained = recipe(module, data, compute, **more)
        if not isinstance(trained, nn.Module):
            raise TrainingError(
                f"the recipe {name_of(recipe)} returned {type(trained).__name__}; it must return the trained module"
            )
        state = {name: value.detach().cpu().clone() for name, value in trained.state_dict().items()}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise TrainingError(
            f"the recipe {name_of(recipe)} returned a module of other weights than the one that it was given "
            f"({str(error).splitlines()[-1].strip():.200})"
        ) from error
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise TrainingError(f"after the recipe {name_of(recipe)}, {name} holds NaN or infinity")
    module.eval()
