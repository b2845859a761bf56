"""Predicts published networks that were never profiled, then times them: how far does a block profile carry?

    python -m benchmarks.published_networks [--device local] [--output FOLDER]

Profiles the space `proxyless` (its 70 distinct blocks and 12 of its networks) on this machine, fits, predicts seven
published networks at 224x224, and times those in the same profile file. Beside it, what FLOPs alone would say: MACs
times the milliseconds per MAC of MobileNetV2.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from netlathe import fitting, stages
from netlathe.archspace.networks import network
from netlathe.archspace.presets import proxyless
from netlathe.cli.console import Terminal
from netlathe.cli.fit import show_fit
from netlathe.cli.profile import show_summary
from netlathe.profiler import Plan, WorkItem, open_device
from netlathe.words import milliseconds, percent

NAMES = (
    "mobilenet_v2", "mobilenet_v2_0.5", "mobilenet_v2_1.4", "mnasnet_b1",
    "proxyless_mobile", "proxyless_cpu", "proxyless_gpu",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="local")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    terminal = Terminal()
    folder = arguments.output or Path(tempfile.mkdtemp())
    networks = {name: network(name) for name in NAMES}
    with open_device(arguments.device) as device:
        items = stages.work_items(proxyless(), networks=12, batch=device.setup.batch, seed=0)
        summary = stages.campaign_with_listener(device, items, folder / "p.sqlite", Plan(), seed=0, listener=terminal)
        show_summary(summary, terminal)
        fitted = fitting.fit(folder / "p.sqlite", folder / "m.json")
        show_fit(fitted, terminal)
        graphs = {name: a.graph(device.setup.batch) for name, a in networks.items()}
        predicted = dict(zip(graphs, fitted.predictor.predict(list(graphs.values())), strict=True))
        judged = [WorkItem(name, "network", graph) for name, graph in graphs.items()]
        judge = stages.campaign_with_listener(device, judged, folder / "p.sqlite", Plan(), seed=1, listener=terminal)
    measured = {r.name: r.latency_ms for r in judge.records}
    ms_per_mac = measured["mobilenet_v2"] / networks["mobilenet_v2"].macs
    rows, errors, flop_errors = [], [], []
    for name, architecture in networks.items():
        errors.append(abs(predicted[name] / measured[name] - 1))
        by_flops = ms_per_mac * architecture.macs
        flop_errors.append(abs(by_flops / measured[name] - 1))
        off, flops_off = (f"{100 * (guess / measured[name] - 1):+.1f} %" for guess in (predicted[name], by_flops))
        macs = f"{architecture.macs / 1e6:.0f} M"
        rows.append((name, macs, milliseconds(measured[name]), milliseconds(predicted[name]), off, flops_off))
    terminal.table(("never profiled", "MACs", "measured ms", "predicted ms", "off by", "FLOPs off by"), rows)
    mean, by_flops = sum(errors) / len(errors), sum(flop_errors[1:]) / (len(flop_errors) - 1)
    terminal.say(f"Mean error {percent(mean)}; by FLOPs, the first being its yardstick, {percent(by_flops)}.")


if __name__ == "__main__":
    main()
