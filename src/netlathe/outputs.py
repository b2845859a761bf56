"""Outputs of a command, checked before it begins to work: no file of the user's own is replaced, and what cannot be
written is known at once."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.archspace.files import odd_kind, read_whole
from netlathe.archspace.jsonfile import MOST_BYTES
from netlathe.archspace.profile_file import APPLICATION_ID
from netlathe.runs.files import (
    ARCHITECTURE,
    BASELINES,
    CHECKPOINT,
    CHOICE,
    COMPARED_PICTURE,
    COMPARISONS,
    COSTS,
    EXPORTED,
    FINALISTS,
    FINALISTS_PICTURE,
    FINE_TUNING,
    FOUND,
    HARDWARE,
    HISTORY,
    IMPORTANCE,
    LAYERS,
    LOOKS,
    MADE,
    MEASURED,
    NETWORK,
    NETWORK_INT8,
    NETWORK_MIXED,
    NETWORK_ONNX,
    PAGE,
    PICTURE,
    PROGRAM,
    PROGRESS,
    REPORT,
    SEARCH,
    SEARCH_PICTURE,
    SENSITIVITY,
    STUDY,
    TRAINED,
    TRAINING,
    TRAINING_CHECKPOINT,
    UNIFORM,
    WEIGHTS,
    WIDTHS,
    WIDTHS_PICTURE,
)

Kind = Literal[
    "profile", "predictor", "architecture", "space", "search", "choice", "training", "export", "run", "demo", "pareto",
    "check", "records", "latencies", "breakdown", "junit", "markdown", "history", "comparisons", "study",
    "picture", "tflite", "onnx", "arrays", "importance", "sensitivity", "widths", "compression", "layers", "program",
    "costs", "made", "baselines", "page", "uniform", "progress", "log",
]  # fmt: skip
"""The kinds of files that netlathe writes; those in JSON are called as in their schema."""

_WORDS: dict[Kind, str] = {
    "profile": "a profile", "predictor": "a predictor", "architecture": "an architecture", "space": "a search space",
    "search": "the result of a search", "choice": "the choice of a run", "training": "the record of a training",
    "export": "the record of an export", "run": "the report of a run", "demo": "the report of a demo",
    "pareto": "a curve of `netlathe pareto`", "records": "a table of measurements",
    "check": "the report of a check", "junit": "the JUnit XML of a check", "markdown": "the summary of a check",
    "latencies": "a table of latencies", "breakdown": "a table of kernels", "history": "the log of a run",
    "comparisons": "the log of a comparison", "study": "the look-ups of a search", "picture": "a picture of netlathe's",
    "tflite": "a .tflite model", "onnx": "an .onnx model", "arrays": "weights or a checkpoint",
    "importance": "the importance of channels", "sensitivity": "what parts of a model are worth",
    "widths": "the widths of a compression",
    "compression": "the report of a compression", "layers": "a table of layers", "program": "a program of torch.export",
    "costs": "the costs of a network's layers", "made": "the record of how a run was made",
    "baselines": "the record of baselines", "uniform": "the record of uniform widths",
    "page": "a page of `netlathe report`", "progress": "the progress of a run",
    "log": "the log of a command",
}  # fmt: skip
_JSON_KINDS: tuple[Kind, ...] = (
    "predictor", "architecture", "space", "search", "choice", "training", "export", "run", "demo", "pareto",
    "check", "importance", "sensitivity", "widths", "compression", "costs", "made", "baselines", "uniform",
    "progress",
)  # fmt: skip
_HEAD_BYTES = 1 << 16
_COMPARISONS = b'{"schema": "netlathe.comparisons/'
"""Beginning of a file of lines, of which the first tells what they are."""
PAGE_HEAD = b"<!doctype html><!-- netlathe report -->"
"""Beginning of a page."""
_LOG = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.+-]+ netlathe \d")
"""Beginning of a log."""
RUN_FILES: dict[str, Kind] = {
    ARCHITECTURE: "architecture", SEARCH: "search", REPORT: "run", HISTORY: "history", TRAINING: "history",
    NETWORK: "tflite", NETWORK_INT8: "tflite", NETWORK_ONNX: "onnx", HARDWARE: "latencies", WEIGHTS: "arrays",
    CHECKPOINT: "arrays", FOUND: "arrays", TRAINING_CHECKPOINT: "arrays", SEARCH_PICTURE: "picture",
    PICTURE: "picture", MEASURED: "picture", COMPARISONS: "comparisons", CHOICE: "choice",
    TRAINED: "training", EXPORTED: "export", LOOKS: "history", STUDY: "study", COSTS: "costs", MADE: "made",
    BASELINES: "baselines", PAGE: "page", PROGRESS: "progress",
}  # fmt: skip
"""Files that `netlathe search` leaves in its folder."""
COMPRESSION_FILES: dict[str, Kind] = {
    IMPORTANCE: "importance", SENSITIVITY: "sensitivity", WIDTHS: "widths", LAYERS: "layers", WIDTHS_PICTURE: "picture",
    REPORT: "compression",
    TRAINING: "history", TRAINING_CHECKPOINT: "arrays", TRAINED: "training", WEIGHTS: "arrays", EXPORTED: "export",
    NETWORK: "tflite", NETWORK_INT8: "tflite", NETWORK_MIXED: "tflite", NETWORK_ONNX: "onnx", PROGRAM: "program",
    COSTS: "costs", MADE: "made", PAGE: "page", PROGRESS: "progress",
    COMPARISONS: "comparisons", STUDY: "study", FINALISTS: "history", FINALISTS_PICTURE: "picture",
    UNIFORM: "uniform", BASELINES: "baselines", COMPARED_PICTURE: "picture",
    **dict.fromkeys(FINE_TUNING.values(), "arrays"),
}  # fmt: skip
"""Files that `netlathe compress` leaves in its folder."""
_READ_OF_RUNS = (ARCHITECTURE, WEIGHTS, REPORT)
"""Files that commands read of a run that they are given."""
_SIDE_FILES = ("-wal", "-shm", "-journal")
"""Endings of the files that SQLite keeps beside a profile."""


class OutputError(NetlatheError):
    """A file that a command must not, or cannot write."""


@dataclass(frozen=True)
class Output:
    """A file that a command writes: the option that names it, where, and what it will be."""

    option: str
    path: Path
    kind: Kind


def check_outputs(outputs: Sequence[Output], inputs: Iterable[str | Path], *, force: bool | None = None) -> None:
    """Raises OutputError, before any work, for an output that

    - is one of the inputs, or another output, by whatever path or link, or a profile's side file;
    - exists and is of another kind than the command writes, unless `force` (None: the command has no --force);
    - is a folder, a device, a pipe, or write-protected;
    - lies where no file can be made.

    An input that is no file (a shipped name, a network's) is passed over.
    """
    files = {_identity(file): file for one in inputs for file in _read_with(one)}
    earlier: dict[object, Output] = {}
    for output in outputs:
        _check_place(output)
        identity = _identity(output.path)
        if identity in files:
            raise OutputError(
                f"{_named(output)}: is an input, or belongs to one ({files[identity]}); name another file to write"
            )
        if identity in earlier:
            other = earlier[identity]
            raise OutputError(f"{_named(output)}: {other.option} names the same file; give each its own")
        earlier[identity] = output
        if not force:
            _check_kind(output, "name another file" + ("" if force is None else ", or replace it with --force"))


def _read_with(given: str | Path) -> list[Path]:
    """The files that are read where this is given: itself, what SQLite keeps beside it, the files of a run."""
    path = Path(given)
    if path.is_dir():
        return [path / name for name in _READ_OF_RUNS]
    return [path, *(Path(f"{path}{end}") for end in _SIDE_FILES)] if path.name else [path]


def check_run_folder(
    folder: Path,
    inputs: Iterable[str | Path],
    images: str | None,
    below: Iterable[str] = (),
    written: Mapping[str, Kind] = RUN_FILES,
) -> None:
    """Checks the files `written` into a run's folder, and into several `below` it, as check_outputs does. Nor may it
    lie among the `images`, where it would become a class of them; None for images that come from no file."""
    from netlathe.training.folders import split_folders

    for one in split_folders(Path(images)).values() if images is not None and Path(images).is_dir() else ():
        if is_within(folder, one):
            raise OutputError(f"--output {folder}: lies among the images of {one}; name a folder elsewhere")
    folders = (folder, *(folder / name for name in below))
    files = [Output("--output", one / name, kind) for one in folders for name, kind in written.items()]
    check_outputs(files, [*inputs, *([] if images is None else [images])])


def is_within(path: Path, folder: Path) -> bool:
    """Whether the path is the folder, or lies in it; neither need exist."""
    path = Path(os.path.realpath(path))
    return any(is_same_file(one, folder) for one in (path, *path.parents))


def is_same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths name one file, by links or spelling too, whether it exists or not."""
    return _identity(one) == _identity(other)


def _identity(path: str | Path) -> tuple[int, int] | str:
    """Equal for all paths of one file: what the system knows it by, or, where it does not exist, where it would lie."""
    try:
        found = os.stat(path)
    except OSError:
        text = os.path.realpath(path)
        return text.casefold() if sys.platform in ("win32", "darwin") else text
    return found.st_dev, found.st_ino


def _named(output: Output) -> str:
    return f"{output.option} {output.path}"


def _check_place(output: Output) -> None:
    """Whether a file can be made there. Missing folders are made when it is written."""
    path = Path(os.path.realpath(output.path))
    try:
        if path.exists():
            kind = odd_kind(path)
            if kind:
                hint = "name a file in it" if kind == "a folder" else "name a file"
                raise OutputError(f"{_named(output)}: is {kind}; {hint}")
            if not os.access(path, os.W_OK):
                raise OutputError(f"{_named(output)}: is write-protected; name another file, or allow to write it")
        folder = next(parent for parent in path.parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):  # tells more than permissions do: full, read-only, quotas
            pass
    except OSError as error:
        raise OutputError(f"{_named(output)}: cannot be written ({error.strerror}); name another file") from error


def _check_kind(output: Output, remedy: str) -> None:
    if not output.path.exists() or not output.path.stat().st_size:
        return
    found = kind_of(output.path)
    if found != output.kind:
        what = _WORDS[found] if found else f"not {_WORDS[output.kind]} that netlathe wrote"
        raise OutputError(f"{_named(output)}: is there already, and is {what}; {remedy}")


def kind_of(path: Path) -> Kind | None:
    """Kind of a file of netlathe's, by its content; None for any other file. Raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(b"SQLite format 3\0"):
        return "profile" if int.from_bytes(head[68:72], "big") == APPLICATION_ID else None
    if head.startswith(_COMPARISONS):
        return "comparisons"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head.startswith(b"\x08") and path.suffix == ".onnx":  # an ONNX file begins with its version, field 1
        return "onnx"
    if head.startswith(b"\x89PNG"):
        return "picture" if b"Matplotlib" in head[:512] else None
    if head.startswith(b"PK") and path.suffix in (".npz", ".pt2"):
        return "arrays" if path.suffix == ".npz" else "program"
    if head.startswith(b"<?xml"):
        return "junit" if b'<testsuites name="netlathe check"' in head[:512] else None
    if head.startswith(b"### netlathe check:"):
        return "markdown"
    if head.startswith(PAGE_HEAD):
        return "page"
    if _LOG.match(head):
        return "log"
    if head.startswith(b'{"op_code":'):
        return "study"
    if head.startswith(b"PAR1"):
        return _kind_of_parquet(path)
    return _kind_of_json(path) if head.lstrip().startswith(b"{") else _kind_of_csv(head)


def _kind_of_json(path: Path) -> Kind | None:
    try:
        content = json.loads(read_whole(path, MOST_BYTES))
    except (FormatError, ValueError, RecursionError):
        return None
    schema = content.get("schema") if isinstance(content, dict) else None
    name = str(schema).removeprefix("netlathe.").partition("/")[0]
    return next((kind for kind in _JSON_KINDS if schema and kind == name), None)


def _kind_of_csv(head: bytes) -> Kind | None:
    columns = head.partition(b"\n")[0].decode(errors="replace").strip().split(",")
    return _kind_of_columns(columns)


def _kind_of_parquet(path: Path) -> Kind | None:
    from pyarrow import ArrowException, parquet

    try:
        return _kind_of_columns(parquet.read_schema(path).names)
    except (ArrowException, OSError, ValueError):
        return None


def _kind_of_columns(columns: Sequence[str]) -> Kind | None:
    from netlathe.archspace.tables import RECORD_COLUMNS
    from netlathe.predicted import COLUMNS

    if set(columns) >= RECORD_COLUMNS:
        return "records"
    if tuple(columns) == COLUMNS:
        return "latencies"
    first: dict[str, Kind] = {
        "network": "latencies",
        "level": "breakdown",
        "epoch": "history",
        "look": "history",
        "layer": "layers",
    }
    return first.get(columns[0]) if len(columns) > 1 else None
