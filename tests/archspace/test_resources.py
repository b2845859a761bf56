"""The files beside the code are found."""

from __future__ import annotations

import pytest

from netlathe.archspace.errors import FormatError
from netlathe.archspace.resources import data_files, data_path, device_script_path


def test_data_and_scripts_of_the_checkout_are_found() -> None:
    assert data_path("nas_bench_macro_cifar10.parquet").is_file()
    assert device_script_path("describe.sh").read_text().startswith("#!/system/bin/sh")


def test_a_missing_file_lists_what_there_is() -> None:
    with pytest.raises(FormatError, match=r"has no 'describe\.bat'; it has .*describe\.sh"):
        device_script_path("describe.bat")


def test_the_files_of_a_folder_come_by_name() -> None:
    names = [path.name for path in data_files("latency", ".parquet")]
    assert names == sorted(names)
    assert "pixel4_networks.parquet" in names
    assert data_files("no such folder", ".json") == []
