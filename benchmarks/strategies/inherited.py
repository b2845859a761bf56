"""A real cheap score: NAS-Bench-Macro's networks by the weights of a supernet that this machine has trained.

    python -m benchmarks.strategies.inherited runs/benchmarks/inherited.csv     # half an hour on a core

Supernet of a quarter of the channels at 16x16, trained on 8,000 images of CIFAR-10 for 3 + 9 epochs, as in
`benchmarks.search_regret real`. Columns: `arch` (8 digits), `accuracy` on validation images, 0 to 1, and the `seconds`
of that look. Rows come as they are made, the networks of fewest MACs first; the same command
goes on.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch: other runs share the cores

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.search_common import CIFAR10, Clock
from netlathe.archspace.presets import nas_bench_macro
from netlathe.search import CostTable, SearchConfig, Searcher
from netlathe.search.strategies.binarized.validation import make_validation_accuracy
from netlathe.training import Checkpointer, load_images
from netlathe.training.compute import Compute


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.strategies.inherited", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("output", type=Path, help="CSV; the supernet lies beside it, as .npz")
    parser.add_argument("--images", default=CIFAR10)
    parser.add_argument("--train-images", type=int, default=8_000, help="at most so many of each split")
    parser.add_argument("--look-images", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    space, seed = nas_bench_macro(16, 0.25), options.seed
    data = load_images(options.images, (16, 16), seed=seed, limit=options.train_images)
    config = SearchConfig(start_epochs=3, warmup_epochs=9, epochs=0, seed=seed)
    compute = Compute(device="cpu")
    checkpointer = Checkpointer(options.output.with_suffix(".npz"), {"seed": seed, "images": options.train_images})
    searcher = Searcher(space, data, [], config, compute=compute)
    if (state := checkpointer.load()) is not None:
        searcher.load_state_dict(state)
    searcher.run(checkpointer=checkpointer)
    rng = np.random.default_rng(seed)
    look = make_validation_accuracy(searcher.supernet, data.validation, options.look_images, compute, rng)
    if not options.output.exists():
        options.output.write_text("arch,accuracy,seconds\n")
    known = {line.partition(",")[0] for line in options.output.read_text().splitlines()[1:]}
    every = list(itertools.product(*map(range, space.option_counts)))
    macs = CostTable.of_blocks(nas_bench_macro(), lambda block: block.graph().macs, name="MACs")
    todo = [path for path in sorted(every, key=macs.cost) if _name(path) not in known]
    clock = Clock(len(todo))
    with options.output.open("a") as file:
        for done, path in enumerate(todo, 1):
            begun = time.monotonic()
            accuracy = look(path)
            file.write(f"{_name(path)},{accuracy:.5f},{time.monotonic() - begun:.4f}\n")
            file.flush()
            if done % 200 == 0:
                clock.tell(200, _name(path))


def _name(path: tuple[int, ...]) -> str:
    return "".join(map(str, path))


if __name__ == "__main__":
    main()
