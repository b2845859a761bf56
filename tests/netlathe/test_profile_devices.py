"""Options of one of several devices, and what only some devices can do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_cli import refusal

import netlathe as nl
from netlathe.archspace.blocks import ConvBlock, LinearHead
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.spaces import SearchSpace
from netlathe.cli.profile import cores_by_device
from netlathe.profiler.devices import DeviceOptions
from netlathe.profiling import request_devices

SPACE = SearchSpace("small", ((ConvBlock(3, 8, 16, 16, 2),), (LinearHead(8, 10, 8, 8),)))
PHONES = ["usb:A", "tcp:127.0.0.1:5555"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["", ""]),
        (["big"], ["big", "big"]),
        (["usb:A=big"], ["big", ""]),
        (["tcp:127.0.0.1:5555=f0", "usb:A=big"], ["big", "f0"]),
        (["little", "tcp:127.0.0.1:5555=f0"], ["little", "f0"]),
        (["usb:A="], ["", ""]),
    ],
)
def test_cores_are_for_all_devices_or_for_the_one_that_is_named(given: list[str], expected: list[str]) -> None:
    assert list(cores_by_device(given, PHONES).values()) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["usb:B=big"], "usb:B is none of the devices, which are usb:A, tcp:127.0.0.1:5555"),
        (["big", "little"], "given twice for all devices, big and little; .* name it: --cores usb:A=little"),
        (["usb:A=big", "usb:A=big"], "given twice for usb:A"),
    ],
)
def test_cores_of_no_device_or_given_twice_are_refused(given: list[str], words: str) -> None:
    with pytest.raises(NetlatheError, match=words):
        cores_by_device(given, PHONES)


def test_cores_of_a_device_that_is_not_profiled_are_refused_before_a_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "p.sqlite"
    assert "cuda is none of the devices" in refusal("profile", "--output", path, "--cores", "cuda=1")
    assert not path.exists()


def test_options_are_for_all_devices_or_by_name(tmp_path: Path) -> None:
    both: Any = ["local", "onnxruntime"]
    threads = min(2, os.cpu_count() or 1)
    own = {"onnxruntime": DeviceOptions(threads=threads)}
    found = nl.forecast(tmp_path / "p.sqlite", space=SPACE, device=both, options=own, networks=0)
    assert [one.setup.threads for one in found.devices] == [1, threads]
    found = nl.forecast(tmp_path / "p.sqlite", space=SPACE, device=both, options=own["onnxruntime"], networks=0)
    assert [one.setup.threads for one in found.devices] == [threads, threads]


def test_options_of_a_device_that_is_not_profiled_are_refused() -> None:
    with pytest.raises(NetlatheError, match="options for cuda, which is none of the devices local, onnxruntime"):
        request_devices(["local", "onnxruntime"], {"cuda": DeviceOptions()})


def test_only_a_device_that_times_kernels_takes_an_op_profile(tmp_path: Path) -> None:
    with pytest.raises(NetlatheError, match="--op-profile: local does not tell the time of single kernels"):
        nl.profile(tmp_path / "p.sqlite", space=SPACE, networks=0, op_profile=True)
