"""Several processes that compute one training or search together: their group, passed as an object."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from netlathe.training.errors import LostRankError, ToldElsewhereError, TrainingError
from netlathe.training.launch import is_one_of_several

T = TypeVar("T")

BUCKET_BYTES = 32 << 20
"""Bytes of gradients that travel together: a message of its own for each of hundreds of layers costs more than it
carries."""
_MEETING_S = 300.0
"""Seconds that processes wait for one another at the start."""
_ASKING_S = 5.0
"""Longest wait of the first process for the others where it fails."""
_FAILED = "netlathe/failed"
"""Number of processes that have failed, in the store."""
_WAIT = timedelta(days=14)
"""Longest wait for the leader, which may measure on a phone for days; a process that ends is noticed at once."""


@dataclass(frozen=True)
class Share:
    """Images of a batch that one process computes: a slice of each of the batch's parts."""

    size: int
    """Images of the whole batch."""
    slices: tuple[slice, ...]
    """Places in the batch, by parts."""

    @property
    def kept(self) -> Tensor | None:
        """Whether each image of the batch is one of these, bool (size,); None where all are."""
        kept = torch.zeros(self.size, dtype=torch.bool)
        for part in self.slices:
            kept[part] = True
        return None if bool(kept.all()) else kept

    def parts(self, x: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        """The images of this share and their labels in parts, each with its part of the whole batch, 0..1. Means over
        parts, so weighted, add up to the batch's mean over all processes."""
        counts = [part.stop - part.start for part in self.slices]
        for images, wanted, count in zip(torch.split(x, counts), torch.split(labels, counts), counts, strict=True):
            yield images, wanted, count / self.size


class Ranks:
    """The process alone: it does all of the work, and nothing here costs anything. `Group` has others beside it.

    All processes of a group make the same calls in the same order, and each call returns when all have made it.
    """

    index: int = 0
    """Number of this process, from 0; that of the leader, which alone writes and speaks, is 0."""
    threads: int = 0
    """Threads that this process takes of its machine's, so that all of a machine have some; 0: as torch does."""

    @property
    def count(self) -> int:
        """Number of processes."""
        return 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.index == 0

    def told(self, work: Callable[[], T]) -> T:
        """The result of `work`, which the leader alone calls, and is alone in meanwhile; the others get a copy, or a
        ToldElsewhereError where it raised anything."""
        return work()

    def any(self, value: bool) -> bool:
        """Whether the value is true in any process."""
        return value

    def add(self, *tensors: Tensor) -> None:
        """Puts the sum over all processes in the place of each tensor, the same bits everywhere."""

    def rows(self, row: Tensor) -> Tensor:
        """The rows (length,) of all processes, (processes, length)."""
        return row[None]

    def total(self, loss: Tensor) -> Tensor:
        """The sum of a loss over all processes, whose gradient is that of this process's part."""
        return loss

    def of_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same tensors, whose gradients are sums over all processes."""
        return list(tensors)

    def align(self, module: nn.Module) -> None:
        """Gives the module the leader's weights and statistics."""

    def check_same(self, values: Tensor, what: str) -> None:
        """Raises TrainingError, with `what` in its words, where the values are not the same bits in all processes."""

    def portion(self, count: int) -> range:
        """This process's part of `count` pieces of work, none of which is another's; may be empty."""
        return range(self.index * count // self.count, (self.index + 1) * count // self.count)

    def share(self, size: int, parts: int, *, least: int = 1) -> Share:
        """This process's share of a batch of `size` images that is computed in parts. Raises TrainingError where a
        process would have fewer than `least` images of a part."""
        slices = []
        for part in range(parts):
            begin, end = _cut(0, size, part, parts)
            first, last = _cut(begin, end, self.index, self.count)
            slices.append(slice(first, last))
        if self.count > 1 and size // parts // self.count < least:
            raise TrainingError(
                f"a batch of {size} images in {parts} parts is too small for {self.count} processes, each of which "
                f"needs {least} of every part; use larger batches or fewer parts, or start fewer processes"
            )
        return Share(size, tuple(slices))


ALONE = Ranks()
"""The one process of most runs."""


def _cut(begin: int, end: int, index: int, count: int) -> tuple[int, int]:
    """Ends of a part of begin..end, the first parts one longer where they cannot be equal, as torch.tensor_split."""
    least, longer = divmod(end - begin, count)
    first = begin + index * least + min(index, longer)
    return first, first + least + (index < longer)


class Group(Ranks):
    """One of several processes that torchrun, or any other starter, has brought together.

    Tensors on the CPU go over gloo, those on a GPU over NCCL. Raises LostRankError where another process is gone.
    """

    def __init__(
        self, cpu: distributed.ProcessGroup, gpu: distributed.ProcessGroup | None, *, threads: int = 0
    ) -> None:
        self._cpu, self._gpu = cpu, gpu
        self.index, self._count = distributed.get_rank(cpu), distributed.get_world_size(cpu)
        self.threads = threads
        self._is_telling = False

    @property
    def count(self) -> int:
        return 1 if self._is_telling else self._count

    def told(self, work: Callable[[], T]) -> T:
        if self.count == 1:
            return work()
        if self.leads:
            return self._lead(work)
        is_done, value = self._sent(None)
        if not is_done:
            raise ToldElsewhereError(value)
        return value  # type: ignore[no-any-return]

    def _lead(self, work: Callable[[], T]) -> T:
        self._is_telling = True
        try:
            value = work()
        except BaseException as error:
            self._is_telling = False
            with suppress(LostRankError):
                self._sent((False, str(error) or repr(error)))
            raise
        finally:
            self._is_telling = False
        self._sent((True, value))
        return value

    def _sent(self, message: Any) -> Any:
        """The leader's message."""
        box = [message]
        with _noticing():
            distributed.broadcast_object_list(box, src=0, group=self._cpu)
        return box[0]

    def any(self, value: bool) -> bool:
        found = torch.tensor(int(value))
        self.add(found)
        return bool(found)

    def add(self, *tensors: Tensor) -> None:
        if self.count == 1:
            return
        buckets = [(some, torch.cat([one.detach().reshape(-1) for one in some])) for some in _buckets(tensors)]
        with _noticing():
            for work in [self._all_reduce(flat) for _, flat in buckets]:
                work.wait()
        for some, flat in buckets:
            for one, values in zip(some, torch.split(flat, [one.numel() for one in some]), strict=True):
                one.detach().copy_(values.view(one.shape))

    def _all_reduce(self, values: Tensor) -> distributed.Work:
        group = self._cpu if values.device.type == "cpu" else self._gpu
        return cast(distributed.Work, distributed.all_reduce(values, group=group, async_op=True))

    def rows(self, row: Tensor) -> Tensor:
        table = row.new_zeros((self.count, len(row)))
        table[self.index if self.count > 1 else 0] = row.detach()
        self.add(table)  # an exact copy: zeros are added to it
        return table

    def total(self, loss: Tensor) -> Tensor:
        summed: Tensor = _Total.apply(loss, self)  # type: ignore[no-untyped-call]
        return summed

    def of_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        if not tensors:
            return []
        joined: Tensor = _OfAll.apply(torch.cat([one.reshape(-1) for one in tensors]), self)  # type: ignore[no-untyped-call]
        parts = torch.split(joined, [one.numel() for one in tensors])
        return [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]

    @torch.no_grad()
    def align(self, module: nn.Module) -> None:
        if self.count == 1:
            return
        values = [one.detach() for one in module.state_dict().values()]
        if not self.leads:
            for one in values:
                one.zero_()
        self.add(*values)

    def check_same(self, values: Tensor, what: str) -> None:
        content = values.detach().cpu().contiguous().numpy().tobytes()
        number = int.from_bytes(hashlib.blake2b(content, digest_size=7).digest())
        found = self.rows(torch.tensor([number]))
        if bool((found != number).any()):
            raise TrainingError(
                f"{what} differ between the processes of this run, which must compute alike: start them with the same "
                "versions, on processors of one kind"
            )


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one kind after another, BUCKET_BYTES at most where they are several."""
    bucket: list[Tensor] = []
    size, kind = 0, None
    for one in tensors:
        if bucket and ((one.dtype, one.device) != kind or size + one.nbytes > BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(one)
        size, kind = size + one.nbytes, (one.dtype, one.device)
    if bucket:
        yield bucket


class _Total(torch.autograd.Function):
    """The sum over all processes; each one's gradient is that of its own summand."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: Ranks) -> Tensor:
        summed = value.clone()
        ranks.add(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


class _OfAll(torch.autograd.Function):
    """The same value; its gradient is the sum of all processes'."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        summed = slope.clone()
        ctx.ranks.add(summed)
        return summed, None


@contextmanager
def _noticing() -> Iterator[None]:
    """Context in which torch's error of a broken connection becomes the one of a process that is gone."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error) or repr(error)).splitlines()[0].partition("] ")[2] or str(error)
        raise LostRankError(
            f"a process of this run is gone ({reason.partition('. ')[0]:.120}). What was searched and trained up to "
            "the last checkpoint is kept; the same command goes on from there, with as many processes as you like"
        ) from error


@contextmanager
def joined() -> Iterator[Ranks]:
    """Context in which this process works with those that torchrun started beside it, by torch's usual variables
    (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), or that the caller has brought together; alone where there are none.

    Of several processes that fail, the first one's error is raised as it is, and all others' as ToldElsewhereError, so
    that one tells why a run ended. Raises TrainingError where the processes do not find one another.
    """
    if distributed.is_available() and distributed.is_initialized():
        yield _group()
        return
    if not is_one_of_several():
        yield ALONE
        return
    store = _met()
    try:
        with _one_telling(store):
            yield _group()
    except ToldElsewhereError:
        raise
    except BaseException as error:  # the starter ends all others by a signal, even while they part
        lost = _lost_before(error)
        if lost is None or lost is error:
            raise
        raise LostRankError(str(lost)) from error


@contextmanager
def _one_telling(store: Any) -> Iterator[None]:
    """Context at whose end the processes part; of those that fail, the first one's error stays as it is."""
    has_failed, index, count = False, distributed.get_rank(), distributed.get_world_size()
    try:
        yield
    except BaseException as error:
        has_failed = True
        if _is_told(store):
            raise ToldElsewhereError(str(error)) from error
        raise
    finally:
        distributed.destroy_process_group()  # whereby the others notice
        if has_failed and index == 0:
            _let_ask(store, count)


def _met() -> Any:
    """Brings the processes together, and returns the store through which they met."""
    try:
        meeting = rendezvous("env://", timeout=timedelta(seconds=_MEETING_S))
        store, index, count = next(iter(meeting))
        distributed.init_process_group("gloo", store=store, rank=index, world_size=count, timeout=_WAIT)
    except (RuntimeError, ValueError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise TrainingError(
            f"the processes of this run did not find one another ({reason:.200}); start them with torchrun, and see "
            "that MASTER_ADDR and MASTER_PORT can be reached from every machine"
        ) from error
    return store


def _group() -> Group:
    """All processes, each with the GPU of its number on the machine where there are any."""
    cpu, gpu = distributed.group.WORLD, None
    assert cpu is not None
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"process {local} of this machine has no GPU of its own, as there are {torch.cuda.device_count()}; "
                "start as many processes as there are GPUs"
            )
        torch.cuda.set_device(local)
        gpu = distributed.new_group(backend="nccl")
    beside = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return Group(cpu, gpu, threads=max(1, processors() // beside))


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_told(store: Any) -> bool:
    """Whether another process has failed before this one, and tells why."""
    try:
        return int(store.add(_FAILED, 1)) > 1
    except RuntimeError:  # the store is gone with the process that had it
        return False


def _let_ask(store: Any, count: int) -> None:
    """Keeps the store, which is gone with this process, until all have asked it why the run ended, or some seconds have
    passed: one that computes on asks later, or never."""
    end_s = time.monotonic() + _ASKING_S
    with suppress(RuntimeError):
        while int(store.add(_FAILED, 0)) < count and time.monotonic() < end_s:
            time.sleep(0.05)


def _lost_before(error: BaseException | None) -> LostRankError | None:
    """The loss of a process that an error came after."""
    while error is not None:
        if isinstance(error, LostRankError):
            return error
        error = error.__cause__ or error.__context__
    return None
