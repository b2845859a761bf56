"""Migration of run folders of the time before choices, trainings and exports had records of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlathe.archspace.jsonfile import write_json
from netlathe.archspace.spaces import Architecture
from netlathe.runs.checkpoints import RunCheckpointer
from netlathe.runs.files import (
    ARCHITECTURE,
    CHOICE,
    EXPORTED,
    FOUND,
    REPORT,
    TRAINED,
    TRAINING_CHECKPOINT,
    WEIGHTS,
    load_report,
)
from netlathe.runs.folder import Workplace
from netlathe.runs.judges import Judged
from netlathe.runs.phase import SCHEMA_VERSION


def migrate(place: Workplace, search: Mapping[str, Any]) -> None:
    """Gives a folder that holds a choice of that time the records of today. Raises FormatError where it is another
    run's, or damaged. `search` are the inputs of the search that is asked for."""
    path = place.path / FOUND
    if path.is_file():
        remedy = f"--restart does that for {place.path}; or name another --output"
        checkpointer = RunCheckpointer(path, search, remedy=remedy)
        checkpointer.resume(lambda kept: _rewrite(place, search, kept), checkpointer.load() or {})
        path.unlink()


def _rewrite(place: Workplace, search: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    found, judged = kept["found"], Judged(**kept["found"]["judged"])
    architecture = Architecture.from_json(found["architecture"])
    if not (place.path / ARCHITECTURE).is_file():  # it was written with the weights
        architecture.save(place.path / ARCHITECTURE)
    _write(place, CHOICE, "choice", {**search, "judge": kept["judge"]}, {
        "architecture": architecture.to_json(), "judged": judged.to_json(), "choices": list(judged.path),
        "costs": list(found["costs"]), "warnings": list(found["warnings"]), "seconds": 0.0, "needs": [ARCHITECTURE],
    })  # fmt: skip
    if not ((place.path / REPORT).is_file() and (place.path / TRAINING_CHECKPOINT).is_file()):
        return
    report = load_report(place.path)
    trained = {name: value for name, value in report["run"].items() if name != "judge"}
    own = [warning for warning in report["warnings"] if warning not in found["warnings"]]
    names = {name: file.replace("\\", "/").rpartition("/")[2] for name, file in report["files"].items()}
    _write(place, TRAINED, "training", trained, {
        "seconds": report["seconds"]["train"], "needs": [WEIGHTS, TRAINING_CHECKPOINT],
    })  # fmt: skip
    _write(place, EXPORTED, "export", trained, {"accuracy": report["accuracy"], "files": names, "warnings": own})


def _write(place: Workplace, name: str, kind: str, run: dict[str, Any], content: dict[str, Any]) -> None:
    write_json(place.path / name, kind, SCHEMA_VERSION, {"run": run, **content})
