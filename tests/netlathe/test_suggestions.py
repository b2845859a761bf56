"""Unknown names of all kinds: the error tells the known one that was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import netlathe as nl
from netlathe.archspace.configurations import graphs_of
from netlathe.archspace.errors import NetlatheError, did_you_mean
from netlathe.profiler.devices import open_device
from netlathe.runs.compression.strategies import check_strategy
from netlathe.runs.settings import LookSettings
from netlathe.search.strategies.blackbox.names import make_strategy
from netlathe.targets import make_goal, parse_limits
from netlathe.tracking import tracked
from netlathe.training import load_images

ANY = SimpleNamespace()


def track(name: str) -> None:
    with tracked(name, ".", nl.Listener()):
        pass


ASKED: dict[str, tuple[Callable[[str], object], str, str]] = {
    "network": (nl.network, "mobilnet_v2", "mobilenet_v2"),
    "network of a prediction": (lambda name: nl.predict(name, "pixel4-cpu"), "proxyles_cpu", "proxyless_cpu"),
    "space": (nl.load_space, "NAS-bench-makro", "nas-bench-macro"),
    "predictor": (lambda name: nl.predict("mobilenet_v2", name), "pixel4-cpus", "pixel4-cpu"),
    "prior": (nl.Prior.load, "phone49", "phones49"),
    "device": (open_device, "onnx-runtime", "onnxruntime"),
    "phone": (open_device, "sever:emulator-5554", "server"),
    "strategy": (lambda name: make_strategy(name, ANY), "evolusion", "evolution"),  # type: ignore[arg-type]
    "strategy of a search": (LookSettings, "binarised", "binarized"),
    "strategy of a compression": (check_strategy, "net-adapt", "netadapt"),
    "limit": (lambda name: make_goal([nl.Target("pixel4-cpu", 30.0)], parse_limits([f"{name}=1e6"])), "mac", "macs"),
    "tracker": (track, "ml-flow", "mlflow"),
    "images": (lambda name: load_images(name, (8, 8)), "digit", "digits"),
    "subject of a page": (nl.report, "pixel4-gpus", "pixel4-gpu"),
    "op of a table": (lambda name: graphs_of(pd.DataFrame({"op": [name], "cin": [8]})), "dwkonv", "dwconv"),
}
"""What asks for a name of a kind, a name that is nearly right, and the right one."""


@pytest.mark.parametrize("kind", ASKED)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(kind: str) -> None:
    ask, wrong, right = ASKED[kind]
    with pytest.raises(NetlatheError, match=rf"\(did you mean .*'{right}'"):
        ask(wrong)


@pytest.mark.parametrize("kind", ASKED)
def test_a_name_that_is_like_no_other_gets_no_suggestion(kind: str) -> None:
    with pytest.raises(NetlatheError) as raised:
        ASKED[kind][0]("zzz-9")
    assert "did you mean" not in str(raised.value)


def test_the_nearest_of_many_come_first_and_case_does_not_matter() -> None:
    assert did_you_mean("TINY", ["tiny", "proxyless"]) == " (did you mean 'tiny'?)"
    assert did_you_mean("abcd", ["abcx", "abce", "abcd1", "abcd2", "q"]).count("or") == 2
    assert did_you_mean("", ["tiny"]) == ""


def test_a_column_is_suggested_for_a_column(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("op,cin,latency_ms\nconv,8,1.0\n")
    with pytest.raises(NetlatheError, match=r"'latency' with milliseconds \(did you mean 'latency_ms'\?\)"):
        nl.fit(file, tmp_path / "p.json", latency_column="latency")
