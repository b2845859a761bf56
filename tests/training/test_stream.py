"""Batches are a function of the seed and their number, whoever loads them; workers leave nothing behind."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from netlathe.training.encoded import EncodedSplit, Files
from netlathe.training.errors import DataError
from netlathe.training.images import ImageSplit, MemorySplit
from netlathe.training.normalization import SYMMETRIC
from netlathe.training.stream import batches_per_pass, chunks, stream

# On a machine of one core, two workers are one more than torch suggests.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

COUNT = 22
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 20, 20, 3), dtype=np.uint8)
MEMORY = MemorySplit(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.arange(COUNT))


@pytest.fixture
def files(tmp_path: Path) -> EncodedSplit:
    """Larger than the network's input of 16 x 16."""
    paths = [tmp_path / f"{i}.png" for i in range(COUNT)]
    for path, image in zip(paths, PIXELS, strict=True):
        Image.fromarray(image).save(path)
    names = Files(str(tmp_path), np.array([os.fsencode(path.name) for path in paths]), np.zeros(COUNT, np.uint64))
    return EncodedSplit(names, torch.arange(COUNT), torch.arange(COUNT), (16, 16), 3)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def first(count: int, split: ImageSplit, size: int = 5, **options: Any) -> list[tuple[Tensor, Tensor]]:
    with closing(stream(split, size, **options)) as batches:
        return list(itertools.islice(batches, count))


def assert_same(some: list[tuple[Tensor, Tensor]], others: list[tuple[Tensor, Tensor]]) -> None:
    assert len(some) == len(others)
    for (x, labels), (same_x, same_labels) in zip(some, others, strict=True):
        assert torch.equal(x, same_x)
        assert x.stride() == same_x.stride()
        assert torch.equal(labels, same_labels)


def shown(batches: list[tuple[Tensor, Tensor]]) -> list[int]:
    return torch.cat([labels for _, labels in batches]).tolist()


def test_batches_are_what_networks_take() -> None:
    (x, labels), *_ = first(1, MEMORY, seed=0)
    assert x.dtype == torch.float32
    assert x.shape == (5, 3, 20, 20)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, SYMMETRIC(MEMORY.images[labels]))


def test_a_pass_shows_each_image_at_most_once_in_full_batches() -> None:
    assert batches_per_pass(MEMORY, 5) == 4
    passes = [shown(first(4, MEMORY, seed=0, start=start)) for start in (0, 4, 8)]
    assert all(len(set(seen)) == 20 for seen in passes)
    assert passes[0] != passes[1] != passes[2]
    assert set(itertools.chain(*passes)) == set(range(COUNT))


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    assert batches_per_pass(MEMORY, 100) == 1
    assert [sorted(labels.tolist()) for _, labels in first(2, MEMORY, 100, seed=0)] == [list(range(COUNT))] * 2


@pytest.mark.parametrize("start", [1, 4, 6])
def test_a_later_start_goes_on_as_if_there_had_been_no_stop(files: EncodedSplit, start: int) -> None:
    for split in (MEMORY, files):
        options = {"seed": 3, "augment": True, "mirror": True}
        assert_same(first(8, split, **options)[start:], first(8 - start, split, start=start, **options))


def test_other_seeds_give_another_order_and_other_changes() -> None:
    assert shown(first(4, MEMORY, seed=0)) != shown(first(4, MEMORY, seed=1))
    one_image = MEMORY.take(torch.zeros(5, dtype=torch.int64))  # an order makes no difference
    changed = [first(2, one_image, seed=seed, augment=True) for seed in (0, 1, 2**32)]
    for one, other in itertools.combinations([x for batches in changed for x, _ in batches], 2):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_batches_bit_for_bit(files: EncodedSplit, workers: int) -> None:
    for split in (MEMORY, files):
        options = {"seed": 3, "augment": True, "mirror": True, "start": 2}
        assert_same(first(6, split, **options), first(6, split, workers=workers, **options))


def test_workers_take_no_numbers_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    first(1, MEMORY, seed=0, augment=True, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_chunks_show_all_images_in_order(files: EncodedSplit, workers: int) -> None:
    images, labels = zip(*chunks(files, 8, workers=workers), strict=True)
    assert [len(part) for part in images] == [8, 8, 6]
    assert torch.equal(torch.cat(images), files.load(torch.arange(COUNT)))
    assert torch.equal(torch.cat(labels), files.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_meanwhile_is_one_clear_error(files: EncodedSplit, tmp_path: Path, workers: int) -> None:
    (tmp_path / "7.png").write_bytes(b"not a picture")
    with pytest.raises(DataError) as caught:
        first(5, files, seed=0, workers=workers)
    assert str(caught.value).startswith(f"{tmp_path / '7.png'}: not a readable image")
    assert "Traceback" not in str(caught.value)


def test_workers_end_when_the_consumer_is_interrupted(files: EncodedSplit) -> None:
    def consume() -> None:
        for _ in stream(files, 5, seed=0, workers=2):
            assert len(multiprocessing.active_children()) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()


def test_workers_leave_an_interrupt_to_the_parent(files: EncodedSplit) -> None:
    with closing(stream(files, 5, seed=0, workers=1)) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid or 0, signal.SIGINT)
        assert len(list(itertools.islice(batches, 10))) == 10


@dataclass(frozen=True, eq=False)
class Deadly(MemorySplit):
    """Ends the process that loads from it, as the system does when memory runs out."""

    def load(self, index: Tensor) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().load(index)


def test_a_worker_that_is_killed_is_one_clear_error() -> None:
    with pytest.raises(DataError, match=r"ended unexpectedly .* use fewer workers"):
        first(1, Deadly(MEMORY.images, MEMORY.labels), seed=0, workers=1)


@dataclass(frozen=True, eq=False)
class Slow(MemorySplit):
    """Takes so long over a batch that the parent is waiting for it."""

    def load(self, index: Tensor) -> Tensor:
        time.sleep(60)
        return super().load(index)


@pytest.mark.slow
def test_workers_end_when_the_wait_for_them_is_interrupted() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with pytest.raises(KeyboardInterrupt):
            first(1, Slow(MEMORY.images, MEMORY.labels), seed=0, workers=1)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_empty_split_and_an_empty_batch_are_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        stream(MEMORY.take(torch.arange(0)), 5, seed=0)
    with pytest.raises(DataError, match="batch size of 0"):
        stream(MEMORY, 0, seed=0)
