"""Accuracy that a file in int8 loses against the float32 one, won back step by step, each judged on validation images
through LiteRT."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.archspace.graph import Graph
from netlathe.archspace.precisions import unmixed
from netlathe.exporting import calibration, file_classes
from netlathe.runs.checkpoints import RunCheckpointer
from netlathe.runs.compression.scored import MOST_IMAGES, few_of, images_within
from netlathe.runs.compression.settings import CompressSettings
from netlathe.runs.folder import Workplace
from netlathe.runs.logs import on_each
from netlathe.runs.report import Recovery, RecoveryStep
from netlathe.runs.stopping import stopping

if TYPE_CHECKING:
    from netlathe.archspace.forms.tflite_int8 import Range
    from netlathe.archspace.forms.weights import Weights
    from netlathe.training import ImageData, ImageSplit, StepProgress

EPOCHS, LEARNING_RATE = 5, 0.03
"""Settings of the training with rounding (docs/results.md)."""
CALIBRATED_IMAGES = 512
"""Training images at most that ranges, biases and sizes of channels are found on."""
MOST_JUDGED = 10_000
"""Validation images at most that each step is judged on."""
AS_WRITTEN, EQUALIZED, RANGES, BIASES, TRAINED = (
    "as written", "channels equalized", "ranges of least error", "biases corrected", "trained with rounding",
)  # fmt: skip
CALIBRATIONS = (EQUALIZED, RANGES, BIASES)
"""Steps without training, in their order."""
Ranges = Mapping[str, "Range"]
WriteFile = Callable[["Weights", Ranges], bytes]
"""Writes the file of these weights, its scales by these ranges."""


@dataclass(frozen=True)
class Candidate:
    """A file, and what it was written from."""

    weights: Weights
    ranges: Ranges
    content: bytes
    accuracy: float | None
    """On the validation images; None where LiteRT cannot run it."""


def check_max_drop(points: float | None, has_images: bool) -> None:
    """Raises NetlatheError for points that are none, and where there are no images to judge by."""
    if points is None:
        return
    if not 0 < points <= 100:
        raise NetlatheError(f"--max-drop {points:g}: give points of accuracy, above 0 and at most 100, such as 0.5")
    if not has_images:
        raise NetlatheError("--max-drop is judged on images: give --data, or leave it out")


class Recoverer:
    """Brings files of one network within the points of accuracy that they may lose."""

    def __init__(self, settings: CompressSettings, data: ImageData, place: Workplace, *, is_own: bool) -> None:
        """`is_own`: the images' classes are not the network's, so that its own answers are right."""
        self.settings, self.data, self.place, self.is_own = settings, data, place, is_own
        images = images_within(settings, place, MOST_IMAGES)
        self.few = few_of(data.train, min(images, CALIBRATED_IMAGES), settings.seed)

    def recovered(
        self, form: str, graph: Graph, weights: Weights, write: WriteFile, checkpointer: RunCheckpointer
    ) -> tuple[bytes, Recovery]:
        """The file of that form that loses no more than is asked, or the best one, and how it came about.

        `graph` is what it computes, as Int8Network takes it. First what needs no training: channels equalized, ranges
        of least error, biases corrected, each on top of what did not make it worse; then training with rounding, which
        goes on from `checkpointer`. Whatever is within what is asked ends it.
        """
        ladder, told = _Ladder(self, form, graph, write), self.place.ranks.told
        with self.place.listener.working(f"judging the {form} file on validation images, and what makes it better"):
            best, recovery = told(lambda: ladder.calibrated(weights))
        if not recovery.is_met:
            trained = self._trained(graph, weights, best, form, checkpointer)
            best, recovery = told(lambda: ladder.finished(best, recovery, *trained))
        self.place.listener.note(f"  {recovery}")
        return best.content, recovery

    def _trained(
        self, graph: Graph, weights: Weights, best: Candidate, form: str, checkpointer: RunCheckpointer
    ) -> tuple[Weights, Ranges]:
        """Weights and ranges after a training with the file's rounding, whose teacher is the float32 network."""
        from netlathe.archspace.forms.torch import TorchGraph, folded_weights, load_weights
        from netlathe.compress.calibration import gradient_scales
        from netlathe.compress.int8_network import Int8Network
        from netlathe.training import TrainConfig, train
        from netlathe.training.checkpoint import ForeignCheckpointError
        from netlathe.training.distillation import Teacher
        from netlathe.training.norms import without_batch_norm

        settings, place = self.settings, self.place
        teacher = TorchGraph(without_batch_norm(unmixed(graph))).eval()
        load_weights(teacher, weights)
        network = Int8Network(graph, best.weights, best.ranges)
        compute = replace(place.compute, precision="float32")
        scales = place.ranks.told(
            lambda: gradient_scales(graph, best.weights, self.few, seed=settings.seed, compute=compute.alone())
        )
        network.train_layers(scales)
        given = settings.training
        config = TrainConfig(
            epochs=EPOCHS, learning_rate=LEARNING_RATE, weight_decay=0.0, seed=settings.seed,
            batch_size=given.batch_size if isinstance(given, TrainConfig) else 64,
        )  # fmt: skip
        try:
            place.ranks.told(checkpointer.load)
        except ForeignCheckpointError:  # of another network, or asked otherwise
            place.ranks.told(checkpointer.forget)
        with (
            place.listener.progress(f"training the {form} file with its rounding", "steps") as update,
            stopping(checkpointer) as between,
        ):

            def on_step(step: StepProgress) -> None:
                update(step.step, step.steps, f"loss {step.loss:.3g}")
                between()

            train(
                network, self.data, config, on_step if place.leads else on_each(between), compute=compute,
                checkpointer=checkpointer, split=self.data.train, teacher=Teacher(teacher, 1.0, settings.temperature),
            )  # fmt: skip
        return folded_weights(network), network.ranges()

    def wanted(self, file: Path) -> tuple[ImageSplit, NDArray[np.int64]]:
        """The validation images that files are judged on, and their classes; those that a float32 file tells, where the
        labels are of other ones."""
        split = few_of(self.data.validation, MOST_JUDGED, self.settings.seed)
        return split, file_classes(file, split) if self.is_own else split.labels.numpy()


class _Ladder:
    """The steps of one file, as the process that leads makes them."""

    def __init__(self, by: Recoverer, form: str, graph: Graph, write: WriteFile) -> None:
        self.by, self.form, self.graph, self.write_file = by, form, graph, write
        assert by.settings.max_drop is not None
        self.asked = by.settings.max_drop

    def calibrated(self, weights: Weights) -> tuple[Candidate, Recovery]:
        """The best file without training, and how it came about."""
        from netlathe.compress.calibration import corrected_biases, least_error_ranges
        from netlathe.compress.equalization import equalized

        self._judge_float(weights)
        graph, few, compute = self.graph, self.by.few, self.by.place.compute.alone()
        best = self._candidate(weights, self._ranges(weights))
        steps = [RecoveryStep(AS_WRITTEN, best.accuracy)]

        def rescaled(now: Candidate) -> tuple[Weights, Ranges]:
            found = equalized(unmixed(graph), now.weights)
            return found, self._ranges(found)

        def narrowed(now: Candidate) -> tuple[Weights, Ranges]:
            return now.weights, least_error_ranges(graph, now.weights, now.ranges, few, compute=compute)

        def corrected(now: Candidate) -> tuple[Weights, Ranges]:
            seed = self.by.settings.seed
            return corrected_biases(graph, now.weights, now.ranges, few, seed=seed, compute=compute), now.ranges

        better = {EQUALIZED: rescaled, RANGES: narrowed, BIASES: corrected}
        for name in CALIBRATIONS:
            if self.is_within(best):
                break
            best = self._step(best, steps, name, *better[name](best))
        return best, self._recovery(best, steps)

    def finished(
        self, best: Candidate, recovery: Recovery, weights: Weights, ranges: Ranges
    ) -> tuple[Candidate, Recovery]:
        """The better of the best file and that of trained weights and ranges, and how it came about."""
        steps = [*recovery.steps]
        best = self._step(best, steps, TRAINED, weights, {**self._ranges(weights), **ranges})
        return best, self._recovery(best, steps)

    def _step(
        self, best: Candidate, steps: list[RecoveryStep], name: str, weights: Weights, ranges: Ranges
    ) -> Candidate:
        """The new file where it is no worse, else the best one so far."""
        found = self._candidate(weights, ranges)
        steps.append(RecoveryStep(name, found.accuracy))
        return best if (found.accuracy or 0.0) < (best.accuracy or 0.0) else found

    def is_within(self, found: Candidate) -> bool:
        """Whether a file loses no more than is asked."""
        return found.accuracy is not None and 100 * (self.reference - found.accuracy) <= self.asked + 1e-9

    def _recovery(self, best: Candidate, steps: list[RecoveryStep]) -> Recovery:
        return Recovery(
            self.form, self.asked, self.reference, best.accuracy, self.is_within(best), len(self.split), tuple(steps)
        )

    def _judge_float(self, weights: Weights) -> None:
        from netlathe.archspace.forms.tflite import write_tflite

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "float32.tflite"
            file.write_bytes(write_tflite(unmixed(self.graph), weights))
            self.split, self.classes = self.by.wanted(file)
            self.reference = self._right(file)

    def _right(self, file: Path) -> float:
        return int((file_classes(file, self.split) == self.classes).sum()) / len(self.split)

    def _ranges(self, weights: Weights) -> dict[str, Range]:
        from netlathe.archspace.forms.tflite import tflite_ranges

        return tflite_ranges(unmixed(self.graph), weights, calibration(self.by.data.train))

    def _candidate(self, weights: Weights, ranges: Ranges) -> Candidate:
        content, accuracy = self.write_file(weights, ranges), None
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "candidate.tflite"
            file.write_bytes(content)
            with suppress(FormatError):  # scales that are too far apart for a runtime
                accuracy = self._right(file)
        return Candidate(weights, ranges, content, accuracy)
