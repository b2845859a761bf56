"""Share of the files in a folder that is read and priced, and whether their MACs are those that others count."""

from __future__ import annotations

import csv
from pathlib import Path

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.graph import Graph
from netlathe.cli.console import Terminal
from netlathe.predictor import LatencyPredictor
from netlathe.subjects import find_subject
from netlathe.words import millions, percent

COUNTS = "macs.csv"
"""A file in the folder with columns name and macs, counted by somebody else (torch's or fvcore's counter)."""
PREDICTOR = "pixel4-cpu-networks"


def read_folder(folder: Path) -> tuple[dict[str, Graph], dict[str, str]]:
    """Graphs of the .onnx and .tflite files by name, and of the others why they are not read."""
    read: dict[str, Graph] = {}
    refused: dict[str, str] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in (".onnx", ".tflite")):
        try:
            read[path.stem] = find_subject(path).graph
        except NetlatheError as error:
            refused[path.stem] = str(error)
    return read, refused


def report(folder: Path | None, terminal: Terminal) -> None:
    """Tells it of each file and of all of them. Raises NetlatheError where no folder is given."""
    if folder is None:
        raise NetlatheError("--models: name the folder of the files to read")
    read, refused = read_folder(folder)
    counts = _counts(folder)
    model = LatencyPredictor.load(PREDICTOR)
    rows = []
    for name, graph in read.items():
        unknown = model.unknown_ops([graph])[0]
        priced = "yes" if model.knows([graph])[0] else f"no: {', '.join(unknown)}"
        rows.append((name, millions(graph.macs), millions(counts[name]) if name in counts else "-", priced))
    rows += [(name, "-", "-", f"not read: {reason:.100}") for name, reason in refused.items()]
    terminal.table(("file", "MACs", "counted", f"priced by {PREDICTOR}"), rows)
    total = len(read) + len(refused)
    equal = [read[name].macs == count for name, count in counts.items() if name in read]
    terminal.say(
        f"Read: {len(read)} of {total} ({percent(len(read) / max(total, 1))}); MACs equal: {sum(equal)} of "
        f"{len(equal)}; priced: {sum(row[3] == 'yes' for row in rows)}."
    )


def _counts(folder: Path) -> dict[str, int]:
    path = folder / COUNTS
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {row["name"]: int(row["macs"]) for row in csv.DictReader(file)}
