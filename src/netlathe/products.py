"""From an architecture to a trained network and its files, each checked on the test images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netlathe.archspace.spaces import Architecture
from netlathe.events import Listener
from netlathe.exporting import export_all
from netlathe.logs import TrainLog, scalars
from netlathe.run import TRAINING, save_network
from netlathe.stopping import stopping

if TYPE_CHECKING:
    from torch import Tensor

    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.checkpoints import RunCheckpointer
    from netlathe.training import Compute, ImageData, TrainConfig


@dataclass(frozen=True)
class Product:
    """A trained network: its files, and the accuracy of each on the test images."""

    accuracy: dict[str, float]
    """'torch', 'tflite', 'int8', 'onnx' (where onnxruntime is installed) -> 0..1."""
    files: dict[str, str]
    """The same names -> file."""
    warnings: tuple[str, ...]
    seconds: float
    """Over all processes that trained it."""


def train_and_export(
    architecture: Architecture,
    data: ImageData,
    folder: Path,
    config: TrainConfig,
    compute: Compute,
    listener: Listener,
    *,
    weights: Mapping[str, Tensor] | None = None,
    checkpointer: RunCheckpointer | None = None,
    events_from: int | None = None,
) -> Product:
    """Trains from `weights`, or from scratch; sets BatchNorm's statistics; saves the weights, exports every form, and
    checks each file on the test images. With a checkpointer, an interrupted training goes on.
    `events_from`: the step from which events for TensorBoard count; None for no events.

    Raises TrainingError when the loss diverges.
    """
    import torch

    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.profiler.devices.local import LocalDevice
    from netlathe.training import evaluate, recalibrate_batch_norm

    started = time.monotonic()
    LocalDevice().close()  # lets LiteRT announce its delegate now, rather than in the middle of a progress bar
    network = TorchGraph(architecture.graph(), generator=torch.Generator().manual_seed(config.seed))
    if weights is not None:
        network.load_state_dict(dict(weights))
    folder.mkdir(parents=True, exist_ok=True)
    label = f"training {architecture.name}"
    _train(network, data, folder, config, compute, listener, label, checkpointer, events_from)
    recalibrate_batch_norm(network, data.train, compute=compute)
    save_network(folder, architecture, network)
    with listener.working("exporting, and checking every file on the test images"):
        own = evaluate(network, data.test, compute=compute)
        exported = export_all(network, folder, data, accuracy=own, compute=compute)
    accuracy = {"torch": own, **{name: one.accuracy for name, one in exported.items() if one.accuracy is not None}}
    files = {name: str(one.path) for name, one in exported.items()}
    warnings = tuple(one.warning for one in exported.values() if one.warning)
    seconds = checkpointer.seconds() if checkpointer else time.monotonic() - started
    return Product(accuracy, files, warnings, seconds)


def _train(
    network: TorchGraph,
    data: ImageData,
    folder: Path,
    config: TrainConfig,
    compute: Compute,
    listener: Listener,
    label: str,
    checkpointer: RunCheckpointer | None,
    events_from: int | None,
) -> None:
    """With its progress on the listener, and its logs in the folder."""
    from netlathe.training import train

    events = None if events_from is None else folder / "tensorboard" / "train"
    with (
        listener.progress(label, "steps") as update,
        scalars(events, first_step=events_from or 1) as scalar,
        stopping(checkpointer) as between,
    ):
        log = TrainLog(folder / TRAINING, config.epochs, update, scalar, between)
        train(network, data, config, log, compute=compute, checkpointer=checkpointer)
