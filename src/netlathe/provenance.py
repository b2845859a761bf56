"""Provenance of a result: the command that made it, and the versions of what it ran with."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from netlathe.words import without_passwords

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


def provenance(command: str) -> dict[str, Any]:
    """The command, '' for a call from Python, without passwords in addresses; versions, and the system; for JSON."""
    return {
        "command": without_passwords(command),
        "netlathe": version("netlathe"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def now() -> str:
    """The time, to the second, as records keep it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
