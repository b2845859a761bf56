"""Share of the files in a folder that is read and priced, and whether their MACs are those that others count."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.graph import Graph
from netlathe.cli.console import Terminal
from netlathe.predictor import LatencyPredictor
from netlathe.pricing import load_predictor, opaque_ops
from netlathe.subjects import find_subject
from netlathe.words import millions, percent

ABOUT = ".json"
"""Ending of the file beside each network: what others count, and what reading the module itself gave."""
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


class _Found(NamedTuple):
    """A network, read and priced or not."""

    name: str
    graph: Graph | None
    about: dict[str, Any]
    is_priced: bool
    why: str
    """The ops that are not priced, or why there is no graph."""

    @property
    def agrees(self) -> bool | None:
        """Whether the MACs are torch's, in the file and where the module was read; None where nobody counted."""
        if self.graph is None or "macs" not in self.about:
            return None
        return {self.graph.macs, self.about.get("module_macs", self.graph.macs)} == {self.about["macs"]}


def report(folder: Path | None, predictor: str, terminal: Terminal) -> None:
    """Tells it of each file and of all of them, priced by that predictor. Raises NetlatheError without a folder."""
    if folder is None:
        raise NetlatheError("--models: name the folder of the files to read")
    found = _look(folder, load_predictor(predictor))
    rows = [
        (
            one.name,
            millions(one.graph.macs) if one.graph else "-",
            millions(one.about["macs"]) if "macs" in one.about else "-",
            "-" if not one.about else "no" if "module_macs" not in one.about else "yes",
            "yes" if one.is_priced else f"no: {one.why:.100}",
        )
        for one in found
    ]
    terminal.table(("network", "MACs", "torch counts", "as a module", f"priced by {predictor}"), rows)
    opaque = Counter(op for one in found if one.graph for op in opaque_ops(one.graph))
    for op, count in opaque.most_common():
        terminal.say(f"  no op of netlathe: {op}, in {count} of them")
    _sum_up(found, terminal)


def _look(folder: Path, model: LatencyPredictor) -> list[_Found]:
    read, refused = read_folder(folder)
    abouts = {path.stem: json.loads(path.read_text()) for path in folder.glob(f"*{ABOUT}")}
    found = []
    for name in sorted({*read, *refused, *abouts}):
        graph, about = read.get(name), abouts.get(name, {})
        if graph is None:
            found.append(_Found(name, None, about, False, refused.get(name) or about.get("error", "no file")))
            continue
        is_priced = bool(model.knows([graph])[0])
        found.append(_Found(name, graph, about, is_priced, ", ".join(model.unknown_ops([graph])[0])))
    return found


def _sum_up(found: list[_Found], terminal: Terminal) -> None:
    files = [one for one in found if one.graph or "error" not in one.about]
    modules = [one for one in found if one.about]
    compared = [one.agrees for one in found if one.agrees is not None]
    for what, count, of in (
        ("exported by torch", len(files), len(found)),
        ("files read", sum(one.graph is not None for one in files), len(files)),
        ("modules read", sum("module_macs" in one.about for one in modules), len(modules)),
        ("MACs those of torch's counter, to the last one", sum(compared), len(compared)),
        ("priced, of the files", sum(one.is_priced for one in files), len(files)),
    ):
        terminal.say(f"  {what}: {count} of {of} ({percent(count / max(of, 1))})")
