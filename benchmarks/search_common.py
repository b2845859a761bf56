"""Shared parts of the benchmarks of the search: a predictor of this host, results as files, and time left."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netlathe import fitting, stages
from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv
from netlathe.archspace.jsonfile import write_json
from netlathe.archspace.presets import make_divisible
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.archspace.tables import read_records
from netlathe.cli.console import Terminal
from netlathe.cli.fit import show_fit
from netlathe.cli.profile import show_summary
from netlathe.predictor import LatencyPredictor
from netlathe.profiler import Plan, open_device

CIFAR10 = "cifar10.parquet"
"""Images by default, in the working folder: columns split, label and the encoded image."""

PLAN = Plan(min_rounds=10, max_rounds=40, target_error=0.005, budget_s=150)


def host_predictor(
    space: SearchSpace, path: Path, *, terminal: Terminal, networks: int = 16, seed: int = 0
) -> LatencyPredictor:
    """The predictor in the file `path`; where there is none, one fitted on every block of the space and some of its
    networks, timed on this machine. The profile lies beside it, as path.sqlite."""
    profile = profile_of(path)
    if not path.exists():
        with open_device("local") as device:
            terminal.step(f"Profiling {space.name} on {device.setup}")
            items = stages.work_items(space, networks=networks, batch=1, seed=seed)
            show_summary(
                stages.campaign_with_listener(device, items, profile, PLAN, seed=seed, listener=terminal), terminal
            )
        show_fit(fitting.fit(profile, path, seed=seed, splits=("configuration", "network")), terminal)
    measured = {record.graph.key for record in read_records(profile)}
    missing = [block.name for block in space.distinct_blocks() if block.graph().key not in measured]
    if missing:
        sys.exit(f"{profile}: was not measured for this space, it has no {missing[0]}: name another file")
    model = LatencyPredictor.load(path)
    terminal.say(f"Latency by {path}: {model.setup_}")
    return model


def profile_of(path: Path) -> Path:
    """The profile that a host's predictor was fitted on."""
    return path.with_suffix(".sqlite")


class Results:
    """Rows of a long run, in a JSON file after each of them: a run that is cut off goes on where it was."""

    def __init__(self, path: Path, kind: str, settings: Mapping[str, Any]) -> None:
        self.path, self.kind = path, kind
        self.settings = json.loads(json.dumps(settings))
        self.content: dict[str, Any] = {}
        if path.exists():
            content = json.loads(path.read_text())
            if content.get("settings") != self.settings:
                sys.exit(f"{path}: holds results of other settings; remove it, or name another with --output")
            self.content = content["results"]

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def put(self, key: str, value: Any) -> None:
        """Durable on return."""
        self.content[key] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.kind, 1, {"settings": self.settings, "results": self.content})


class Clock:
    """Progress lines on standard error: what was done, and how long the rest will take at this pace."""

    def __init__(self, total: float) -> None:
        self.total, self.done, self.begun = total, 0.0, time.monotonic()

    def tell(self, share: float, text: str) -> None:
        """`share` of the total work was just done."""
        self.done += share
        elapsed = time.monotonic() - self.begun
        left = elapsed * (self.total - self.done) / max(self.done, 1e-9)
        print(f"{elapsed / 60:5.1f} min, {left / 60:4.1f} left  {text}", file=sys.stderr, flush=True)


def quantile_text(values: Sequence[float], digits: int = 2) -> str:
    """median (largest)."""
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return f"{middle:.{digits}f} ({ordered[-1]:.{digits}f})"


STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, layers and first stride of MobileNetV2's stages, for small images."""


def small_mobilenet_v2(width: float, resolution: int, classes: int) -> Architecture:
    """MobileNetV2 in its usual form for small images: stride 1 in the stem and in the stage of 24 channels, hence an
    eighth of the resolution at its end. Its last convolution scales with widths below 1 too, which makes those faster
    than the published rule does."""
    blocks: list[Block] = [ConvBlock(3, make_divisible(32 * width), resolution, resolution)]
    for expand, channels, layers, stride in STAGES:
        for layer in range(layers):
            size, _, cin = blocks[-1].output_shape
            cout = make_divisible(channels * width)
            blocks.append(MBConv(cin, cout, size, size, stride if layer == 0 else 1, kernel=3, expand=expand))
    size, _, cin = blocks[-1].output_shape
    head = make_divisible(1280 * width)
    blocks += [ConvBlock(cin, head, size, size, kernel=1), LinearHead(head, classes, size, size)]
    return Architecture(f"MobileNetV2 x{width:g}", tuple(blocks))
