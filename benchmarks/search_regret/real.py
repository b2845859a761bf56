"""The whole differentiable search, trained on CIFAR-10: one warm supernet per seed, from which every method and target
goes on with the same budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.search_common import Clock, Results
from benchmarks.search_regret.truth import OURS, SHARES, Method, Truth, methods
from netlathe.archspace.presets import nas_bench_macro
from netlathe.search import SearchConfig, Searcher, decode
from netlathe.training import load_images
from netlathe.training.compute import Compute

METHODS = (OURS, "mul#log", "add#linear", "soft penalty")


@dataclass(frozen=True)
class RealConfig:
    """Settings that all seeds share."""

    images: str
    train_images: int
    width: float
    resolution: int
    device: str
    start_epochs: int
    warmup_epochs: int
    epochs: int
    batch_size: int
    alpha_learning_rate: float
    looks: int
    look_images: int

    @property
    def warm_images(self) -> float:
        """Work for a warm supernet, in images of a weight step."""
        return self.train_images * (self.start_epochs + self.warmup_epochs)

    @property
    def search_images(self) -> float:
        """Work of one search from there, in the same unit: an architecture step takes about 1.5 times as long as a
        weight step, a forward pass a third."""
        return self.train_images * 2.5 * self.epochs + self.looks * self.look_images / 3

    def search(self, seed: int) -> SearchConfig:
        return SearchConfig(
            start_epochs=self.start_epochs, warmup_epochs=self.warmup_epochs, epochs=self.epochs,
            batch_size=self.batch_size, alpha_learning_rate=self.alpha_learning_rate,
            finalists=self.looks, finalist_images=self.look_images, seed=seed,
        )  # fmt: skip


def chosen_methods(names: Sequence[str]) -> list[Method]:
    return [method for method in methods() if method.name in names]


def run_seed(truth: Truth, config: RealConfig, names: Sequence[str], seed: int, folder: Path, settings: dict[str, Any],
             threads: int) -> None:  # fmt: skip
    """All methods and targets from one warm supernet; rows go to folder/seed-N.json as they come, and those that are
    there are not made again."""
    torch.set_num_threads(threads)
    results = Results(folder / f"seed-{seed}.json", "search-regret", settings)
    todo = [(m, s) for s in SHARES for m in chosen_methods(names) if f"{m.name} {s}" not in results]
    if not todo:
        return
    space = nas_bench_macro(config.resolution, config.width)
    size = (config.resolution, config.resolution)
    data = load_images(config.images, size, seed=seed, limit=config.train_images)
    first = todo[0][0].constraint(truth.table, truth.limit_ms(SHARES[0]))
    clock = Clock(config.warm_images + config.search_images * len(todo))
    compute = Compute(device=config.device)
    warm = Searcher(space, data, [first], config.search(seed), compute=compute).run(until="warm")
    seen = f"{warm.history[-1].accuracy:.0%}" if warm.history else "-"
    clock.tell(config.warm_images, f"seed {seed}: supernet is warm, accuracy {seen}")
    for method, share in todo:
        begun = time.monotonic()
        limit_ms = truth.limit_ms(share)
        one = warm.retarget([method.constraint(truth.table, limit_ms)], objective=method.objective()).run()
        result = one.result()
        decoded = decode(result.log_probabilities.numpy(), one.constraints)
        picks = {"argmax": one.parameters.likeliest(), "decode": decoded, "looks": result.path}
        judged = {pick: truth.judge(path, limit_ms) for pick, path in picks.items()}
        last = one.history[-1]
        row = {"method": method.name, "share": share, "seed": seed, **judged, "seconds": time.monotonic() - begun,
               "entropy": last.entropy, "accuracy": last.accuracy, "expected": last.expected[0] / method.unit,
               "probabilities": result.log_probabilities.exp().tolist()}  # fmt: skip
        results.put(f"{method.name} {share}", row)
        told = ", ".join(f"{pick} {a['regret']:.2f} at {a['ratio']:.3f}" for pick, a in judged.items())
        clock.tell(config.search_images, f"seed {seed}: {method.name} at {share:.0%}: {told}")


def run_real(
    truth: Truth, config: RealConfig, names: Sequence[str], seeds: Sequence[int], folder: Path, jobs: int
) -> None:
    """Seeds in parallel processes, one thread each; on a GPU, in turn."""
    settings = settings_of(config, truth)
    if jobs == 1:
        for seed in seeds:
            run_seed(truth, config, names, seed, folder, settings, torch.get_num_threads())
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_seed, truth, config, names, seed, folder, settings, 1) for seed in seeds]
        for future in futures:
            future.result()


def settings_of(config: RealConfig, truth: Truth) -> dict[str, Any]:
    """Settings that results must share to stand in one table."""
    return {**vars(config), "images": Path(config.images).name, "slowest_ms": truth.table.most_expensive}


def rows_of(folder: Path, settings: dict[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Rows that are there so far, in the order of the methods."""
    files = [Results(folder / f"seed-{seed}.json", "search-regret", settings) for seed in seeds]
    rows = [row for file in files for row in file.content.values()]
    return sorted(rows, key=lambda row: METHODS.index(row["method"]) if row["method"] in METHODS else 99)
