"""Fifth phase of a run: the exported network is timed where its device is at hand, and the report is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.pricing import doubts
from netlathe.runs.chosen import Chosen
from netlathe.runs.exported import ExportedFiles
from netlathe.runs.files import HARDWARE, REPORT, write_csv
from netlathe.runs.folder import Workplace
from netlathe.runs.judges import time_file
from netlathe.runs.phase import Phase
from netlathe.runs.records import write_costs, write_made
from netlathe.runs.report import LimitReport, RunReport, TargetReport, measured_interval
from netlathe.runs.searched import Searched
from netlathe.runs.settings import RunSettings
from netlathe.runs.trained import Trained
from netlathe.targets import DeviceTarget, Goal

if TYPE_CHECKING:
    from netlathe.archspace.records import Measurement

NOISE = 0.03
"""Share of a latency by which two measurements of it may differ."""


class ReportPhase(Phase[RunReport]):
    """Report of a run; where it stands, the run is finished."""

    record, kind = REPORT, "run"

    def __init__(
        self,
        settings: RunSettings,
        place: Workplace,
        inputs: Mapping[str, Any],
        searched: Searched,
        chosen: Chosen,
        trained: Trained,
        exported: ExportedFiles,
    ) -> None:
        super().__init__(place, inputs)
        self.settings = settings
        self.searched, self.chosen, self.trained, self.exported = searched, chosen, trained, exported

    def work(self) -> RunReport:
        """Raises DeviceError for a device that cannot be opened."""
        goal, architecture = self.settings.goal, self.chosen.architecture
        timed = self._timed()
        targets = tuple(self._target(index, None if index else timed) for index in range(len(goal.targets)))
        main, graph = targets[0], architecture.graph(goal.model.setup_.batch)
        return RunReport(
            name=architecture.name,
            folder=str(self.place.path),
            target_ms=main.target_ms,
            predicted_ms=main.predicted_ms,
            measured_ms=main.measured_ms,
            is_met=self.chosen.judged.is_met and main.is_met is not False,
            test_accuracy=self.exported.accuracy["torch"],
            tflite_accuracy=self.exported.accuracy["tflite"],
            macs=architecture.macs,
            parameters=architecture.parameters,
            targets=targets,
            limits=self._limits(),
            judged=self.chosen.judged.to_json(),
            accuracy=self.exported.accuracy,
            files={name: str(self.place.path / file) for name, file in self.exported.files.items()},
            test_images=len(self.settings.data.test),
            seconds={
                "search": round(self.searched.seconds + self.chosen.seconds, 1),
                "train": round(self.trained.seconds, 1),
            },
            warnings=(
                *self.chosen.warnings, *doubts(goal.model, architecture.name, graph), *self.exported.warnings,
                *missed(self.chosen, goal, timed),
            ),
            architecture=architecture,
            run=self.inputs,
            classification=self.exported.classification,
            seed=self.settings.search.seed,
        )  # fmt: skip

    def write(self, output: RunReport) -> dict[str, Any]:
        write_costs({"after": self.chosen.architecture}, self.settings.goal.targets, self.place.path)
        write_made(self.place.path, self.place.listener.command)
        return output.to_json()

    def read(self, content: Mapping[str, Any]) -> RunReport:
        own = {name: value for name, value in content.items() if name != "schema"}
        report = RunReport.from_json(own, self.chosen.architecture)
        self.place.listener.note(f"  Finished before, and read from {self.place.path}; --restart begins anew")
        return report

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Always: it tells of the phases before it."""
        return True

    def _timed(self) -> Measurement | None:
        """The exported file's latency on the device, where there is one."""
        device, goal = self.settings.device, self.settings.goal
        if device is None:
            return None
        form = {"float32": "tflite", "int8": "int8"}.get(goal.model.setup_.dtype, "")
        takes_one = goal.model.setup_.batch == 1  # as exported files do
        file = self.exported.files.get(form) if takes_one else None
        content = (self.place.path / file).read_bytes() if file else None
        return time_file(self.chosen.architecture, content, goal.main, device, self.place.listener)

    def _target(self, index: int, timed: Measurement | None) -> TargetReport:
        target: DeviceTarget = self.settings.goal.targets[index]
        graph = self.chosen.architecture.graph(target.model.setup_.batch)
        low, high = target.model.predict_interval([graph])
        return TargetReport(
            device=target.name,
            setup=str(target.model.setup_),
            target_ms=target.limit_ms,
            expected_ms=self.searched.expected(index),
            predicted_ms=float(target.model.predict([graph])[0]),
            low_ms=float(low[0]),
            high_ms=float(high[0]),
            measured_ms=timed.latency_ms if timed else None,
            is_met=timed.latency_ms <= target.limit_ms if timed else None,
            measured_on=self.settings.device.address if timed and self.settings.device else None,
            drift=timed.drift if timed else None,
            **measured_interval(timed),
        )

    def _limits(self) -> tuple[LimitReport, ...]:
        goal, first = self.settings.goal, len(self.settings.goal.targets)
        limits = [
            LimitReport(limit.name, limit.value, self.searched.expected(index), self.chosen.costs[index])
            for index, limit in enumerate(goal.limits, first)
        ]
        if goal.memory_kib is not None:
            peak = self.chosen.architecture.graph().peak_activation_bytes(goal.itemsize) / 1024
            limits.append(LimitReport("memory-kb", goal.memory_kib, None, peak))
        return tuple(limits)


def missed(chosen: Chosen, goal: Goal, timed: Measurement | None) -> list[str]:
    """A warning where the last measurement is above the target that the network met when it was chosen."""
    if timed is None:
        return []
    excess = timed.latency_ms / goal.main.limit_ms - 1
    if excess <= 0 or not chosen.judged.is_met:
        return []
    noise = ", which may be no more than the measurement's noise" if excess < NOISE else ""
    return [
        f"the target is missed: {chosen.architecture.name} now takes {timed.latency_ms:.4g} ms, {excess:.1%} above "
        f"the target{noise}; when it was chosen, it took {chosen.judged.timed[-1][2]:.4g} ms. Time it again on a quiet "
        "device, or lower the target by as much"
    ]


def write_hardware(reports: Sequence[RunReport], folder: Path) -> None:
    """Writes hardware.csv: each run's network on each target's device, in ms. Raises OSError."""
    names = [report.name for report in reports]
    rows = [
        [name if names.count(name) == 1 else f"{name} ({report.folder})", *(t.predicted_ms for t in report.targets)]
        for name, report in zip(names, reports, strict=True)
    ]
    write_csv(folder / HARDWARE, ["network", *(target.device for target in reports[0].targets)], rows)
