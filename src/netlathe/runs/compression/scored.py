"""First phase of a compression: how important each channel is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from netlathe.compress.importance import magnitudes
from netlathe.runs.compression.normalizing import Taken, find_normalization, unjudged
from netlathe.runs.compression.settings import CompressSettings
from netlathe.runs.files import IMPORTANCE
from netlathe.runs.folder import Workplace
from netlathe.runs.phase import Phase
from netlathe.words import percent_within

if TYPE_CHECKING:
    from netlathe.training import Normalization

MOST_IMAGES = 1000
"""Training images that importance is found on, at most."""
SWEEP_MACS = 1.5e11
"""Work of a pass over images on a CPU in MACs, at most, where it sees more than LEAST_IMAGES: less than a minute."""
LEAST_IMAGES = 64
BETTER_THAN_CHANCE = 2.0
"""Times the accuracy of guessing from which on labels are taken for the network's own classes."""


@dataclass(frozen=True)
class Scored:
    """Importance of channels."""

    scores: Mapping[str, NDArray[np.float64]]
    """(units,) by the names of groups; comparable over groups where there is a teacher."""
    by: str
    """Criterion, in words."""
    teacher: str | None
    """Classes that a loss is of: 'labels', 'own', or None without images."""
    accuracy: float | None
    """The original's accuracy on the validation images, 0..1; None where the classes are not its own."""
    warnings: tuple[str, ...] = ()
    normalization: Normalization | None = None
    """How the original takes images; None without any."""


class ScorePhase(Phase[Scored]):
    """Importance of the channels of a model."""

    record, kind = IMPORTANCE, "importance"

    def __init__(self, settings: CompressSettings, place: Workplace) -> None:
        super().__init__(place, settings.importance_inputs())
        self.settings = settings

    def work(self) -> Scored:
        """Raises CompressError and DataError for images that the network does not take."""
        settings, space = self.settings, self.settings.space
        self.place.folder.make()
        if settings.data is None:
            scores = magnitudes(space.coupled, settings.original.weights)
            return Scored(scores, "magnitudes of its weights, as there are no images", None, None)
        from netlathe.compress.gradients import taylor

        taken, teacher, warnings = self._compared()
        images = images_within(settings, self.place, MOST_IMAGES)
        with self.place.listener.working("finding the importance of channels"):
            scores = taylor(
                space.coupled, settings.original.weights, settings.data.normalized(taken.normalization).train,
                teacher=teacher, images=images, is_balanced=settings.is_balanced, seed=settings.seed,
                compute=self.place.compute,
            )  # fmt: skip
        against = "labels, all classes alike" if settings.is_balanced else "labels"
        by = f"first-order change of the cross-entropy against {against if teacher == 'labels' else 'its own outputs'}"
        return Scored(scores, by, teacher, taken.accuracy, warnings, taken.normalization)

    def _compared(self) -> tuple[Taken, Any, tuple[str, ...]]:
        """How the original takes validation images, and whether their labels are its classes."""
        from netlathe.archspace.forms.torch import TorchGraph, load_weights

        settings = self.settings
        assert settings.data is not None
        graph, name, classes = settings.original.graph, settings.original.name, len(settings.data.classes)
        given = graph.shapes[graph.outputs[0]][-1]
        if given != classes:
            taken = unjudged(settings)
            told = (
                f"{name} tells {given} classes, the images have {classes}: its own outputs are what it is held "
                f"against, and accuracies are not told; it gets images as {taken.normalization}"
            )
            return taken, "own", (told,)
        network = TorchGraph(graph)
        load_weights(network, settings.original.weights)
        few = few_of(settings.data.validation, images_within(settings, self.place, MOST_IMAGES), settings.seed)
        found = find_normalization(network, settings, few, self.place.compute)
        assert found.accuracy is not None
        if found.accuracy * classes >= BETTER_THAN_CHANCE:
            if found.note:
                self.place.listener.note(f"  {found.note}")
            return found, "labels", found.warnings
        taken = unjudged(settings, found.accuracy)
        told = (
            f"{name} classifies {percent_within(taken.accuracy, len(few))} of the validation images right, hardly more "
            f"than by guessing: its classes may stand in another order, or it takes images otherwise than as "
            f"{taken.normalization} (--normalization). Its own outputs are what it is held against"
        )
        return taken, "own", (told, *found.warnings)

    def write(self, output: Scored) -> dict[str, Any]:
        return {
            "by": output.by,
            "teacher": output.teacher,
            "accuracy": output.accuracy,
            "warnings": list(output.warnings),
            "normalization": output.normalization
            and {"mean": output.normalization.mean, "std": output.normalization.std},
            "scores": {name: values.tolist() for name, values in output.scores.items()},
        }

    def read(self, content: Mapping[str, Any]) -> Scored:
        scores = {str(name): np.array(values, float) for name, values in content["scores"].items()}
        for group in self.settings.space.coupled.groups:
            if scores[group.name].shape != (group.units,) or not np.isfinite(scores[group.name]).all():
                raise ValueError(f"group {group.name!r} needs a number for each of its {group.units} units")
        return Scored(
            scores, str(content["by"]), content["teacher"], content["accuracy"], tuple(map(str, content["warnings"])),
            self._normalization(content["normalization"]),
        )  # fmt: skip

    def _normalization(self, content: Mapping[str, Any] | None) -> Normalization | None:
        from netlathe.training import DataError, Normalization

        if (content is None) != (self.settings.data is None):
            raise ValueError("a normalization belongs to images")
        try:
            return Normalization(tuple(content["mean"]), tuple(content["std"])) if content else None
        except DataError as error:
            raise ValueError(str(error)) from error

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Never: the folder is another model's, or of other images; --restart begins anew."""
        return False


def images_within(settings: CompressSettings, place: Workplace, most: int, passes: int = 1) -> int:
    """Number of images, `most` at most, that a pass over the original may see, or each of several `passes`, half of the
    least number then."""
    if place.compute.torch_device.type != "cpu":
        return most
    macs = max(1, settings.original.graph.macs) * passes
    return int(min(most, max(LEAST_IMAGES // min(passes, 2), SWEEP_MACS // macs)))


def few_of(split: Any, count: int, seed: int) -> Any:
    """At most so many images of a split, every class alike."""
    import torch

    from netlathe.training.images import spread_over_classes

    return split.take(torch.from_numpy(spread_over_classes(split.labels.numpy(), count, seed)))
