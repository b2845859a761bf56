"""Report of a compression: before and after, by layer and in sum; target, measured; accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from netlathe.archspace.errors import FormatError
from netlathe.runs.compression.outlook import Latency, Stage
from netlathe.runs.report import LimitReport, Recovery, TargetReport


@dataclass(frozen=True)
class Layer:
    """A layer before and after."""

    name: str
    group: str
    """Name of the group of channels that it gives; empty where they are fixed."""
    before: int
    """Channels that it gives."""
    after: int
    before_ms: float | None
    """Predicted latency of the kernels that begin with it on the main target, in ms; None where a kernel that begins
    with another layer does its work."""
    after_ms: float | None
    precision: str = "float32"
    """Precision that it has afterwards; empty where it is left out, and gives no channels."""


@dataclass(frozen=True)
class Finalist:
    """A network that was looked at for the choice, before any training."""

    name: str
    choices: tuple[int, ...]
    loss: float
    """Loss on validation images, or minus a user's own score."""
    predicted_ms: float
    """Latency on the main target, in ms."""
    macs: int
    accuracy: float | None = None
    """On validation images, 0..1; None where there is no telling."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "choices": list(self.choices)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Finalist:
        """The network that `to_json` was asked of. Raises LookupError, TypeError or ValueError for what is none."""
        accuracy = content.get("accuracy")
        return cls(
            str(content["name"]), tuple(map(int, content["choices"])), float(content["loss"]),
            float(content["predicted_ms"]), int(content["macs"]), None if accuracy is None else float(accuracy),
        )  # fmt: skip


@dataclass(frozen=True)
class CompressReport:
    """Everything a person or a script may ask of a compression."""

    name: str
    """The model's."""
    folder: str
    is_changed: bool
    """False where the original met every limit already: then nothing was done, and nothing written."""
    stages: tuple[Stage, ...]
    """Outlook: original, half-way and fastest; last, where there is one, the network that was chosen."""
    fixed: tuple[str, ...]
    """Layers whose channels stay, and why."""
    targets: tuple[TargetReport, ...]
    limits: tuple[LimitReport, ...]
    layers: tuple[Layer, ...]
    importance: str
    """Criterion by which channels were chosen, in words."""
    normalization: str | None
    """How its files take images, as --normalization has it; None without images."""
    judged: Mapping[str, Any]
    """Judgement of the choice: by whom, is_met, judgements, and what was timed for it."""
    is_met: bool
    """Whether the judge saw every limit kept, the last measurement did too, and files in int8 lose no more accuracy
    than is asked."""
    accuracy: Mapping[str, float]
    """Accuracy on the test images by form (torch, tflite, int8, mixed, onnx), 0..1; empty without images."""
    original_accuracy: float | None
    untrained_accuracy: float | None
    """Accuracy of the narrower network before it was trained."""
    files: Mapping[str, str]
    """Files by form."""
    seconds: Mapping[str, float]
    """Seconds of choice and train."""
    warnings: tuple[str, ...]
    run: Mapping[str, Any]
    """Inputs that its outcome depends on, for JSON."""
    finalists: tuple[Finalist, ...] = ()
    """Networks that were looked at, the chosen one first."""
    uniform: tuple[Finalist, ...] = ()
    """The original with all layers narrowed alike, looked at as these were."""
    precisions: Mapping[str, str] = field(default_factory=dict)
    """Precision of each segment, where it was decided on."""
    left_out: tuple[str, ...] = ()
    """Names of the sums of residual blocks that were left out."""
    recoveries: tuple[Recovery, ...] = ()
    """How files in int8 were brought within the points of accuracy that they may lose; empty where none are told."""
    test_images: int = 0
    """Images behind each accuracy."""
    classification: Mapping[str, Any] | None = None
    """How well the torch module classifies the test images, as `Classification.to_json` tells; None without images."""
    seed: int | None = None
    """Seed of the compression; None in reports of earlier versions."""

    @property
    def is_missed(self) -> bool:
        """Whether the main target was missed when the exported network was measured at the end, or a file in int8 loses
        more accuracy than is asked."""
        is_slow = bool(self.targets) and self.targets[0].is_met is False
        return is_slow or not all(one.is_met for one in self.recoveries)

    def to_json(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **own,
            "stages": [stage.to_json() for stage in self.stages],
            "fixed": list(self.fixed),
            "targets": [target.to_json() for target in self.targets],
            "limits": [asdict(limit) for limit in self.limits],
            "layers": [asdict(layer) for layer in self.layers],
            "precisions": dict(self.precisions),
            "left_out": list(self.left_out),
            "warnings": list(self.warnings),
            "finalists": [one.to_json() for one in self.finalists],
            "uniform": [one.to_json() for one in self.uniform],
            "recoveries": [asdict(one) for one in self.recoveries],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CompressReport:
        """The report that `to_json` was asked of. Raises FormatError for what is no report."""
        try:
            return cls(
                **{
                    **content,
                    "stages": tuple(map(_stage, content["stages"])),
                    "fixed": tuple(content["fixed"]),
                    "targets": tuple(TargetReport(**target) for target in content["targets"]),
                    "limits": tuple(LimitReport(**limit) for limit in content["limits"]),
                    "layers": tuple(Layer(**layer) for layer in content["layers"]),
                    "warnings": tuple(content["warnings"]),
                    "finalists": tuple(map(Finalist.from_json, content.get("finalists", ()))),
                    "uniform": tuple(map(Finalist.from_json, content.get("uniform", ()))),
                    "recoveries": tuple(map(Recovery.from_json, content.get("recoveries", ()))),
                    "left_out": tuple(content.get("left_out", ())),
                }
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"this is no report of a compression ({error!s:.200}); run it with --restart") from error


def _stage(content: Mapping[str, Any]) -> Stage:
    latencies = tuple(Latency(**one) for one in content["latencies"])
    return Stage(**{**content, "latencies": latencies, "choices": tuple(content["choices"])})
