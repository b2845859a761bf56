"""The parts of the training recipe `cifar`, and augmentations that it does not have: images a second, and accuracy.

    python -m benchmarks.recipes --data cifar10.parquet --part rates                # on one core, some minutes
    python -m benchmarks.recipes --data cifar10.parquet --part accuracy --epochs 2  # 12,500 images each, some minutes
    python -m benchmarks.recipes --data cifar10.parquet --part accuracy --epochs 200 --images 50000 --compute cuda

Rates are CPU seconds of one process on one thread, as other programs do not count in these: of our batches, of torch's
DataLoader with the same transforms of the same library, one image at a time, and of a training step of a ResNet-14 on
them. Accuracies are of the test images, with their 95 % intervals; the order of recipes is that of the interval's
middle only after hundreds of epochs.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from statistics import median

import kornia.augmentation as kornia
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.compress.networks import NETWORKS
from netlathe.training import Augmentation, Compute, ImageData, TrainConfig, classify, load_images, train
from netlathe.training.augmentation import PLAIN
from netlathe.training.recipes import RECIPES, training_recipe
from netlathe.training.sgd import WeightStep
from netlathe.training.stream import stream

BATCH = 128
CUTOUT = RECIPES["cifar"]().augmentation
KINDS = {
    "shifts and mirrors": PLAIN,
    "the same and erasing (cifar)": CUTOUT,
    "resized crops": Augmentation(crop="resized", least_area=0.08),
    "color jitter": Augmentation(color_jitter=(0.4, 0.4, 0.4, 0.1)),
    "RandAugment": Augmentation(policy="randaugment"),
    "TrivialAugment": Augmentation(policy="trivialaugment"),
    "mixup and cutmix": Augmentation(mixup=0.2, cutmix=1.0),
}
THEIRS: dict[str, list[Callable[[], nn.Module]]] = {
    "shifts and mirrors": [lambda: kornia.RandomCrop((32, 32), padding=4), kornia.RandomHorizontalFlip],
    "the same and erasing (cifar)": [
        lambda: kornia.RandomCrop((32, 32), padding=4),
        kornia.RandomHorizontalFlip,
        lambda: kornia.RandomErasing((0.25, 0.25), (1.0, 1.0), 0.5, p=1.0),
    ],
    "resized crops": [lambda: kornia.RandomResizedCrop((32, 32), (0.08, 1.0)), kornia.RandomHorizontalFlip],
    "color jitter": [lambda: kornia.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0)],
    "RandAugment": [lambda: kornia.auto.RandAugment(2, 9)],
    "TrivialAugment": [kornia.auto.TrivialAugment],
}
"""The same transforms by kornia, one image at a time, as a Dataset has them."""


class One(Dataset[tuple[Tensor, int]]):
    """Images of a split with kornia's transforms, one at a time."""

    def __init__(self, data: ImageData, transforms: list[Callable[[], nn.Module]]) -> None:
        self.images, self.labels = data.train.load(torch.arange(len(data.train))), data.train.labels
        self.transform = nn.Sequential(*(make() for make in transforms))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with torch.no_grad():
            return self.transform(self.images[index : index + 1] / 255)[0] * 2 - 1, int(self.labels[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--part", choices=("rates", "accuracy"), default="rates")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=12_500, help="most images of a split")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--network", choices=sorted(NETWORKS), default="resnet14")
    parser.add_argument("--compute", default="cpu")
    options = parser.parse_args()
    compute = Compute(options.compute, threads=1 if options.compute == "cpu" else 0)
    data = load_images(options.data, (32, 32), limit=options.images)
    with compute.threaded():
        if options.part == "rates":
            rates(data, options.network, compute)
        else:
            accuracies(data, options, compute)


def rates(data: ImageData, name: str, compute: Compute) -> None:
    """Prints a line per augmentation."""
    data.train.prepare()
    step = training_rate(data, name, compute)
    print(f"a training step of {name} alone: {step:,.0f} images a CPU second")
    for kind, own in KINDS.items():
        with closing(ours(data, own)) as batches:
            found = rate(batches)
        beside = f"{rate(theirs(data, THEIRS[kind])):,.0f}" if kind in THEIRS else "-"
        both = 1 / (1 / step + 1 / found)
        print(
            f"{kind}: ours {found:,.0f}, torch's DataLoader {beside}, trained on ours {both:,.0f} images a CPU second"
        )


def ours(data: ImageData, own: Augmentation) -> Generator[tuple[Tensor, Tensor], None, None]:
    return stream(data.train, BATCH, seed=0, augment=True, mirror=True, augmentation=own, classes=len(data.classes))


def theirs(data: ImageData, transforms: list[Callable[[], nn.Module]]) -> Iterator[tuple[Tensor, Tensor]]:
    return iter(DataLoader(One(data, transforms), BATCH, shuffle=True, drop_last=True))


def rate(batches: Iterator[tuple[Tensor, Tensor]], count: int = 5) -> float:
    """Images a CPU second: the median over single batches, after a first one."""
    next(batches)
    seconds = []
    for _ in range(count):
        begun = time.process_time()
        next(batches)
        seconds.append(time.process_time() - begun)
    return BATCH / median(seconds)


def training_rate(data: ImageData, name: str, compute: Compute) -> float:
    network = compute.place(NETWORKS[name]()).train()
    step = WeightStep(network, TrainConfig(batch_size=BATCH), compute)
    with closing(ours(data, PLAIN)) as batches:
        kept = list(itertools.islice(batches, 6))
    return rate((step(batch, network, 0.01, "") and batch for batch in kept), 5)


def accuracies(data: ImageData, options: argparse.Namespace, compute: Compute) -> None:
    """Prints a line per recipe and seed."""
    plain = training_recipe("cifar", epochs=options.epochs)
    configs = {
        "nothing": replace(plain, augmentation=Augmentation(crop="none")),
        "shifts and mirrors": replace(plain, augmentation=PLAIN),
        "recipe cifar": plain,
        "the same, mixup and cutmix": replace(plain, augmentation=replace(CUTOUT, mixup=0.2, cutmix=1.0)),
    }
    for seed in range(options.seeds):
        for name, config in configs.items():
            torch.manual_seed(seed)
            network = NETWORKS[options.network]()
            begun = time.process_time()
            taken = data if name != "nothing" else replace(data, mirror=False)
            train(network, taken, replace(config, seed=seed), compute=compute, split=data.train)
            seconds = time.process_time() - begun
            found = classify(network, data.test, len(data.classes), compute=compute)
            low, high = found.interval
            print(
                f"{name}, {options.epochs} epochs of {len(data.train):,} images, seed {seed}: {found.accuracy:.1%} "
                f"({low:.1%} to {high:.1%}) of {found.images:,}, {seconds:.0f} CPU s",
                flush=True,
            )


if __name__ == "__main__":
    main()
