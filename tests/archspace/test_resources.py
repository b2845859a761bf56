"""The files beside the code are found."""

from __future__ import annotations

import pytest

from archspace.errors import FormatError
from archspace.resources import data_path, device_script_path


def test_data_and_scripts_of_the_checkout_are_found() -> None:
    assert data_path("nas_bench_macro_cifar10.parquet").is_file()
    assert device_script_path("describe.sh").read_text().startswith("#!/system/bin/sh")


def test_a_missing_file_lists_what_there_is() -> None:
    with pytest.raises(FormatError, match=r"has no 'describe\.bat'; it has .*describe\.sh"):
        device_script_path("describe.bat")
