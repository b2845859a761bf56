"""Whether all that netlathe needs is to be had for each platform and Python, as wheels: a table.

Resolves pyproject.toml by uv (`pip install uv`) against the package index that uv is set up for; nothing is installed.
Wheels are asked for, as a compiler is nobody's business; what is pure Python and published as source alone is built
anywhere, and listed in SOURCES. Exit code 1 where something is not to be had; the reason follows the table.

    python -m scripts.check_platforms [--extra all] [--python 3.11 3.12 3.13 3.14]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux aarch64": "aarch64-manylinux_2_28",
    "macOS 14 arm64": "aarch64-apple-darwin",
    "Windows x86-64": "x86_64-pc-windows-msvc",
}
"""Platforms as people call them, and as uv does."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SOURCES = ("adb-shell",)
"""Packages of pure Python that are published as source alone."""
OLDEST_MACOS = "14.0"
"""Oldest macOS that counts: ONNX Runtime has no wheels for older ones and Python 3.14."""


def resolve(uv: str, platform: str, python: str, extra: str) -> tuple[dict[str, str], str]:
    """Versions by package where all of it is to be had, else none and the reason."""
    command = [
        uv, "pip", "compile", str(ROOT / "pyproject.toml"), "--python-platform", platform, "--python-version", python,
        "--only-binary", ":all:", *(word for name in SOURCES for word in ("--no-binary", name)),
        "--no-header", "--no-annotate", "--quiet",
    ]  # fmt: skip
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS}
    run = subprocess.run(
        [*command, *(["--extra", extra] if extra else [])], capture_output=True, text=True, check=False, env=environment
    )
    found = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", run.stdout, flags=re.MULTILINE))
    return (found, "") if run.returncode == 0 else ({}, " ".join(run.stderr.split()))


def main() -> None:
    """Prints the table, then the reasons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", default="", help="an extra that is asked for, too")
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="VERSION", help="versions of Python")
    options = parser.parse_args()
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("uv is not installed: pip install uv")
    reasons = []
    print(f"| | {' | '.join(options.python)} |\n|---|{'---|' * len(options.python)}", flush=True)
    for name, platform in PLATFORMS.items():
        cells = []
        for python in options.python:
            found, reason = resolve(uv, platform, python, options.extra)
            cells.append(f"{len(found)} packages" if found else "no")
            reasons += [f"{name}, Python {python}: {reason}"] if reason else []
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    for reason in reasons:
        print(f"\n{reason}")
    sys.exit(bool(reasons))


if __name__ == "__main__":
    main()
