"""Models of others, compressed to a share of their own latency on this machine, judged by its stopwatch.

Each .onnx file is written as .tflite, timed by LiteRT, and compressed to a share of that without data, so by structure
alone, with the stopwatch as the judge. At the end original and result are timed once more, in turn: `again` is their
ratio over the share, free of the machine's drift since. CPU seconds are those of the whole compression, its stopwatch
and files included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import netlathe as nl
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.files import write_whole
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.cli.console import Terminal

KERNELS, BUDGET_S = 300, 180
PROFILE = "local.sqlite"


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    """Compresses what is not done yet, and shows all. Raises NetlatheError where there is no folder of models."""
    if options.models is None or not options.models.is_dir():
        raise NetlatheError(f"--models {options.models}: there is no such folder")
    options.output.mkdir(parents=True, exist_ok=True)
    predictor = _predictor(options.output, options.seed, terminal)
    paths = sorted(path for path in options.models.glob("*.onnx") if not options.names or path.stem in options.names)
    found = [_compressed(path, options, predictor, terminal) for path in paths]
    report(found, terminal)


def _predictor(folder: Path, seed: int, terminal: Terminal) -> Path:
    """This machine's, by its kernels."""
    path = folder / "local.json"
    if not path.exists():
        profile = folder / PROFILE
        nl.profile(
            profile, space="kernels", device="local", blocks=KERNELS, networks=0, budget_s=BUDGET_S, seed=seed,
            progress=terminal,
        )  # fmt: skip
        nl.fit(profile, output=path)
    return path


def _compressed(path: Path, options: argparse.Namespace, predictor: Path, terminal: Terminal) -> dict[str, Any]:
    """Outcome of one model, from the file that it was kept in or anew."""
    folder: Path = options.output / f"{path.stem}_{options.share:g}"
    kept = folder.with_name(f"{folder.name}.json")
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    terminal.step(path.stem)
    try:
        outcome = _compress(path, folder, options, predictor, terminal)
    except NetlatheError as error:
        outcome = {"name": path.stem, "error": str(error)}
    write_whole(kept, json.dumps(outcome).encode())
    return outcome


def _compress(
    path: Path, folder: Path, options: argparse.Namespace, predictor: Path, terminal: Terminal
) -> dict[str, Any]:
    original = options.output / f"{path.stem}.tflite"
    graph, weights = nl.read_weights(path)
    original.write_bytes(write_tflite(graph, weights))
    profile = options.output / PROFILE
    before = _measured([original], profile)[0]
    target = nl.Target(str(predictor), ms=options.share * before)
    started = time.process_time()
    found = nl.compress(
        original, target=target, device="local", profile=profile, output=folder, seed=options.seed, unknown="price",
        progress=terminal,
    )  # fmt: skip
    cpu_s = time.process_time() - started
    if not found.is_changed:
        raise NetlatheError(f"left alone: {found.targets[0].predicted_ms:.3g} of {target.ms:.3g} ms are predicted")
    again, after = _measured([original, Path(found.files["tflite"])], profile)
    first, last = found.stages[0], found.stages[-1]
    return {
        "name": path.stem, "original_ms": before, "target_ms": options.share * before,
        "again": after / (options.share * again), "judged_ms": found.targets[0].measured_ms,
        "predicted_ms": found.targets[0].predicted_ms, "is_met": found.is_met, "judged": dict(found.judged),
        "macs": last.macs / first.macs, "cpu_s": cpu_s, "fixed": len(found.fixed),
    }  # fmt: skip


def _measured(files: Sequence[Path], profile: Path) -> list[float]:
    """Latencies in ms, of files that are timed in turn, at the speed that the machine had at the profile."""
    timed = nl.time([*files], device="local", profile=profile)
    return [one.latency_ms for one in timed.timed if one.latency_ms is not None]


def report(found: Sequence[dict[str, Any]], terminal: Terminal) -> None:
    """A line of each model, then what they come to."""
    rows = []
    for one in found:
        if "error" in one:
            rows.append((one["name"], "-", "-", "-", "-", "-", "-", "-", one["error"][:60]))
            continue
        target = one["target_ms"]
        rows.append(
            (
                one["name"], f"{one['original_ms']:.3g}", f"{target:.3g}", f"{one['predicted_ms'] / target:.3f}",
                f"{one['judged_ms'] / target:.3f}", f"{one['again']:.3f}", f"{100 * one['macs']:.0f} %",
                f"{one['cpu_s']:.0f}", "met" if one["is_met"] else "missed",
            )
        )  # fmt: skip
    columns = ("model", "ms", "target", "predicted", "measured", "again", "MACs left", "CPU s", "judge")
    terminal.table(columns, rows)
    done = [one for one in found if "error" not in one]
    terminal.say(f"{sum(one['is_met'] for one in done)} of {len(found)} meet their targets when they are measured")
