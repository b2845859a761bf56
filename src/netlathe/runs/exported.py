"""Fourth phase of a run: the trained network is written in every form, and each file is checked on the test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from netlathe.exporting import export_all
from netlathe.runs.files import EXPORTED, NETWORK, NETWORK_INT8, NETWORK_ONNX
from netlathe.runs.folder import Workplace
from netlathe.runs.phase import Phase
from netlathe.runs.report import ClassCount, Recovery
from netlathe.runs.settings import RunSettings
from netlathe.runs.trained import Trained

if TYPE_CHECKING:
    from netlathe.archspace.forms.interface import Interface
    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.training import ImageData


@dataclass(frozen=True)
class ExportedFiles:
    """Files of a trained network, and the accuracy of each on the test images."""

    accuracy: Mapping[str, float]
    """'torch', 'tflite', 'int8', 'onnx' (where onnxruntime is installed) -> 0..1."""
    files: Mapping[str, str]
    """Files in the run's folder, by the same names."""
    warnings: tuple[str, ...]
    classes: tuple[ClassCount, ...] = ()
    """Test images by class, as the torch module classifies them; none without images."""
    recoveries: tuple[Recovery, ...] = ()
    """How files were brought within the accuracy that they may lose, where that was asked for."""
    classification: Mapping[str, Any] | None = None
    """How well it classifies them, as `Classification.to_json` tells; None where that was not recorded."""


class FilesPhase(Phase[ExportedFiles]):
    """A phase whose work writes files of a network."""

    record, kind = EXPORTED, "export"

    def write(self, output: ExportedFiles) -> dict[str, Any]:
        """The files are written by the work, which checks them."""
        return {
            "accuracy": dict(output.accuracy), "files": dict(output.files), "warnings": list(output.warnings),
            "classes": [asdict(one) for one in output.classes],
            "recoveries": [asdict(one) for one in output.recoveries],
            "classification": None if output.classification is None else dict(output.classification),
        }  # fmt: skip

    def read(self, content: Mapping[str, Any]) -> ExportedFiles:
        accuracy = {str(name): float(value) for name, value in content["accuracy"].items()}
        files = {str(name): str(file) for name, file in content["files"].items()}
        classes = tuple(ClassCount(**one) for one in content.get("classes", ()))
        recoveries = tuple(map(Recovery.from_json, content.get("recoveries", ())))
        warnings = tuple(map(str, content["warnings"]))
        return ExportedFiles(accuracy, files, warnings, classes, recoveries, content.get("classification"))

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Always: it takes seconds."""
        return True


class ExportPhase(FilesPhase):
    """Export of the trained network."""

    needs, is_shared = (NETWORK, NETWORK_INT8, NETWORK_ONNX), True

    def __init__(self, settings: RunSettings, place: Workplace, training: Mapping[str, Any], trained: Trained) -> None:
        super().__init__(place, training)
        self.settings, self.trained = settings, trained

    def work(self) -> ExportedFiles:
        """Raises FormatError where the network has no such form."""
        return export_network(self.trained.network(), self.settings.data, self.place)


def export_network(
    network: TorchGraph,
    data: ImageData,
    place: Workplace,
    *,
    int8: bytes | None = None,
    interface: Interface | None = None,
) -> ExportedFiles:
    """Writes a trained network in every form into the folder, and judges each file on the test images.

    `int8` is the content of the int8 file, where there is one already, `interface` that of the .onnx file. Raises
    FormatError where the network has no such form.
    """
    from netlathe.training.metrics import classify

    with place.listener.working("exporting, and checking every file on the test images"):
        outputs = network.graph.output_shape[-1]  # others than the images' classes, where these are not its own
        found = classify(network, data.test, max(outputs, len(data.classes)), compute=place.compute)
        own = found.accuracy
        exported = place.ranks.told(
            lambda: export_all(
                network, place.path, data, accuracy=own, compute=place.compute, int8=int8, interface=interface
            )
        )
    accuracy = {"torch": own, **{name: one.accuracy for name, one in exported.items() if one.accuracy is not None}}
    files = {name: one.path.name for name, one in exported.items()}
    images, well = found.confusion.sum(1).tolist(), found.confusion.diagonal().tolist()
    classes = tuple(ClassCount(*row) for row in zip(data.classes, images, well, strict=False))
    warnings = tuple(one.warning for one in exported.values() if one.warning)
    return ExportedFiles(accuracy, files, warnings, classes, classification=found.to_json())
