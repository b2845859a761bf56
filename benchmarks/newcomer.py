"""A newcomer's path: the tutorials, typed as they stand, with the time of each step.

The phone is one on 127.0.0.1 (Linux with mksh and toybox); the target of the search is 60 % of the usual network's
latency, as the tutorial says. From the root of a checkout, in the environment to be tried, ten minutes on a quiet
machine:

    python -m benchmarks.newcomer
    python -m benchmarks.newcomer --pages my-phone
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.documents import DOCS, ROOT, snippets
from tests.loopback.adbd import AdbDaemon
from tests.loopback.phone import BENCHMARK_MODEL, LoopbackPhone

PAGES = ("my-phone", "prune", "search")


class Step(NamedTuple):
    """A command or snippet that a newcomer types, and what it took; `processor_s` is of the computer's own processes,
    not of the phone's."""

    words: str
    wall_s: float
    processor_s: float
    output: str


def main() -> None:
    """Prints a line for each step. Stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", nargs="+", choices=PAGES, default=PAGES, help="tutorials; all by default")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        LoopbackPhone(Path(folder) / "phone") as phone,
        AdbDaemon(phone) as daemon,
    ):
        for page in options.pages:
            walk(page, Path(folder) / page, f"--device {daemon.address} --benchmark-binary {BENCHMARK_MODEL}")


def walk(page: str, folder: Path, phone: str) -> None:
    """Types a tutorial in a new folder."""
    folder.mkdir()
    target = ""
    for snippet in snippets(DOCS / f"tutorials/{page}.md"):
        for words in [snippet.code] if snippet.language == "python" else snippet.commands:
            shown = words.replace("--device usb", phone)
            shown = re.sub(r"--target-ms [\d.]+", f"--target-ms {target}", shown) if target else shown
            command = [sys.executable, "-c", words] if snippet.language == "python" else shown
            step = take(command, folder)
            name = f"Python, line {snippet.line}" if snippet.language == "python" else words
            print(f"{page:9} {step.wall_s:6.1f} s wall {step.processor_s:6.1f} s processor  {name:.80}", flush=True)
            found = re.search(r"would be ([\d.]+) ms", step.output)
            target = found[1] if found else target


def take(command: list[str] | str, folder: Path) -> Step:
    """Runs one step. Raises SystemExit with its output where it fails."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    before, started = os.times(), time.monotonic()
    found = subprocess.run(
        command, shell=isinstance(command, str), cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    wall_s, after = time.monotonic() - started, os.times()
    if found.returncode:
        raise SystemExit(f"{command}\n{found.stdout}\n{found.stderr}")
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return Step(str(command), wall_s, spent, found.stdout)


if __name__ == "__main__":
    main()
