"""`netlathe pareto`: finished runs as points between latency and accuracy, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import FormatError
from netlathe.archspace.jsonfile import write_json
from netlathe.archspace.spaces import Architecture
from netlathe.outputs import Output, check_outputs
from netlathe.pricing import Unknown, doubts, load_predictor
from netlathe.runs.files import ARCHITECTURE, find_runs, load_report

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor

PICTURE, CURVE = "pareto.png", "pareto.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Point:
    """A trained network between latency and accuracy."""

    name: str
    folder: str
    predicted_ms: float
    measured_ms: float | None
    accuracy: float
    """Accuracy of the torch module on the test images, 0..1."""
    on_front: bool = False
    test_images: int = 0
    """Images behind the accuracy; 0 where that was not recorded."""

    @property
    def ms(self) -> float:
        """Latency by which it stands among others: measured where it was, else predicted."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms


@dataclass(frozen=True)
class ParetoReport:
    """Finished runs by rising latency: measured where it was, else predicted."""

    points: tuple[Point, ...]
    setup: str
    """Setup that the milliseconds are of."""
    warnings: tuple[str, ...] = ()
    """Doubts about latencies that are predicted anew."""

    def to_json(self) -> dict[str, Any]:
        return {
            "setup": self.setup,
            "networks": [asdict(p) for p in self.points],
            "warnings": list(self.warnings),
        }


def pareto(
    runs: Sequence[str | Path],
    predictor: str | Path | LatencyPredictor | None = None,
    *,
    output: str | Path | None = None,
    unknown: Unknown = "refuse",
    force: bool = False,
) -> ParetoReport:
    """Finished runs between latency and accuracy, and which of them no other beats.

    `runs` are their folders, or folders that hold some. With a `predictor`, they are priced anew on its device;
    `unknown` is predict's. `output` is a folder for pareto.png and pareto.json; with `force`, any files of these names
    are replaced. Raises OutputError for files that must not or cannot be written, FormatError for folders without runs,
    and for runs whose latencies are those of unlike setups, UnknownOpError as predict does.
    """
    folders = [Path(run) for run in runs]
    place = None if output is None else Path(output)
    if place:
        files = [Output("--output", place / PICTURE, "picture"), Output("--output", place / CURVE, "pareto")]
        check_outputs(files, [*folders, *([predictor] if isinstance(predictor, str | Path) else ())], force=force)
    report = read_points(folders, None if predictor is None else load_predictor(predictor, unknown=unknown))
    if place:
        write_points(report, place)
    return report


def read_points(folders: Sequence[Path], model: LatencyPredictor | None = None) -> ParetoReport:
    """The runs by rising latency, measured where it was. With `model`, they are predicted anew on its device, where
    nothing was measured. Raises FormatError for folders without runs, and for runs whose latencies are those of unlike
    setups."""
    runs = dict.fromkeys(run for folder in folders for run in find_runs(folder))
    setups: dict[str, Path] = {}
    points = [_point(run, load_report(run), setups) for run in runs]
    if model:
        return _priced_anew(points, model)
    if len(setups) > 1:
        raise FormatError(
            "these runs were searched for different devices, so their latencies do not compare ("
            + "; ".join(f"{run}: {setup}" for setup, run in setups.items())
            + "); name one with --predictor"
        )
    return ParetoReport(tuple(mark_front(points)), next(iter(setups)))


def _point(run: Path, report: dict[str, Any], setups: dict[str, Path]) -> Point:
    try:
        main = report["targets"][0]
        setups.setdefault(main["setup"], run)
        predicted, measured = main["predicted_ms"], main["measured_ms"]
        measured_ms = None if measured is None else float(measured)
        accuracy, images = float(report["accuracy"]["torch"]), int(report.get("test_images", 0))
        return Point(str(report["name"]), str(run), float(predicted), measured_ms, accuracy, test_images=images)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise FormatError(f"{run}: its report lacks or confuses {error!s:.200}; search again with --restart") from error


def _priced_anew(points: Sequence[Point], model: LatencyPredictor) -> ParetoReport:
    """The points with latencies of the model's setup, and what it doubts of them."""
    found: list[Point] = []
    warnings: list[str] = []
    for point in points:
        architecture = Architecture.load(Path(point.folder) / ARCHITECTURE)
        graph = architecture.graph(model.setup_.batch)
        found.append(replace(point, predicted_ms=float(model.predict([architecture])[0]), measured_ms=None))
        warnings += doubts(model, point.name, graph)
    return ParetoReport(tuple(mark_front(found)), str(model.setup_), tuple(warnings))


def mark_front(points: Sequence[Point]) -> list[Point]:
    """By rising latency; a point is on the front when no other is at least as fast and as accurate, and better in one
    of them."""
    ordered = sorted(points, key=lambda p: (p.ms, -p.accuracy))
    marked: list[Point] = []
    best, best_ms = -1.0, -1.0
    for point in ordered:
        equal = point.accuracy == best and point.ms == best_ms
        on_front = point.accuracy > best or equal
        if point.accuracy > best:
            best, best_ms = point.accuracy, point.ms
        marked.append(Point(**{**asdict(point), "on_front": on_front}))
    return marked


def write_points(report: ParetoReport, folder: Path) -> None:
    """pareto.json and pareto.png."""
    from netlathe.pictures import draw_pareto

    write_json(folder / CURVE, "pareto", SCHEMA_VERSION, report.to_json())
    draw_pareto(report.points, report.setup, folder / PICTURE)
