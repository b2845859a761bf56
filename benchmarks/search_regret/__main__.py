"""How far a search ends from the best network that meets the target: NAS-Bench-Macro, where all 6,561 are known.

    python -m benchmarks.search_regret proxy            # objectives and decode on the benchmark's own accuracies: 3 min
    python -m benchmarks.search_regret real             # the whole search, trained on CIFAR-10
    python -m benchmarks.search_regret real --device cuda --width 1 --resolution 32 --train-images 40000 ...

Latencies are those of this machine: --latency names the predictor's file, fitted on the space's 24 blocks and 16 of its
networks when there is none yet. Targets at 30, 45, 60 and 75 % of the range. regret: accuracy points below the best
network that keeps the target, by the benchmark's accuracies; median (worst) of the seeds. `real` on a CPU trains a
narrower supernet on smaller images, and prices it by the full network's table.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch: seeds share the cores

import argparse
from pathlib import Path

from benchmarks.search_common import CIFAR10, host_predictor
from benchmarks.search_regret.proxy import ProxyConfig, is_sensitivity, run_proxy
from benchmarks.search_regret.real import METHODS, RealConfig, rows_of, run_real, settings_of
from benchmarks.search_regret.truth import SHARES, Truth, report
from netlathe.archspace.presets import nas_bench_macro
from netlathe.archspace.resources import data_path
from netlathe.cli.console import Terminal
from netlathe.search.costs import CostTable

SCALE, NOISE = 2.5, 0.035
"""Constants of a warm supernet of `real` (one seed, batches of 32): swapping one candidate changes its cross-entropy by
0.025 (root mean square) where -log(accuracy) changes by 0.010, and the difference of a pair's gate gradients has a
standard deviation of 0.05 between batches, 0.035 for each of the two."""

IMAGES_PER_S = 1500
"""Speed of the reduced supernet on one core: for the estimate at the start only."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.search_regret",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shipped = Path(str(data_path("nas_bench_macro_cifar10.parquet")))
    parser.add_argument("--table", type=Path, default=shipped, help="the benchmark's accuracies")
    parser.add_argument("--latency", type=Path, default=Path("runs/benchmarks/nas-bench-macro.json"))
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    kinds = parser.add_subparsers(dest="kind", required=True)
    proxy = kinds.add_parser("proxy")
    proxy.add_argument("--seeds", type=int, default=5)
    proxy.add_argument("--steps", type=int, default=1000, help="architecture steps of each search")
    proxy.add_argument("--scale", type=float, default=SCALE, help="of the cross-entropy, beside -log(accuracy)")
    proxy.add_argument("--noise", type=float, default=NOISE, help="of a batch's cross-entropy and gradients, in nats")
    proxy.add_argument("--alpha-learning-rate", type=float, default=0.02)
    real = kinds.add_parser("real")
    real.add_argument("--images", default=CIFAR10)
    real.add_argument("--seeds", type=int, default=4)
    real.add_argument("--methods", default=",".join(METHODS))
    real.add_argument("--train-images", type=int, default=8_000, help="at most so many of each split")
    real.add_argument("--width", type=float, default=0.25)
    real.add_argument("--resolution", type=int, default=16)
    real.add_argument("--device", default="cpu")
    real.add_argument("--start-epochs", type=int, default=3)
    real.add_argument("--warmup-epochs", type=int, default=9)
    real.add_argument("--epochs", type=int, default=2, help="of each search from the warm supernet")
    real.add_argument("--batch-size", type=int, default=32)
    real.add_argument("--alpha-learning-rate", type=float, default=0.02)
    real.add_argument("--looks", type=int, default=128, help="networks judged on validation images, per search")
    real.add_argument("--look-images", type=int, default=512)
    real.add_argument("--output", type=Path, default=Path("runs/benchmarks/search_regret"))
    real.add_argument("--report", action="store_true", help="only print what is there")
    return parser.parse_args()


def main() -> None:
    options = _options()
    terminal = Terminal()
    space = nas_bench_macro()
    model = host_predictor(space, options.latency, terminal=terminal)
    table = CostTable.tabulate(space, model, name="latency on this host")
    truth = Truth.read(options.table, table)
    terminal.say(f"Networks take {table.base:.3f} to {table.most_expensive:.3f} ms")
    (_proxy if options.kind == "proxy" else _real)(truth, options, terminal)


def _proxy(truth: Truth, options: argparse.Namespace, terminal: Terminal) -> None:
    config = ProxyConfig(options.steps, options.alpha_learning_rate, options.scale, options.noise)
    rows, seconds = run_proxy(truth, options.seeds, config, options.jobs)
    terminal.say(f"Proxy: {config}, {options.seeds} seeds, {seconds:.0f} s")
    report(truth, [row for row in rows if not row["method"].startswith("gains")], terminal)
    terminal.say("Sensitivity of ours to its gains:")
    report(truth, [row for row in rows if is_sensitivity(row)], terminal)


def _real(truth: Truth, options: argparse.Namespace, terminal: Terminal) -> None:
    names = ("images", "train_images", "width", "resolution", "device", "start_epochs", "warmup_epochs", "epochs",
             "batch_size", "alpha_learning_rate", "looks", "look_images")  # fmt: skip
    config = RealConfig(**{name: getattr(options, name) for name in names})
    seeds, chosen = range(options.seeds), options.methods.split(",")
    terminal.say(f"Real: {config}")
    if not options.report:
        if config.device == "cpu":
            images = config.warm_images + config.search_images * len(SHARES) * len(chosen)
            minutes = images / IMAGES_PER_S / 60
            rounds = -(-len(seeds) // options.jobs)
            terminal.say(f"About {minutes * rounds:.0f} minutes if nothing else runs, {minutes:.0f} a seed")
        run_real(truth, config, chosen, seeds, options.output, options.jobs)
    rows = rows_of(options.output, settings_of(config, truth), seeds)
    terminal.say(f"{len(rows)} searches in {options.output}; supernets of {len({r['seed'] for r in rows})} seeds")
    report(truth, rows, terminal)


if __name__ == "__main__":
    main()
