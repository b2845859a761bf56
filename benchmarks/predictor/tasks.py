"""Tasks that a predictor is judged by: the tables of data/latency, divided as they would be met in practice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from benchmarks.predictor import nb201
from benchmarks.predictor.splits import Known, Measured, Split, fold_labels, leave_out, random_split, split_at
from scripts import latency_tables as tables

T = TypeVar("T")
Splits = Callable[[int], Iterator[Split]]

FOLDS = 10
KNOWN_CELLS, JUDGED_CELLS = 900, 3000
WORST = "worst tenth"
PLAIN = ("forest", "XGBoost", "roofline")
WITH_KNOWN = (*PLAIN, "ridge")


@dataclass(frozen=True)
class Task:
    """`splits(seed)` gives what to learn and what to predict.

    `aims` says what is hoped for, by view: "" is the mean over the splits' groups, WORST the mean over the worst tenth
    of them. An aim is a share within ±10 % in percent, or a Spearman coefficient where `by_rank`.
    """

    table: str
    split: str
    splits: Splits
    aims: Mapping[str, float]
    baselines: Sequence[str] = PLAIN
    by_rank: bool = False
    most_splits: int | None = None
    """Where there are more, a seed judges that many of them, drawn at random."""
    is_random: bool = True
    """Otherwise all seeds give the same splits, and one is enough."""

    @property
    def name(self) -> str:
        return f"{self.table}, {self.split}"


def all_tasks(folder: Path = tables.SHIPPED) -> list[Task]:
    """Every task whose table the folder holds; nothing is read yet."""
    tasks = [*_block_tasks(folder), *_unnamed_phone_tasks(folder), *_phone_tasks(folder), *_pixel4_tasks(folder)]
    tasks.append(
        Task("nb201_latency", f"device unseen, n = 10, {KNOWN_CELLS} cells known on others",
             lambda seed: unseen_device(folder, 10, seed), {"": 0.95}, WITH_KNOWN, by_rank=True, most_splits=5)
    )  # fmt: skip
    return [task for task in tasks if tables.exists(folder, task.table)]


@cache
def read(reader: Callable[[Path], T], folder: Path) -> T:
    """A table of data/latency, read once."""
    return reader(folder)


def _block_tasks(folder: Path) -> list[Task]:
    table = "blocks_pixel1_pixel4"
    at_random = [
        Task(table, f"random, n = {n}", lambda seed, n=n: blocks(folder, n, seed), {"": aim})  # type: ignore[misc]
        for n, aim in {10: 85.0, 50: 95.0, 100: 98.0, 200: 99.5}.items()
    ]
    few_shot = [
        Task(table, f"one phone from the other, n = {n}",
             lambda seed, n=n: blocks_few_shot(folder, n, seed), {"": aim}, WITH_KNOWN)  # type: ignore[misc]
        for n, aim in {3: 95.0, 10: 98.0, 50: 99.5}.items()
    ]  # fmt: skip
    larger = Task(table, "h <= 56 to h >= 64, n = 200", lambda seed: larger_blocks(folder, 200, seed), {"": 95.0})
    return [*at_random, *few_shot, larger]


def _unnamed_phone_tasks(folder: Path) -> list[Task]:
    aims = {"stage": 85.0, "kernel": 98.0}
    return [
        Task("blocks_unnamed_phone", f"one {label} left out",
             lambda seed, label=label: unnamed_phone(folder, label), {"": aim}, is_random=False)  # type: ignore[misc]
        for label, aim in aims.items()
    ]  # fmt: skip


def _phone_tasks(folder: Path) -> list[Task]:
    aims = {10: (92.0, 75.0), 20: (94.0, 82.0), 50: (96.0, 88.0)}
    few_shot = [
        Task("phones49_latency", f"phone model unseen, n = {n} networks",
             lambda seed, n=n: unseen_phone(folder, n, seed), {"": aim, WORST: worst}, WITH_KNOWN)  # type: ignore[misc]
        for n, (aim, worst) in aims.items()
    ]  # fmt: skip
    few_shot += [
        Task("phones49_latency", f"phone model and network unseen, n = {n} networks",
             lambda seed, n=n: unseen_phone_and_networks(folder, n, seed), {"": 85.0})  # type: ignore[misc]
        for n in (10, 50)
    ]  # fmt: skip
    unseen = Task("phones49_latency", "known phone, networks unseen, 10-fold",
                  lambda seed: unseen_networks(folder, seed), {"": 92.0}, most_splits=15)  # fmt: skip
    return [*few_shot, unseen]


def _pixel4_tasks(folder: Path) -> list[Task]:
    def task(split: str, pattern: str, aim: float, most: int | None = None) -> Task:
        return Task("pixel4_networks", f"{split}, networks 10-fold",
                    lambda seed: pixel4(folder, pattern, seed), {"": aim}, most_splits=most)  # fmt: skip

    return [
        task("float CPU, one large core", "float 1large$", 97),
        task("float CPU, all core sets", "float .*[0-9]", 97, most=9),
        task("int8 CPU, one large core", "quant 1large$", 95),
        task("int8 CPU, all core sets", "quant .*[0-9]", 95, most=9),
        task("GPU, its kernels known", "float gpu", 95, most=5),
    ]


def _phones(table: tables.Blocks) -> list[str]:
    return [column for column in table.frame.columns.astype(str) if column.endswith("_ms")]


def blocks(folder: Path, n: int, seed: int) -> Iterator[Split]:
    """On each phone, n random blocks and the rest."""
    table = read(tables.pixel1_pixel4_blocks, folder)
    for phone in _phones(table):
        yield random_split(phone, Measured(table.graphs, table.frame[phone].to_numpy()), n, seed)


@cache
def _other_phones(folder: Path, phone: str) -> Known:
    table = read(tables.pixel1_pixel4_blocks, folder)
    others = [other for other in _phones(table) if other != phone]
    return Known(table.graphs, table.frame[others].to_numpy(), others)


def blocks_few_shot(folder: Path, n: int, seed: int) -> Iterator[Split]:
    """As blocks, when the other phone has measured all of them."""
    for split in blocks(folder, n, seed):
        yield split._replace(known=_other_phones(folder, split.group))


def larger_blocks(folder: Path, n: int, seed: int) -> Iterator[Split]:
    """On each phone, n random blocks of at most 56 pixels, and all of 64 and more."""
    table = read(tables.pixel1_pixel4_blocks, folder)
    small, large = np.flatnonzero(table.frame.h <= 56), np.flatnonzero(table.frame.h >= 64)
    train = np.random.default_rng(seed).permutation(small)[:n]
    for phone in _phones(table):
        yield split_at(phone, Measured(table.graphs, table.frame[phone].to_numpy()), train, large)


def unnamed_phone(folder: Path, label: str) -> Iterator[Split]:
    """Each stage, or each kernel size, from the others. Nothing is random about it."""
    table = read(tables.unnamed_phone_blocks, folder)
    yield from leave_out("", Measured(table.graphs, table.frame.latency_ms.to_numpy()), table.frame[label].tolist())


@cache
def _known_phones(folder: Path, model: str) -> Known:
    """All phones of other models on all networks."""
    table = read(tables.phones49, folder)
    others = [device for device in table.latency_ms if tables.phone_model(device) != model]
    return Known(list(table.pieces.values()), table.latency_ms[others].to_numpy(), others)


def unseen_phone(folder: Path, n: int, seed: int) -> Iterator[Split]:
    """On each phone, n random networks and the rest, when phones of other models have measured all of them."""
    table = read(tables.phones49, folder)
    for index, device in enumerate(table.latency_ms):
        data = Measured(list(table.pieces.values()), table.latency_ms[device].to_numpy())
        known = _known_phones(folder, tables.phone_model(device))
        yield random_split(device, data, n, 1000 * seed + index, known=known)


def unseen_phone_and_networks(folder: Path, n: int, seed: int) -> Iterator[Split]:
    """On each phone, a fifth of the networks, which nobody has measured: from n of the others, when phones of other
    models have measured all of these."""
    table = read(tables.phones49, folder)
    items = list(table.pieces.values())
    judged, shared = np.split(np.random.default_rng(seed).permutation(len(items)), [len(items) // 5])
    for index, device in enumerate(table.latency_ms):
        known = _known_phones(folder, tables.phone_model(device))
        part = _part_of(known, tuple(shared))
        train = np.random.default_rng([seed, index]).permutation(shared)[:n]
        yield split_at(device, Measured(items, table.latency_ms[device].to_numpy()), train, judged, part)


@lru_cache(maxsize=64)
def _part_of(known: Known, rows: tuple[int, ...]) -> Known:
    """Some of the items that are known."""
    return Known([known.items[i] for i in rows], known.latency_ms[list(rows)], known.devices)


def unseen_networks(folder: Path, seed: int) -> Iterator[Split]:
    """On each phone, each tenth of the networks from the others."""
    table = read(tables.phones49, folder)
    yield from _network_folds(table.pieces, table.latency_ms, seed)


def _network_folds(pieces: Mapping[str, tables.Pieces], latency_ms: pd.DataFrame, seed: int) -> Iterator[Split]:
    fold = fold_labels(len(latency_ms), FOLDS, seed)
    for setup in latency_ms:
        data = Measured([pieces[name] for name in latency_ms.index], latency_ms[setup].to_numpy())
        yield from leave_out(str(setup), data, fold.tolist())


def pixel4(folder: Path, setups: str, seed: int) -> Iterator[Split]:
    """On each setup whose name fits the pattern, each tenth of the networks from the others; on the GPU, from the
    others' kernels as well."""
    table = read(tables.pixel4_networks, folder)
    latency_ms = table.latency_ms[[setup for setup in table.latency_ms if re.match(setups, setup)]]
    for split in _network_folds(table.pieces, latency_ms, seed):
        yield _with_kernels(folder, split) if "gpu" in split.group else split


def _with_kernels(folder: Path, split: Split) -> Split:
    """Training networks together with their kernels' own latencies."""
    kernels = read(tables.pixel4_gpu_kernels, folder)
    names = {id(pieces): name for name, pieces in read(tables.pixel4_networks, folder).pieces.items()}
    learnt = kernels.frame.model.isin([names[id(network)] for network in split.train]).to_numpy()
    rows = np.flatnonzero(learnt)
    train_ms = np.concatenate([kernels.frame.latency_ms.to_numpy()[rows], split.train_ms])
    return split._replace(train=[*(kernels.graphs[i] for i in rows), *split.train], train_ms=train_ms)


def device_family(device: str) -> str:
    """A device of nb201_latency without its batch size: "titan_rtx_32" -> "titan_rtx"."""
    return re.sub(r"_(1|32|256)$", "", device)


@cache
def _cells(folder: Path, pruned: bool) -> list[tables.Pieces]:
    return list(nb201.networks(folder, pruned).pieces.values())


def unseen_device(folder: Path, n: int, seed: int) -> Iterator[Split]:
    """On each device, n of the cells that all devices of other families have measured, and cells that none has."""
    table, cells = read(nb201.networks, folder).latency_ms, _cells(folder, False)
    order = np.random.default_rng(seed).permutation(len(cells))
    shared, judged = order[:KNOWN_CELLS], order[KNOWN_CELLS:][:JUDGED_CELLS]
    known: dict[str, Known] = {}
    for index, device in enumerate(table):
        family, latency_ms = device_family(device), table[device].to_numpy()
        if family not in known:
            others = [other for other in table if device_family(other) != family]
            known[family] = Known([cells[i] for i in shared], table[others].to_numpy()[shared], others)
        # A runtime that drops what the output does not depend on folds a cell without a way to it into a constant.
        pruned = device in nb201.PRUNING
        constant = np.array([pruned and nb201.is_constant(cell) for cell in table.index])
        train = np.random.default_rng([seed, index]).permutation(shared[~constant[shared]])[:n]
        data = Measured(_cells(folder, pruned), latency_ms)
        yield split_at(device, data, train, judged[~constant[judged]], known[family])
