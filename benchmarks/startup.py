"""How soon a command answers: processor and wall seconds of whole commands.

Each is a process of its own, with the interpreter's own start; the kinds in turn, so that a busy hour meets all alike.
Beside them in the same run `import numpy`, without which nothing is computed, and `import torch`, which only what
trains needs. Medians, and the range; a column tells which slow libraries each command has imported.

    python -m benchmarks.startup [--predictor pixel4-cpu-networks] [--runs 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.predict_many import spread, write

PROGRAM = "import sys; from netlathe.cli import main; sys.argv[0] = 'netlathe'; sys.exit(main())"
SLOW_LIBRARIES = ("torch", "matplotlib", "pandas", "scipy", "sklearn", "xgboost", "optuna", "pyarrow", "onnx")
"""Libraries that take a tenth of a second or more to import."""


def cases(predictor: str, folder: Path) -> dict[str, list[str]]:
    """Arguments of the interpreter, by what they stand for; files that are needed are written into the folder."""
    files = {kind: paths[1] for kind, paths in write(folder, 2).items()}
    commands = {
        "netlathe --help": ["--help"],
        "netlathe search --help": ["search", "--help"],
        "netlathe predictors": ["predictors"],
        "netlathe devices": ["devices"],
        "netlathe predict mobilenet_v2": ["predict", "mobilenet_v2", "--predictor", predictor],
        "netlathe predict FILE.onnx": ["predict", str(files["onnx"]), "--predictor", predictor],
        "netlathe predict FILE.tflite": ["predict", str(files["tflite"]), "--predictor", predictor],
        "netlathe profile --dry-run": [
            "profile", "--device", "local", "--space", "tiny", "--output", str(folder / "p.sqlite"), "--dry-run",
        ],
    }  # fmt: skip
    imports = {f"import {name}": ["-c", f"import {name}"] for name in ("numpy", "torch", "netlathe")}
    return imports | {name: ["-c", PROGRAM, *words] for name, words in commands.items()}


def seconds(words: Sequence[str]) -> tuple[float, float]:
    """Processor and wall seconds of a command, the interpreter's own among them."""
    before, started = os.times(), time.monotonic()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = os.times()
    used = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return used, time.monotonic() - started


def slow_imports(words: Sequence[str]) -> list[str]:
    """Slow libraries that a command has imported when it ends."""
    tell = f"import atexit, sys; atexit.register(lambda: print(*({set(SLOW_LIBRARIES)!r} & sys.modules.keys())))"
    first, program, *rest = words
    run = subprocess.run(
        [sys.executable, first, f"{tell}; {program}", *rest], check=True, capture_output=True, text=True
    )
    return sorted(run.stdout.splitlines()[-1].split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictor", default="pixel4-cpu-networks")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = cases(options.predictor, Path(scratch))
        imported = {name: slow_imports(words) for name, words in found.items()}  # also brings files from the disk
        rounds = [{name: seconds(words) for name, words in found.items()} for _ in range(options.runs)]
    print("| command | processor | wall | x numpy | slow libraries imported |\n|---|---:|---:|---:|---|")
    for name in found:
        used, wall = ([one[name][column] for one in rounds] for column in (0, 1))
        ratio = statistics.median(one[name][0] / one["import numpy"][0] for one in rounds)
        print(f"| `{name}` | {spread(used)} | {spread(wall)} | {ratio:.1f} | {', '.join(imported[name])} |")


if __name__ == "__main__":
    main()
