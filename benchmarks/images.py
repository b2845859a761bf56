"""How fast images are found and decoded, beside torch's DataLoader over PIL, and what memory that takes.

    python -m benchmarks.images --files 20000 --rounds 3
    python -m benchmarks.images --files 200000 --rounds 3
    python -m benchmarks.images --photographs 520 --rounds 3

With --files: a folder of 1,000 classes with so many JPEGs of 64x64; the start (all listed, and looked at: `first`;
known from an earlier call: `again`), and batches of 256 at 32x32 with --workers processes. The DataLoader's dataset is
a list of paths and labels, as torchvision's ImageFolder makes it; its images are cut, mirrored and scaled alike, and
stay bytes, where netlathe's are float32 inputs.
With --photographs: JPEGs of 500x375 with the spectrum of photographs, of which random cuts are decoded to bytes in one
process at 224, 128 and 32, from files, .tar and .parquet shards, timed by the CPU's clock.

Each figure of --files is of a process of its own. All ways run in turn in every round; printed are medians, and
medians of the ratios within a round. Memory is the proportional set size (PSS) of the process and its workers at the
end, beyond what it was before the images. Files are made below --folder and removed afterwards.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from netlathe.training import load_images
from netlathe.training.augmentation import MODERATE_AREA, crop_box
from netlathe.training.stream import stream

CLASSES = 1000
BATCH = 256
DISTINCT = 500
"""Different small pictures; the other files repeat them."""
PHOTOGRAPHS = 60
"""Different photographs."""
ROW_GROUP = 50


class ListedImages(Dataset[tuple[Tensor, int]]):
    """Images by a list of paths and labels, decoded by PIL: open, convert, cut, scale, mirror."""

    def __init__(self, folder: Path, size: int):
        self.size = size
        classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        self.samples = [
            (os.path.join(root, name), label)
            for label, one in enumerate(classes)
            for root, _, names in sorted(os.walk(folder / one))
            for name in sorted(names)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        with open(path, "rb") as stream:
            image = Image.open(stream).convert("RGB")
        box = crop_box(image.size, torch.rand(4).tolist(), MODERATE_AREA)
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), label


def photograph(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Noise whose amplitude falls with the frequency to the power of 1.1, about as that of photographs does."""
    across, down = np.fft.fftfreq(width)[None], np.fft.fftfreq(height)[:, None]
    amplitude = 1 / np.maximum(np.hypot(across, down), 1 / max(width, height)) ** 1.1
    grey = rng.normal(size=(height, width))
    channels = [
        np.fft.ifft2(np.fft.fft2(0.8 * grey + 0.4 * rng.normal(size=grey.shape)) * amplitude).real for _ in range(3)
    ]
    pixels = np.stack(channels, axis=-1)
    scaled = (pixels - pixels.mean()) / pixels.std() * 55 + 120
    return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def fill(folder: Path, count: int) -> None:
    """A folder of `count` small JPEGs in 1,000 classes."""
    rng = np.random.default_rng(0)
    pictures = [jpeg(photograph(rng, 64, 64)) for _ in range(DISTINCT)]
    for label in range(CLASSES):
        (folder / f"class{label:04}").mkdir(parents=True)
    for index in range(count):
        (folder / f"class{index % CLASSES:04}" / f"{index:06}.jpg").write_bytes(pictures[index % DISTINCT])


def fill_photographs(folder: Path, count: int) -> None:
    """The same photographs as files, in a .tar and in a .parquet."""
    rng = np.random.default_rng(0)
    distinct = [jpeg(photograph(rng, *((500, 375) if index % 3 else (375, 500)))) for index in range(PHOTOGRAPHS)]
    pictures = [distinct[index % PHOTOGRAPHS] for index in range(count)]
    labels = [index % 10 for index in range(count)]
    for label in range(10):
        (folder / "files" / f"class{label}").mkdir(parents=True)
    with tarfile.open(folder / "shard.tar", "w") as file:
        for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            (folder / "files" / f"class{label}" / f"{index:06}.jpg").write_bytes(picture)
            for name, content in ((f"{index:06}.jpg", picture), (f"{index:06}.cls", b"%d" % label)):
                about = tarfile.TarInfo(name)
                about.size = len(content)
                file.addfile(about, io.BytesIO(content))
    frame = pd.DataFrame({"image": pictures, "label": labels})
    frame.to_parquet(folder / "shard.parquet", row_group_size=ROW_GROUP)


def memory_mb() -> float:
    """Proportional set size of this process and its children."""
    kib = 0
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in ("self", *children):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kib += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def measure(way: str, source: Path, size: int, workers: int, batches: int) -> dict[str, float]:
    """Seconds to the start, images/s of `batches` batches after one, and memory in MB, of one way."""
    before, began = memory_mb(), time.perf_counter()
    clock = time.perf_counter if workers else time.process_time
    if way == "torch":
        listed = ListedImages(source, size)
        started = time.perf_counter() - began
        loader = iter(DataLoader(listed, BATCH, shuffle=True, num_workers=workers, drop_last=True))
        per_second, memory = rate(lambda: next(loader)[0], batches, clock)
        del loader
    elif way == "cuts":  # bytes, as those of the DataLoader
        train = load_images(source, (size, size), in_memory_bytes=0).train
        started = time.perf_counter() - began
        order = train.order(torch.Generator().manual_seed(0)).repeat(1 + BATCH * (batches + 1) // len(train))
        parts, generator = iter(order.split(BATCH)), torch.Generator().manual_seed(0)  # type: ignore[no-untyped-call]
        per_second, memory = rate(lambda: train.augmented(next(parts), generator, mirror=True), batches, clock)
    else:
        data = load_images(source, (size, size), in_memory_bytes=0)
        started = time.perf_counter() - began
        with closing(stream(data.train, BATCH, seed=0, augment=True, mirror=True, workers=workers)) as some:
            per_second, memory = rate(lambda: next(some)[0], batches, clock)
    return {"start_s": started, "images_per_s": per_second, "memory_mb": memory - before}


def rate(following: Callable[[], Tensor], batches: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Images/s, by a clock, of batches after the first, and memory in MB at their end."""
    following()
    began = clock()
    images = sum(len(following()) for _ in range(batches))
    return images / (clock() - began), memory_mb()


def in_process(way: str, source: Path, size: int, workers: int, batches: int, cache: Path) -> dict[str, float]:
    """The measurement in a process of its own, its cache below `cache`."""
    command = [sys.executable, "-m", "benchmarks.images", "--measure", way, "--folder", str(source)]
    command += ["--size", str(size), "--workers", str(workers), "--batches", str(batches)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def many_files(options: argparse.Namespace, folder: Path, console: Console) -> None:
    """Start, rate and memory over many small files."""
    fill(folder / "images", options.files)
    rows: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        cache = folder / f"cache{number}"
        of_round = {}
        for way in ("torch", "first", "again"):
            of_round[way] = in_process(way, folder / "images", 32, options.workers, options.batches, cache)
        rows.append(of_round)
    table = Table(title=f"{options.files:,} files of 64x64, {options.workers} workers, {options.rounds} rounds")
    for column in ("way", "start s", "memory MB", "images/s", "beside torch's DataLoader"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way in ("torch", "first", "again"):
        start, memory, images = (
            median(one[way][key] for one in rows) for key in ("start_s", "memory_mb", "images_per_s")
        )
        ratio = median(one[way]["images_per_s"] / one["torch"]["images_per_s"] for one in rows)
        table.add_row(way, f"{start:.2f}", f"{memory:.0f}", f"{images:.0f}", f"{ratio:.2f}")
    console.print(table)


def photographs(options: argparse.Namespace, folder: Path, console: Console) -> None:
    """Rate in one process over photographs, from files and shards."""
    fill_photographs(folder, options.photographs)
    ways = {"torch": "files", "files": "files", "tar": "shard.tar", "parquet": "shard.parquet"}
    table = Table(title=f"{options.photographs} photographs of 500x375, one process, {options.rounds} rounds")
    for column in ("size", "PIL images/CPU s", *(f"{way} / PIL" for way in list(ways)[1:])):
        table.add_column(column, justify="right")
    for size in (224, 128, 32):
        rows = [
            {way: measure("torch" if way == "torch" else "cuts", folder / at, size, 0, 1) for way, at in ways.items()}
            for _ in range(options.rounds)
        ]
        ratios = (
            median(one[way]["images_per_s"] / one["torch"]["images_per_s"] for one in rows) for way in list(ways)[1:]
        )
        plain = median(one["torch"]["images_per_s"] for one in rows)
        table.add_row(str(size), f"{plain:.0f}", *(f"{ratio:.2f}" for ratio in ratios))
    console.print(table)


def median(values: Any) -> float:
    return float(statistics.median(values))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--photographs", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batches", type=int, default=20, help="batches of a measurement of --files")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--size", type=int, default=32, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options.size, options.workers, options.batches)))
        return
    console = Console(width=120)
    for count, work in ((options.files, many_files), (options.photographs, photographs)):
        if count:
            place = Path(tempfile.mkdtemp(prefix="netlathe-images-", dir=options.folder))
            try:
                work(options, place, console)
            finally:
                shutil.rmtree(place)


if __name__ == "__main__":
    main()
