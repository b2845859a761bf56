"""A run's folder: what a search leaves, and what export and re-runs start from."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import check_plain, write_whole, writing
from netlathe.archspace.jsonfile import read_json
from netlathe.archspace.packed import NPZ_DAMAGE, check_zip

if TYPE_CHECKING:
    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.archspace.spaces import Architecture

ARCHITECTURE = "architecture.json"
WEIGHTS = "weights.npz"
NETWORK, NETWORK_INT8, NETWORK_ONNX = "network.tflite", "network_int8.tflite", "network.onnx"
NETWORK_MIXED = "network_mixed.tflite"
"""A compressed network in the precisions that were chosen."""
SEARCH = "search.json"
HISTORY, LOOKS = "history.csv", "looks.csv"
TRAINING = "train.csv"
REPORT = "report.json"
SEARCH_PICTURE, PICTURE, MEASURED = "search.png", "architecture.png", "measured.png"
HARDWARE = "hardware.csv"
CHECKPOINT, TRAINING_CHECKPOINT = "checkpoint.npz", "training.npz"
"""Checkpoints of the search and of the training, which stay at their last step."""
FINE_TUNING = {"int8": "fine_tuning_int8.npz", "mixed": "fine_tuning_mixed.npz"}
"""Checkpoints of trainings with a file's rounding, by its form."""
STUDY = "study.journal"
"""Look-ups of a black-box search, unless they are in a storage elsewhere."""
FOUND = "found.npz"
"""Checkpoint that held the choice before it had a record of its own."""
COMPARISONS = "finalists.jsonl"
"""Log of what the finalists' comparison has seen."""
CHOICE, TRAINED, EXPORTED = "choice.json", "training.json", "export.json"
"""Records of the phases between the search and the report."""
IMPORTANCE, SENSITIVITY, WIDTHS = "importance.json", "sensitivity.json", "widths.json"
"""Records of a compression: the importance of channels, what blocks and precisions are worth, and what was chosen."""
COSTS, MADE, BASELINES, PAGE = "costs.json", "made.json", "baselines.json", "report.html"
"""Layer by layer on every device; by which versions and command; networks that it is compared with; all on a page."""
LAYERS, WIDTHS_PICTURE, PROGRAM = "widths.csv", "widths.png", "network.pt2"
FINALISTS, FINALISTS_PICTURE = "finalists.csv", "finalists.png"
UNIFORM, COMPARED_PICTURE = "uniform.json", "accuracy.png"
"""The original at uniform widths, and all networks of a compression between latency and accuracy."""
PROGRESS = "progress.json"
"""State of a run that is under way, or was left unfinished; gone once it is finished."""
SCHEMA_VERSION = 1


def compressed_file(folder: Path) -> Path | None:
    """The .tflite that a compression's folder ends in: in the precisions that were chosen, where there are several.
    None where it is no such folder, or not finished."""
    if not (folder / WIDTHS).is_file():
        return None
    found = [folder / name for name in (NETWORK_MIXED, NETWORK) if (folder / name).is_file()]
    return found[0] if found else None


def save_weights(folder: Path, network: TorchGraph) -> None:
    """Writes weights.npz: plain arrays by the names of torch's state_dict. Raises OSError."""
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    with writing(folder / WEIGHTS, makes_folder=False) as part:
        np.savez(part, **arrays)


def load_weights(folder: Path, architecture: Architecture) -> TorchGraph:
    """The trained network of a run, in eval mode. Raises FormatError when weights.npz is missing, damaged, or of
    another architecture."""
    from netlathe.archspace.forms.torch import TorchGraph

    return load_state(folder, TorchGraph(architecture.graph()), architecture.name)


def load_state(folder: Path, network: TorchGraph, name: str) -> TorchGraph:
    """The network of that name with a run's trained weights, in eval mode. Raises FormatError when weights.npz is
    missing, damaged, or of another network."""
    import torch

    path = folder / WEIGHTS
    try:
        check_plain(path)
        check_zip(path, stored=True)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            state = {name: torch.from_numpy(file[name]) for name in file.files}
        network.load_state_dict(state)
    except NPZ_DAMAGE as error:
        reason = f"{(str(error) or repr(error)).splitlines()[0]:.200}"
        raise FormatError(f"{path}: not the weights of {name} ({reason}); search or train again") from error
    return network.eval()


def load_network(folder: Path) -> tuple[Architecture, TorchGraph]:
    """The network of a run, and it with its trained weights. Raises FormatError when a file is missing, damaged, or of
    another architecture."""
    if not folder.is_dir():
        raise FormatError(f"{folder}: there is no such run; `netlathe search --output` makes one")
    from netlathe.archspace.spaces import Architecture

    architecture = Architecture.load(folder / ARCHITECTURE)
    return architecture, load_weights(folder, architecture)


def load_report(folder: Path) -> dict[str, Any]:
    """Content of a finished run's report. Raises FormatError where the run is not finished, or the report damaged."""
    if not (folder / REPORT).is_file():
        raise FormatError(
            f"{folder}: holds no finished run, as there is no {REPORT}; `netlathe search --output` makes one"
        )
    report = read_json(folder / REPORT, "run", SCHEMA_VERSION)
    del report["schema"]
    return report


def find_runs(folder: Path) -> list[Path]:
    """The finished runs in a folder: itself, or those right below it, by name. Raises FormatError for none."""
    if (folder / REPORT).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{REPORT}")) if folder.is_dir() else []
    below = [run for run in found if not run.name.startswith(".")]
    if not below:
        raise FormatError(
            f"{folder}: neither this folder nor one right below it holds a finished run (with a {REPORT}); "
            "`netlathe search --output` makes one"
        )
    return below


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Whole or not at all, as all files of a run."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    write_whole(path, text.getvalue(), makes_folder=False)  # a run's that was moved is not made again
