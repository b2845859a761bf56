"""70 real networks on a Pixel 4 (data/latency), each family predicted by the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.any_model import ways
from benchmarks.any_model.families import FloatArray, Held, leave_families_out, show
from netlathe.archspace.records import Setup
from netlathe.cli.console import Terminal
from netlathe.predictor import LatencyPredictor
from scripts import latency_tables as tables

_SETUPS = {"float 1large": "CPU, float32", "quant 1large": "CPU, int8", "float gpu": "GPU"}
_GPU = "gpu"


def report(terminal: Terminal) -> None:
    """Tables of each runtime's errors; on the GPU, the kernels of the other families' networks are known, too."""
    table, kernels = tables.pixel4_networks(), tables.pixel4_gpu_kernels()
    for setup, words in _SETUPS.items():
        measured = table.latency_ms[setup].dropna()
        names = [str(name) for name in measured.index]
        items = [table.pieces[name] for name in names]
        measured_ms = measured.to_numpy(dtype=float)
        macs = np.array([sum(piece.macs for piece in item) for item in items], dtype=float)
        known = kernels if setup.endswith(_GPU) else None
        held: dict[str, Held] = {
            "netlathe": _netlathe(items, measured_ms, names, known),
            "FLOPs": ways.ratio(macs, measured_ms),
        }
        terminal.say(f"Pixel 4, {words}")
        show({name: leave_families_out(names, one) for name, one in held.items()}, names, measured_ms, terminal)


def _netlathe(items: list[Any], measured_ms: FloatArray, names: list[str], kernels: tables.Blocks | None) -> Held:
    def predict(train: NDArray[np.intp], test: NDArray[np.intp]) -> FloatArray:
        given, given_ms = [items[i] for i in train], measured_ms[train]
        if kernels is not None:
            rows = np.flatnonzero(kernels.frame.model.isin([names[i] for i in train]).to_numpy())
            given = [*(kernels.graphs[i] for i in rows), *given]
            given_ms = np.concatenate([kernels.frame.latency_ms.to_numpy()[rows], given_ms])
        model = LatencyPredictor().fit(given, given_ms, setup=_setup("gpu" if kernels is not None else "xnnpack"))
        found = np.full((3, len(test)), np.nan)
        priced = np.flatnonzero(model.knows([items[i] for i in test]))
        asked = [items[test[place]] for place in priced]
        if asked:
            found[:, priced] = [model.predict(asked), *model.predict_interval(asked)]
        return found

    return predict


def _setup(delegate: str) -> Setup:
    return Setup("Pixel 4", "unknown", "Android", "tflite", "2.10", delegate)
