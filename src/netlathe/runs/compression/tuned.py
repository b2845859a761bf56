"""Third phase of a compression with images: the shaped network is trained further, with the original as its teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netlathe.runs.checkpoints import RunCheckpointer
from netlathe.runs.compression.scored import MOST_IMAGES, Scored, images_within
from netlathe.runs.compression.settings import CompressSettings
from netlathe.runs.compression.shaped import BATCH, NormedNetworks, Shaped, ShapedNetwork, original_network
from netlathe.runs.files import (
    EXPORTED,
    FINE_TUNING,
    NETWORK,
    NETWORK_INT8,
    NETWORK_ONNX,
    PROGRAM,
    REPORT,
    TRAINED,
    TRAINING,
    TRAINING_CHECKPOINT,
    WEIGHTS,
    save_weights,
)
from netlathe.runs.folder import Workplace
from netlathe.runs.phase import Phase
from netlathe.runs.trained import described_training, kept_network, train_network

if TYPE_CHECKING:
    from netlathe.archspace.forms.torch import TorchGraph


RESULTS = (REPORT, TRAINED, WEIGHTS, EXPORTED, NETWORK, NETWORK_INT8, NETWORK_ONNX, PROGRAM, *FINE_TUNING.values())
"""Results of a training, and of what follows from it; the report first, as nothing is finished without it."""


@dataclass(frozen=True)
class Tuned:
    """A trained network."""

    network: Callable[[], TorchGraph]
    """The network in eval mode; read from the folder where it is asked for."""
    before: float | None
    """Accuracy on the test images, 0..1, before it was trained; None where the classes are not its own."""
    original: float | None
    """The original's."""
    seconds: float


class TunePhase(Phase[Tuned]):
    """Training of the shaped network, from the weights of the channels that it keeps."""

    record, kind, needs, is_shared = TRAINED, "training", (WEIGHTS, TRAINING_CHECKPOINT), True

    def __init__(self, settings: CompressSettings, place: Workplace, scored: Scored, shaped: Shaped) -> None:
        super().__init__(place, tuning_inputs(settings, shaped))
        self.settings, self.scored, self.shaped = settings, scored, shaped

    def work(self) -> Tuned:
        """Raises TrainingError when the loss diverges, or a recipe returns something else than a trained module."""
        from netlathe.training import TrainConfig, evaluate
        from netlathe.training.distillation import Teacher

        settings, place = self.settings, self.place
        assert settings.data is not None
        assert settings.training is not None
        place.folder.make()
        checkpointer = self.checkpointer(TRAINING_CHECKPOINT)
        if not place.ranks.told(lambda: self._is_begun(checkpointer)):
            place.remove((TRAINING,))
        place.remove(RESULTS)  # beside a training that goes on, they would be an earlier one's
        images = images_within(settings, place, MOST_IMAGES)
        normed = NormedNetworks(settings, settings.data, self.scored, place, images=images)
        network = normed.network(self.shaped.choices)
        teacher = original_network(settings)
        is_own = self.scored.teacher == "own"
        accuracies = [
            None if is_own else evaluate(one, settings.data.test, batch_size=BATCH, compute=place.compute)
            for one in (network, teacher)
        ]
        weight = 1.0 if is_own else settings.distillation
        is_ours = isinstance(settings.training, TrainConfig)
        train_network(
            network, settings.data, place, settings.training, settings.original.name, checkpointer=checkpointer,
            teacher=Teacher(teacher, weight, settings.temperature) if is_ours and weight else None,
        )  # fmt: skip
        return Tuned(lambda: network, accuracies[0], accuracies[1], checkpointer.seconds())

    def write(self, output: Tuned) -> dict[str, Any]:
        save_weights(self.place.path, output.network())
        return {"seconds": output.seconds, "before": output.before, "original": output.original}

    def read(self, content: Mapping[str, Any]) -> Tuned:
        return Tuned(self._kept, content["before"], content["original"], float(content["seconds"]))

    def _is_begun(self, checkpointer: RunCheckpointer) -> bool:
        """Whether a training of these widths was cut off; one of others is dropped."""
        from netlathe.training.checkpoint import ForeignCheckpointError

        try:
            return checkpointer.load() is not None
        except ForeignCheckpointError as error:
            if not self.is_replaced(error.differences):
                raise
            self.place.listener.note(f"  {self.place.path} held a training of other widths; it is dropped")
            checkpointer.forget()
            return False

    def _kept(self) -> TorchGraph:
        from netlathe.archspace.forms.torch import TorchGraph
        from netlathe.training.norms import with_batch_norm

        network = ShapedNetwork(self.settings, self.shaped.choices)
        return kept_network(self.place, TorchGraph(with_batch_norm(network.shaped(), linear=True)), network.name)

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Decides for replacing a training of other widths, which is of no use."""
        return "choices" in differences


def tuning_inputs(settings: CompressSettings, shaped: Shaped) -> dict[str, Any]:
    """Inputs of the training, for JSON: those of the importance, and not who chose the widths."""
    assert settings.training is not None
    train = described_training(settings.training)
    train |= {"distillation": settings.distillation, "temperature": settings.temperature}
    shape = list(shaped.choices[: settings.space.shape_decisions])  # precisions are no part of what is trained
    return {**settings.importance_inputs(), "choices": shape, "train": train}
