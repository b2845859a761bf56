"""Order of networks by the rises of the loss that compress adds up, against the order of those that are measured.

    python -m benchmarks.sensitivity --model FILE.onnx --data IMAGES

Random networks are cut in widths, have blocks left out, or are in int8 in parts, and in each mixture of these. What
their decisions cost one by one is measured on validation images (sensitivity.json of a compression) and summed; the
rise of the cross-entropy against labels that they have as a whole is measured on test images. Nothing is trained.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from netlathe.archspace.graph import Graph
from netlathe.compress import JointSpace
from netlathe.events import Listener
from netlathe.runs.compression.scored import ScorePhase
from netlathe.runs.compression.sensitivity import SensitivityPhase
from netlathe.runs.compression.settings import CompressSettings, read_original
from netlathe.runs.compression.shaped import FinalistLoss
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.targets import Target, make_goal
from netlathe.training import Compute, load_images

Choices = tuple[int, ...]
KINDS = ("widths", "blocks", "precisions", "widths+blocks", "widths+precisions", "blocks+precisions", "all")


class Macs:
    """A latency model that nothing is limited by."""

    def predict(self, graphs: Sequence[Graph], /) -> Any:
        return np.array([1 + graph.macs for graph in graphs], float)


def draw(space: JointSpace, kind: str, rng: np.random.Generator) -> Choices:
    """A random network of that kind."""
    choices = list(space.reference)
    groups = len(space.groups)
    if kind.startswith("widths") or kind == "all":
        kept = 1 - (1 - rng.uniform(0.6, 0.97)) * rng.uniform(0, 2, groups)
        for place, (widths, part) in enumerate(zip(space.widths, kept, strict=True)):
            choices[place] = int(np.abs(np.array(widths) / widths[0] - part).argmin())
    if ("blocks" in kind or kind == "all") and space.blocks:
        count = int(rng.integers(1, max(2, len(space.blocks) // 2 + 1)))
        for block in rng.choice(len(space.blocks), count, replace=False):
            choices[groups + int(block)] = 1
    if "precisions" in kind or kind == "all":
        share = rng.uniform(0.1, 1)
        for place in range(space.shape_decisions, len(choices)):
            choices[place] = int(rng.random() < share)
    return tuple(choices)


def measure(settings: CompressSettings, place: Workplace, count: int, seed: int) -> None:
    """Prints the rank correlation of expected and measured rises, of all networks and of each kind."""
    space, data, rng = settings.space, settings.data, np.random.default_rng(seed)
    assert data is not None
    scored = ScorePhase(settings, place).output()
    sensitivity = SensitivityPhase(settings, place, scored).output()
    scores = space.option_scores(scored.scores, sensitivity=sensitivity)
    tested = dataclasses.replace(settings, data=dataclasses.replace(data, validation=data.test))
    loss = FinalistLoss(tested, place, scored)
    least = loss(space.reference).loss
    rows = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        choices = draw(space, kind, rng)
        expected = -float(scores[np.arange(len(choices)), list(choices)].sum())
        rows.append((kind, expected, loss(choices).loss - least))
    for name in ("all networks", *KINDS):
        some = np.array([row[1:] for row in rows if name in ("all networks", row[0])])
        ratio = float(np.median(some[:, 1] / some[:, 0]))
        print(
            f"{name:18} {len(some):4} networks: Spearman {spearmanr(*some.T)[0]:.2f}, measured / expected {ratio:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="trained network, .onnx or .tflite")
    parser.add_argument("--data", required=True, help="images of its task, as compress takes them")
    parser.add_argument("--networks", type=int, default=70)
    parser.add_argument("--limit-images", type=int)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    original = read_original(options.model, None, None)
    _, height, width, channels = original.graph.inputs[0]
    data = load_images(options.data, (height, width), channels=channels, limit=options.limit_images)
    goal = make_goal([Target(Macs(), 1e15, "macs")])
    settings = CompressSettings(original, goal, data, None, precisions=("float32", "int8"), leave_out=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(RunFolder(Path(folder) / "run"), Compute(threads=1), Listener())
        measure(settings, place, options.networks, options.seed)


if __name__ == "__main__":
    main()
