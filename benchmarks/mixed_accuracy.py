"""Accuracy against milliseconds of float32, int8 everywhere and mixed plans, of a trained network on this CPU.

    netlathe profile --device local --space kernels --budget 300 --output float32.sqlite
    netlathe profile --device local --space kernels --budget 300 --dtype int8 --output int8.sqlite
    python -m benchmarks.mixed_accuracy float32.sqlite int8.sqlite --model FILE.onnx --data IMAGES

Widths stay. Each mixed plan is what compress chooses for a target between the network's time in int8 and in float32,
by rises of the loss that are measured on validation images; beside it stands the plan that would be chosen by the same
rises in reverse order. Accuracy is the file's own, in LiteRT, on the test images; all files are timed in the same
rounds. With `--unequal`, channels between linear layers are first multiplied by factors from 1 to so much, and weights
that read them divided: the network computes what it did, and has channels of unlike ranges, which is what int8 is known
to fail by (Nagel et al., arXiv:1906.04721, whose equalization is the way back).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.mixed_precision import borders
from netlathe.archspace.forms.tflite import tflite_ranges, write_tflite
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Add, Conv2d
from netlathe.archspace.profile_file import ProfileFile
from netlathe.compress import check_precisions, couple_channels
from netlathe.events import Listener
from netlathe.exporting import calibration, file_accuracy
from netlathe.predictor import LatencyPredictor
from netlathe.runs.compression.scored import ScorePhase
from netlathe.runs.compression.sensitivity import SensitivityPhase
from netlathe.runs.compression.settings import CompressSettings, read_original
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.search.exchanges import exchanged
from netlathe.search.successive import CostLimit, solve
from netlathe.targets import Target, make_goal
from netlathe.timing import time_networks
from netlathe.training import Compute, ImageData, load_images

Choices = tuple[int, ...]
SHARES = (0.05, 0.15, 0.3, 0.5)
"""Targets, in parts of the way from int8's time to float32's."""
LINEAR = (Conv2d, Add)


def unequal(graph: Graph, weights: Weights, most: float, seed: int) -> dict[str, dict[str, NDArray[np.float32]]]:
    """The weights of a network that computes the same, where channels between linear layers are multiplied by up to
    `most`."""
    rng, coupled = np.random.default_rng(seed), couple_channels(graph)
    scales = np.ones(len(coupled.group_of))
    for group, _ in enumerate(coupled.groups):
        units = np.flatnonzero(coupled.group_of == group)
        makers = [
            node for node, found in zip(graph.nodes, coupled.nodes, strict=True)
            if any(axis is not None and np.isin(axis, units).any() for axes in found.results for axis in axes)
        ]  # fmt: skip
        if all(isinstance(node.op, LINEAR) and getattr(node.op, "groups", 1) == 1 for node in makers):
            scales[units] = np.exp(rng.uniform(0, math.log(most), len(units)))
    changed = {name: {key: array.copy() for key, array in arrays.items()} for name, arrays in weights.items()}
    for node, found in zip(graph.nodes, coupled.nodes, strict=True):
        for key, axes in found.stored.items():
            for axis, units_along in enumerate(axes):
                if units_along is not None:
                    factors = scales[units_along] if axis == 0 else 1 / scales[units_along]
                    shape = [-1 if place == axis else 1 for place in range(len(axes))]
                    changed[node.name][key] *= factors.reshape(shape).astype(np.float32)
    return changed


def plans(settings: CompressSettings, place: Workplace) -> dict[str, Choices]:
    """Choices by what they are."""
    space = settings.space
    scored = ScorePhase(settings, place).output()
    sensitivity = SensitivityPhase(settings, place, scored).output()
    found = {"float32": space.reference, "int8": space.alike(1.0, 1)}
    scores = space.option_scores(scored.scores, sensitivity=sensitivity)
    reverse = scores.copy()
    reverse[:, 1] = _reversed(scores[:, 1])
    model = settings.goal.main.model
    slow, fast = (float(model.predict([space.graph(found[name])])[0]) for name in ("float32", "int8"))
    for share in SHARES:
        limit = CostLimit("latency", "ms", model, fast + share * (slow - fast))
        for name, by in (("mixed", scores), ("reverse", reverse)):
            solved = solve(space, by, [limit], found["int8"]).choices
            found[f"{name} {share:g}"] = exchanged(space, by, [limit], solved, space.neighbours)
    return found


def _reversed(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same scores, the best one in the worst one's place and so on."""
    order = np.argsort(scores)
    found = scores.copy()
    found[order] = scores[order[::-1]]
    return found


def report(settings: CompressSettings, chosen: Mapping[str, Choices], profile: Path, seed: int) -> None:
    """Prints a line for each plan."""
    space, data, original = settings.space, settings.data, settings.original
    assert data is not None
    ranges = tflite_ranges(original.graph, original.weights, calibration(data.train))
    different = {choices: name for name, choices in reversed([*chosen.items()])}
    graphs = {name: space.graph(choices) for choices, name in different.items()}
    files = {name: write_tflite(graph, original.weights, ranges=ranges) for name, graph in graphs.items()}
    for name, content in files.items():
        check_precisions(content, space.segments, space.plan(chosen[name]))
    models = {graphs[name].key: content for name, content in files.items()}
    timed = time_networks(graphs, models, profile, seed=seed, listener=Listener())
    print("  plan           in int8  borders     KB  predicted ms  measured ms  accuracy")
    with tempfile.TemporaryDirectory() as folder:
        for name in [one for one in chosen if one in graphs]:
            path = Path(folder) / "plan.tflite"
            path.write_bytes(files[name])
            accuracy = 100 * file_accuracy(path, data.test, threads=1)
            predicted = float(settings.goal.main.model.predict([graphs[name]])[0])
            count = f"{sum(chosen[name])}/{len(space.segments)}"
            print(
                f"  {name:14} {count:>7} {borders(graphs[name]):8} {len(files[name]) // 1000:6} {predicted:13.3f} "
                f"{timed[name].latency_ms:12.3f} {accuracy:8.2f} %",
                flush=True,
            )


def images(path: str, graph: Graph, limit: int | None, seed: int) -> ImageData:
    """The images in the network's size."""
    _, height, width, channels = graph.inputs[0]
    return load_images(path, (height, width), channels=channels, seed=seed, limit=limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("float32", type=Path, help="profile of kernels in float32")
    parser.add_argument("int8", type=Path, help="profile of kernels in int8")
    parser.add_argument("--model", required=True, help="trained network, .onnx or .tflite")
    parser.add_argument("--data", required=True, help="images of its task, as compress takes them")
    parser.add_argument("--unequal", type=float, default=1.0, help="most that a linear channel is multiplied by")
    parser.add_argument("--limit-images", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    float32, int8 = (LatencyPredictor().fit(ProfileFile(path).records()) for path in (options.float32, options.int8))
    original = read_original(options.model, None, None)
    if options.unequal > 1:
        changed = unequal(original.graph, original.weights, options.unequal, options.seed)
        original = dataclasses.replace(original, weights=changed)
    data = images(options.data, original.graph, options.limit_images, options.seed)
    goal = make_goal([Target(float32, 1e9, "here", (int8,))])
    settings = CompressSettings(
        original, goal, data, None, precisions=("float32", "int8"), least_share=1.0, seed=options.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(RunFolder(Path(folder) / "run"), Compute(threads=1), Listener())
        chosen = plans(settings, place)
    print(f"{original.name}, {len(settings.space.segments)} segments, unequal {options.unequal:g}")
    report(settings, chosen, options.float32, options.seed)


if __name__ == "__main__":
    main()
