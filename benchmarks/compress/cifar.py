"""Two networks of CIFAR-10 compressed for this machine and for a phone's predictor, by us and by what others do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import netlathe as nl
from benchmarks.compress.cases import FROM_SCRATCH, Case, few
from benchmarks.compress.host import host_predictor
from benchmarks.compress.methods import METHODS, Choice, Target
from benchmarks.compress.originals import RECIPES, original
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.files import write_whole
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.graph import Graph
from netlathe.cli.console import Terminal
from netlathe.events import Listener
from netlathe.pricing import load_predictor
from netlathe.timing import time_networks
from netlathe.training import ImageData, load_images

HOST, PHONE = "host", "pixel4-cpu-networks"
SHARES = (0.35, 0.5, 0.75)
LONGER = 4
"""Times the epochs of the others for the second training from scratch."""
UNIFORM, REFITTED, SCRATCH, LONG = "uniform L1", "uniform L1, refitted", "from scratch", "from scratch, longer"
OURS, DEEP = "netlathe", "netlathe, depth too"
COMPRESSED = ("mobilenetv2_0.5", "resnet20")


@dataclass(frozen=True)
class Job:
    """A network to choose, train and judge."""

    network: str
    device: str
    share: float
    method: str
    seed: int

    @property
    def chooser(self) -> str:
        """The method that chooses: some only train what uniform widths leave in another way."""
        return UNIFORM if self.method in (REFITTED, SCRATCH, LONG) else self.method

    @property
    def choice(self) -> str:
        """Name of the choice."""
        return self._named(self.chooser)

    @property
    def name(self) -> str:
        return f"{self._named(self.method)}_{self.seed}"

    def _named(self, method: str) -> str:
        return f"{self.network}_{self.device}_{self.share:g}_{method.replace(', ', '-').replace(' ', '-')}"


def jobs(seeds: int) -> Iterator[Job]:
    """All jobs, in the order in which they are done: what the comparison needs most first."""
    pairs = [
        *((HOST, share, method) for share in SHARES for method in (UNIFORM, REFITTED, OURS)),
        *((HOST, SHARES[0], method) for method in (SCRATCH, "FLOPs", "NetAdapt", "actor-critic", DEEP, LONG)),
        *((PHONE, share, method) for share in SHARES for method in (UNIFORM, OURS)),
        *((PHONE, SHARES[0], method) for method in (REFITTED, SCRATCH, "FLOPs", "NetAdapt", "actor-critic")),
    ]
    for seed in range(seeds):
        yield from (Job(name, *pair, seed) for pair in pairs for name in COMPRESSED)


class Bench:
    """Its folder, in which all that was done stays."""

    def __init__(self, options: argparse.Namespace, terminal: Listener) -> None:
        self.options, self.terminal, self.folder = options, terminal, Path(options.output)
        whole = load_images(options.data, (32, 32), seed=0)
        count = options.images
        train, validation = few(whole.train, count, 0), few(whole.validation, count // 5, 0)
        little = ImageData(whole.name, whole.classes, train, validation, whole.test, whole.mirror)
        self.cases = {
            name: Case(name, original(name, whole, self.folder / "originals", terminal), little, precision)
            for name, (_, precision) in RECIPES.items()
            if name in COMPRESSED
        }

    @cached_property
    def host(self) -> tuple[Path, Path]:
        """This machine's predictor and profile, made when they are first asked for."""
        return host_predictor([case.space for case in self.cases.values()], self.folder / "host", 0, self.terminal)

    @cached_property
    def models(self) -> dict[str, Any]:
        """Predictors of the devices that are asked for."""
        names = {HOST: lambda: str(self.host[0]), PHONE: lambda: PHONE}
        return {device: load_predictor(names[device]()) for device in self.options.devices}

    def target(self, job: Job) -> Target:
        """The share of the original's latency in the judge's eyes, which is measured once."""
        case = self.cases[job.network]

        def predict(graphs: Sequence[Graph]) -> list[float]:
            return list(map(float, self.models[job.device].predict(graphs)))

        measure = self._timed if job.device == HOST else predict
        now = self.kept(f"{job.network}_{job.device}_ms", lambda: measure([case.read[0]])[0])
        given = (str(self.host[0]), self.host[1]) if job.device == HOST else (PHONE, None)
        return Target(job.device, given[0], job.share * now, given[1], measure, predict)

    def _timed(self, graphs: Sequence[Graph]) -> list[float]:
        named = dict(zip(map(str, range(len(graphs))), graphs, strict=True))
        models = {graph.key: write_tflite(graph) for graph in graphs}
        timed = time_networks(named, models, self.host[1], seed=0, listener=Listener())
        return [timed[name].latency_ms for name in named]

    def kept(self, name: str, work: Callable[[], Any]) -> Any:
        """Content of a file of the folder, or the outcome of the work, which is put there."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            self.terminal.step(name)
            write_whole(path, json.dumps(work()).encode())
        return json.loads(path.read_text())

    def choice(self, job: Job) -> Choice:
        """The channels that the job's method keeps."""
        path = self.folder / "choices" / job.choice

        def choose() -> dict[str, Any]:
            return asdict(METHODS[job.chooser](self.cases[job.network], self.target(job), path))

        path.parent.mkdir(parents=True, exist_ok=True)
        return Choice(**self.kept(f"choices/{job.choice}", choose))

    def accuracy(self, job: Job) -> float:
        """Accuracy of the exported file after the training."""
        case, epochs, file = self.cases[job.network], self.options.epochs, self.folder / "files" / f"{job.name}.tflite"
        file.parent.mkdir(parents=True, exist_ok=True)

        def work() -> float:
            choice = self.choice(job)
            keep = {name: np.array(units) for name, units in choice.keep.items()}
            if job.method in (SCRATCH, LONG):
                times = LONGER if job.method == LONG else 1
                network = case.trained(case.from_scratch(keep, job.seed), times * epochs, job.seed, FROM_SCRATCH)
            else:
                is_plain = job.method == UNIFORM
                start = case.sliced(keep, job.seed) if is_plain else case.refitted(keep, choice.left_out, job.seed)
                network = case.trained(start, epochs, job.seed)
            return case.accuracy(network, file)

        return float(self.kept(f"files/{job.name}", work))

    def original_accuracy(self, name: str) -> float:
        """Accuracy of the file of a network that is not compressed."""
        path = self.original_file(name)
        return float(self.kept(f"{name}_accuracy", lambda: self.cases[name].accuracy_of_original(path)))

    def original_file(self, name: str) -> Path:
        """That file."""
        return self.folder / f"{name}.tflite"

    def is_done(self, job: Job) -> bool:
        """Whether its accuracy is known."""
        return (self.folder / "files" / f"{job.name}.json").exists()

    def timed_anew(self, todo: Sequence[Job]) -> dict[str, float]:
        """Milliseconds of one exported file of each choice of this machine, and of the originals, timed in turn."""
        files = {name: self.original_file(name) for name in self.cases}
        files |= {job.choice: self.folder / "files" / f"{job.name}.tflite" for job in todo if job.device == HOST}

        def work() -> dict[str, float]:
            timed = nl.time([*files.values()], device="local", profile=self.host[1]).timed
            return dict(zip(files, [float(one.latency_ms or np.nan) for one in timed], strict=True))

        return dict(self.kept(f"timed_{len(files)}", work))


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    """Does what is not done yet, step by step, and shows all that is done. Raises NetlatheError without images."""
    if options.data is None:
        raise NetlatheError("--data: name the images, a .parquet, an .npz or a folder")
    bench = Bench(options, terminal)
    todo = [job for job in jobs(options.seeds) if not options.methods or job.method in options.methods]
    todo = [job for job in todo if not options.names or job.network in options.names]
    todo = [job for job in todo if job.device in options.devices]
    for job in todo:
        if "choose" in options.steps:
            bench.choice(job)
        if "train" in options.steps:
            bench.accuracy(job)
    if "report" in options.steps:
        report(bench, [job for job in todo if bench.is_done(job)], terminal)


def report(bench: Bench, done: Sequence[Job], terminal: Terminal) -> None:
    """A row for each network, device, target and method."""
    accuracies = {name: bench.original_accuracy(name) for name in bench.cases}
    again = bench.timed_anew(done) if HOST in bench.options.devices else {}
    for name, accuracy in accuracies.items():
        terminal.say(f"{name}: {accuracy:.2%} as it is" + (f", {again[name]:.4f} ms here" if again else ""))
    rows = []
    for key in dict.fromkeys((job.network, job.device, job.share, job.method) for job in done):
        some = [job for job in done if (job.network, job.device, job.share, job.method) == key]
        found = 100 * np.array([bench.accuracy(job) for job in some])
        choice, target = bench.choice(some[0]), bench.target(some[0])
        anew = again[some[0].choice] / (some[0].share * again[key[0]]) if key[1] == HOST else choice.ms / target.ms
        rows.append(
            (
                *map(str, key), f"{choice.ms / target.ms:.3f}", f"{anew:.3f}", "yes" if choice.ms > target.ms else "no",
                f"{found.mean():.2f}", " ".join(f"{one:.2f}" for one in found), f"{choice.cpu_s:.0f}",
            )
        )  # fmt: skip
    terminal.table(
        ("network", "device", "share", "method", "judged / target", "again", "violated", "accuracy", "seeds", "CPU s"),
        rows,
    )
