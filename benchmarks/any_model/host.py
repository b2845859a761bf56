"""Networks on a device at hand, from a profile of its kernels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.any_model import ways
from benchmarks.any_model.families import FloatArray, Held, leave_families_out, show
from benchmarks.any_model.reading import read_folder
from netlathe import stages
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import fusion_of, is_kernel
from netlathe.archspace.networks import network
from netlathe.archspace.presets import nas_bench_macro, proxyless, tiny
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import LatencyRecord
from netlathe.archspace.sampled_networks import sample_networks
from netlathe.cli.console import Terminal
from netlathe.predictor import LatencyPredictor
from netlathe.profiler import Plan, WorkItem, open_device
from netlathe.profiler.devices import DeviceOptions
from netlathe.profiling import profile

PUBLISHED = (
    "mobilenet_v2", "mobilenet_v2_0.5", "mobilenet_v2_1.4", "mobilenet_v2_0.75_160", "mnasnet_b1", "proxyless_mobile",
    "proxyless_cpu", "proxyless_gpu",
)  # fmt: skip
OF_EACH_SPACE, SAMPLED = 4, 12
BUDGET_S = 180


def report(options: argparse.Namespace, folder: Path, terminal: Terminal) -> None:
    """Profiles kernels, times networks, and tells how far the predictions are off."""
    path = folder / f"{options.device.partition(':')[0]}_{options.dtype or 'float32'}.sqlite"
    device_options = DeviceOptions(dtype=options.dtype)
    if not path.exists():  # what was profiled stays
        found = profile(
            path, space="kernels", device=options.device, options=device_options, blocks=options.kernels, networks=0,
            budget_s=BUDGET_S, seed=options.seed, progress=terminal,
        ).devices[0].summary  # fmt: skip
        terminal.say(f"{len(found.records)} kernels in {found.wall_s:.0f} s")
    with open_device(options.device, device_options) as device:
        items = [WorkItem(name, "network", graph) for name, graph in _networks(options, device.setup.batch, terminal)]
        timed = stages.campaign_with_listener(device, items, path, Plan(), seed=options.seed, listener=terminal)
        fusion = fusion_of(device.setup)
    with ProfileFile(path) as file:
        blocks = [r for r in file.records(timed.setup) if r.kind == "block" and r.measurement]
    judge([r for r in blocks if is_kernel(r.graph, fusion)], list(timed.records), options.seed, terminal)


def judge(kernels: Sequence[LatencyRecord], networks: Sequence[LatencyRecord], seed: int, terminal: Terminal) -> None:
    """Tables of the errors on networks whose families are left out."""
    fusion = fusion_of(kernels[0].setup)
    model = LatencyPredictor(random_state=seed).fit(list(kernels))
    known = model.knows([r.graph for r in networks])
    for record, is_known in zip(networks, known, strict=True):
        if not is_known:
            terminal.say(f"not priced: {record.name} ({', '.join(model.unknown_ops([record.graph])[0])})")
    networks = [record for record, is_known in zip(networks, known, strict=True) if is_known]
    graphs, names = [r.graph for r in networks], [r.name for r in networks]
    measured_ms = np.array([r.latency_ms for r in networks])
    single, single_ms = [r.graph for r in kernels], np.array([r.latency_ms for r in kernels])
    plain = {
        "a forest per kernel": ways.by_forests(graphs, single, single_ms, fusion, seed),
        "FLOPs": ways.by_macs(graphs),
        "roofline": ways.by_roofline(graphs, single, single_ms, fusion),
    }
    held = {"netlathe": _netlathe(model, networks)}
    held |= {name: ways.ratio(sums, measured_ms) for name, sums in plain.items()}
    judged = {name: leave_families_out(names, one) for name, one in held.items()}
    show(judged, names, measured_ms, terminal)


def _netlathe(model: LatencyPredictor, networks: Sequence[LatencyRecord]) -> Held:
    """The kernels' model, with what other networks tell of networks."""
    blocks_model = model.model_
    graphs: list[Graph] = [r.graph for r in networks]
    measured_ms = np.array([r.latency_ms for r in networks])
    errors = np.array([r.measurement.relative_error if r.measurement else 0.0 for r in networks])

    def predict(train: NDArray[np.intp], test: NDArray[np.intp]) -> FloatArray:
        fitted = blocks_model.with_networks([graphs[i] for i in train], measured_ms[train], errors[train])  # type: ignore[attr-defined]
        return np.array(fitted.predict_interval([graphs[i] for i in test], 0.9))

    return predict


def _networks(options: argparse.Namespace, batch: int, terminal: Terminal) -> list[tuple[str, Graph]]:
    found = [(name, network(name).graph(batch)) for name in PUBLISHED]
    for space in (proxyless(), tiny(), nas_bench_macro()):
        found += [(one.name, one.graph(batch)) for one in space.sample_over_macs(OF_EACH_SPACE, options.seed)]
    found += [(one.name, one.graph(batch)) for one in sample_networks(SAMPLED, options.seed)]
    if options.models:
        read, refused = read_folder(options.models)
        terminal.say(f"{len(read)} of {len(read) + len(refused)} files in {options.models} are read")
        found += [(name, graph) for name, graph in read.items() if graph.macs <= options.most_macs and graph.macs]
    return [(name, graph) for name, graph in found if graph.batch == batch and graph.is_network]
