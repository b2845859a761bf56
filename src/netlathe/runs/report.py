"""Reports of runs: target, expected, predicted, measured; accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import FormatError
from netlathe.archspace.spaces import Architecture
from netlathe.words import percent, points

if TYPE_CHECKING:
    from netlathe.archspace.records import Measurement
    from netlathe.pareto_front import ParetoReport


@dataclass(frozen=True)
class Baseline:
    """A network that a run is compared with, trained and timed as its own was."""

    name: str
    predicted_ms: float
    accuracy: float
    """On the test images, 0..1."""
    measured_ms: float | None = None
    measured_low_ms: float | None = None
    measured_high_ms: float | None = None
    test_images: int = 0

    @property
    def ms(self) -> float:
        """Measured where it was, else predicted."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms


@dataclass(frozen=True)
class ClassCount:
    """Test images of one class, and how many of them are classified right."""

    name: str
    images: int
    right: int


@dataclass(frozen=True)
class RecoveryStep:
    """A step by which a file in int8 was to lose less, and what it came to."""

    name: str
    accuracy: float | None
    """Share of the validation images that the file classifies right, 0..1; None where LiteRT could not run it."""

    def points(self, reference: float) -> float | None:
        """Points below the float32 file's accuracy."""
        return None if self.accuracy is None else 100 * (reference - self.accuracy)


@dataclass(frozen=True)
class Recovery:
    """How a file in int8 was brought within the points of accuracy that it may lose, judged on validation images."""

    form: str
    """'int8' or 'mixed'."""
    asked: float
    """Points that it may lose."""
    reference: float
    """Share of the images that the float32 file classifies right, 0..1."""
    accuracy: float | None
    """That of the file that is kept; None where LiteRT can run none."""
    is_met: bool
    images: int
    """Images that it was judged on."""
    steps: tuple[RecoveryStep, ...]
    """The file as it was written first, then each step; the last one that is no worse than those before it is kept."""

    def __str__(self) -> str:
        """A sentence on the outcome."""
        lost = RecoveryStep("", self.accuracy).points(self.reference)
        if lost is None:
            return f"LiteRT can run no {self.form} file: --max-drop {self.asked:g} is not met; use another one"
        told = f"the {self.form} file loses {max(lost, 0.0):.2f} points on {self.images:,} validation images"
        if not self.is_met:
            return f"{told}: --max-drop {self.asked:g} is not met; this is the best file that was found"
        done = ", ".join(step.name for step in self.steps[1:]) or "nothing was to be done"
        return f"{told}, of {self.asked:g} that it may: {done}"

    def rows(self) -> list[tuple[str, str, str]]:
        """A table: each file, its accuracy, and the points that it is below float32."""
        steps = [(one.name, percent(one.accuracy, 2), points(one.points(self.reference))) for one in self.steps]
        return [("float32", percent(self.reference, 2), ""), *steps]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Recovery:
        """The recovery of these fields. Raises TypeError and LookupError for others."""
        return cls(**{**content, "steps": tuple(RecoveryStep(**one) for one in content["steps"])})


_OPTIONAL = ("measured_on", "drift", "measured_low_ms", "measured_high_ms")
"""Fields of a target's report that are left out of JSON where they are not known."""


@dataclass(frozen=True)
class TargetReport:
    """A latency target, and what became of it; all times in ms."""

    device: str
    """The predictor's name."""
    setup: str
    target_ms: float
    expected_ms: float | None
    """Expectation over the architecture's distribution at the end of a path-binarized search."""
    predicted_ms: float
    low_ms: float
    high_ms: float
    """Ends of the 90 % interval."""
    measured_ms: float | None = None
    """Latency of the exported network at the end, where its device was at hand."""
    is_met: bool | None = None
    """Whether it was met when measured at the end; None where nothing was measured."""
    measured_on: str | None = None
    """The device's address."""
    drift: float | None = None
    """How much slower than its profile the device was at that moment."""
    measured_low_ms: float | None = None
    measured_high_ms: float | None = None
    """Ends of the measurement's own 90 % interval; None below three rounds."""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in _OPTIONAL or value is not None}


def measured_interval(timed: Measurement | None) -> dict[str, float]:
    """The interval of a measurement as a TargetReport has it, where there are rounds enough for one."""
    ends = timed.interval_ms if timed else None
    return {"measured_low_ms": ends[0], "measured_high_ms": ends[1]} if ends else {}


@dataclass(frozen=True)
class LimitReport:
    """A limit on another cost, and what the network has of it."""

    name: str
    limit: float
    expected: float | None
    """Expectation as of a target; None also for a cost that does not add up."""
    value: float


@dataclass(frozen=True)
class RunReport:
    """Everything a person or a script may ask of a finished run."""

    name: str
    """The network's."""
    folder: str
    target_ms: float
    predicted_ms: float
    measured_ms: float | None
    """Latency on the main target, which is the first."""
    is_met: bool
    """Whether the judge saw every limit kept, and the last measurement did too."""
    test_accuracy: float
    tflite_accuracy: float
    macs: int
    parameters: int
    targets: tuple[TargetReport, ...]
    limits: tuple[LimitReport, ...]
    judged: Mapping[str, Any]
    """Judgement of the choice: by whom, is_met, judgements, and what was timed for it."""
    accuracy: Mapping[str, float]
    """Accuracy on the test images by form (torch, tflite, int8, onnx), 0..1."""
    files: Mapping[str, str]
    """Files by form."""
    test_images: int
    seconds: Mapping[str, float]
    """Seconds of search and train."""
    warnings: tuple[str, ...]
    architecture: Architecture
    run: Mapping[str, Any]
    """Inputs that its outcome depends on, for JSON."""
    classification: Mapping[str, Any] | None = None
    """How well the torch module classifies the test images, as `Classification.to_json` tells: accuracy with its
    interval, top-5, balanced accuracy, confusion; None in reports of earlier versions."""
    seed: int | None = None
    """Seed of the search; None in reports of earlier versions."""

    @property
    def is_missed(self) -> bool:
        """Whether the main target was missed when the exported network was measured at the end."""
        return self.targets[0].is_met is False

    def to_json(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **own,
            "targets": [target.to_json() for target in self.targets],
            "limits": [asdict(limit) for limit in self.limits],
            "warnings": list(self.warnings),
            "architecture": self.architecture.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], architecture: Architecture | None = None) -> RunReport:
        """The report that `to_json` was asked of. `architecture` is the network where its blocks are a user's own,
        which JSON does not tell. Raises FormatError for what is no report."""
        try:
            return cls(
                **{
                    **content,
                    "targets": tuple(TargetReport(**target) for target in content["targets"]),
                    "limits": tuple(LimitReport(**limit) for limit in content["limits"]),
                    "warnings": tuple(content["warnings"]),
                    "architecture": architecture or Architecture.from_json(content["architecture"]),
                }
            )
        except (LookupError, TypeError) as error:
            raise FormatError(f"this is no report of a run ({error!s:.200}); search again with --restart") from error


@dataclass(frozen=True)
class CurveReport:
    """Several targets, one network each."""

    folder: Path
    runs: tuple[RunReport, ...]
    curve: ParetoReport

    @property
    def is_missed(self) -> bool:
        """Whether a target was missed when measured."""
        return any(run.is_missed for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder), "runs": [run.to_json() for run in self.runs], "curve": self.curve.to_json(),
        }  # fmt: skip
