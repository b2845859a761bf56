"""Cost of a search in memory and time beside training one network, as the candidates per position grow.

    python -m benchmarks.search_memory                       # on the CPU: 2, 4, 6, 7, 12, 16 candidates at 224 pixels
    python -m benchmarks.search_memory --device cuda --batch 32

The positions are those of the space `proxyless`; its own candidates are 6, and 7 with the identity where the shape
stays. Per image: `saved` are the activations that the forward pass keeps for the backward one (storages, each once,
weights left out); `peak` is the most that is alive within one step beyond weights and images, gradients included, by
following every tensor that torch makes (what a kernel needs inside itself is not seen; on CUDA the allocator's own peak
stands beside it). The active path is the largest single network's, expansion 6 everywhere; the average network is a
random path. `all paths` is what a search without binary gates does: every candidate trained, outputs summed up by
probability.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.search_bytes import Bytes, step_bytes
from netlathe.archspace.blocks import MBConv, Skip
from netlathe.archspace.decisions import Choices
from netlathe.archspace.presets import proxyless
from netlathe.archspace.spaces import SearchSpace
from netlathe.cli.console import Terminal
from netlathe.search.strategies.binarized.parameters import Gate, plain_gates
from netlathe.search.strategies.binarized.supernet import SuperNet
from netlathe.training.compute import Compute
from netlathe.training.sgd import make_optimizer

MIB = 2.0**20
CANDIDATES: dict[int, tuple[tuple[int, ...], tuple[int, ...], bool]] = {
    2: ((3,), (3, 6), False),
    4: ((3, 5), (3, 6), False),
    6: ((3, 5, 7), (3, 6), False),
    7: ((3, 5, 7), (3, 6), True),
    12: ((3, 5, 7, 9), (3, 4, 6), False),
    16: ((3, 5, 7, 9), (3, 4, 5, 6), False),
}
"""Per number of candidates: kernels, expansions, and whether a layer may be skipped where its shape stays."""


FORMS = ("one path", "two paths", "full gates", "recompute", "all paths")
"""A weight step; architecture steps of GradientUpdate's three forms; and the search that they replace."""


def space_of(count: int, resolution: int) -> SearchSpace:
    """The positions of `proxyless` with so many candidates each (7: the identity only where the shape stays)."""
    kernels, expands, skips = CANDIDATES[count]
    base = proxyless(resolution)
    positions = []
    for candidates in base.positions:
        first = candidates[0]
        if len(candidates) == 1 or not isinstance(first, MBConv):
            positions.append(candidates)
            continue
        shape = (first.cin, first.cout, first.height, first.width, first.stride)
        blocks = [MBConv(*shape, kernel=k, expand=e) for k, e in itertools.product(kernels, expands)]
        skip = [b for b in candidates if isinstance(b, Skip)] if skips else []
        positions.append((*blocks, *skip))
    return SearchSpace(f"proxyless{count}", tuple(positions))


def largest_paths(space: SearchSpace) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The widest expansion with the largest kernel everywhere, and another candidate that is as wide where there is
    one."""
    first, second = [], []
    for index in space.searchable:
        blocks = space.positions[index]
        order = sorted(range(len(blocks)), key=lambda i: _width(blocks[i]), reverse=True)
        first.append(order[0])
        second.append(order[1])
    return tuple(first), tuple(second)


def _width(block: object) -> tuple[float, int]:
    return (block.expand, block.kernel) if isinstance(block, MBConv) else (0, 0)


def forward_of(
    supernet: SuperNet, form: str, active: Choices, other: Choices, device: str
) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """Images -> logits in one of FORMS, and the gate values of an architecture step."""
    counts = [len(supernet.space.positions[index]) for index in supernet.space.searchable]
    if form == "one path":
        return partial(supernet, gates=plain_gates(active)), []
    if form == "all paths":
        probabilities = [torch.full((n,), 1 / n, device=device, requires_grad=True) for n in counts]
        return partial(_all_paths, supernet, probabilities), []
    gates = []
    for a, b, n in zip(active, other, counts, strict=True):
        others = (b,) if form == "two paths" else tuple(k for k in range(n) if k != a)
        values = torch.tensor([1.0] + [0.0] * len(others), device=device, requires_grad=True)
        gates.append(Gate(a, others, values, recompute=form == "recompute"))
    return partial(supernet, gates=gates), [gate.values for gate in gates if gate.values is not None]


def _all_paths(supernet: SuperNet, probabilities: Sequence[Tensor], x: Tensor) -> Tensor:
    weights = dict(zip(supernet.space.searchable, probabilities, strict=True))
    for index, candidates in enumerate(supernet.space.positions):
        outputs = [supernet.candidate(index, k)(x) for k in range(len(candidates))]
        x = outputs[0] if len(outputs) == 1 else sum(w * y for w, y in zip(weights[index], outputs, strict=True))
    return x


def memory_rows(counts: Sequence[int], options: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Per number of candidates the largest single network, then each form beside it."""
    compute = Compute(device=options.device)
    for count in counts:
        space = space_of(count, options.resolution)
        supernet = compute.place(SuperNet(space, generator=torch.Generator().manual_seed(0)))
        active, other = largest_paths(space)
        single = compute.place(supernet.extract(active))
        size = options.batch, options.resolution, options.device
        yardstick = step_bytes(single, single, [], *size)
        yield (f"{count} candidates", "largest network", *_cells(yardstick, yardstick, options.batch))
        average = average_bytes(supernet, *size)
        yield ("", "average network", *_cells(average, yardstick, options.batch))
        for form in FORMS:
            forward, wanted = forward_of(supernet, form, active, other, options.device)
            yield ("", form, *_cells(step_bytes(supernet, forward, wanted, *size), yardstick, options.batch))


def average_bytes(supernet: SuperNet, batch: int, size: int, device: str) -> Bytes:
    """Mean over the networks with the same candidate everywhere, which what a position saves by itself makes the mean
    over all networks; the first candidate where there is none of that number."""
    counts = [len(supernet.space.positions[index]) for index in supernet.space.searchable]
    each = []
    for choice in range(max(counts)):
        path = [choice if choice < count else 0 for count in counts]
        each.append(step_bytes(supernet, partial(supernet, gates=plain_gates(path)), [], batch, size, device))
    peaks = [one.allocator_peak for one in each if one.allocator_peak is not None]
    return Bytes(
        round(statistics.fmean(one.saved for one in each)),
        round(statistics.fmean(one.peak for one in each)),
        round(statistics.fmean(peaks)) if peaks else None,
    )


def _cells(one: Bytes, yardstick: Bytes, batch: int) -> list[str]:
    pairs = [(one.saved, yardstick.saved), (one.peak, yardstick.peak), (one.allocator_peak, yardstick.allocator_peak)]
    cells = []
    for value, base in pairs:
        if value is not None and base is not None:
            cells += [f"{value / batch / MIB:.1f}", f"{value / base:.2f}x"]
    return cells


def weight_rows(counts: Sequence[int], resolution: int) -> list[tuple[str, ...]]:
    """Weights with gradients and momentum: a search keeps gradients of one path, momentum of all that has ever run."""
    rows = []
    for count in counts:
        space = space_of(count, resolution)
        supernet = SuperNet(space)
        active, _ = largest_paths(space)
        one = sum(p.numel() for p in supernet.extract(active).parameters())
        all_weights = sum(p.numel() for p in supernet.parameters())
        for position, index in enumerate(space.searchable):
            others = [k for k in range(len(space.positions[index])) if k != active[position]]
            for candidate in others[: len(space.positions[index]) // 2]:
                supernet.drop(index, candidate)
        left = sum(p.numel() for p in supernet.parameters())
        cells = (3 * one, one + 2 * all_weights, one + 2 * left)
        rows.append((f"{count} candidates", *(f"{4 * n / MIB:.1f}" for n in cells), f"{1 - cells[2] / cells[1]:.0%}"))
    return rows


def step_times(options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of a weight step of the supernet on a path, and of the network of that path trained alone; in turns."""
    space, compute = proxyless(options.resolution), Compute(device=options.device)
    supernet = compute.place(SuperNet(space, generator=torch.Generator().manual_seed(0))).train()
    active, _ = largest_paths(space)
    single = compute.place(supernet.extract(active)).train()
    x = torch.randn(options.batch, 3, options.resolution, options.resolution, device=options.device)
    x = x.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(options.batch, dtype=torch.long, device=options.device)
    gates = plain_gates(active)
    runs = [(supernet, lambda: supernet(x, gates)), (single, lambda: single(x))]
    optimizers = [make_optimizer(module, 1e-3, 0.9, 4e-5) for module, _ in runs]
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(options.turns + 2):
        for index in (0, 1) if turn % 2 else (1, 0):
            begun = time.perf_counter()
            optimizers[index].zero_grad(set_to_none=True)
            F.cross_entropy(runs[index][1](), labels).backward()  # type: ignore[no-untyped-call]
            optimizers[index].step()
            if options.device == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:
                seconds[index].append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", default=",".join(map(str, CANDIDATES)), help="numbers of candidates")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--turns", type=int, default=11, help="timed steps of each kind")
    options = parser.parse_args()
    counts = [int(word) for word in options.candidates.split(",")]
    terminal = Terminal()
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}; batch {options.batch} at {options.resolution} pixels, float32")
    columns = ["", "one step of", "saved MiB an image", "", "peak MiB an image", ""]
    columns += ["allocator's peak", ""] if options.device == "cuda" else []
    terminal.table(columns, memory_rows(counts, options))
    columns = ["weights, MiB", "largest network", "search", "half of the candidates pruned", "saved"]
    terminal.table(columns, weight_rows(counts, options.resolution))
    ours, plain = step_times(options)
    pairs = sorted(a / b for a, b in zip(ours, plain, strict=True))
    print(
        f"  A weight step of the supernet takes {1e3 * statistics.median(ours):.0f} ms, of the same network alone "
        f"{1e3 * statistics.median(plain):.0f} ms: {statistics.median(pairs):.3f}x (median of {len(pairs)} pairs, "
        f"{pairs[len(pairs) // 4]:.3f} to {pairs[3 * len(pairs) // 4]:.3f} in the middle half)"
    )


if __name__ == "__main__":
    main()
