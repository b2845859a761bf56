"""Second phase of a compression: the widths that keep the limits and lose least."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.archspace.graph import Graph
from netlathe.compress.joint import Sensitivity
from netlathe.runs.compression.looked import Look, LossLog, Seeker, steadied
from netlathe.runs.compression.outlook import Outlook, is_kept
from netlathe.runs.compression.repaired import levelled, repaired
from netlathe.runs.compression.scored import Scored, few_of, images_within
from netlathe.runs.compression.settings import CompressSettings
from netlathe.runs.compression.strategies import INTEGER_PROGRAM
from netlathe.runs.files import WIDTHS
from netlathe.runs.folder import Workplace
from netlathe.runs.judges import COVERAGE, Judged, UpperEnds
from netlathe.runs.phase import Phase
from netlathe.runs.settings import name_of

if TYPE_CHECKING:
    from torch import nn

    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.archspace.forms.weights import Weights
    from netlathe.search.costs import LatencyModel
    from netlathe.search.successive import CostLimit
    from netlathe.training import ImageData

SPREAD = 0.5
"""Standard deviation of the logarithm of a group's importance in the scores that finalists are drawn by."""
REACH = 0.25
"""How far finalists' options may be from those of the first one, in parts of their number."""
BATCH = 32
"""Images at a time: more of a large network would not fit a CPU's caches."""
RESTORED_IMAGES = 64
"""Training images that BatchNorm is restored on: its statistics only scale what is trained."""
CALIBRATED_IMAGES = 64
"""Training images that int8 scales of networks to compare are found on."""
COMPARED_IMAGES = 256
"""Validation images that finalists are compared on, at most, and as many training images for their weights."""


@dataclass(frozen=True)
class Shaped:
    """The network that was chosen."""

    choices: Choices
    judged: Judged
    examined: Mapping[Choices, float]
    """Networks that were looked at, with their validation losses, or minus their own scores; the least is chosen."""
    seconds: float
    warnings: tuple[str, ...] = ()
    accuracies: Mapping[Choices, float] = field(default_factory=dict)
    """Validation accuracies of these, 0..1, as far as there is telling."""


@dataclass(frozen=True)
class ShapedNetwork:
    """A network of widths as what can be timed."""

    settings: CompressSettings
    choices: Choices

    @property
    def name(self) -> str:
        """The original's name and the choices."""
        return self.settings.space.network_name(self.choices)

    def graph(self, batch: int = 1) -> Graph:
        """The graph in the precisions that were chosen, for batches of that many images."""
        return self.settings.space.graph(self.choices, batch)

    def shaped(self) -> Graph:
        """The graph in float32, as it is trained."""
        return self.settings.space.shaped_graph(self.choices)

    def pruned(self, scored: Scored) -> tuple[Graph, Weights]:
        """The graph in float32, and the weights of its most important channels, with BatchNorm folded in."""
        return self.settings.space.pruned(self.choices, self.settings.original.weights, scored.scores)


class ShapePhase(Phase[Shaped]):
    """Choice of the widths, of blocks to leave out, and of precisions."""

    record, kind = WIDTHS, "widths"

    def __init__(
        self,
        settings: CompressSettings,
        place: Workplace,
        outlook: Outlook,
        scored: Scored,
        sensitivity: Sensitivity | None = None,
    ) -> None:
        super().__init__(place, settings.choice_inputs())
        self.settings, self.outlook, self.scored, self.sensitivity = settings, outlook, scored, sensitivity

    def work(self) -> Shaped:
        """Raises DeviceError for a device that cannot be opened."""
        begun = time.monotonic()
        settings, space = self.settings, self.settings.space
        scores = space.option_scores(
            self.scored.scores, comparable=self.scored.teacher is not None, sensitivity=self.sensitivity
        )
        doubted, kept, by, warnings = self._limits()
        limits, starts = levelled(settings, self.place, doubted, self._predicted, self.outlook.starts[0], kept)
        fastest = self.outlook.stages[-1].choices
        if settings.strategy == INTEGER_PROGRAM:
            found, examined = self._solved(scores, limits, starts)
        else:
            floor = fastest if is_kept(settings, limits, fastest) else starts[0]
            found, examined = Seeker(settings, self.place, limits, floor, scores, self._loss).find()
            scores = steadied(scores, found)
        judged = Judged(found, by, True, max(1, len(examined)))
        if settings.device:
            targets = doubted[: len(settings.goal.targets)]
            judged, more = repaired(settings, self.place, scores, found, self._predicted, targets, fastest=fastest)
            warnings = [*warnings, *more]
        seconds = time.monotonic() - begun
        told = {one: self._loss.accuracy(one) for one in examined} if self._loss else {}
        accuracies = {one: share for one, share in told.items() if share is not None}
        return Shaped(judged.path, judged, examined, seconds, tuple(warnings), accuracies)

    @cached_property
    def _predicted(self) -> list[CostLimit]:
        return self.settings.limits([target.model for target in self.settings.goal.targets])

    def _limits(self) -> tuple[list[CostLimit], Sequence[Choices], str, list[str]]:
        """The limits by the upper ends of intervals, where a network keeps them so, and by the prediction for what a
        stopwatch judges; networks that do; who judges; and warnings."""
        models: list[LatencyModel] = [
            UpperEnds(one.model) if one.model.has_intervals_ else one.model for one in self.settings.goal.targets
        ]
        upper, space = self.settings.limits(models), self.settings.space
        if self.settings.device:  # of networks hardly known, some ends are a hundred times as long as others
            upper = [self._predicted[0], *upper[1:]]
        has_intervals = any(one.model.has_intervals_ for one in self.settings.goal.targets)
        by = f"upper end of the {COVERAGE:.0%} interval".replace("%", " %") if has_intervals else "prediction"
        known = (*self.outlook.starts, self.outlook.stages[-1].choices)
        kept = [one for one in known if all(limit.cost(space, one) <= limit.limit for limit in upper)]
        if kept:
            return upper, list(dict.fromkeys(kept)), by, []
        if self.settings.device:  # which will say how far predictions are to be believed
            return upper, list(dict.fromkeys(known)), by, []
        warning = (
            "no network meets every target with the whole of its 90 % interval, so the prediction alone was heeded; "
            "measure on the device (--device), or profile more there"
        )
        return self._predicted, self.outlook.starts, "prediction", [warning]

    @cached_property
    def _loss(self) -> LossLog | None:
        """Losses of networks, where there is something to judge them by."""
        if self.settings.data is None and self.settings.score is None:
            return None
        return LossLog(self.settings, self.place, FinalistLoss(self.settings, self.place, self.scored))

    def _solved(
        self, scores: NDArray[np.float64], limits: Sequence[CostLimit], starts: Sequence[Choices]
    ) -> tuple[Choices, dict[Choices, float]]:
        """The network by integer programs, or the best of it and others near it."""
        from netlathe.search.exchanges import exchanged
        from netlathe.search.successive import solve

        space, listener = self.settings.space, self.place.listener
        solved = []
        for start in starts:
            with listener.progress("choosing widths", "rounds") as update:
                solved.append(solve(space, scores, limits, start, on_round=lambda done, total: update(done, total, "")))
        best = max((one.choices for one in solved), key=lambda choices: _sum(scores, choices))
        if space.segments:
            with listener.working("exchanging stretches of precisions"):
                best = exchanged(space, scores, limits, best, space.neighbours)
        return self._compared(scores, limits, best)

    def _compared(
        self, scores: NDArray[np.float64], limits: Sequence[CostLimit], found: Choices
    ) -> tuple[Choices, dict[Choices, float]]:
        """The best of the network found and others near it, by validation images or an own score."""
        from netlathe.search.successive import variants

        settings = self.settings
        if settings.finalists < 2 or self._loss is None:
            return found, {}
        rng = np.random.default_rng(settings.seed)
        factors = (np.exp(SPREAD * rng.standard_normal((len(scores), 1))) for _ in range(settings.finalists - 1))
        finalists = [found, *variants(settings.space, [scores * by for by in factors], limits, found, reach=REACH)]
        losses: dict[Choices, float] = {}
        with self.place.listener.progress("comparing finalists", "networks") as update:
            for number, choices in enumerate(finalists):
                update(number, len(finalists), f"least so far {min(losses.values()):.4g}" if losses else "")
                losses[choices] = self._loss(choices)
        return min(losses, key=losses.__getitem__), losses

    def write(self, output: Shaped) -> dict[str, Any]:
        space = self.settings.space
        return {
            "choices": list(output.choices),
            "judged": output.judged.to_json(),
            "examined": [
                {"choices": list(one), "loss": loss, "accuracy": output.accuracies.get(one)}
                for one, loss in output.examined.items()
            ],
            "seconds": output.seconds,
            "warnings": list(output.warnings),
            "widths": {
                group.name: {"before": widths[0], "after": widths[choice], "producers": list(group.producers)}
                for group, widths, choice in zip(space.groups, space.widths, output.choices, strict=False)
            },
            "kept": {name: units.tolist() for name, units in space.keep(output.choices, self.scored.scores).items()},
        }

    def read(self, content: Mapping[str, Any]) -> Shaped:
        choices = tuple(map(int, content["choices"]))
        judged = Judged.from_json(content["judged"], choices)
        examined = {tuple(one["choices"]): float(one["loss"]) for one in content["examined"]}
        told = {tuple(one["choices"]): one.get("accuracy") for one in content["examined"]}
        for one in (choices, *examined):
            self.settings.space.network_name(one)
        return Shaped(
            choices, judged, examined, float(content["seconds"]), tuple(map(str, content["warnings"])),
            {one: float(share) for one, share in told.items() if share is not None},
        )  # fmt: skip

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Always: it takes minutes, and the importance that it follows from is the same."""
        return True


def _sum(scores: NDArray[np.float64], choices: Choices) -> float:
    return float(scores[np.arange(len(choices)), list(choices)].sum())


class FinalistLoss:
    """Validation loss of a network whose layers are refitted, but not trained; or minus a user's own score of it. Where
    precisions were chosen, it is what LiteRT computes from the file in these.

    It is against labels where these are the network's classes and `against_labels` is true, else against the original's
    outputs. Either way, classes of labels count as they do in the training's loss."""

    def __init__(
        self, settings: CompressSettings, place: Workplace, scored: Scored, *, against_labels: bool = True
    ) -> None:
        self.settings, self.place, self.scored = settings, place, scored
        self.has_classes = scored.teacher == "labels"
        self.against_labels = against_labels and self.has_classes

    def __call__(self, choices: Choices) -> Look:
        """Mean cross-entropy, with the accuracy where it is against labels. Raises TrainingError for a loss that is no
        number."""
        from netlathe.training.sgd import check_finite

        network: nn.Module = self._network(choices)
        if self.settings.space.is_mixed(choices):
            network = self._in_precisions(network, choices)
        if self.settings.score:
            value = -float(self.settings.score(network))
            return Look(check_finite(value, f"the score {name_of(self.settings.score)}"))
        loss, accuracy = self._judged(network)
        return Look(check_finite(loss, "comparing finalists"), accuracy if self.against_labels else None)

    def _network(self, choices: Choices) -> TorchGraph:
        """The network in float32; the original as it is, where nothing is cut."""
        is_cut = any(choices[: self.settings.space.shape_decisions])
        if self._normed and is_cut:
            return self._normed.network(choices)
        return _plain(self.settings, choices, self.scored)

    def _in_precisions(self, network: Any, choices: Choices) -> nn.Module:
        from netlathe.archspace.forms.tflite import write_tflite
        from netlathe.archspace.forms.torch import folded_weights
        from netlathe.runs.compression.file_network import FileNetwork

        is_cut = any(choices[: self.settings.space.shape_decisions])
        weights = folded_weights(network)
        ranges = self._ranges(network.graph, weights) if is_cut else self._ranges_of_original
        return FileNetwork(write_tflite(self.settings.space.graph(choices), weights, ranges=ranges))

    @cached_property
    def _ranges_of_original(self) -> Mapping[str, tuple[float, float]] | None:
        return self._ranges(self.settings.original.graph, self.settings.original.weights)

    def _ranges(self, graph: Graph, weights: Weights) -> Mapping[str, tuple[float, float]] | None:
        """Ranges of the network's values on some training images; None without any."""
        from netlathe.archspace.forms.tflite import tflite_ranges
        from netlathe.exporting import calibration

        data = self.settings.data
        return None if data is None else tflite_ranges(graph, weights, calibration(data.train, CALIBRATED_IMAGES))

    def _judged(self, network: nn.Module) -> tuple[float, float]:
        """Loss, and accuracy by the labels, on validation images."""
        from netlathe.training.evaluation import loss_and_accuracy
        from netlathe.training.losses import class_weights

        data = self.settings.data
        assert data is not None
        split = few_of(data.validation, self._images, self.settings.seed)
        teacher = None if self.against_labels else original_network(self.settings)
        is_balanced = self.has_classes and self.settings.is_balanced
        weights = class_weights(split.labels, len(data.classes)) if is_balanced else None
        return loss_and_accuracy(
            network, split, teacher=teacher, weights=weights, batch_size=BATCH, compute=self.place.compute
        )

    @cached_property
    def _images(self) -> int:
        return images_within(self.settings, self.place, COMPARED_IMAGES, passes=4)

    @cached_property
    def _normed(self) -> NormedNetworks | None:
        if self.settings.data is None:
            return None
        return NormedNetworks(self.settings, self.settings.data, self.scored, self.place, images=self._images)


def original_network(settings: CompressSettings) -> TorchGraph:
    """The original as a torch module in eval mode."""
    from netlathe.archspace.forms.torch import TorchGraph, load_weights

    network = TorchGraph(settings.original.graph)
    load_weights(network, settings.original.weights)
    return network.eval()


def _plain(settings: CompressSettings, choices: Choices, scored: Scored) -> TorchGraph:
    """A network of these widths, with BatchNorm folded in, in eval mode."""
    from netlathe.archspace.forms.torch import TorchGraph, load_weights

    graph, weights = ShapedNetwork(settings, choices).pruned(scored)
    network = TorchGraph(graph)
    load_weights(network, weights)
    return network.eval()


class NormedNetworks:
    """Networks of other widths, their layers refitted to the original's on training images, with BatchNorm, which files
    have folded in."""

    def __init__(
        self, settings: CompressSettings, data: ImageData, scored: Scored, place: Workplace, *, images: int
    ) -> None:
        self.settings, self.scored, self.place = settings, scored, place
        self.split = few_of(data.train, images, settings.seed)

    def network(self, choices: Choices) -> TorchGraph:
        """The network in eval mode."""
        from netlathe.archspace.forms.torch import TorchGraph, load_weights
        from netlathe.compress.reconstruction import reconstructed
        from netlathe.training.norms import restore_batch_norm, with_batch_norm

        settings, compute = self.settings, self.place.compute
        graph, weights = ShapedNetwork(settings, choices).pruned(self.scored)
        keep = settings.space.keep(choices, self.scored.scores)
        weights = reconstructed(
            settings.space.coupled, settings.original.weights, (graph, weights), keep, self.split,
            images=len(self.split), seed=settings.seed, compute=compute,
        )  # fmt: skip
        network = TorchGraph(with_batch_norm(graph, linear=True))
        load_weights(network, weights)
        few = few_of(self.split, RESTORED_IMAGES, settings.seed)
        restore_batch_norm(network, few, batch_size=BATCH, compute=compute)
        return network.eval()
