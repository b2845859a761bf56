"""Checkpoints come back exactly, or not at all; whatever happens while one is written, a whole one stays."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from netlathe.archspace.errors import FormatError
from netlathe.training.checkpoint import Checkpointer, load_checkpoint, save_checkpoint
from netlathe.training.errors import TrainingError

RUN = {"space": "toy", "config": {"epochs": 20, "rate": 0.05}, "limits": [40.0, 12.0]}


def alike(a: Any, b: Any) -> bool:
    """Equal in value, type, dtype and, for tensors, layout."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        same_layout = a.stride() == b.stride() or not a.numel()
        return a.dtype == b.dtype and same_layout and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
    if isinstance(a, dict):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float):
        return a.hex() == b.hex()
    return bool(a == b)


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    state = {
        "scalars": [
            None,
            True,
            False,
            0,
            -(10**30),
            "",
            "text \u00e4\x00\ud800",
            0.1,
            -0.0,
            5e-324,
            math.inf,
            math.nan,
        ],
        "empty": [{}, [], (), torch.empty(0, 3), np.zeros((2, 0))],
        "keys": {1: "int", "1": "str", -2: {"nested": ((1,), [2])}},
        "tensors": [
            torch.arange(3, dtype=kind)
            for kind in (torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8)
        ],
        "others": (torch.tensor([True, False]), torch.tensor(3.5), torch.tensor([1j])),
        "layout": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "arrays": (np.array([np.nan, np.inf]), np.arange(6, dtype=np.int16).reshape(2, 3), np.array(2.0)),
    }
    save_checkpoint(tmp_path / "new" / "a.npz", state, RUN)
    assert alike(load_checkpoint(tmp_path / "new" / "a.npz", RUN), state)


def test_what_is_loaded_can_be_written_to(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.npz", {"t": torch.zeros(2), "a": np.zeros(2)}, {})
    loaded = load_checkpoint(tmp_path / "a.npz", {})
    loaded["t"] += 1
    loaded["a"] += 1


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_optimizers_schedules_and_generators_go_on_as_if_nothing_had_happened(tmp_path: Path, name: str) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.Generator]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), betas=(0.0, 0.999))
        if name == "SGD":
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        return net, optimizer, schedule, torch.Generator().manual_seed(1)

    def step(parts: Any) -> None:
        net, optimizer, schedule, generator = parts
        optimizer.zero_grad()
        net(torch.randn(2, 3, 8, 8, generator=generator)).square().sum().backward()
        optimizer.step()
        schedule.step()

    straight = make()
    for _ in range(6):
        step(straight)
    stopped = make()
    for _ in range(3):
        step(stopped)
    keys = ("net", "optimizer", "schedule")
    state = {key: part.state_dict() for key, part in zip(keys, stopped, strict=False)}  # type: ignore[attr-defined]
    save_checkpoint(tmp_path / "a.npz", {**state, "generator": stopped[3].get_state()}, RUN)
    resumed = make()
    loaded = load_checkpoint(tmp_path / "a.npz", RUN)
    assert alike(loaded["optimizer"], state["optimizer"])
    for key, part in zip(keys, resumed, strict=False):
        part.load_state_dict(loaded[key])  # type: ignore[attr-defined]
    resumed[3].set_state(loaded["generator"])
    for _ in range(3):
        step(resumed)
    assert all(map(torch.equal, straight[0].state_dict().values(), resumed[0].state_dict().values()))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused_and_the_last_good_ones_stay(tmp_path: Path, wrong: float) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(path, {"net": {"w": torch.ones(2)}}, RUN)
    with pytest.raises(TrainingError, match=r"state\['net'\]\['w'\] holds NaN or infinity"):
        save_checkpoint(path, {"net": {"w": torch.tensor([1, wrong])}}, RUN)
    assert load_checkpoint(path, RUN)["net"]["w"].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "object"), ({(1,): 2}, r"\(1,\)"), ({True: 2}, "True"), (np.array([None]), "array of object"),
        (torch.zeros(1, dtype=torch.bfloat16), "bfloat16, which numpy lacks"), ({1, 2}, "set"), (np.int64(3), "int64"),
    ],
)  # fmt: skip
def test_what_has_no_place_in_a_file_is_named(tmp_path: Path, value: Any, named: str) -> None:
    with pytest.raises(TrainingError, match=rf"state\['deep'\]\[1\].*{named}"):
        save_checkpoint(tmp_path / "a.npz", {"deep": [0, value]}, RUN)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_run_names_the_settings_that_differ(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.npz", {}, {**RUN, "config": {"epochs": 30, "rate": 0.05, "old": "yes"}})
    with pytest.raises(FormatError) as caught:
        load_checkpoint(tmp_path / "a.npz", {**RUN, "limits": (40.0,)})
    message = str(caught.value)
    assert "config.epochs: 20 here, 30 in the checkpoint" in message
    assert 'config.old: absent here, "yes" in the checkpoint' in message
    assert "limits[1]: absent here, 12.0 in the checkpoint" in message
    assert "rate" not in message
    assert "remove it to start anew" in message


def test_tuples_and_lists_in_the_description_are_the_same_run(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.npz", {}, {"shape": (3, 32, 32), 1: 2})
    assert load_checkpoint(tmp_path / "a.npz", {"shape": [3, 32, 32], "1": 2}) == {}


def test_truncated_and_altered_files_never_give_a_state_that_was_not_saved(tmp_path: Path) -> None:
    path, state = tmp_path / "a.npz", {"w": torch.arange(40.0), "list": [1, 2.5, {"a": None}]}
    save_checkpoint(path, state, RUN)
    whole, generator = path.read_bytes(), random.Random(0)
    damaged = [whole[:size] for size in range(0, len(whole), 37)] + [b"", generator.randbytes(500), whole * 2]
    for _ in range(300):
        place = generator.randrange(len(whole))
        damaged.append(whole[:place] + bytes([whole[place] ^ (1 << generator.randrange(8))]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        try:
            assert alike(load_checkpoint(path, RUN), state)  # a bit that means nothing, such as a date
        except FormatError as error:
            assert str(path) in str(error)  # noqa: PT017


def forged(path: Path, header: Any, members: dict[str, bytes] | None = None, compression: int = 0) -> Path:
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8))
    with zipfile.ZipFile(path, "a", compression) as file:
        for name, content in (members or {}).items():
            file.writestr(name, content)
    return path


def npy(description: str, content: bytes = b"") -> bytes:
    text = description.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@pytest.mark.parametrize(
    ("state", "members"),
    [
        ({"array": 0}, {"0.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }")}),
        ({"array": 0}, {"0.npy": npy("{'descr': '|O', 'fortran_order': False, 'shape': (), }", b"cos\nsystem\n")}),
        ({"array": 0}, {"0.npy": npy("{'descr': '<U9', 'fortran_order': False, 'shape': (0,), }")}),
        ({"array": 0}, {"0.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }", b"12345678")}),
        ({"array": 0}, {"0.npy": b"text"}),
        ({"tensor": 0}, {"0.npy": npy("{'descr': '>f8', 'fortran_order': False, 'shape': (1,), }", b"12345678")}),
        ({"channels_last": 0}, {"0.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", bytes(8))}),
        ({"array": 7}, {}), ({"array": "../../x"}, {}), ({"unknown": 1}, {}), ({"dict": [[[], 1]]}, {}), ([1], {}),
        ({"dict": 3}, {}), ({"float": "x"}, {}), ({}, {}), ({"a": 1, "b": 2}, {}), (3, {}), ({"tuple": []}, {}),
    ],
)  # fmt: skip
def test_hostile_files_are_refused(tmp_path: Path, state: Any, members: dict[str, bytes]) -> None:
    path = forged(tmp_path / "a.npz", {"schema": "netlathe.checkpoint/1", "run": {}, "state": state}, members)
    with pytest.raises(FormatError, match="not a whole checkpoint"):
        load_checkpoint(path, {})


def test_a_file_that_would_unpack_to_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    content = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000,), }", bytes(10_000_000))
    header = {"schema": "netlathe.checkpoint/1", "run": {}, "state": {"array": 0}}
    path = forged(tmp_path / "a.npz", header, {"0.npy": content}, zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match="claims more than it holds"):
        load_checkpoint(path, {})


def test_missing_foreign_and_newer_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="there is no such checkpoint"):
        load_checkpoint(tmp_path / "none.npz", {})
    np.savez(tmp_path / "weights.npz", a=np.zeros(3))
    with pytest.raises(FormatError, match="it has no header"):
        load_checkpoint(tmp_path / "weights.npz", {})
    with pytest.raises(FormatError, match=r"expected a netlathe checkpoint, found netlathe\.space/1"):
        load_checkpoint(forged(tmp_path / "a.npz", {"schema": "netlathe.space/1"}), {})
    with pytest.raises(FormatError, match=r"checkpoint/2 is newer than this netlathe reads \(version 1\); upgrade"):
        load_checkpoint(forged(tmp_path / "b.npz", {"schema": "netlathe.checkpoint/2", "state": {"?": 1}}), {})


def test_a_disk_that_refuses_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(path, {"x": 1}, {})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"cannot be written \(.*No space left.*make room"):
        save_checkpoint(path, {"x": 2}, {})
    assert load_checkpoint(path, {}) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_checkpointer_saves_when_due_and_forgets(tmp_path: Path) -> None:
    now = [100.0]
    saver = Checkpointer(tmp_path / "run" / "a.npz", RUN, every_s=60, clock=lambda: now[0])
    assert saver.load() is None
    assert not saver.due()
    now[0] = 160
    assert saver.due()
    saver.save({"step": 3})
    assert not saver.due()
    assert saver.load() == {"step": 3}
    with pytest.raises(FormatError, match="another run"):
        Checkpointer(saver.path, {**RUN, "space": "other"}).load()
    (saver.path.parent / ".a.npz.part-x1y2").mkdir()  # as a killed writer leaves it
    (saver.path.parent / ".a.npz.part-x1y2" / "part.npz").write_bytes(b"half")
    saver.forget()
    saver.forget()
    assert list(saver.path.parent.iterdir()) == []


def write_for_ever(path: Path) -> None:
    torch.set_num_threads(1)  # a forked process must not wait for the threads of its parent
    for number in itertools.count():
        save_checkpoint(path, {"w": torch.full((300_000,), float(number)), "number": number}, {})


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_killed_at_any_moment_a_whole_checkpoint_stays(tmp_path: Path) -> None:
    path, generator, numbers = tmp_path / "a.npz", random.Random(0), set()
    for _ in range(10):
        path.unlink(missing_ok=True)
        writer = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(path,))
        writer.start()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.1))
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        state = load_checkpoint(path, {})
        assert torch.equal(state["w"], torch.full((300_000,), float(state["number"])))
        numbers.add(state["number"])
    assert len(numbers) > 1
