"""The steps from device to network, each from files to files. The commands and the demo call these same functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.events import Listener, Watch

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor
    from netlathe.profiler.again import Which
    from netlathe.profiler.campaign import CampaignSummary, Progress, WorkItem
    from netlathe.profiler.device import Device
    from netlathe.profiler.protocol import Plan


@contextmanager
def results_first(address: str, listener: Listener) -> Iterator[None]:
    """Context around an open device: a phone that could not be given back as it was is a warning at once, but an
    error only once the results are out (Listener.undone)."""
    from netlathe.profiler.errors import NotRestoredError

    try:
        yield
    except NotRestoredError as error:
        listener.undone[address] = str(error)
        listener.warn([str(error)])
    else:
        listener.undone.pop(address, None)  # what an earlier opening left is put right


def work_items(space: SearchSpace, *, networks: int, batch: int, seed: int) -> list[WorkItem]:
    """The space's distinct blocks, then some whole networks: they tell what a network costs beyond its blocks."""
    from netlathe.profiler.campaign import WorkItem

    blocks = [WorkItem(block.name, "block", block.graph(batch)) for block in space.distinct_blocks()]
    return blocks + [WorkItem(a.name, "network", a.graph(batch)) for a in space.sample_over_macs(networks, seed)]


def campaign_with_listener(
    device: Device, items: Sequence[WorkItem], path: Path, plan: Plan, *, seed: int, listener: Listener
) -> CampaignSummary:
    """Measures what the profile file does not hold yet, with a bar on the listener."""
    with listener.watching(["measuring"]) as (watch,):
        return campaign_with_watch(device, items, path, plan, seed=seed, watch=watch)


def campaign_with_watch(
    device: Device,
    items: Sequence[WorkItem],
    path: Path,
    plan: Plan,
    *,
    again: Which | None = None,
    seed: int,
    watch: Watch,
    on_wait: Callable[[str], None] = lambda words: None,
) -> CampaignSummary:
    """Measures what the profile file does not hold yet. `watch` is told of the progress, `on_wait` whenever the device
    begins to wait for something."""
    from netlathe.profiler.campaign import run_campaign

    furthest, waited = 0.0, False

    def on_progress(progress: Progress) -> None:
        nonlocal furthest, waited
        furthest = max(furthest, progress.share)  # a better estimate of the time left moves no bar back
        watch(furthest, progress.eta_s, _note(progress))
        if progress.is_waiting and not waited:
            on_wait(progress.current)
        waited = progress.is_waiting

    with ProfileFile(path, create=True) as file:
        return run_campaign(device, items, file, plan, again=again, seed=seed, on_progress=on_progress)


def _note(progress: Progress) -> str:
    """Note on what is going on, the most important first."""
    if progress.is_waiting:
        return progress.current
    notes = [f"{progress.done}/{progress.total} graphs", f"round {progress.round}"]
    notes += [f"{progress.redone} redone"] if progress.redone else []
    warmest = [progress.conditions[name] for name in ("skin_c", "battery_c", "cpu_c") if name in progress.conditions]
    notes += [f"{warmest[0]:.1f} °C"] if warmest else []
    return ", ".join([*notes, progress.current] if progress.current else notes)


def part_latencies_ms(model: LatencyPredictor, architecture: Architecture) -> list[float]:
    """Contribution of each block to a network's predicted latency, in ms; an identity adds nothing."""
    return [float(row[0]) for row in model.tabulate([[block] for block in architecture.blocks]).latency_ms]
