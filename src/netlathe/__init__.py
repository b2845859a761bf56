"""Shapes convolutional networks to the hardware they will run on: profile, predict latency, search.

What the command `netlathe` does, a function here does: typed arguments in, a frozen report out, nothing printed.

    import netlathe as nl

    nl.profile("my_cpu.sqlite", space="tiny")
    nl.fit("my_cpu.sqlite", "my_cpu.json")
    print(nl.predict("mobilenet_v2", "pixel4-cpu-networks").latency_ms)
    report = nl.search("tiny", "digits", target=nl.Target("my_cpu.json", ms=0.3), device="local", output="runs/mine")

The parts are packages of their own: netlathe.archspace, netlathe.profiler, netlathe.predictor, netlathe.training,
netlathe.search. `netlathe.search` itself is the function; its package is imported from (`from netlathe.search import`).
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netlathe.archspace.errors import FormatError as FormatError
    from netlathe.archspace.errors import NetlatheError as NetlatheError
    from netlathe.archspace.errors import RecordError as RecordError
    from netlathe.archspace.errors import SpaceError as SpaceError
    from netlathe.archspace.networks import network as network
    from netlathe.archspace.presets import load_space as load_space
    from netlathe.archspace.spaces import Architecture as Architecture
    from netlathe.archspace.spaces import SearchSpace as SearchSpace
    from netlathe.checking import check as check
    from netlathe.compress.errors import CompressError as CompressError
    from netlathe.events import Listener as Listener
    from netlathe.exporting import export as export
    from netlathe.finding import devices as devices
    from netlathe.fitting import fit as fit
    from netlathe.hardware import compare as compare
    from netlathe.kernel_costs import breakdown as breakdown
    from netlathe.outputs import OutputError as OutputError
    from netlathe.pareto_front import pareto as pareto
    from netlathe.predictor.errors import PredictorError as PredictorError
    from netlathe.predictor.errors import UnknownOpError as UnknownOpError
    from netlathe.predictor.predictor import LatencyPredictor as LatencyPredictor
    from netlathe.predictor.transfer.prior import Prior as Prior
    from netlathe.pricing import predict as predict
    from netlathe.profiler.devices import DeviceOptions as DeviceOptions
    from netlathe.profiler.errors import DeviceError as DeviceError
    from netlathe.profiler.errors import ProfilerError as ProfilerError
    from netlathe.profiler.phone.holding import clean_phone as clean_phone
    from netlathe.profiling import forecast as forecast
    from netlathe.profiling import profile as profile
    from netlathe.reading import read as read
    from netlathe.reading import read_weights as read_weights
    from netlathe.report.watching import watch as watch
    from netlathe.report.writing import report as report
    from netlathe.runs.compression.pipeline import compress as compress
    from netlathe.runs.pipeline import join_search as join_search
    from netlathe.runs.pipeline import search as search
    from netlathe.runs.scores import ScoreTable as ScoreTable
    from netlathe.search.errors import SearchError as SearchError
    from netlathe.search.errors import TargetError as TargetError
    from netlathe.search.strategies.binarized.settings import SearchConfig as SearchConfig
    from netlathe.showing import show as show
    from netlathe.targets import Limit as Limit
    from netlathe.targets import Target as Target
    from netlathe.timing import time as time
    from netlathe.tracking import MLflow as MLflow
    from netlathe.tracking import WeightsAndBiases as WeightsAndBiases
    from netlathe.training.compute import Compute as Compute
    from netlathe.training.errors import DataError as DataError
    from netlathe.training.errors import TrainingError as TrainingError
    from netlathe.training.loop import TrainConfig as TrainConfig
    from netlathe.training.recipes import training_recipe as training_recipe
    from netlathe.training.sources import load_images as load_images

    __version__: str

_HOMES = {
    # what the command does
    "devices": "finding",
    "clean_phone": "profiler.phone.holding",
    "profile": "profiling",
    "forecast": "profiling",
    "fit": "fitting",
    "predict": "pricing",
    "show": "showing",
    "breakdown": "kernel_costs",
    "time": "timing",
    "search": "runs.pipeline",
    "join_search": "runs.pipeline",
    "compress": "runs.compression.pipeline",
    "export": "exporting",
    "check": "checking",
    "compare": "hardware",
    "pareto": "pareto_front",
    "report": "report.writing",
    "watch": "report.watching",
    # what is given to it
    "read": "reading",
    "read_weights": "reading",
    "load_space": "archspace.presets",
    "load_images": "training.sources",
    "network": "archspace.networks",
    "SearchSpace": "archspace.spaces",
    "Architecture": "archspace.spaces",
    "DeviceOptions": "profiler.devices",
    "LatencyPredictor": "predictor.predictor",
    "Prior": "predictor.transfer.prior",
    "Target": "targets",
    "Limit": "targets",
    "ScoreTable": "runs.scores",
    "SearchConfig": "search.strategies.binarized.settings",
    "TrainConfig": "training.loop",
    "training_recipe": "training.recipes",
    "Compute": "training.compute",
    "Listener": "events",
    "MLflow": "tracking",
    "WeightsAndBiases": "tracking",
    # what goes wrong
    "NetlatheError": "archspace.errors",
    "FormatError": "archspace.errors",
    "RecordError": "archspace.errors",
    "SpaceError": "archspace.errors",
    "OutputError": "outputs",
    "DeviceError": "profiler.errors",
    "ProfilerError": "profiler.errors",
    "PredictorError": "predictor.errors",
    "UnknownOpError": "predictor.errors",
    "DataError": "training.errors",
    "TrainingError": "training.errors",
    "CompressError": "compress.errors",
    "SearchError": "search.errors",
    "TargetError": "search.errors",
}
"""Public names, and the module of each."""

__all__ = [*_HOMES, "__version__"]  # one table


class _Package(ModuleType):
    """Python binds a subpackage to its name once it is imported; public names keep theirs."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    """Imports on first use, so that nothing is loaded that is not needed."""
    if name == "__version__":
        from importlib.metadata import version

        return version("netlathe")
    if name not in _HOMES:
        raise AttributeError(f"module 'netlathe' has no attribute {name!r}")
    found = getattr(import_module(f"netlathe.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


sys.modules[__name__].__class__ = _Package
