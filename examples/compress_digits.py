"""A trained model of my own, made faster: channels are cut until it meets a latency, then it is trained further.

The model is a small network for scikit-learn's digits, the device this computer's CPU. From the root of a checkout:

    python -m examples.compress_digits             # some minutes
    python -m examples.compress_digits --quick     # a minute: few rounds and epochs, to see it run

Leaves a folder with the run and widths.png: how wide each layer was, and is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import netlathe as nl
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.torch import TorchGraph, folded_weights
from netlathe.training import train


def main(given: Sequence[str] | None = None) -> None:
    """Trains a model, learns this CPU, compresses, and tells what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/compress_digits", help="a folder; default runs/compress_digits")
    parser.add_argument("--share", type=float, default=0.6, help="of the model's own latency; default 0.6")
    parser.add_argument("--quick", action="store_true", help="few rounds and epochs")
    options = parser.parse_args(given)
    folder, quick = Path(options.output), options.quick
    folder.mkdir(parents=True, exist_ok=True)

    # 1. A trained model. Yours is a .onnx or .tflite file, or a torch module, already.
    images = nl.load_images("digits", (16, 16))
    space = nl.load_space("tiny", resolution=16)
    graph = space.architecture(space.reference).graph()
    module = TorchGraph(graph)
    train(module, images, nl.TrainConfig(epochs=4 if quick else 10))
    (folder / "model.onnx").write_bytes(write_onnx(graph, folded_weights(module)))

    # 2. A predictor of the device: its kernels, timed once, serve any network.
    nl.profile(
        folder / "cpu.sqlite", space="kernels", blocks=60 if quick else 150, networks=4, rounds=4 if quick else None
    )
    nl.fit(folder / "cpu.sqlite", folder / "cpu.json", residual="none" if quick else "auto")

    # 3. Compress. The device is at hand, so the stopwatch has the last word.
    (before,) = nl.time([folder / "model.onnx"], device="local", profile=folder / "cpu.sqlite").timed
    before_ms = before.latency_ms
    report = nl.compress(
        folder / "model.onnx",
        target=nl.Target(folder / "cpu.json", ms=options.share * before_ms),
        data=images,
        device="local",
        step=4,
        finalists=2 if quick else 8,
        training=nl.TrainConfig(epochs=1 if quick else 10, learning_rate=0.02),
        output=folder / "run",
    )

    # 4. What became of it.
    target = report.targets[0]
    print(
        f"{before_ms:.3g} ms measured before; now {target.measured_ms:.3g} ms measured, target {target.target_ms:.3g}"
    )
    if report.original_accuracy is None or report.untrained_accuracy is None:  # of a model that hardly beats guessing
        print("the model is too poor for its labels to be used: train it for longer")
    else:
        print(
            f"accuracy {report.original_accuracy:.1%} before, {report.untrained_accuracy:.1%} cut and refitted, ",
            end="",
        )
        print(f"{report.accuracy['tflite']:.1%} trained (of the .tflite)")
    print(f"look at {folder / 'run' / 'report.html'} and {folder / 'run' / 'widths.png'}")


if __name__ == "__main__":
    main()
