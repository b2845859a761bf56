"""A run's folder: what a search leaves, and what export and re-runs start from."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from archspace.errors import FormatError
from archspace.jsonfile import write_json
from archspace.spaces import Architecture

if TYPE_CHECKING:
    from archspace.forms.torch import TorchGraph

ARCHITECTURE = "architecture.json"
WEIGHTS = "weights.npz"
NETWORK = "network.tflite"
SEARCH = "search.json"
HISTORY = "history.csv"
SCHEMA_VERSION = 1


def save_network(folder: Path, architecture: Architecture, network: TorchGraph) -> None:
    """architecture.json and weights.npz (plain arrays by the names of torch's state_dict)."""
    architecture.save(folder / ARCHITECTURE)
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    part = folder / f".{WEIGHTS}.part.npz"
    np.savez(part, **arrays)
    part.replace(folder / WEIGHTS)


def load_network(folder: Path) -> tuple[Architecture, TorchGraph]:
    """The trained network of a run, in eval mode. Raises FormatError when a file is missing, damaged, or of another
    architecture."""
    import torch

    from archspace.forms.torch import TorchGraph

    if not folder.is_dir():
        raise FormatError(f"{folder}: there is no such run; `netlathe search --output` makes one")
    architecture = Architecture.load(folder / ARCHITECTURE)
    path = folder / WEIGHTS
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            state = {name: torch.from_numpy(file[name]) for name in file.files}
        network = TorchGraph(architecture.graph())
        network.load_state_dict(state)
    except (OSError, EOFError, TypeError, ValueError, BadZipFile, RuntimeError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise FormatError(
            f"{path}: not the weights of {architecture.name} ({reason}); search or train again"
        ) from error
    return architecture, network.eval()


def forget_network(folder: Path) -> None:
    """Removes an earlier run's network: what a new search found must not stand beside it."""
    for name in (ARCHITECTURE, WEIGHTS, NETWORK):
        (folder / name).unlink(missing_ok=True)


def save_search(folder: Path, content: dict[str, Any]) -> None:
    """Everything about a search that is not weights."""
    write_json(folder / SEARCH, "search", SCHEMA_VERSION, content)


def write_csv(path: Path, rows: Sequence[Any]) -> None:
    """Dataclass instances of one kind, a line each."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(rows[0])])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
