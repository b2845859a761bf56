"""Latencies of networks on a phone that is not here, predicted by a predictor that ships.

From the root of a checkout, seconds:

    python -m examples.predict_networks
    python -m examples.predict_networks my_model.onnx mobilenet_v2 --predictor pixel4-gpu
    python -m examples.predict_networks timm:mobilenetv3_small_100 torchvision:resnet18 --unknown price

Writes predicted.png: each latency with its 90 % interval. `timm:` and `torchvision:` names need these packages, and
the extra torch-models.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from matplotlib.figure import Figure

import netlathe as nl
from netlathe.predicted import PredictReport

USUAL = ("mobilenet_v2", "mobilenet_v2_0.5", "mnasnet_b1", "proxyless_mobile", "proxyless_cpu", "proxyless_gpu")


def main(given: Sequence[str] | None = None) -> None:
    """Predicts networks, tells what was refused and why, and draws the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=USUAL, help="names, .onnx and .tflite files, folders of them")
    parser.add_argument("--predictor", default="pixel4-cpu-networks", help="one that ships, or a file of yours")
    parser.add_argument(
        "--unknown", choices=("refuse", "price"), default="refuse", help="ops that nothing measured had"
    )
    parser.add_argument("--output", default="predicted.png", help="the picture; default predicted.png")
    options = parser.parse_args(given)

    # One call for all of them. With on_error="keep", what cannot be priced is a line with the reason, not the end.
    found = nl.predict(list(options.networks), options.predictor, on_error="keep", unknown=options.unknown)
    priced = [one for one in found if isinstance(one, PredictReport)]
    for one in found:
        if isinstance(one, PredictReport):
            print(f"{one.name:24} {one.latency_ms:7.2f} ms  ({one.low_ms:.2f} to {one.high_ms:.2f})")
            for warning in one.warnings:
                print(f"{'':24} {warning}")
        else:
            print(f"{one.name:24} refused: {one.error}")
    if not priced:
        raise SystemExit("nothing could be priced")

    priced.sort(key=lambda one: -one.latency_ms)
    figure = Figure(figsize=(7, 0.9 + 0.35 * len(priced)), layout="constrained")
    axes = figure.subplots()
    latencies = [one.latency_ms for one in priced]
    ends = [[one.latency_ms - one.low_ms for one in priced], [one.high_ms - one.latency_ms for one in priced]]
    axes.errorbar(latencies, range(len(priced)), xerr=ends, fmt="o", capsize=3)
    axes.set_yticks(range(len(priced)), [one.name for one in priced])
    axes.set_xlim(left=0)
    axes.set_xlabel(f"predicted ms, with 90 % intervals ({options.predictor})")
    figure.savefig(options.output, dpi=120)
    print(f"drawn: {options.output}")


if __name__ == "__main__":
    main()
