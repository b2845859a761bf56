"""Profiling a search space on a device, as a user watches it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspace.profile_file import ProfileFile, check_table_path, write_table
from archspace.spaces import SearchSpace
from netlathe.console import Terminal, milliseconds, percent
from netlathe.stages import profile, work_items

if TYPE_CHECKING:
    from profiler.campaign import CampaignSummary, WorkItem
    from profiler.devices.base import Device
    from profiler.protocol import Plan


def profile_space(
    space: SearchSpace,
    device_name: str,
    output: Path,
    plan: Plan,
    *,
    threads: int,
    batch: int | None,
    networks: int,
    seed: int,
    dry_run: bool,
    table: Path | None,
    terminal: Terminal,
) -> None:
    """Everything that `netlathe profile` does."""
    from profiler.devices import open_device

    if table:
        check_table_path(table)
        table.parent.mkdir(parents=True, exist_ok=True)
    with open_device(device_name, threads=threads, batch=batch) as device:
        items = work_items(space, networks=networks, batch=device.setup.batch, seed=seed)
        if dry_run:
            terminal.result(_forecast(items, output, device, plan, terminal))
            return
        terminal.step(f"Profiling {len(items)} graphs of space {space.name} on {device.setup}")
        summary = profile(device, items, output, plan, seed=seed, terminal=terminal)
    print_summary(summary, terminal)
    if table:
        write_table(summary.records, table)
    terminal.say(f"  Wrote {output}" + (f" and {table}" if table else ""))
    terminal.result({"output": str(output), "space": space.name, **summary_json(summary)})


def _forecast(items: list[WorkItem], output: Path, device: Device, plan: Plan, terminal: Terminal) -> dict[str, Any]:
    from profiler.forecast import dry_run

    if output.is_file():
        with ProfileFile(output) as file:
            forecast = dry_run(items, file, device.setup, plan)
    else:
        forecast = dry_run(items, None, device.setup, plan)
    counts = {
        "new": len(forecast.new),
        "continued": len(forecast.continued),
        "reused": len(forecast.reused),
        "unsupported": len(forecast.unsupported),
    }
    terminal.table(("would", "graphs"), [(f"be {name}", count) for name, count in counts.items()])
    terminal.say(f"  About {forecast.estimate_s:.0f} s on {device.setup}. Nothing was measured (--dry-run).")
    return {"dry_run": True, **counts, "estimate_s": forecast.estimate_s, "setup": device.setup.to_json()}


def print_summary(summary: CampaignSummary, terminal: Terminal) -> None:
    """The table at a campaign's end, then its warnings."""
    rows = []
    for kind in ("block", "network"):
        records = [r for r in summary.records if r.kind == kind]
        if records:
            latencies = sorted(r.latency_ms for r in records)
            stable = sum(bool(r.measurement and r.measurement.is_stable) for r in records)
            span = f"{milliseconds(latencies[0])} to {milliseconds(latencies[-1])}"
            rows.append((f"{kind}s", len(records), f"{stable} of {len(records)}", span))
    terminal.table(("measured", "n", "stable", "ms"), rows)
    counts = f"{summary.rounds} rounds in {summary.wall_s:.0f} s ({summary.inference_s:.1f} s of it timed inference)"
    drift = "" if summary.drift_range is None else ", drift {:.2f} to {:.2f}".format(*summary.drift_range)
    reused = f", {summary.reused} from an earlier run" if summary.reused else ""
    terminal.say(f"  {counts}, noise floor {percent(summary.noise_floor)}{drift}{reused}.", style="dim")
    terminal.warn(summary.warnings)


def summary_json(summary: CampaignSummary) -> dict[str, Any]:
    """The same for machines."""
    return {
        "records": len(summary.records),
        "blocks": sum(r.kind == "block" for r in summary.records),
        "networks": sum(r.kind == "network" for r in summary.records),
        "failed": len(summary.failed),
        "unsupported": len(summary.unsupported),
        "unfinished": len(summary.unfinished),
        "reused": summary.reused,
        "rounds": summary.rounds,
        "wall_s": round(summary.wall_s, 2),
        "inference_s": round(summary.inference_s, 2),
        "noise_floor": summary.noise_floor,
        "drift_range": summary.drift_range,
        "warnings": list(summary.warnings),
        "setup": summary.setup.to_json(),
    }
