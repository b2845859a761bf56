"""The files beside the code are found, and the phone's script runs in a POSIX shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from archspace.errors import FormatError
from archspace.resources import data_path, device_script_path


def test_data_and_scripts_of_the_checkout_are_found() -> None:
    assert data_path("nas_bench_macro_cifar10.parquet").is_file()
    assert device_script_path("describe.sh").read_text().startswith("#!/system/bin/sh")


def test_a_missing_file_lists_what_there_is() -> None:
    with pytest.raises(FormatError, match=r"has no 'describe\.bat'; it has describe\.sh"):
        device_script_path("describe.bat")


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A phone's /sys: two cores, the second offline, and two thermal zones of which one is denied."""
    for core, fields in {0: {"cpuinfo_max_freq": "1704000", "scaling_governor": "sched_pixel"}, 1: {}}.items():
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        (folder if fields else folder.parent).mkdir(parents=True)
        for name, value in fields.items():
            (folder / name).write_text(value + "\n")
    for zone, kind in enumerate(("BIG", "battery")):
        folder = tmp_path / f"class/thermal/thermal_zone{zone}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(kind + "\n")
    (tmp_path / "class/thermal/thermal_zone0/temp").write_text("41250\n")
    return tmp_path


@pytest.mark.parametrize("shell", ["sh", "mksh"])
def test_describe_says_what_it_can_read_and_leaves_out_the_rest(shell: str, sysfs: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, str(device_script_path("describe.sh"))], env={"PATH": "/usr/bin:/bin", "SYSFS": str(sysfs)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert found["cpu0.cpuinfo_max_freq"] == "1704000"
    assert found["cpu0.scaling_governor"] == "sched_pixel"
    assert not any(key.startswith("cpu1.") for key in found)
    assert found["cores"] == "2"
    assert found["thermal.BIG"] == "41250"
    assert "thermal.battery" not in found
    assert done.stderr == ""
