"""Content of a run's folder, of a search or a compression: all that it records, typed; the rest is left out."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import read_whole
from netlathe.archspace.jsonfile import MOST_BYTES, read_json
from netlathe.report.charts import Candidate, Mark, Role
from netlathe.report.learning_charts import CostLine, Epoch
from netlathe.runs.files import (
    BASELINES,
    CHOICE,
    COSTS,
    EXPORTED,
    MADE,
    REPORT,
    SCHEMA_VERSION,
    SEARCH,
    TRAINED,
    TRAINING,
)
from netlathe.runs.report import Baseline, ClassCount, LimitReport, Recovery, TargetReport

T = TypeVar("T")

_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class WidthRow:
    """A layer of a compressed network before and after."""

    name: str
    group: str
    before: int
    after: int
    before_ms: float | None
    after_ms: float | None
    more: Mapping[str, Any]
    """Further facts of it, such as its precision before and after."""


@dataclass(frozen=True)
class FileRow:
    """A file of a run."""

    form: str
    """'tflite', 'int8', 'onnx', 'program', 'weights', ..."""
    path: Path
    bytes: int


@dataclass(frozen=True)
class RunContent:
    """A finished run."""

    kind: str
    """'run' of a search, or 'compression'."""
    folder: Path
    name: str
    targets: tuple[TargetReport, ...]
    limits: tuple[LimitReport, ...]
    is_met: bool
    judge: str
    timed: tuple[tuple[str, float, float], ...]
    """(network, predicted ms, measured ms) of what was timed for the choice."""
    accuracy: Mapping[str, float]
    """By form, on the test images, 0..1."""
    test_images: int
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    files: tuple[FileRow, ...]
    inputs: Mapping[str, Any]
    macs: int | None
    parameters: int | None
    normalization: str = "-1..1"
    """Values that its files take images in, as --normalization has it."""
    original_accuracy: float | None = None
    untrained_accuracy: float | None = None
    recoveries: tuple[Recovery, ...] = ()
    """How files in int8 were brought within the accuracy that they may lose."""
    stages: tuple[Mapping[str, Any], ...] = ()
    """Networks of a compression: the original and others that the widths were chosen between."""
    layers: tuple[WidthRow, ...] = ()
    history: tuple[Epoch, ...] = ()
    lines: tuple[CostLine, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    candidate_label: str = ""
    untrained: tuple[Mark, ...] = ()
    """Networks of a compression that were looked at before any training, by validation accuracy."""
    looks: tuple[float, ...] = ()
    training: tuple[tuple[float, float, float], ...] = ()
    """(epoch, loss, accuracy) of the training."""
    classes: tuple[ClassCount, ...] = ()
    costs: tuple[Mapping[str, Any], ...] = ()
    """Kernels and stages on each device."""
    classification: Mapping[str, Any] | None = None
    """How well the torch module classifies the test images, as `Classification.to_json` tells."""
    baselines: tuple[Baseline, ...] = ()
    made: Mapping[str, Any] | None = None

    @property
    def main(self) -> TargetReport:
        """The first target."""
        return self.targets[0]

    @property
    def own_accuracy(self) -> float | None:
        """Accuracy of the trained torch module."""
        return self.accuracy.get("torch")


def read_run(folder: Path) -> RunContent:
    """The content of a finished run's folder. Raises FormatError for a folder without one, and for damaged records."""
    path = folder / REPORT
    kind = _kind(path)
    return content_of(folder, kind, read_json(path, kind, SCHEMA_VERSION))


def content_of(folder: Path, kind: str, report: Mapping[str, Any]) -> RunContent:
    """The content of a run with this report ('run' or 'compression'), whose other records are in its folder. Raises
    FormatError for damaged ones."""
    path = folder / REPORT
    made = _optional(folder / MADE, "made")
    parts: dict[str, Any] = {
        "classes": _read(folder / EXPORTED, "export", _classes) or (),
        "costs": _read(folder / COSTS, "costs", lambda content: tuple(_mappings(content["devices"]))) or (),
        "baselines": _read(folder / BASELINES, "baselines", _baselines) or (),
        "training": _training(folder / TRAINING),
        "made": made,
    }
    if kind == "run":
        choice = _optional(folder / CHOICE, "choice")
        parts |= _read(folder / SEARCH, "search", lambda found: _of_search(found, choice or {}, report)) or {}
        parts["seconds"] = _seconds(folder, report, choice)
    try:
        return _run(kind, folder, report, parts)
    except _DAMAGE as error:
        raise FormatError(f"{path}: lacks or confuses {error!s:.200}; run it again with --restart") from error


def _kind(path: Path) -> str:
    """'run' or 'compression', as the report's schema says. Raises FormatError."""
    if not path.is_file():
        raise FormatError(
            f"{path.parent}: holds no finished run, as there is no {REPORT}; the same command finishes it"
        )
    try:
        schema = json.loads(read_whole(path, MOST_BYTES)).get("schema")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({error!s:.200})") from error
    return "compression" if str(schema).startswith("netlathe.compression/") else "run"


def _optional(path: Path, kind: str) -> dict[str, Any] | None:
    """Content of a record; None where there is none, as runs of earlier versions have not all of them."""
    return read_json(path, kind, SCHEMA_VERSION) if path.is_file() else None


def _read(path: Path, kind: str, build: Callable[[dict[str, Any]], T]) -> T | None:
    content = _optional(path, kind)
    if content is None:
        return None
    try:
        return build(content)
    except _DAMAGE as error:
        raise FormatError(f"{path}: lacks or confuses {error!s:.200}; remove it, and run the same command") from error


def _classification(told: Any) -> Mapping[str, Any] | None:
    """A report's classification, whole and in numbers; None where it tells none. Raises what Python does for anything
    else."""
    if told is None:
        return None
    low, high = map(float, told["balanced_interval"])
    balanced, top5 = float(told["balanced_accuracy"]), float(told["top5_accuracy"])
    if not all(map(math.isfinite, (low, high, balanced, top5))):
        raise ValueError("classification")
    return {
        "classes": int(told["classes"]), "balanced_accuracy": balanced, "top5_accuracy": top5,
        "balanced_interval": (low, high),
        "confusion": tuple(tuple(map(int, row)) for row in told.get("confusion", ())),
    }  # fmt: skip


def _mappings(values: Any) -> list[dict[str, Any]]:
    return [dict(value) for value in values]


def _run(kind: str, folder: Path, report: Mapping[str, Any], parts: Mapping[str, Any]) -> RunContent:
    targets = tuple(_of(TargetReport, one) for one in report["targets"])
    targets[0].target_ms  # noqa: B018  # a run has one
    judged = report["judged"]
    found = {
        "seconds": {str(name): float(value) for name, value in report["seconds"].items()},
        **parts,
    }
    if kind == "compression":
        found |= _of_compression(report)
    return RunContent(
        kind=kind,
        folder=folder,
        name=str(report["name"]),
        targets=targets,
        limits=tuple(_of(LimitReport, one) for one in report["limits"]),
        is_met=bool(report["is_met"]),
        judge=str(judged["by"]),
        timed=tuple(
            (str(one["name"]), float(one["predicted_ms"]), float(one["measured_ms"])) for one in judged["timed"]
        ),
        accuracy={str(form): float(share) for form, share in report["accuracy"].items()},
        test_images=_test_images(report, found["classes"]),
        warnings=tuple(map(str, report["warnings"])),
        files=tuple(_files(folder, report["files"])),
        classification=_classification(report.get("classification")),
        inputs=dict(report["run"]),
        macs=report.get("macs") or _last_stage(report).get("macs"),
        parameters=report.get("parameters") or _last_stage(report).get("parameters"),
        **found,
    )


def _of(kind: type[T], content: Mapping[str, Any]) -> T:
    """A dataclass of these contents, whatever a later version has added to them."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in content.items() if name in known})


def _last_stage(report: Mapping[str, Any]) -> Mapping[str, Any]:
    stages = report.get("stages") or [{}]
    return dict(stages[-1])


def _test_images(report: Mapping[str, Any], classes: tuple[ClassCount, ...]) -> int:
    return int(report.get("test_images") or sum(one.images for one in classes) or _told_images(report))


def _told_images(report: Mapping[str, Any]) -> int:
    data = report["run"].get("data")
    return int(data["images"].get("test", 0)) if isinstance(data, dict) and isinstance(data.get("images"), dict) else 0


def _files(folder: Path, files: Mapping[str, str]) -> list[FileRow]:
    """Files that are there, whatever the folder was called when they were written."""
    found = [(str(form), folder / Path(str(file)).name) for form, file in files.items()]
    return [FileRow(form, path, path.stat().st_size) for form, path in found if path.is_file()]


def _classes(content: Mapping[str, Any]) -> tuple[ClassCount, ...]:
    return tuple(
        ClassCount(str(one["name"]), int(one["images"]), int(one["right"])) for one in content.get("classes", ())
    )


def _baselines(content: Mapping[str, Any]) -> tuple[Baseline, ...]:
    return tuple(_of(Baseline, one) for one in content["baselines"])


def _training(path: Path) -> tuple[tuple[float, float, float], ...]:
    """Rows of train.csv; none where a recipe of the user's own wrote something else."""
    if not path.is_file():
        return ()
    try:
        rows = list(csv.DictReader(read_whole(path, MOST_BYTES).decode().splitlines()))
        found = tuple((float(row["epoch"]), float(row["loss"]), float(row["accuracy"])) for row in rows)
    except (OSError, *_DAMAGE):
        return ()
    return tuple(row for row in found if all(map(math.isfinite, row)))


def _of_search(found: Mapping[str, Any], choice: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a search's record: its epochs, its costs by epoch, and the networks that were compared."""
    if "looks" in found:
        return _of_looks(found, choice)
    rows = found["history"]
    history = tuple(_of(Epoch, row) for row in rows)
    chosen = choice.get("costs", [None] * len(found["constraints"]))
    lines = tuple(
        CostLine(
            str(one["name"]),
            str(one["unit"]),
            float(one["limit"]),
            _column(rows, "expected", index),
            _column(rows, "likeliest", index),
            _column(rows, "multipliers", index),
            chosen[index],
        )
        for index, one in enumerate(found["constraints"])
    )
    path = choice.get("choices")
    examined = [one for one in choice.get("examined", ()) if "predicted_ms" in one]
    candidates = tuple(
        Candidate(
            _name(report, one["choices"], path),
            float(one["predicted_ms"]),
            float(one["cross_entropy"]),
            one["choices"] == path,
        )
        for one in examined
    )
    label = "minus own score" if "score" in choice.get("run", {}) else "validation cross-entropy, nats"
    return {"history": history, "lines": lines, "candidates": candidates, "candidate_label": label}


def _column(rows: list[Mapping[str, Any]], name: str, index: int) -> tuple[float, ...]:
    return tuple(float(row[name][index]) for row in rows)


def _of_looks(found: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    path = choice.get("choices")
    looks = found["looks"]
    candidates = tuple(
        Candidate(
            "-".join(map(str, one["choices"])), float(one["costs"][0]), float(one["score"]), one["choices"] == path
        )
        for one in looks
    )
    return {
        "candidates": candidates,
        "candidate_label": "score",
        "looks": tuple(float(one["score"]) for one in looks),
    }


def _name(report: Mapping[str, Any], choices: list[int], chosen: Any) -> str:
    return str(report["name"]) if choices == chosen else "-".join(map(str, choices))


def _seconds(folder: Path, report: Mapping[str, Any], choice: Mapping[str, Any] | None) -> dict[str, float]:
    """Seconds of each phase, as far as their records tell them apart."""
    found = {}
    for name, record, kind in (
        ("search", SEARCH, "search"),
        ("choice", CHOICE, "choice"),
        ("training", TRAINED, "training"),
    ):
        content = choice if record == CHOICE else _optional(folder / record, kind)
        if content and "seconds" in content:
            found[name] = float(content["seconds"])
    return found or {str(name): float(value) for name, value in report["seconds"].items()}


def _of_compression(report: Mapping[str, Any]) -> dict[str, Any]:
    known = {"name", "group", "before", "after", "before_ms", "after_ms"}
    layers = tuple(
        WidthRow(
            **{name: one.get(name) for name in known},
            more={name: value for name, value in one.items() if name not in known},
        )
        for one in report["layers"]
    )
    chosen = _last_stage(report).get("choices")
    candidates = tuple(
        Candidate(str(one["name"]), float(one["predicted_ms"]), float(one["loss"]), one["choices"] == chosen)
        for one in report.get("finalists", ())
    )
    return {
        "candidates": candidates,
        "untrained": (*_untrained(report, "uniform"), *_untrained(report, "finalist")),
        "candidate_label": "loss before training",
        "original_accuracy": report["original_accuracy"],
        "untrained_accuracy": report["untrained_accuracy"],
        "recoveries": tuple(map(Recovery.from_json, report.get("recoveries", ()))),
        "stages": tuple(_mappings(report["stages"])),
        "normalization": str(report.get("normalization") or "-1..1"),
        "layers": layers,
    }


def _untrained(report: Mapping[str, Any], role: Role) -> list[Mark]:
    """Networks of a compression that were looked at, as far as their accuracy is known."""
    chosen = _last_stage(report).get("choices")
    rows = report.get("uniform" if role == "uniform" else "finalists", ())
    return [
        Mark(
            str(report["name"] if one["choices"] == chosen else one["name"]),
            float(one["predicted_ms"]),
            float(one["accuracy"]),
            role,
        )
        for one in rows
        if one.get("accuracy") is not None
    ]
