"""Small records that a run leaves for whoever looks at it later: what each layer costs on every device, and by which
versions and command it was made."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.jsonfile import write_json
from netlathe.kernel_costs import breakdown_of
from netlathe.runs.files import COSTS, MADE, SCHEMA_VERSION
from netlathe.subjects import find_subject
from netlathe.words import without_passwords

if TYPE_CHECKING:
    from netlathe.runs.judges import NamedNetwork
    from netlathe.targets import DeviceTarget

_PACKAGES = (
    "torch",
    "ai-edge-litert",
    "onnx",
    "onnxruntime",
    "numpy",
    "scipy",
    "scikit-learn",
    "xgboost-cpu",
    "xgboost",
    "optuna",
)


def write_costs(
    networks: Mapping[str, NamedNetwork], targets: Sequence[DeviceTarget], folder: Path, *, advises: bool = True
) -> None:
    """Writes costs.json: each network (by what it is: 'before', 'after') on each target's device, kernel by kernel and
    stage by stage, with advice where it `advises`. Raises OSError."""
    devices = []
    for target in targets:
        batch = target.model.setup_.batch
        found = {}
        for label, network in networks.items():
            subject = find_subject(_whole(network, batch), batch=batch)
            shapes = {"input_shape": subject.graph.inputs[0], "output_shape": subject.graph.output_shape}
            found[label] = {**breakdown_of(subject, target.model, advises=advises).to_json(), **shapes}
        devices.append({"device": target.name, "setup": str(target.model.setup_), "networks": found})
    write_json(folder / COSTS, "costs", SCHEMA_VERSION, {"devices": devices})


def _whole(network: NamedNetwork, batch: int) -> Any:
    """An architecture, whose blocks have names, or the graph of anything else."""
    from netlathe.archspace.spaces import Architecture

    return network if isinstance(network, Architecture) else network.graph(batch)


def write_made(folder: Path, command: str) -> None:
    """Writes made.json: when, by which versions, on which system, and by which command; passwords in addresses are left
    out. Raises OSError."""
    content = {
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_passwords(command),
        "netlathe": version("netlathe"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }
    write_json(folder / MADE, "made", SCHEMA_VERSION, content)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
