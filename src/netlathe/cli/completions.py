"""Names of options and arguments, as a shell completes them. Files are the shell's own business: it offers them
where no name begins like the word."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args, get_origin

DEVICES = ("local", "onnxruntime", "cuda", "usb")


def shipped(folder: str) -> list[str]:
    """The names of the predictors, or priors, that ship."""
    from netlathe.archspace.resources import data_files

    return [path.stem for path in data_files(folder, ".json")]


def _networks() -> Sequence[str]:
    from netlathe.archspace.networks import NETWORKS

    return list(NETWORKS)


def _spaces() -> Sequence[str]:
    from netlathe.archspace.presets import PRESETS

    return list(PRESETS)


def _strategies() -> Sequence[str]:
    from netlathe.search.strategies.blackbox.names import STRATEGIES

    return list(STRATEGIES)


def _recipes() -> Sequence[str]:
    from netlathe.training.recipe_names import RECIPE_NAMES

    return RECIPE_NAMES


NAMES: dict[tuple[str, str], Callable[[], Sequence[str]]] = {
    ("", "predictor"): lambda: shipped("predictors"),
    ("predictors", "name"): lambda: shipped("predictors"),
    ("report", "what"): lambda: shipped("predictors"),
    ("", "what"): _networks,
    ("compare", "networks"): _networks,
    ("", "model"): _networks,
    ("", "space"): _spaces,
    ("profile", "space"): lambda: [*_spaces(), "kernels"],
    ("search", "strategy"): lambda: ["binarized", *_strategies()],
    ("compress", "strategy"): lambda: ["integer-program", "uniform", "netadapt", *_strategies()],
    ("", "device"): lambda: DEVICES,
    ("profile", "device"): lambda: [*DEVICES, "all"],
    ("", "recipe"): _recipes,
    ("recipes", "name"): _recipes,
    ("", "data"): lambda: ["digits"],
    ("", "track"): lambda: ["mlflow", "wandb"],
}
"""Known names, by command ('' for any) and parameter."""


def asked_for() -> str | None:
    """The command whose words a shell completes now; '' where it is the command's name, None where no shell asks."""
    if "_NETLATHE_COMPLETE" not in os.environ:
        return None
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    found = re.match(r"\s*\S+\s+(\S+)\s", words)
    return found[1] if found else ""


def completed(signature: inspect.Signature, command: str) -> inspect.Signature:
    """The same with names to be offered for the parameters that have some."""
    for name, parameter in signature.parameters.items():
        names = NAMES.get((command, name)) or NAMES.get(("", name))
        if names and get_origin(parameter.annotation) is Annotated:
            _, info, *_ = get_args(parameter.annotation)
            info.autocompletion = _beginning_of(names)
    return signature


def _beginning_of(names: Callable[[], Sequence[str]]) -> Any:
    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete
