"""What a run says at its end: target, expected, predicted, measured; accuracies; as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netlathe.console import Terminal, millions, milliseconds, percent

if TYPE_CHECKING:
    from netlathe.archspace.records import Measurement
    from netlathe.job import Job
    from netlathe.products import Product
    from netlathe.searching import Found
    from netlathe.targets import Target

ACCURACIES = {"torch": "accuracy", "tflite": "of .tflite", "int8": "of int8 .tflite", "onnx": "of .onnx"}
"""Columns for the same network in its forms."""


def make_report(job: Job, found: Found, product: Product, timed: Measurement | None) -> dict[str, Any]:
    """Everything a person or a script may ask of a run. `timed` is the exported network on the main target's device.

    A target's `is_met` is whether it was met when measured at the end, None where nothing was measured; the run's is
    whether the judge saw every limit kept, and the last measurement did too. `judged` tells of the choice alone.
    """
    architecture = found.architecture
    targets = [
        _target_json(target, found, index, None if index else timed) for index, target in enumerate(job.goal.targets)
    ]
    if timed and job.device:
        targets[0] |= {"measured_on": job.device.address, "drift": timed.drift}
        targets[0]["is_met"] = timed.latency_ms <= job.goal.main.limit_ms
    first = len(targets)
    limits = [
        {
            "name": limit.name, "limit": limit.value,
            "expected": found.expected[first + index], "value": found.costs[first + index],
        }
        for index, limit in enumerate(job.goal.limits)
    ]  # fmt: skip
    if job.goal.memory_kib is not None:
        peak = architecture.graph().peak_activation_bytes() / 1024
        limits.append({"name": "memory-kb", "limit": job.goal.memory_kib, "expected": None, "value": peak})
    return {
        "name": architecture.name,
        "folder": str(job.folder),
        "target_ms": job.goal.main.limit_ms,
        "predicted_ms": targets[0]["predicted_ms"],
        "measured_ms": targets[0]["measured_ms"],
        "is_met": found.judged.is_met and targets[0]["is_met"] is not False,
        "test_accuracy": product.accuracy["torch"],
        "tflite_accuracy": product.accuracy["tflite"],
        "macs": architecture.macs,
        "parameters": architecture.parameters,
        "targets": targets,
        "limits": limits,
        "judged": found.judged.to_json(),
        "accuracy": product.accuracy,
        "files": product.files,
        "test_images": len(job.data.test),
        "seconds": {"search": round(found.seconds, 1), "train": round(product.seconds, 1)},
        "warnings": [*found.warnings, *product.warnings],
        "architecture": architecture.to_json(),
        "run": job.run_description(architecture),
    }


def _target_json(target: Target, found: Found, index: int, timed: Measurement | None) -> dict[str, Any]:
    graph = found.architecture.graph(target.model.setup_.batch)
    low, high = target.model.predict_interval([graph])
    return {
        "device": target.name,
        "setup": str(target.model.setup_),
        "target_ms": target.limit_ms,
        "expected_ms": found.expected[index],
        "predicted_ms": float(target.model.predict([graph])[0]),
        "low_ms": float(low[0]),
        "high_ms": float(high[0]),
        "measured_ms": timed.latency_ms if timed else None,
        "is_met": None,
    }


def show_reports(reports: Sequence[Mapping[str, Any]], terminal: Terminal) -> None:
    """A line per network and device, a line per limit, then the accuracies, then the warnings."""
    columns = ("network", "on", "target ms", "expected ms", "predicted ms", "90 % interval", "measured ms")
    terminal.table(columns, [row for report in reports for row in _target_rows(report)], text=2)
    limits = [row for report in reports for row in _limit_rows(report)]
    if limits:
        terminal.say("")
        terminal.table(("network", "limited", "at most", "expected", "has"), limits, text=2)
    shown = [name for name in ACCURACIES if any(name in report["accuracy"] for report in reports)]
    terminal.say("")
    terminal.table(
        ("network", "MACs", "parameters", *(ACCURACIES[name] for name in shown)),
        [
            (
                report["name"], millions(report["macs"]), millions(report["parameters"]),
                *(percent(report["accuracy"].get(name)) for name in shown),
            )
            for report in reports
        ],
    )  # fmt: skip
    for report in reports:
        terminal.warn(report["warnings"])


def _target_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            report["name"] if index == 0 else "",
            target["device"],
            milliseconds(target["target_ms"]),
            milliseconds(target["expected_ms"]),
            milliseconds(target["predicted_ms"]),
            f"{milliseconds(target['low_ms'])} to {milliseconds(target['high_ms'])}",
            milliseconds(target["measured_ms"]),
        )
        for index, target in enumerate(report["targets"])
    ]


def _limit_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for limit in report["limits"]:
        values = (limit["limit"], limit["expected"], limit["value"])
        rows.append((report["name"], limit["name"], *(_number(value) for value in values)))
    return rows


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return millions(value) if value >= 1e5 else f"{value:.4g}"
