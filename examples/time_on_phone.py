"""How fast is my model on my phone, and where does the time go? Timed there, drawn here.

From the root of a checkout, a minute on a phone:

    python -m examples.time_on_phone my_model.tflite --device usb
    python -m examples.time_on_phone mobilenet_v2 --device local --quick     # this computer's CPU, seconds

Writes kernels.png: the kernels that take the most time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from matplotlib.figure import Figure

import netlathe as nl

MOST = 15
"""Kernels that are drawn."""


def main(given: Sequence[str] | None = None) -> None:
    """Times a model, tells the result, and draws its kernels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .tflite or .onnx file, or a network's name")
    parser.add_argument("--device", default="usb", help="as `netlathe devices` lists it; default usb")
    parser.add_argument("--benchmark-binary", help="a benchmark_model of your own, for phones")
    parser.add_argument("--output", default="kernels.png", help="the picture; default kernels.png")
    parser.add_argument("--quick", action="store_true", help="for at most two seconds")
    options = parser.parse_args(given)

    # One call: it opens the device, times in short rounds until they agree, and puts a phone back as it was.
    report = nl.time(
        options.model,
        device=options.device,
        benchmark_binary=options.benchmark_binary,
        op_profile=True,
        budget_s=2.0 if options.quick else 30.0,
    )
    for warning in report.warnings:
        print(f"warning: {warning}")
    (timed,) = report.timed
    assert timed.measurement  # else nl.time would have raised
    print(f"{timed.name} on {timed.setup}")
    interval_ms = timed.measurement.interval_ms  # None below three rounds
    ends = f", 90 % interval {interval_ms[0]:.2f} to {interval_ms[1]:.2f} ms" if interval_ms else ""
    print(f"{timed.latency_ms:.2f} ms{ends}, {len(timed.measurement.rounds)} rounds")

    kernels = sorted(timed.observation.op_times if timed.observation else (), key=lambda one: one.mean_ms)[-MOST:]
    figure = Figure(figsize=(8, 0.6 + 0.3 * max(1, len(kernels))), layout="constrained")
    axes = figure.subplots()
    axes.barh([f"{one.node_type}  {one.name[-40:]}" for one in kernels], [one.mean_ms for one in kernels])
    axes.set_xlabel("ms per call")
    axes.set_title(f"{timed.name}: {timed.latency_ms:.2f} ms", loc="left")
    figure.savefig(options.output, dpi=120)
    print(f"the {len(kernels)} largest kernels: {options.output}")


if __name__ == "__main__":
    main()
