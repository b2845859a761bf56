"""Last phase of a compression: the exported network is timed where its device is at hand, and the report is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlathe.archspace.graph import Graph
from netlathe.archspace.precisions import precisions_of
from netlathe.kernel_costs import breakdown_of
from netlathe.pictures import draw_compared, draw_finalists, draw_widths
from netlathe.pricing import doubts
from netlathe.report.run_content import content_of
from netlathe.report.run_page import marks_of
from netlathe.runs.compression.compared import looked_at
from netlathe.runs.compression.outlook import Outlook, stage, why_fixed
from netlathe.runs.compression.report import CompressReport, Finalist, Layer
from netlathe.runs.compression.scored import Scored
from netlathe.runs.compression.settings import CompressSettings, FileSize
from netlathe.runs.compression.shaped import Shaped, ShapedNetwork
from netlathe.runs.compression.tuned import Tuned
from netlathe.runs.exported import ExportedFiles
from netlathe.runs.files import (
    COMPARED_PICTURE,
    FINALISTS,
    FINALISTS_PICTURE,
    LAYERS,
    REPORT,
    WIDTHS,
    WIDTHS_PICTURE,
    write_csv,
)
from netlathe.runs.folder import Workplace
from netlathe.runs.judges import time_file
from netlathe.runs.phase import Phase
from netlathe.runs.records import write_costs, write_made
from netlathe.runs.report import LimitReport, TargetReport, measured_interval
from netlathe.subjects import find_subject
from netlathe.targets import KIB

if TYPE_CHECKING:
    from netlathe.archspace.records import Measurement
    from netlathe.predictor import LatencyPredictor
    from netlathe.search.successive import CostLimit

LAYER_COLUMNS = ("layer", "group", "channels before", "channels after", "ms before", "ms after", "precision")


class CompressReportPhase(Phase[CompressReport]):
    """Report of a compression; where it stands, it is finished."""

    record, kind = REPORT, "compression"
    needs = (LAYERS, WIDTHS_PICTURE, FINALISTS, FINALISTS_PICTURE, COMPARED_PICTURE)

    def __init__(
        self,
        settings: CompressSettings,
        place: Workplace,
        inputs: Mapping[str, Any],
        outlook: Outlook,
        scored: Scored,
        shaped: Shaped,
        tuned: Tuned | None,
        exported: ExportedFiles,
        uniform: tuple[Finalist, ...] = (),
    ) -> None:
        super().__init__(place, inputs)
        self.settings, self.outlook, self.scored = settings, outlook, scored
        self.shaped, self.tuned, self.exported, self.uniform = shaped, tuned, exported, uniform

    def work(self) -> CompressReport:
        """Raises DeviceError for a device that cannot be opened."""
        settings, shaped, main = self.settings, self.shaped, self.settings.goal.main
        network = ShapedNetwork(settings, shaped.choices)
        graph = network.graph(main.model.setup_.batch)
        space = settings.space
        timed = self._timed(network)
        recoveries = self.exported.recoveries
        is_met = shaped.judged.is_met and not (timed and timed.latency_ms > main.limit_ms)
        is_met = is_met and all(one.is_met for one in recoveries)
        return CompressReport(
            name=settings.original.name,
            folder=str(self.place.path),
            is_changed=True,
            stages=(*self.outlook.stages, stage(settings, "compressed", shaped.choices)),
            fixed=tuple(why_fixed(settings)),
            targets=targets_of(settings, network, timed),
            limits=limits_of(settings, network, self._file_kib()),
            layers=tuple(layers_of(settings, network, main.model)),
            importance=self.scored.by,
            normalization=str(self.scored.normalization) if self.scored.normalization else None,
            judged=shaped.judged.to_json(),
            is_met=is_met,
            accuracy=self.exported.accuracy,
            original_accuracy=self.tuned.original if self.tuned else None,
            untrained_accuracy=self.tuned.before if self.tuned else None,
            files={
                **{form: str(self.place.path / file) for form, file in self.exported.files.items()},
                "structure": str(self.place.path / WIDTHS),
            },
            seconds={
                "choice": round(shaped.seconds, 1), "train": round(self.tuned.seconds, 1) if self.tuned else 0.0,
            },
            warnings=(
                *settings.original.notes, *self.scored.warnings, *shaped.warnings,
                *doubts(main.model, network.name, graph), *self.exported.warnings, *self._size_warnings(),
                *(str(one) for one in recoveries if not one.is_met),
            ),
            run=self.inputs,
            finalists=finalists_of(settings, shaped),
            uniform=self.uniform,
            precisions={name: str(one) for name, one in space.plan(shaped.choices).items()},
            left_out=tuple(block.name for block in space.left_out(shaped.choices)),
            recoveries=recoveries,
            test_images=len(settings.data.test) if settings.data else 0,
            classification=self.exported.classification,
            seed=settings.seed,
        )  # fmt: skip

    def write(self, output: CompressReport) -> dict[str, Any]:
        rows = [
            (
                one.name, one.group, one.before, one.after, *(_cell(ms) for ms in (one.before_ms, one.after_ms)),
                one.precision,
            )
            for one in output.layers
        ]  # fmt: skip
        write_csv(self.place.path / LAYERS, LAYER_COLUMNS, rows)
        main = output.targets[0]
        title = f"{output.name}: {output.stages[0].latencies[0].ms:.3g} to {main.predicted_ms:.3g} ms on {main.device}"
        bars = [(one.name, one.before, one.after, one.precision) for one in output.layers]
        draw_widths(bars, title, self.place.path / WIDTHS_PICTURE)
        before = ShapedNetwork(self.settings, self.settings.space.reference)
        networks = {"before": before, "after": ShapedNetwork(self.settings, self.shaped.choices)}
        write_costs(networks, self.settings.goal.targets, self.place.path, advises=False)
        write_made(self.place.path, self.place.listener.command)
        self._write_finalists(output)
        self._draw_compared(output)
        return output.to_json()

    def _draw_compared(self, output: CompressReport) -> None:
        """A picture of all networks whose accuracy is known, as the page has it."""
        self.place.remove((COMPARED_PICTURE,))
        marks = marks_of(content_of(self.place.path, self.kind, output.to_json()))
        if len(marks) > 1:
            main = self.settings.goal.main
            draw_compared(marks, main.limit_ms, main.name, self.place.path / COMPARED_PICTURE)

    def _write_finalists(self, output: CompressReport) -> None:
        """A table of the networks that were looked at, and a picture of several."""
        self.place.remove((FINALISTS, FINALISTS_PICTURE))
        if not output.finalists:
            return
        rows = [
            (number, one.name, f"{one.loss:.6g}", _cell(one.accuracy), f"{one.predicted_ms:.6g}", one.macs)
            for number, one in enumerate(output.finalists, 1)
        ]
        loss = "minus own score" if self.settings.score else "validation loss"
        write_csv(self.place.path / FINALISTS, ("look", "network", loss, "accuracy", "predicted ms", "MACs"), rows)
        if len(output.finalists) > 1:
            chosen = output.stages[-1].choices
            points = [(one.predicted_ms, one.loss, one.choices == chosen) for one in output.finalists]
            main = self.settings.goal.main
            draw_finalists(points, main.limit_ms, main.name, loss, self.place.path / FINALISTS_PICTURE)

    def read(self, content: Mapping[str, Any]) -> CompressReport:
        own = {name: value for name, value in content.items() if name not in ("schema", "needs")}
        report = CompressReport.from_json(own)
        self.place.listener.note(f"  Finished before, and read from {self.place.path}; --restart begins anew")
        return report

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Always: it tells of the phases before it."""
        return True

    def _timed(self, network: ShapedNetwork) -> Measurement | None:
        """The exported file's latency on the device, where there is one."""
        device, main = self.settings.device, self.settings.goal.main
        if device is None:
            return None
        form = self._form
        takes_one = main.model.setup_.batch == 1  # as exported files do
        file = self.exported.files.get(form) if takes_one else None
        content = (self.place.path / file).read_bytes() if file else None
        return time_file(network, content, main, device, self.place.listener)

    @property
    def _form(self) -> str:
        """The exported form that the main target and a limit of the size are of."""
        if self.settings.space.is_mixed(self.shaped.choices):
            return "mixed"
        return {"float32": "tflite", "int8": "int8"}.get(self.settings.goal.main.model.setup_.dtype, "")

    def _file_kib(self) -> float | None:
        """The size of that file in KiB."""
        file = self.exported.files.get(self._form)
        return (self.place.path / file).stat().st_size / KIB if file else None

    def _size_warnings(self) -> list[str]:
        limit, found = self.settings.goal.size_kib, self._file_kib()
        if limit is None or found is None or found <= limit:
            return []
        return [
            f"{self.exported.files[self._form]} has {found:.4g} KiB, where {limit:.4g} are allowed; lower the limit"
        ]


def targets_of(
    settings: CompressSettings, network: ShapedNetwork, timed: Measurement | None = None
) -> tuple[TargetReport, ...]:
    """Outcome of each target; what was measured is the main one's."""
    found = []
    for index, target in enumerate(settings.goal.targets):
        graph, own = network.graph(target.model.setup_.batch), timed if index == 0 else None
        low, high = target.model.predict_interval([graph])
        found.append(
            TargetReport(
                device=target.name,
                setup=str(target.model.setup_),
                target_ms=target.limit_ms,
                expected_ms=None,
                predicted_ms=float(target.model.predict([graph])[0]),
                low_ms=float(low[0]),
                high_ms=float(high[0]),
                measured_ms=own.latency_ms if own else None,
                is_met=own.latency_ms <= target.limit_ms if own else None,
                measured_on=settings.device.address if own and settings.device else None,
                drift=own.drift if own else None,
                **measured_interval(own),
            )
        )
    return tuple(found)


def limits_of(
    settings: CompressSettings, network: ShapedNetwork, file_kib: float | None = None
) -> tuple[LimitReport, ...]:
    """The network's value of each other limited cost; of its file's size, what was written, if it was."""
    limits = settings.limits([target.model for target in settings.goal.targets])[len(settings.goal.targets) :]

    def value(one: CostLimit) -> float:
        is_written = isinstance(one.model, FileSize) and file_kib is not None
        return file_kib if is_written and file_kib is not None else one.cost(settings.space, network.choices)

    return tuple(LimitReport(one.name, one.limit, None, value(one)) for one in limits)


def finalists_of(settings: CompressSettings, shaped: Shaped) -> tuple[Finalist, ...]:
    """The networks that were looked at, the chosen one first where it is one of them, then by their losses."""
    ranked = sorted(shaped.examined, key=lambda one: (one != shaped.choices, shaped.examined[one]))
    return looked_at(settings, {one: shaped.examined[one] for one in ranked}, shaped.accuracies)


def layers_of(settings: CompressSettings, network: ShapedNetwork, model: LatencyPredictor) -> list[Layer]:
    """The layers that give channels, before and after, in the order in which they run."""
    space = settings.space
    after = network.graph(model.setup_.batch)
    precisions = {node: str(one) for node, one in precisions_of(after).items()}
    before = space.graph(space.reference, model.setup_.batch)
    group_of = {name: group.name for group in space.coupled.groups for name in group.producers}
    fixed = {one.layer for one in space.coupled.fixed}
    before_ms, after_ms = (_kernel_ms(graph, model) for graph in (before, after))
    narrow = {node.name: graph_shape[-1] for node, (graph_shape, *_) in _results(after)}
    return [
        Layer(
            node.name,
            group_of.get(node.name, ""),
            shape[-1],
            narrow.get(node.name, 0),
            before_ms.get(node.name),
            after_ms.get(node.name),
            precisions.get(node.name, ""),
        )
        for node, (shape, *_) in _results(before)
        if node.name in group_of or node.name in fixed
    ]


def _results(graph: Graph) -> list[tuple[Any, Any]]:
    return [(node, shapes) for node, _, shapes in graph.steps()]


def _kernel_ms(graph: Graph, model: LatencyPredictor) -> dict[str, float]:
    """Latency in ms of each kernel, by the layer that it is named after."""
    found = breakdown_of(find_subject(graph, batch=graph.batch), model, advises=False)
    return {one.name: one.latency_ms for one in found.kernels if one.latency_ms is not None}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
