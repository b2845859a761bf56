"""Optional phase of a run: the space's reference network at several widths, trained and timed as the found one is, so
that it stands on a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.jsonfile import json_digest, write_json
from netlathe.archspace.presets import PRESETS, load_space
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.runs.checkpoints import RunCheckpointer
from netlathe.runs.files import ARCHITECTURE, BASELINES, SCHEMA_VERSION, TRAINING_CHECKPOINT, save_weights
from netlathe.runs.folder import Workplace
from netlathe.runs.judges import DeviceAtHand
from netlathe.runs.phase import Phase
from netlathe.runs.report import Baseline
from netlathe.runs.settings import Recipe
from netlathe.runs.trained import described_training, new_network, train_network
from netlathe.targets import Goal

if TYPE_CHECKING:
    from netlathe.archspace.records import Measurement
    from netlathe.predictor import LatencyPredictor
    from netlathe.training import ImageData, TrainConfig

FOLDER = "baselines"
"""Folder in a run's, of the baselines' architectures and weights."""


def baseline_networks(
    given: str | Path | SearchSpace,
    space: SearchSpace,
    widths: Sequence[float],
    *,
    resolution: int | None,
    width: float | None,
) -> tuple[Architecture, ...]:
    """The reference network of a space (for presets MobileNetV2's choice: 3x3, the largest expansion everywhere) at
    these multiples of its width. Raises NetlatheError for widths that are none, and for one beside 1 of a space that is
    no preset."""
    found = {}
    for part in widths:
        if not 0.05 <= part <= 20:
            raise NetlatheError(f"--baselines: a width is a number from 0.05 to 20, not {part!r}")
        if part == 1:
            found[part] = space.architecture(space.reference, "reference")
        elif str(given) in PRESETS:
            wide = load_space(str(given), resolution=resolution, width=(width or 1.0) * part, classes=space.classes)
            found[part] = wide.architecture(wide.reference, f"reference_w{part:g}")
        else:
            raise NetlatheError(
                f"--baselines {part:g}: space {space.name} is no preset, and has one width alone: give 1"
            )
    return tuple(found[part] for part in sorted(found))


@dataclass(frozen=True)
class BaselineSettings:
    """Networks to train and time, on what, and how."""

    networks: tuple[Architecture, ...]
    data: ImageData
    goal: Goal
    training: TrainConfig | Recipe
    device: DeviceAtHand | None = None


class BaselinePhase(Phase[tuple[Baseline, ...]]):
    """Training and timing of the baselines."""

    record, kind, is_shared = BASELINES, "baselines", True
    remedy = "--restart-training does that for {folder}, and keeps the search"

    def __init__(self, settings: BaselineSettings, place: Workplace) -> None:
        device = settings.device.to_json() if settings.device else None
        super().__init__(place, {**baseline_inputs(settings), "judge": device})
        self.settings = settings

    def work(self) -> tuple[Baseline, ...]:
        """Raises TrainingError where a loss diverges, DeviceError for a device that cannot be opened."""
        networks = self.settings.networks
        accuracies = [self._train(one) for one in networks]
        timed = self.place.ranks.told(lambda: self._timed(networks))
        images = len(self.settings.data.test)
        model = self.settings.goal.main.model
        return tuple(
            baseline_of(one, model, accuracy, images, timed.get(one.name))
            for one, accuracy in zip(networks, accuracies, strict=True)
        )

    def _train(self, network: Architecture) -> float:
        """Accuracy of one of them on the test images, after the training that the found network has; goes on where it
        was interrupted."""
        from netlathe.training import evaluate

        settings, place = self.settings, self.place.at(self.place.path / FOLDER / network.name)
        place.folder.make()
        inputs = {**self.inputs, "architecture": json_digest(network.to_json())}
        del inputs["judge"]
        checkpointer = RunCheckpointer(
            place.path / TRAINING_CHECKPOINT, inputs, place.every_s, remedy=self._remedy, folder=place.folder,
            ranks=place.ranks,
        )  # fmt: skip
        module = new_network(network, settings.training)
        train_network(module, settings.data, place, settings.training, network.name, checkpointer=checkpointer)
        if place.leads:
            network.save(place.path / ARCHITECTURE)
            save_weights(place.path, module)
        return evaluate(module, settings.data.test, compute=place.compute)

    def _timed(self, networks: Sequence[Architecture]) -> dict[str, Measurement]:
        """Their latencies on the device, all in one session, where there is one."""
        device, main = self.settings.device, self.settings.goal.main
        if device is None:
            return {}
        graphs = {one.name: one.graph(main.model.setup_.batch) for one in networks}
        with device.open(main, self.place.listener) as watch:
            timed = dict(watch.time(graphs))
            self.place.listener.warn(watch.warnings)
        return timed

    def write(self, output: tuple[Baseline, ...]) -> dict[str, Any]:
        return {"baselines": [asdict(one) for one in output]}

    def read(self, content: Mapping[str, Any]) -> tuple[Baseline, ...]:
        return tuple(Baseline(**one) for one in content["baselines"])

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Always: those that are trained already are found by their checkpoints."""
        return True


def baseline_inputs(settings: BaselineSettings) -> dict[str, Any]:
    """Inputs of the baselines, for JSON: how they are trained, on what, and by which predictor they are priced."""
    from netlathe.runs.searched import describe_data

    return {
        "train": {**described_training(settings.training), "from": "scratch"},
        "data": describe_data(settings.data),
        "predictor": settings.goal.main.content,
        "networks": [json_digest(one.to_json()) for one in settings.networks],
    }


def baseline_of(
    network: Architecture, model: LatencyPredictor, accuracy: float, images: int, timed: Measurement | None
) -> Baseline:
    """A trained network as a run's page compares it."""
    low, high = (timed.interval_ms if timed else None) or (None, None)
    predicted_ms = float(model.predict([network])[0])
    measured_ms = timed.latency_ms if timed else None
    return Baseline(network.name, predicted_ms, accuracy, measured_ms, low, high, images)


def write_baselines(found: Sequence[Baseline], folder: Path) -> None:
    """Writes what another folder's run has found as baselines of this one. Raises OSError."""
    write_json(folder / BASELINES, "baselines", SCHEMA_VERSION, {"baselines": [asdict(one) for one in found]})
